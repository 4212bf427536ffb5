"""PGD-40 on 256 MNIST images against WK17a: ours, loops written by hand and foolbox.

    OMP_NUM_THREADS=1 ROBUSTLIB_DATA=... python tests/benchmarks/bench_pgd.py

All start at the image and take the same steps; foolbox and the loops know no early stopping. The
plain loop is what one writes by hand; the bare loop takes over our groups of images and our
convolution too, and nothing else, so that what is left is the price of checks, of the best point
of a run and of exact projections. The methods run in turn, and each ratio is the median over the
rounds of two runs of the same round, in CPU seconds: what else the machine does falls on both.
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
from robustlib.attacks import batch
from robustlib.attacks.speed import FewChannels

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


def bare_loop(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The plain loop in our groups and with our convolution."""
    with FewChannels():
        parts = zip(x.split(batch.GROUP), y.split(batch.GROUP), strict=True)
        return torch.cat([plain_loop(model, a, b) for a, b in parts])


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
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--images", type=int, default=256)
    repeats, n = vars(parser.parse_args()).values()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")

    model = zoo.load("wk17a")
    x, y = data.mnist("test", n=n)
    methods = {
        "robustlib, early_stop=False": ours(False),
        "robustlib, early_stop=True": ours(True),
        "bare loop": bare_loop,
        "plain loop": plain_loop,
        "foolbox LinfPGD": foolbox_pgd,
    }
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    wrong: dict[str, int] = {}
    for repeat in range(repeats + 1):  # the first round warms up and is not counted
        for name, method in methods.items():
            start = time.process_time()
            adversarial = method(model, x, y)
            taken = time.process_time() - start
            if repeat:
                seconds[name].append(taken)
            with torch.no_grad():
                wrong[name] = int((model(adversarial).argmax(1) != y).sum())

    print(f"PGD-{STEPS}, {n} images, WK17a, eps {EPS}, {repeats} rounds, one thread")
    against = ("foolbox LinfPGD", "plain loop", "bare loop")
    print(f"{'':28}{'CPU s':>8}{'wrong':>7}" + "".join(f"{f'{a} / this':>24}" for a in against))
    for name, own in seconds.items():
        ratios = (
            statistics.median(a / b for a, b in zip(seconds[other], own, strict=True))
            for other in against
        )
        print(
            f"{name:28}{statistics.median(own):8.3f}{wrong[name]:7d}"
            + "".join(f"{ratio:24.2f}" for ratio in ratios)
        )


if __name__ == "__main__":
    main()
