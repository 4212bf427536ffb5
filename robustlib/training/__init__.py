"""Training of the zoo's own networks: ``train(name)`` follows the recipe ``RECIPES[name]``.

Standard, adversarial (PGD) and provable training (IBP, CROWN-IBP); ``sparsify`` prunes networks,
``fine_tune`` trains them on with adversarial examples.
"""

from __future__ import annotations

import copy
import csv
import io
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from robustlib import checks
from robustlib.attacks import pgd
from robustlib.training.fine_tuning import FineTuned, fine_tune
from robustlib.training.loop import accuracy, certified, epoch
from robustlib.training.provable import margin_bounds, robust_cross_entropy
from robustlib.training.recipes import RECIPES, Recipe
from robustlib.training.sparse import prune, sparsify
from robustlib.training.state import Run
from robustlib.zoo import architectures, checkpoints, load
from robustlib.zoo import info as zoo_info

__all__ = [
    "RECIPES",
    "FineTuned",
    "Progress",
    "Recipe",
    "Training",
    "fine_tune",
    "margin_bounds",
    "prune",
    "robust_cross_entropy",
    "sparsify",
    "train",
]

Progress = Callable[[int, int, str], None]
FOLDER = "_build/checkpoints"
PGD_STEPS = 40  # of the attack that the record reports
HELD_OUT_ATTACKED = 1000  # images, after each epoch


@dataclass(frozen=True)
class Training:
    """A finished run.

    Attributes
    ----------
    path : Path
        The checkpoint, for ``zoo.load(name, folder=path.parent)``.
    record : dict
        What NAME.json beside it holds: recipe, three epochs of the log, device, seconds, and
        accuracy on the test set: clean, attacked by PGD, and certified where that was trained.
    """

    path: Path
    record: dict[str, Any]


def train(
    name: str,
    *,
    out: str | PathLike[str] | None = None,
    progress: Progress | None = None,
    resume: bool = True,
) -> Training:
    """Train the network ``name`` by its recipe; equal seeds give equal parameters on one machine.

    After every epoch the whole state is on disk: a run that was interrupted, or killed, goes on
    behind its last epoch when it is called again, to the same result. A finished one is returned.

    Parameters
    ----------
    name : str
        One of ``RECIPES``.
    out : path, optional
        Folder for NAME.safetensors, NAME.json and the log NAME.csv (one row an epoch); default
        ``_build/checkpoints``.
    progress : callable, optional
        Called as ``progress(done, total, text)`` after each epoch.
    resume : bool
        False starts from the beginning whatever ``out`` holds.

    Returns
    -------
    Training

    Raises
    ------
    ValueError
        If there is no such recipe; the message holds the nearest names.
    OSError
        If ``out`` cannot be written to.

    Examples
    --------
    >>> from robustlib import training, zoo
    >>> done = training.train("digits_mlp_standard", out="nets")  # doctest: +SKIP
    >>> net = zoo.load("digits_mlp_standard", folder="nets")  # doctest: +SKIP
    """
    recipe = RECIPES[checks.choice("name", name, RECIPES)]
    folder = _writable(Path(FOLDER if out is None else out))
    run = _start(recipe)
    settings = {**recipe.settings(), "architecture": architectures.describe(run.net)}
    state = folder / f"{name}.unfinished.safetensors"
    under_way = resume and run.restore(state, settings)
    if resume and not under_way and (done := _finished(folder, name, run.net, settings)):
        return done
    train_set, held_out = recipe.training_sets()
    for number in range(len(run.log) + 1, recipe.epochs + 1):
        began = time.process_time()
        row: dict[str, float] = {"epoch": number}
        row |= epoch(
            run.net,
            run.optimizer,
            *train_set,
            recipe=recipe,
            number=number,
            generator=run.generator,
        )
        row |= _held_out(run, recipe, *held_out)
        row["cpu_seconds"] = round(time.process_time() - began, 3)
        run.log.append(row)
        run.save(state, settings)
        checkpoints.write_whole(folder / f"{name}.csv", _csv(run.log))
        if progress:
            progress(number, recipe.epochs, f"{name}: loss {row['loss']:.4f}")
    record = _record(run, recipe, settings)
    path = checkpoints.write(folder, name, run.net, record)
    state.unlink(missing_ok=True)
    return Training(path, checkpoints.read_record(folder, name))


def _start(recipe: Recipe) -> Run:
    """The untrained network and its optimizer, drawn without the global random state."""
    generator = Generator().manual_seed(recipe.seed)
    with torch.device("meta"):
        net = zoo_info(recipe.name).build()
    net = net.to_empty(device="cpu").eval()
    architectures.initialize(net, generator, recipe.gain)
    if recipe.start:
        start = load(recipe.start)
        wanted, found = architectures.describe(net), architectures.describe(start)
        if wanted != found:
            raise ValueError(
                f"start={recipe.start!r} is {found}, but {recipe.name!r} is {wanted}; start from a "
                "network of the same architecture."
            )
        net.load_state_dict(start.state_dict())
    return Run(net, recipe.optimizer(net), generator, log=[])


def _finished(
    folder: Path, name: str, net: nn.Sequential, settings: dict[str, Any]
) -> Training | None:
    try:
        checkpoints.read(folder, name, net)
        record = checkpoints.read_record(folder, name)
    except checkpoints.CheckpointError:
        return None
    if record.get("recipe") != settings:
        return None
    return Training(folder / f"{name}.safetensors", record)


def _held_out(run: Run, recipe: Recipe, x: Tensor, y: Tensor) -> dict[str, float]:
    """The row of the log for examples that are not trained on: what settings are chosen by."""
    if not len(x):
        return {}
    row = {"held_out_accuracy": accuracy(run.net, x, y)}
    if recipe.method == "adversarial":
        few = slice(min(len(x), HELD_OUT_ATTACKED))
        attacked = pgd(run.net, x[few], y[few], eps=recipe.eps, steps=10, random_start=False)
        row["held_out_pgd_accuracy"] = accuracy(run.net, attacked, y[few])
    if recipe.method == "provable":
        proved = certified(run.net, x, y, eps=recipe.eps, crown=0)
        row["held_out_ibp_accuracy"] = float(proved.double().mean())
    return row


def _record(run: Run, recipe: Recipe, settings: dict[str, Any]) -> dict[str, Any]:
    x, y = recipe.data("test")
    results: dict[str, Any] = {"clean_accuracy": accuracy(run.net, x, y), "test_images": len(x)}
    open_ = torch.ones(len(x), dtype=torch.bool)
    if recipe.method == "provable":
        double = copy.deepcopy(run.net).double()
        for bound, crown in (("ibp", 0.0), ("crown_ibp", 1.0)):
            proved = certified(double, x[open_].double(), y[open_], eps=recipe.eps, crown=crown)
            open_[open_.clone()] = ~proved
            results[f"{bound}_certified_accuracy"] = 1 - float(open_.double().mean())
        results["certified"] = "float64 bounds without rounding outward; verify() gives proofs"
    if recipe.method != "standard":
        attacked = x.clone()
        attacked[open_] = pgd(
            run.net, x[open_], y[open_], eps=recipe.eps, steps=PGD_STEPS, generator=run.generator
        )
        results |= {"pgd_accuracy": accuracy(run.net, attacked, y), "pgd_steps": PGD_STEPS}
    return {
        "recipe": settings,
        **results,
        "log": [run.log[0], run.log[len(run.log) // 2], run.log[-1]],
        "cpu_seconds": round(sum(row["cpu_seconds"] for row in run.log), 1),
        "device": f"cpu ({platform.machine()}), {torch.get_num_threads()} thread(s)",
        "torch": torch.__version__,
    }


def _csv(log: list[dict[str, float]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(log[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(log)
    return text.getvalue().encode()


def _writable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        checkpoints.write_whole(folder / ".writable", b"")
        (folder / ".writable").unlink()
    except OSError as error:
        raise OSError(
            f"out={str(folder)!r} cannot be written to ({error.strerror}); give a folder that you "
            "may write to."
        ) from error
    return folder
