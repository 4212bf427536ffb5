"""The oracle: every activation pattern of a small network, each an LP for scipy.

A pattern fixes each ReLU to active or inactive and each max-pooling window to one of its inputs;
on the region where it holds the network is affine. Nothing here is shared with the encoder.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from scipy.optimize import linprog
from torch import nn

from robustlib.network import Affine, Network, ReLU


def random_network(seed: int) -> tuple[nn.Sequential, tuple[int, ...]]:
    """A small network of one of four kinds, at most 32 patterns."""
    generator = torch.Generator().manual_seed(seed)
    kinds: list[tuple[list[nn.Module], tuple[int, ...]]] = [
        ([nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 3)], (3,)),
        ([nn.Conv2d(1, 1, 2), nn.ReLU(), nn.Flatten(), nn.Linear(4, 3)], (1, 3, 3)),
        ([nn.Conv2d(1, 1, 2), nn.MaxPool2d(2, 1), nn.Flatten(), nn.Linear(1, 3)], (1, 3, 3)),
        (
            [nn.Conv2d(1, 1, 2), nn.ReLU(), nn.MaxPool2d((1, 2)), nn.Flatten(),
             nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2)], (1, 2, 3),
        ) if seed % 8 == 7 else (
            [nn.Conv2d(1, 1, 2), nn.MaxPool2d((1, 2)), nn.ReLU(), nn.Flatten(), nn.Linear(2, 3)],
            (1, 3, 3),
        ),
    ]  # fmt: skip
    layers, shape = kinds[seed % 4]
    module = nn.Sequential(*layers)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
        parameter.requires_grad_(False)
    return module.eval(), shape


def regions(network: Network) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """For every pattern: A, b with A x ≤ b on its region, and the affine logits W x + c there."""

    def walk(k: int, w: np.ndarray, c: np.ndarray, a: np.ndarray, b: np.ndarray) -> Iterator:
        if k == len(network.steps):
            yield a, b, w, c
            return
        step = network.steps[k]
        if isinstance(step, Affine):
            matrix = step.weight if isinstance(step.weight, np.ndarray) else step.weight.toarray()
            yield from walk(k + 1, matrix @ w, matrix @ c + step.bias, a, b)
        elif isinstance(step, ReLU):
            for active in itertools.product((0.0, 1.0), repeat=step.size):
                on = np.array(active)
                sign = 1.0 - 2.0 * on  # inactive: z ≤ 0, active: −z ≤ 0
                yield from walk(
                    k + 1, w * on[:, None], c * on,
                    np.vstack([a, sign[:, None] * w]), np.append(b, -sign * c),
                )  # fmt: skip
        else:
            windows = [[i for i in window if i >= 0] for window in step.windows]
            for chosen in itertools.product(*windows):
                pairs = [
                    (i, j)
                    for window, i in zip(windows, chosen, strict=True)
                    for j in window
                    if j != i
                ]
                above = np.array([j for _, j in pairs], dtype=int)
                below = np.array([i for i, _ in pairs], dtype=int)
                yield from walk(
                    k + 1, w[list(chosen)], c[list(chosen)],
                    np.vstack([a, w[above] - w[below]]), np.append(b, c[below] - c[above]),
                )  # fmt: skip

    n = network.input_size
    yield from walk(0, np.eye(n), np.zeros(n), np.zeros((0, n)), np.zeros(0))


def smallest_margins(
    network: Network, label: int, lower: np.ndarray, upper: np.ndarray
) -> np.ndarray:
    """min over the box of logit[label] − logit[j], for every j ≠ label in order."""
    targets = [j for j in range(network.classes) if j != label]
    best = np.full(len(targets), np.inf)
    for a, b, w, c in regions(network):
        for t, j in enumerate(targets):
            result = linprog(
                w[label] - w[j], A_ub=a, b_ub=b, bounds=np.column_stack([lower, upper])
            )
            if result.status == 0:
                best[t] = min(best[t], result.fun + c[label] - c[j])
    return best


def smallest_distortion(
    network: Network, x: np.ndarray, label: int, norm: str, bounds: tuple[float, float]
) -> float:
    """The infimum of ‖x' − x‖ over the box where another logit is at least the label's."""
    n = len(x)
    sizes = 1 if norm == "inf" else n  # variables t: one bound for all, or one a coordinate
    spread = np.ones((n, 1)) if norm == "inf" else np.eye(n)
    cost = np.append(np.zeros(n), np.ones(sizes))
    near = np.block([[np.eye(n), -spread], [-np.eye(n), -spread]])
    best = np.inf
    for a, b, w, c in regions(network):
        for j in set(range(network.classes)) - {label}:
            rows = np.vstack([np.hstack([a, np.zeros((len(a), sizes))]), near])
            wins = np.append(w[label] - w[j], np.zeros(sizes))
            result = linprog(
                cost,
                A_ub=np.vstack([rows, wins]),
                b_ub=np.concatenate([b, x, -x, [c[j] - c[label]]]),
                bounds=[bounds] * n + [(0, None)] * sizes,
            )
            if result.status == 0:
                best = min(best, result.fun)
    return best
