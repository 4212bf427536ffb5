"""Attacks other than PGD: CPU seconds and what they find, on networks of the zoo.

    OMP_NUM_THREADS=1 ROBUSTLIB_DATA=... python tests/benchmarks/bench_attacks.py one_pixel

The first argument names the row: one_pixel, evaluate, carlini_wagner, square, hop_skip_jump or
spatial_grid.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor, nn

from robustlib import attacks, data, zoo


def images(name: str, n: int) -> tuple[nn.Module, Tensor, Tensor]:
    """The network and the first ``n`` test images that it labels rightly."""
    loader = {"mnist": data.mnist, "cifar10": data.cifar10, "digits": data.digits}
    model = zoo.load(name)
    x, y = loader[zoo.info(name).data]("test", n=2 * n + 20)
    with torch.no_grad():
        right = torch.nonzero(model(x).argmax(1) == y)[:n, 0]
    return model, x[right], y[right]


def one_pixel(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> str:
    z = attacks.one_pixel(model, x, y, generator=generator)
    return f"{int(attacks.fooled(model, z, y).sum())} fooled"


def evaluate(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> str:
    found = attacks.evaluate(model, x, y, eps=0.1, generator=generator)
    return f"standing: {found.standing}"


def carlini_wagner(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> str:
    z = attacks.carlini_wagner(model, x, y)
    away = (z - x).flatten(1).norm(dim=1)
    return (
        f"{int(attacks.fooled(model, z, y).sum())} fooled, mean distance {float(away.mean()):.4f}"
    )


def square(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> str:
    found = attacks.square(model, x, y, eps=0.1, generator=generator)
    return f"{int(found.success.sum())} fooled, {int(found.queries.sum())} queries in all"


def hop_skip_jump(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> str:
    found = attacks.hop_skip_jump(model, x, y, generator=generator)
    away = (found.points - x).flatten(1).norm(dim=1)
    return f"{int(found.success.sum())} fooled, mean distance {float(away.mean()):.4f}"


def spatial_grid(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> str:
    found = attacks.spatial_grid(model, x, y)
    return f"{int(found.success.sum())} fooled"


ROWS = {
    "one_pixel": (one_pixel, "cifar_resnet"),
    "evaluate": (evaluate, "adv_cnn_a"),
    "carlini_wagner": (carlini_wagner, "adv_cnn_a"),
    "square": (square, "adv_cnn_a"),
    "hop_skip_jump": (hop_skip_jump, "adv_cnn_a"),
    "spatial_grid": (spatial_grid, "adv_cnn_a"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("row", choices=ROWS)
    parser.add_argument("--network")
    parser.add_argument("--images", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    attack, network = ROWS[arguments.row]
    network = arguments.network or network
    model, x, y = images(network, arguments.images)
    start = time.process_time()
    told = attack(model, x, y, torch.Generator().manual_seed(0))
    seconds = time.process_time() - start
    print(f"{arguments.row}, {network}, {len(x)} images: {told}; {seconds:.1f} CPU s")


if __name__ == "__main__":
    main()
