"""A network of Tjeng et al. on MNIST at ε = 0.1: CROWN margins of an image, verdicts of many.

    OMP_NUM_THREADS=1 ROBUSTLIB_DATA=... python tests/benchmarks/bench_verify.py

prints CPU and wall seconds. ``--network``, ``--n``, ``--solver`` and ``--time-limit`` change the
question.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

import robustlib as rl
from robustlib.network import from_torch
from robustlib.solvers import SOLVERS
from robustlib.verification.question import Question

EPS = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--network", choices=("wk17a", "rsl18a"), default="wk17a")
    parser.add_argument("--time-limit", type=float, default=60.0)
    parser.add_argument("--solver", choices=SOLVERS, default="highs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    net = rl.zoo.load(arguments.network)
    x, y = rl.data.mnist("test", n=arguments.n)

    network = from_torch(net, tuple(x.shape[1:]))
    seconds = []
    for image, label in zip(x, y.tolist(), strict=True):
        start = time.process_time()
        Question(net, network, image, label, EPS, (0.0, 1.0)).crown_margins()
        seconds.append(time.process_time() - start)
    print(f"CROWN margins, one image: median {statistics.median(seconds):.4f} CPU s")

    wall, cpu = time.perf_counter(), time.process_time()
    result = rl.verify(net, x, y, eps=EPS, solver=arguments.solver, time_limit=arguments.time_limit)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"verdicts, {arguments.n} images: {cpu:.1f} CPU s, {wall:.1f} wall s")
    print(dict(result.counts()))
    table = result.to_frame().groupby(["verdict", "stage"]).seconds
    print(table.agg(["count", "sum", "max"]).round(3).to_string())


if __name__ == "__main__":
    main()
