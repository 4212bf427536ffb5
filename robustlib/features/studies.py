"""What is measured on networks and data sets that :mod:`experiments` has made.

Each study returns a list of rows, dictionaries that are ready for a table.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import torch

from robustlib.features import files, measure
from robustlib.features.experiments import RECIPES, Experiment, Place, as_row, checkpoint, network
from robustlib.features.usefulness import robust_usefulness

Row = dict[str, Any]
Study = Callable[[Place, int, dict[str, Experiment]], list[Row]]
BF16 = torch.bfloat16


def run(
    name: str, seed: int, place: Place, table: dict[str, Experiment], *, commit: str = ""
) -> dict[str, Any]:
    """Run one study for one seed, or return its record if that is there."""
    path = place.records / f"study-{name}-{seed}.json"
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    began = time.process_time()
    rows = STUDIES[name](place, seed, table)
    record = {
        "name": name,
        "seed": seed,
        "rows": rows,
        "cpu_seconds": round(time.process_time() - began, 1),
        "torch": torch.__version__,
        "commit": commit,
    }
    files.write(path, (json.dumps(record, indent=2) + "\n").encode())
    return record


def pgd_steps(place: Place, seed: int, table: dict[str, Experiment]) -> list[Row]:
    """Figure 7: robust accuracy of the network trained on D̂_R against the number of PGD steps."""
    net = network(place, table["robust_dataset"], seed)
    x, y = (part[:200] for part in place.test)
    return [
        {"steps": steps, "eps": 0.25}
        | as_row(measure.robust_accuracy(net, x, y, eps=0.25, steps=steps, precision=BF16))
        for steps in (1, 5, 20, 100, 500, 2500)
    ]


def robust_train_test(place: Place, seed: int, table: dict[str, Experiment]) -> list[Row]:
    """Table 8: robust accuracy on D̂_R, on the same recipe applied to test images, and on those."""
    row, n = table["robust_dataset"], 500
    net, teacher = network(place, row, seed), network(place, table["robust"], seed)
    x, y = (part[:n] for part in place.test)
    folder = place.work / f"robust_dataset_of_test-{seed}"
    built = RECIPES["robust"](teacher, x, y, folder, seed=seed, **row.build)
    train_x, train_y, _ = files.load(place.work / f"robust_dataset-{seed}")
    sets = {
        "robust train": (train_x[:n], train_y[:n]),
        "robust test": files.load(built)[:2],
        "standard test": (x, y),
    }
    return [
        {"set": name, "eps": eps}
        | as_row(measure.robust_accuracy(net, *pairs, eps=eps, precision=BF16))
        for name, pairs in sets.items()
        for eps in (0.25, 0.5)
    ]


def transfer(place: Place, seed: int, table: dict[str, Experiment]) -> list[Row]:
    """Figure 3 and D.9: adversarial examples of the standard network on every other one."""
    source = network(place, table["standard"], seed)
    x, y = (part[:1000] for part in place.test)
    t = (y + 1) % 10
    attacks = {
        f"{kind}_{eps:g}": (
            measure.adversarial(source, x, y, eps=eps, targets=targets, precision=BF16),
            targets,
        )
        for eps in (0.5, 1.0)
        for kind, targets in (("untargeted", None), ("targeted", t))
    }
    rows = []
    for name, experiment in table.items():
        if name == "standard" or not checkpoint(place, name, seed).exists():
            continue
        target = network(place, experiment, seed)
        row: Row = {"target": name, "architecture": experiment.architecture}
        row["test"] = as_row(measure.accuracy(target, *place.test))
        for key, (attacked, targets) in attacks.items():
            rate = measure.transfer_rate(source, target, x, attacked, y, targets=targets)
            row[key] = as_row(rate)
        rows.append(row)
    return rows


def leakage(place: Place, seed: int, table: dict[str, Experiment]) -> list[Row]:
    """Goh: what the features of the robust network learn from D̂_rand and D̂_det alone."""
    robust = network(place, table["robust"], seed)
    rows = []
    for name in (
        "mislabeled_random",
        "mislabeled_random_1",
        "mislabeled_deterministic",
        "mislabeled_deterministic_1",
    ):
        if (place.records / f"{name}-{seed}.json").exists():
            x, y, _ = files.load(place.work / f"{name}-{seed}")
            found = measure.leakage(robust, (x, y), place.test)
            rows.append({"set": name, **as_row(found)})
    return rows


def feature_usefulness(place: Place, seed: int, table: dict[str, Experiment]) -> list[Row]:
    """Section 2: ρ and γ (ε .25 and .5) of 32 features each of the standard and robust network."""
    x, y = (part[:500] for part in place.test)
    rows = []
    for name in ("standard", "robust"):
        net = network(place, table[name], seed)
        for eps in (0.25, 0.5):
            rho, gamma, label = robust_usefulness(
                net, x, y, eps=eps, which=range(32), steps=5, precision="bfloat16"
            )
            for k in range(32):
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


STUDIES: dict[str, Study] = {
    "pgd_steps": pgd_steps,
    "robust_train_test": robust_train_test,
    "transfer": transfer,
    "leakage": leakage,
    "usefulness": feature_usefulness,
}
