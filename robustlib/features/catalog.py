"""The table of experiments on CIFAR-10, with the settings of the reference run."""

from __future__ import annotations

from robustlib.features.experiments import Experiment
from robustlib.features.training import Schedule

FAST = {"precision": "bfloat16"}
STANDARD = Schedule(epochs=10, precision="bfloat16")
ROBUST = Schedule(epochs=6, reach=0, eps=0.5, precision="bfloat16")

EXPERIMENTS = {
    row.name: row
    for row in (
        Experiment("standard", STANDARD),
        Experiment("robust", ROBUST),
    )
}
