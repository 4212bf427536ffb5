"""``python -m robustlib.features``: the experiments on CIFAR-10, resumable; see ``--help``."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from robustlib import checks
from robustlib.features import results, studies
from robustlib.features.catalog import CORE, EXPERIMENTS
from robustlib.features.experiments import Place

FOLDER = Path("_build/runs/features")  # where the chapters look, from the root of the repository


def main(arguments: list[str] | None = None) -> None:
    """Run experiments and studies one after the other; what is there already is skipped.

    Rows that a row needs are run before it. The chapters on features use what this has made, and
    make what is missing in the same way.
    """
    parser = argparse.ArgumentParser(prog="python -m robustlib.features", description=main.__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        default=list(CORE),
        help=f"default: the core. All: {', '.join([*EXPERIMENTS, *studies.STUDIES])}",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--work", type=Path, default=FOLDER / "work", help="networks, data sets")
    parser.add_argument(
        "--records", type=Path, default=FOLDER / "records", help="what was measured"
    )
    parser.add_argument("--commit", default="", help="what to write into the records")
    options = parser.parse_args(arguments)
    for name in options.names:
        checks.choice("names", name, [*EXPERIMENTS, *studies.STUDIES])
    torch.set_num_threads(1)
    place = Place.cifar10(options.work, options.records)
    for seed in options.seeds:
        for name in options.names:
            if name in studies.STUDIES:
                results.study(name, seed, place, EXPERIMENTS, commit=options.commit, say=_say)
                _say(f"{name} {seed}")
                continue
            record = results.experiment(
                name, seed, place, EXPERIMENTS, commit=options.commit, say=_say
            )
            shown = {key: f"{100 * found['value']:.1f}" for key, found in record["numbers"].items()}
            _say(f"{name} {seed}: {shown}, {record['cpu_seconds']['all']} CPU seconds")


def _say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, flush=True)


if __name__ == "__main__":
    main()
