"""``python -m robustlib.features``: the experiments on CIFAR-10, resumable; see ``--help``."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from robustlib import checks
from robustlib.features import experiments, studies
from robustlib.features.catalog import CORE, EXPERIMENTS


def main(arguments: list[str] | None = None) -> None:
    """Run experiments and studies one after the other; what is there already is skipped."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("names", nargs="*", default=list(CORE), help="default: the core")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--work", type=Path, default=Path("_build/features"))
    parser.add_argument("--records", type=Path, default=Path("_build/features/records"))
    parser.add_argument("--commit", default="", help="what to write into the records")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    place = experiments.Place.cifar10(options.work, options.records)
    for seed in options.seeds:
        for name in options.names:
            checks.choice("names", name, [*EXPERIMENTS, *studies.STUDIES])
            if name in studies.STUDIES:
                studies.run(name, seed, place, EXPERIMENTS, commit=options.commit)
                _say(f"{name} {seed}")
                continue
            record = experiments.run(
                EXPERIMENTS[name], seed, place, EXPERIMENTS, commit=options.commit, progress=_say
            )
            shown = {key: f"{100 * found['value']:.1f}" for key, found in record["numbers"].items()}
            _say(f"{name} {seed}: {shown}, {record['cpu_seconds']['all']} CPU seconds")


def _say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, flush=True)


if __name__ == "__main__":
    main()
