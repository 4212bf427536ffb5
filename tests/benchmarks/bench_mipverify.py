"""MIPVerify's formulation against ``verify``, on the same images in one run.

    OMP_NUM_THREADS=1 ROBUSTLIB_DATA=... python tests/benchmarks/bench_mipverify.py

The baseline is what MIPVerify.jl does: interval arithmetic, then linear programs for what it leaves
open (one model a layer, the basis kept from objective to objective), one program with a maximum
over the labels that remain, any point with another label, HiGHS, one thread; no attack, no CROWN.
Its time is that of bounds and engine: the share that confirms a verdict safely is taken off.

``--images`` takes ranges and numbers (0:500:25,8,33), ``--network``, ``--solver`` and
``--time-limit`` change the question.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

import robustlib as rl
from robustlib.network import from_torch
from robustlib.solvers import SOLVERS
from robustlib.verification.paper import decide_by_mip
from robustlib.verification.question import Question

EPS = 0.1


def indices(text: str) -> list[int]:
    """Images by their index, from ranges such as 0:500:25 and single numbers, each once.

    >>> indices("0:3,8")
    [0, 1, 2, 8]
    """
    found: list[int] = []
    for part in text.split(","):
        numbers = [int(n) for n in part.split(":")]
        found += range(*numbers) if len(numbers) > 1 else numbers
    return sorted(set(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=indices, default="0:500")
    parser.add_argument("--network", choices=("wk17a", "rsl18a"), default="wk17a")
    parser.add_argument("--time-limit", type=float, default=120.0)
    parser.add_argument("--solver", choices=SOLVERS, default="highs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    net = rl.zoo.load(arguments.network)
    x, y = rl.data.mnist("test", n=max(arguments.images) + 1)
    x, y = x[arguments.images], y[arguments.images]
    network = from_torch(net, tuple(x.shape[1:]))

    cpu = time.process_time()
    fast = rl.verify(net, x, y, eps=EPS, time_limit=arguments.time_limit)
    fast_cpu = time.process_time() - cpu
    print(f"verify: {fast_cpu:.1f} CPU s, {dict(fast.counts())}", flush=True)

    slow, seconds = [], []
    for i, image in enumerate(arguments.images):
        cpu = time.process_time()
        question = Question(net, network, x[i], int(y[i]), EPS, (0.0, 1.0))
        verdict = decide_by_mip(question, time_limit=arguments.time_limit, solver=arguments.solver)
        confirm = (verdict.details or {})["confirm_seconds"] / verdict.seconds
        spent = (time.process_time() - cpu) * (1.0 - confirm)
        seconds.append(spent)
        slow.append(verdict)
        print(
            f"  image {image}: {verdict.verdict} {verdict.note} (verify: {fast.verdict[i]}, "
            f"{fast.stage[i]}), {spent:.2f} CPU s, build {verdict.build_seconds:.2f}, "
            f"solve {verdict.solve_seconds:.2f} wall s, {verdict.nodes} nodes",
            flush=True,
        )
        both = {verdict.verdict, fast.verdict[i]} - {"undecided"}
        if len(both) > 1:
            raise SystemExit(f"image {image}: the two disagree: {both}")
    total = sum(seconds)
    decided = sum(v.verdict != "undecided" for v in slow)
    print(
        f"MIPVerify's formulation, {arguments.solver}: {total:.1f} CPU s "
        f"(median {statistics.median(seconds):.2f}, largest {max(seconds):.1f} an image), "
        f"{decided} of {len(slow)} decided within {arguments.time_limit:g} s"
    )
    print(f"verify is {total / fast_cpu:.1f} × as fast on these {len(slow)} images")


if __name__ == "__main__":
    main()
