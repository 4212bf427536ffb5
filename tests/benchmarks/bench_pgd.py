"""PGD-40 on 256 MNIST images against WK17a: ours, a plain torch loop and foolbox, interleaved.

    OMP_NUM_THREADS=1 ROBUSTLIB_DATA=... python tests/benchmarks/bench_pgd.py

prints the median CPU and wall seconds of the runs, with and without early stopping (foolbox and
the plain loop have none). All start at the image and take the same steps.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import foolbox
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlib import attacks, data, zoo

EPS, STEPS, STEP_SIZE = 0.1, 40, 0.01


def plain_loop(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """What one writes by hand: the gradient of the mean loss, a signed step, two clamps."""
    z = x.clone()
    for _ in range(STEPS):
        z.requires_grad_(True)
        loss = F.cross_entropy(model(z), y)
        (gradient,) = torch.autograd.grad(loss, z)
        with torch.no_grad():
            z = torch.clamp(z + STEP_SIZE * gradient.sign(), x - EPS, x + EPS).clamp(0, 1)
    return z


def foolbox_pgd(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))
    attack = foolbox.attacks.LinfPGD(steps=STEPS, abs_stepsize=STEP_SIZE, random_start=False)
    return attack.run(wrapped, x, foolbox.criteria.Misclassification(y), epsilon=EPS)


def ours(early_stop: bool) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    return lambda model, x, y: attacks.pgd(
        model,
        x,
        y,
        eps=EPS,
        steps=STEPS,
        step_size=STEP_SIZE,
        random_start=False,
        early_stop=early_stop,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int, default=256)
    repeats, n = vars(parser.parse_args()).values()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")

    model = zoo.load("wk17a")
    x, y = data.mnist("test", n=n)
    methods = {
        "robustlib, early_stop=False": ours(False),
        "robustlib, early_stop=True": ours(True),
        "plain torch loop": plain_loop,
        "foolbox LinfPGD": foolbox_pgd,
    }
    cpu: dict[str, list[float]] = {name: [] for name in methods}
    wall: dict[str, list[float]] = {name: [] for name in methods}
    wrong: dict[str, int] = {}
    for repeat in range(repeats + 1):  # the first round warms up and is not counted
        for name, method in methods.items():
            start = time.process_time(), time.perf_counter()
            adversarial = method(model, x, y)
            seconds = time.process_time() - start[0], time.perf_counter() - start[1]
            if repeat:
                cpu[name].append(seconds[0])
                wall[name].append(seconds[1])
            with torch.no_grad():
                wrong[name] = int((model(adversarial).argmax(1) != y).sum())

    reference = statistics.median(cpu["foolbox LinfPGD"])
    print(f"PGD-{STEPS}, {n} images, WK17a, eps {EPS}, median of {repeats}, one thread")
    print(f"{'':30}{'CPU s':>8}{'wall s':>8}{'foolbox/this':>14}{'wrong':>7}")
    for name in methods:
        seconds = statistics.median(cpu[name])
        print(
            f"{name:30}{seconds:8.3f}{statistics.median(wall[name]):8.3f}"
            f"{reference / seconds:14.2f}{wrong[name]:7d}"
        )


if __name__ == "__main__":
    main()
