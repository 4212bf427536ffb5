"""The experiments of Ilyas et al. (2019) on CIFAR-10: a table, and one function that runs a row.

A row names the data set that a network is trained on, by the recipe and the network that make it,
and the schedule of training. Its outcome is a record (JSON) and a checkpoint; both, and the data
set, are kept, and what is there already is not made again.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors.torch import load_file, save
from torch import Tensor, nn

from robustlib import data
from robustlib.features import files, inversion, measure, mislabeled, networks
from robustlib.features.training import Schedule, fit, predictions
from robustlib.metrics import Estimate, proportion
from robustlib.zoo.checkpoints import write_whole

HELD_OUT = 5000  # the last training images: settings are chosen on them, never on test images
RECIPES: dict[str, Callable[..., Path]] = {
    "robust": inversion.robust_dataset,
    "nonrobust": inversion.nonrobust_dataset,
    "random": mislabeled.mislabeled_random,
    "deterministic": mislabeled.mislabeled_deterministic,
}
ERRORS = "errors"  # the images that the teacher gets wrong, with the labels that it gives them


@dataclass(frozen=True)
class Experiment:
    """One row: what a network is trained on, how, and whether it is attacked afterward.

    Attributes
    ----------
    name : str
    student : Schedule
        How the network is trained.
    images : int or None
        Use the first so many training images; None: all but the held-out ones.
    recipe : str, optional
        One of ``RECIPES``, or ``ERRORS``; without it the training images are the data set.
    teacher : str, optional
        The experiment whose network makes the data set.
    build : dict
        Keywords of the recipe; ``keep`` names experiments.
    labels : {"set", "random"}
        "random" replaces the labels of a plain data set by random ones: a control.
    attack : bool
        Measure l2 robust accuracy at ``RADII``.
    architecture : str
        One of ``ARCHITECTURES``.
    """

    name: str
    student: Schedule
    images: int | None = None
    recipe: str | None = None
    teacher: str | None = None
    build: dict[str, Any] = field(default_factory=dict)
    labels: str = "set"
    attack: bool = True
    architecture: str = "slim_resnet"


RADII = (0.25, 0.5)
ATTACK = {"steps": 20, "restarts": 2, "images": 1000}


@dataclass(frozen=True)
class Place:
    """Where things are kept, and the data, networks and attack that all experiments share."""

    work: Path
    records: Path
    train: tuple[Tensor, Tensor]
    held_out: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    architectures: Mapping[str, Callable[[], nn.Module]] = field(
        default_factory=lambda: networks.ARCHITECTURES
    )
    attack: Mapping[str, int] = field(default_factory=lambda: dict(ATTACK))

    @property
    def classes(self) -> int:
        """How many labels there are."""
        return int(self.train[1].max()) + 1

    @classmethod
    def cifar10(cls, work: Path, records: Path) -> Place:
        """CIFAR-10 with its last training images held out."""
        x, y = data.cifar10("train")
        x = x.contiguous(memory_format=torch.channels_last)
        test = data.cifar10("test")
        kept = len(x) - HELD_OUT
        return cls(work, records, (x[:kept], y[:kept]), (x[kept:], y[kept:]), test)


def run(
    experiment: Experiment,
    seed: int,
    place: Place,
    table: dict[str, Experiment],
    *,
    commit: str = "",
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Run one row for one seed, or return its record if that is there for the same settings.

    The teacher has to be there (run its row first). A second process that wants the same row waits
    for the first.
    """
    place.work.mkdir(parents=True, exist_ok=True)
    with FileLock(place.work / f".{experiment.name}-{seed}.lock"):
        return _run(experiment, seed, place, table, commit, progress or (lambda text: None))


def _run(
    experiment: Experiment,
    seed: int,
    place: Place,
    table: dict[str, Experiment],
    commit: str,
    say: Callable[[str], None],
) -> dict[str, Any]:
    settings = settings_of(experiment, table, place.attack)
    path = place.records / f"{experiment.name}-{seed}.json"
    if path.exists():
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["settings"] == settings and checkpoint(place, experiment.name, seed).exists():
            return record
    wall, cpu = time.time(), time.process_time()
    x, y, about = _data_set(experiment, seed, place, table, say)
    # A set that is there already says what it took; what was lost in a kill is not counted.
    built = about.get("cpu_seconds", time.process_time() - cpu)
    state = place.work / f"{experiment.name}-{seed}.state"
    net, log = fit(
        place.architectures[experiment.architecture],
        x,
        y,
        experiment.student,
        seed=seed_of(experiment, seed),
        state=state,
        watch={"held_out": place.held_out, "held_out_next": _next(place)},
        progress=lambda done, total, text: say(f"{experiment.name}: epoch {done}/{total}, {text}"),
    )
    trained = sum(row["cpu_seconds"] for row in log)  # also those before an interruption
    began = time.process_time()
    numbers = evaluate(net, place, attack=experiment.attack, seed=seed)
    measured = time.process_time() - began
    content = save({key: value.contiguous() for key, value in net.state_dict().items()})
    write_whole(checkpoint(place, experiment.name, seed), content)
    record = {
        "name": experiment.name,
        "seed": seed,
        "settings": settings,
        "numbers": {key: as_row(value) for key, value in numbers.items()},
        "data_set": about,
        "log": log,
        "cpu_seconds": {
            "build": round(built, 1),
            "train": round(trained, 1),
            "all": round(built + trained + measured, 1),
        },
        "wall_seconds": round(time.time() - wall, 1),
        "device": f"cpu ({platform.machine()}), {torch.get_num_threads()} thread(s)",
        "torch": torch.__version__,
        "commit": commit,
    }
    files.write(path, (json.dumps(record, indent=2) + "\n").encode())
    state.unlink(missing_ok=True)
    return record


def evaluate(net: nn.Module, place: Place, *, attack: bool, seed: int) -> dict[str, Estimate]:
    """Accuracy on held-out and test images, and robust accuracy on the first test images.

    All in float32: in bfloat16 an attack loses its way, and a network looks more robust.
    """
    x, y = place.test
    labels = predictions(networks.folded(net), x)
    numbers = {
        "held_out": measure.accuracy(net, *place.held_out),
        "test": proportion(int((labels == y).sum()), len(y)),
        "test_next": proportion(int((labels == (y + 1) % place.classes).sum()), len(y)),
    }
    if attack:
        some = place.attack["images"]
        for eps in RADII:
            numbers[f"robust_{eps:g}"] = measure.robust_accuracy(
                net,
                x[:some],
                y[:some],
                eps=eps,
                steps=place.attack["steps"],
                restarts=place.attack["restarts"],
                seed=seed,
            )
    return numbers


def settings_of(
    experiment: Experiment,
    table: dict[str, Experiment],
    attack: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """All settings that decide the outcome, the teacher's included."""
    settings = {**asdict(experiment), "student": experiment.student.settings()}
    settings["attack_settings"] = dict(ATTACK if attack is None else attack)
    if experiment.teacher:
        settings["teacher"] = settings_of(table[experiment.teacher], table, attack)
    return json.loads(json.dumps(settings))


def as_row(found: Estimate) -> dict[str, Any]:
    """An estimate for a JSON record: null where nothing was counted."""
    return asdict(found) if found.n else {"value": None, "low": None, "high": None, "n": 0}


def checkpoint(place: Place, name: str, seed: int) -> Path:
    """Where the network of an experiment is kept."""
    return place.work / f"{name}-{seed}.safetensors"


def network(place: Place, experiment: Experiment, seed: int) -> nn.Module:
    """The trained network of a finished experiment, in evaluation mode."""
    path = checkpoint(place, experiment.name, seed)
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; run {experiment.name!r} first.")
    return read_network(path, place.architectures[experiment.architecture])


def read_network(path: Path, make: Callable[[], nn.Module]) -> nn.Module:
    """The network whose parameters are in the file ``path``, in evaluation mode."""
    net = make()
    net.load_state_dict(load_file(path))
    return networks.channels_last(net.eval())


def _data_set(
    experiment: Experiment,
    seed: int,
    place: Place,
    table: dict[str, Experiment],
    say: Callable[[str], None],
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    x, y = place.train
    x, y = x[: experiment.images], y[: experiment.images]
    if experiment.recipe is None:
        if experiment.labels == "random":
            generator = torch.Generator().manual_seed(seed)
            y = torch.randint(place.classes, y.shape, generator=generator)
        return x, y, {"images": len(x)}
    assert experiment.teacher is not None
    teacher = network(place, table[experiment.teacher], seed)
    if experiment.recipe == ERRORS:
        given = predictions(teacher, x)
        wrong = given != y
        return x[wrong], given[wrong], {"recipe": ERRORS, "images": int(wrong.sum())}
    build = dict(experiment.build)
    if "keep" in build:
        build["keep"] = [network(place, table[name], seed) for name in build["keep"]]
    folder = place.work / f"{_first_of_set(experiment, table)}-{seed}"
    cost = folder.with_suffix(".cpu_seconds")  # beside it: equal settings give equal sets
    spent = float(cost.read_text()) if cost.exists() else 0.0
    began = time.process_time()
    RECIPES[experiment.recipe](
        teacher,
        x,
        y,
        folder,
        seed=seed,
        progress=lambda done, total, text: say(f"{experiment.name}: {done}/{total} images"),
        **build,
    )
    if not cost.exists():
        spent = time.process_time() - began
        write_whole(cost, f"{spent:.1f}\n".encode())
    x, y, about = files.load(folder)
    kept = ("recipe", "images", "settings", "report")
    return x, y, {**{key: about[key] for key in kept}, "cpu_seconds": round(spent, 1)}


def seed_of(experiment: Experiment, seed: int) -> int:
    """Teachers have even numbers, students odd ones: none starts from its teacher's weights."""
    return 2 * seed + (experiment.teacher is not None)


def _first_of_set(experiment: Experiment, table: dict[str, Experiment]) -> str:
    """The first row that is trained on the same data set; the set is kept under its name."""

    def key(row: Experiment) -> tuple[object, ...]:
        return row.recipe, row.teacher, row.images, row.build

    return next((r.name for r in table.values() if key(r) == key(experiment)), experiment.name)


def _next(place: Place) -> tuple[Tensor, Tensor]:
    x, y = place.held_out
    return x, (y + 1) % place.classes
