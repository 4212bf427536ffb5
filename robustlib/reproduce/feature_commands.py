"""The commands for robust and non-robust features: a row of the table trained, a data set built."""

from __future__ import annotations

import argparse
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from robustlib.reproduce.library_commands import bar, say

if TYPE_CHECKING:
    from torch import nn

RECIPES = ("robust", "nonrobust", "random", "deterministic")
SETTINGS: tuple[tuple[str, Callable[[str], object], str], ...] = (
    ("layer", str, "robust, nonrobust: the layer whose output is matched (default features)"),
    ("start", str, "robust, nonrobust: other or noise (default other)"),
    ("eps", float, "random, deterministic: radius (default 0.5)"),
    ("norm", str, "random, deterministic: 2 or inf (default 2)"),
    ("steps", int, "how many steps (default 1000, or 100 under wrong labels)"),
    ("step_size", float, "length of a step (default 0.1)"),
    ("decay", bool, "let the length fall linearly to zero"),
    ("copies", int, "random, deterministic: moved copies in each gradient (default 0)"),
    ("reach", int, "random, deterministic: how many pixels copies move at most (default 0)"),
    ("seed", int, "of all that is random (default 0)"),
    ("precision", str, "float32 or bfloat16 (default float32)"),
    ("batch", int, "images computed together (default 128)"),
)
FOLDER = Path("_build/runs/features")  # where the chapters look, from the root of the repository


def train(options: argparse.Namespace) -> int:
    """Train the network of one row, after the networks and the data set that it needs."""
    import torch

    from robustlib.features import catalog, experiments, results

    folder = options.out or FOLDER
    torch.set_num_threads(1)
    place = experiments.Place.cifar10(folder / "work", folder / "records")
    seed = options.seed or 0
    record = results.experiment(options.name, seed, place, catalog.EXPERIMENTS, say=say)
    for key, found in record["numbers"].items():
        ends = f"{100 * found['low']:.1f} to {100 * found['high']:.1f}"
        say(f"{key}: {100 * found['value']:.1f} % ({ends}), {found['n']} images")
    say(f"{record['cpu_seconds']['all']:.0f} CPU s, without the networks that it needs")
    print(experiments.checkpoint(place, options.name, seed))
    return 0


def build(options: argparse.Namespace) -> int:
    """Build a data set from a network and images; print its folder."""
    from robustlib import data, features
    from robustlib.features.experiments import RECIPES as FUNCTIONS

    function = FUNCTIONS[options.recipe]
    known = inspect.signature(function).parameters
    given = {name: vars(options)[name] for name, *_ in SETTINGS if name in options}
    for name, value in given.items():
        if name not in known:
            raise ValueError(
                f"{name}={value!r} has no meaning with the recipe {options.recipe!r}; leave it out."
            )
    net = _network(options.network, options.runs, options.network_seed)
    x, y = data.load(options.dataset, options.split, indices=options.indices)
    path = function(net, x, y, options.out, progress=bar("images"), **given)
    report = features.load(path)[2]["report"]
    if options.json:
        print(json.dumps({"path": str(path), "report": report}, indent=1))
    else:
        say(", ".join(f"{name} {value:.3f}" for name, value in report.items()))
        print(path)
    return 0


def _network(name: str, folder: Path, seed: int) -> nn.Module:
    """A network of the zoo, or of a row of the table that was trained in ``folder``."""
    import robustlib as rl
    from robustlib import checks
    from robustlib.features import catalog, experiments, networks

    checks.choice("network", name, [*rl.zoo.list(), *catalog.EXPERIMENTS])
    if name not in catalog.EXPERIMENTS:
        return rl.zoo.load(name)
    path = folder / "work" / f"{name}-{seed}.safetensors"
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is not there; `robustlib train {name} --seed {seed}` makes it."
        )
    row = catalog.EXPERIMENTS[name]
    return experiments.read_network(path, networks.ARCHITECTURES[row.architecture])
