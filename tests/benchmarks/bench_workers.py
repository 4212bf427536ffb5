"""How much faster two worker processes verify than one process: needs as many free cores.

    OMP_NUM_THREADS=1 ROBUSTLIB_DATA=... python tests/benchmarks/bench_workers.py

prints wall and CPU seconds of the same call with one and with two workers (``--workers``), their
ratio with and without the start of the workers, and whether all verdicts are the same. Verdicts can
differ only where an image reaches ``--time-limit``.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

import torch

import robustlib as rl


def cpu() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="wk17a")
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--eps", type=float, default=0.1)
    parser.add_argument("--time-limit", type=float, default=60.0)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    net = rl.zoo.load(arguments.network)
    x, y = rl.data.mnist("test", n=arguments.n)

    verdicts, working = [], []
    for workers in (1, arguments.workers):
        events: list[dict[str, Any]] = []
        wall, spent = time.perf_counter(), cpu()
        result = rl.verify(
            net, x, y, eps=arguments.eps, time_limit=arguments.time_limit, workers=workers,
            progress=events.append,
        )  # fmt: skip
        wall, spent = time.perf_counter() - wall, cpu() - spent
        first = events[0]["elapsed"]
        print(f"{workers} workers: {wall:.1f} wall s ({first:.1f} to the first verdict), "
              f"{spent:.1f} CPU s; {dict(result.counts())}")  # fmt: skip
        verdicts.append(result.verdict)
        working.append((wall, wall - first))
    (one, one_working), (many, many_working) = working
    print(f"{one / many:.2f} × as fast; {one_working / many_working:.2f} × after the start")
    print(f"same verdicts: {verdicts[0] == verdicts[1]}")


if __name__ == "__main__":
    main()
