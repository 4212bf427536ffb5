"""What is measured on networks and data sets that :mod:`experiments` has made.

Each study returns a list of rows, dictionaries that are ready for a table. How much is measured is
said by keywords, whose defaults are those of the reference run.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlib import checks
from robustlib.features import files, measure
from robustlib.features.experiments import RECIPES, Experiment, Place, as_row, network
from robustlib.features.training import PRECISIONS
from robustlib.features.usefulness import robust_usefulness

Row = dict[str, Any]
Table = dict[str, Experiment]
TEACHERS = ("standard", "robust")
RADII: dict[str, tuple[float, ...]] = {"2": (0.25, 0.5), "inf": (2 / 255, 4 / 255, 8 / 255)}
WRONG = (
    "mislabeled_random",
    "mislabeled_random_1",
    "mislabeled_deterministic",
    "mislabeled_deterministic_1",
)


@dataclass(frozen=True)
class Study:
    """A measurement and the experiments whose networks or data sets it needs."""

    measure: Callable[..., list[Row]]
    needs: Callable[[Table], Sequence[str]]


def run(
    name: str, seed: int, place: Place, table: Table, *, commit: str = "", **sizes: Any
) -> dict[str, Any]:
    """Run one study for one seed, or return its record if that is there for the same sizes.

    What it needs has to be there; :func:`robustlib.features.results.study` sees to that.
    """
    path = place.records / f"study-{name}-{seed}.json"
    wanted = json.loads(json.dumps(sizes))
    if path.exists():
        record = json.loads(path.read_text(encoding="utf-8"))
        if record.get("sizes", {}) == wanted:
            return record
    began = time.process_time()
    rows = STUDIES[name].measure(place, seed, table, **sizes)
    record = {
        "name": name,
        "seed": seed,
        "sizes": wanted,
        "rows": rows,
        "cpu_seconds": round(time.process_time() - began, 1),
        "torch": torch.__version__,
        "commit": commit,
    }
    files.write(path, (json.dumps(record, indent=2) + "\n").encode())
    return record


def pgd_steps(
    place: Place,
    seed: int,
    table: Table,
    *,
    steps: Sequence[int] = (1, 2, 5, 10, 20, 50, 100, 500, 2500),
    images: int = 200,
    precision: str = "float32",
) -> list[Row]:
    """Figure 8: robust accuracy of the network trained on D̂_R against the number of PGD steps.

    ``precision`` is that of the attack's gradients; what it finds is judged in float32.
    """
    kind = PRECISIONS[checks.choice("precision", precision, PRECISIONS)]
    net = network(place, table["robust_dataset"], seed)
    x, y = (part[:images] for part in place.test)
    return [
        {"steps": some, "eps": 0.25}
        | as_row(
            measure.robust_accuracy(net, x, y, eps=0.25, steps=some, precision=kind, seed=seed)
        )
        for some in steps
    ]


def carlini(
    place: Place,
    seed: int,
    table: Table,
    *,
    images: int = 200,
    steps: int = 300,
    searches: int = 5,
) -> list[Row]:
    """Figure 8, its second attack: the same network under Carlini and Wagner's, in l2."""
    net = network(place, table["robust_dataset"], seed)
    x, y = (part[:images] for part in place.test)
    found = measure.nearest_accuracy(net, x, y, radii=RADII["2"], steps=steps, searches=searches)
    about = {"steps": steps, "searches": searches}
    return [{**about, "eps": eps} | as_row(one) for eps, one in zip(RADII["2"], found, strict=True)]


def norms(
    place: Place,
    seed: int,
    table: Table,
    *,
    radii: Mapping[str, Sequence[float]] = RADII,
    images: int = 500,
    steps: int = 20,
) -> list[Row]:
    """Robust accuracy in l2 and in l∞ of all teachers and of the network trained on D̂_R."""
    x, y = (part[:images] for part in place.test)
    rows = []
    for name in judged_in_norms(table):
        net = network(place, table[name], seed)
        for norm, some in radii.items():
            for eps in some:
                found = measure.robust_accuracy(
                    net, x, y, eps=eps, norm=norm, steps=steps, seed=seed
                )
                about = {"network": name, "norm": norm, "eps": eps, "steps": steps}
                rows.append({**about, **as_row(found)})
    return rows


def judged_in_norms(table: Table) -> list[str]:
    """The network of standard training, the adversarially trained ones, and that of D̂_R."""
    return ["standard", *(row.name for row in table.values() if row.student.eps), "robust_dataset"]


def robust_train_test(place: Place, seed: int, table: Table, *, images: int = 500) -> list[Row]:
    """Table 8: robust accuracy on D̂_R, on the same recipe applied to test images, and on those."""
    row = table["robust_dataset"]
    net, teacher = network(place, row, seed), network(place, table["robust"], seed)
    x, y = (part[:images] for part in place.test)
    folder = place.work / f"robust_dataset_of_test_{images}-{seed}"
    built = RECIPES["robust"](teacher, x, y, folder, seed=seed, **row.build)
    train_x, train_y, _ = files.load(place.work / f"robust_dataset-{seed}")
    sets = {
        "robust train": (train_x[:images], train_y[:images]),
        "robust test": files.load(built)[:2],
        "standard test": (x, y),
    }
    return [
        {"set": name, "eps": eps} | as_row(measure.robust_accuracy(net, *pairs, eps=eps, seed=seed))
        for name, pairs in sets.items()
        for eps in (0.25, 0.5)
    ]


def transfer(
    place: Place,
    seed: int,
    table: Table,
    *,
    images: int = 1000,
) -> list[Row]:
    """Figures 3 and 13: adversarial examples of the standard network on other networks.

    The attack uses all its steps: an example that only just fools its source fools few others.
    """
    source = network(place, table["standard"], seed)
    x, y = (part[:images] for part in place.test)
    next_label = (y + 1) % place.classes
    attacks = {
        f"{how}_{eps:g}": (
            measure.adversarial(source, x, y, eps=eps, targets=wanted, early_stop=False),
            wanted,
        )
        for eps in (0.5, 1.0)
        for how, wanted in (("untargeted", None), ("targeted", next_label))
    }
    rows = []
    for name in targets_of(table):
        target = network(place, table[name], seed)
        row_: Row = {"target": name, "architecture": table[name].architecture}
        row_["test"] = as_row(measure.accuracy(target, *place.test))
        for key, (attacked, wanted) in attacks.items():
            rate = measure.transfer_rate(source, target, x, attacked, y, targets=wanted)
            row_[key] = as_row(rate)
        rows.append(row_)
    return rows


def targets_of(table: Table) -> list[str]:
    """The networks of standard training on a part of the true images, and the robust one."""
    plain = [row.name for row in table.values() if row.recipe is None and row.labels == "set"]
    return [name for name in plain if table[name].images is not None] + ["robust"]


def leakage(
    place: Place,
    seed: int,
    table: Table,
    *,
    sets: Sequence[str] = WRONG,
    images: int = 20_000,
    controls: int = 5,
) -> list[Row]:
    """Goh: what the features of the robust network learn from wrong labels alone.

    The row ``control`` is fitted to unchanged images under random labels: its value is the mean
    over several draws of these labels, its ends the lowest and the highest. Few features that
    cluster by class give the same label to a whole cluster, so chance alone spreads widely.
    """
    robust = network(place, table["robust"], seed)
    rows: list[Row] = []
    for name in sets:
        x, y, _ = files.load(place.work / f"{name}-{seed}")
        found = measure.leakage(robust, (x[:images], y[:images]), place.test)
        rows.append({"set": name, **as_row(found)})
    x = place.train[0][: min(images, table[sets[0]].images or images)]
    generator = torch.Generator().manual_seed(seed)
    by_chance = []
    for _ in range(controls):
        labels = torch.randint(place.classes, (len(x),), generator=generator)
        by_chance.append(measure.leakage(robust, (x, labels), place.test).value)
    mean, n = sum(by_chance) / controls, len(place.test[0])
    ends = {"low": min(by_chance), "high": max(by_chance)}
    rows.append({"set": "control", "value": mean, **ends, "n": n})
    return rows


def feature_usefulness(
    place: Place, seed: int, table: Table, *, features: int = 32, images: int = 500, steps: int = 5
) -> list[Row]:
    """Section 2: ρ and γ (ε .25 and .5) of features of the standard and of the robust network."""
    x, y = (part[:images] for part in place.test)
    rows = []
    for name in TEACHERS:
        net = network(place, table[name], seed)
        for eps in (0.25, 0.5):
            rho, gamma, label = robust_usefulness(
                net, x, y, eps=eps, which=range(features), steps=steps
            )
            for k in range(features):
                rows.append(
                    {
                        "network": name,
                        "eps": eps,
                        "feature": k,
                        "label": int(label[k]),
                        "rho": round(float(rho[k]), 4),
                        "gamma": round(float(gamma[k]), 4),
                    }
                )
    return rows


def gradient_frequencies(place: Place, seed: int, table: Table, *, images: int = 500) -> list[Row]:
    """Where the energy of input gradients lies: the share in the lowest frequencies.

    Low are those of at most an eighth of the sampling rate in each direction; ``white`` says which
    share of all frequencies that is, and so which share of its energy white noise has there.
    """
    x, y = (part[:images] for part in place.test)
    rows = []
    for name in TEACHERS:
        g = input_gradients(network(place, table[name], seed), x, y)
        energy = torch.fft.fft2(g).abs().square().sum(1)
        down, right = (torch.fft.fftfreq(size).abs() <= 1 / 8 for size in g.shape[2:])
        low = (down[:, None] & right).double()
        kept = energy * low
        share = kept.sum((1, 2)) / energy.sum((1, 2)).clamp_min(1e-30)
        half = 1.96 * float(share.std()) / len(share) ** 0.5
        mean = float(share.mean())
        ends = {"low": mean - half, "high": mean + half}
        rows.append(
            {"network": name, "value": mean, **ends, "n": len(x), "white": float(low.mean())}
        )
    return rows


def input_gradients(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The gradient of the cross-entropy of each image with respect to the image."""
    point = x.detach().clone().requires_grad_(True)
    loss = F.cross_entropy(net(point), y, reduction="sum")
    return torch.autograd.grad(loss, point)[0].contiguous()


STUDIES: dict[str, Study] = {
    "pgd_steps": Study(pgd_steps, lambda table: ["robust_dataset"]),
    "reduced_precision": Study(
        functools.partial(pgd_steps, steps=(1, 2, 5, 10, 20, 50, 100, 500), precision="bfloat16"),
        lambda table: ["robust_dataset"],
    ),
    "carlini": Study(carlini, lambda table: ["robust_dataset"]),
    "norms": Study(norms, judged_in_norms),
    "robust_train_test": Study(robust_train_test, lambda table: ["robust_dataset"]),
    "transfer": Study(transfer, lambda table: ["standard", *targets_of(table)]),
    "leakage": Study(leakage, lambda table: ["robust", *WRONG]),
    "usefulness": Study(feature_usefulness, lambda table: TEACHERS),
    "gradient_frequencies": Study(gradient_frequencies, lambda table: TEACHERS),
}
