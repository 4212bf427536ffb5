"""The oracle: every activation pattern of a small network, each an LP for scipy.

A pattern fixes each ReLU to active or inactive and each max-pooling window to one of its inputs;
on the region where it holds the network is affine. Nothing here is shared with the encoder.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import cvxpy as cp
import numpy as np
import torch
from scipy.optimize import linprog
from torch import nn

from robustlib.network import Affine, Network, ReLU, Residual


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


def folded_network(seed: int) -> tuple[nn.Sequential, tuple[int, ...]]:
    """A small network of one of twelve kinds with batch norm, average pooling, residual blocks."""
    generator = torch.Generator().manual_seed(seed)
    image = (1, 3, 3)

    def block(inner: int = 2, shortcut: nn.Module | None = None) -> Residual:
        body = nn.Sequential(nn.Linear(2, inner), nn.ReLU(), nn.Linear(inner, 2))
        return Residual(body, shortcut)

    def start() -> list[nn.Module]:
        return [nn.Linear(3, 2), nn.ReLU()]

    def conv_block() -> Residual:
        body = nn.Sequential(nn.Conv2d(1, 1, 2, bias=False), nn.BatchNorm2d(1), nn.ReLU(),
                             nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))  # fmt: skip
        return Residual(body, nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(1, 2, 1)))

    kinds: list[tuple[list[nn.Module], tuple[int, ...]]] = [
        ([nn.Linear(3, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.BatchNorm1d(3), nn.Linear(3, 3)], (3,)),
        ([nn.Conv2d(1, 1, 2, bias=False), nn.BatchNorm2d(1), nn.ReLU(), nn.AvgPool2d((1, 2)),
          nn.Flatten(), nn.Linear(2, 3)], image),
        ([nn.BatchNorm2d(1), nn.Conv2d(1, 1, 2, padding=1, stride=2), nn.ReLU(),
          nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2)], image),
        ([nn.AvgPool2d(2, 1, padding=1, count_include_pad=seed % 24 == 3), nn.Conv2d(1, 1, 3),
          nn.BatchNorm2d(1), nn.ReLU(), nn.AdaptiveAvgPool2d((1, 1)), nn.BatchNorm2d(1),
          nn.Flatten(), nn.Linear(1, 2)], image),
        ([*start(), block(), nn.Linear(2, 3)], (3,)),
        ([*start(), block(shortcut=nn.Linear(2, 2)), nn.BatchNorm1d(2), nn.ReLU(),
          nn.Linear(2, 2)], (3,)),
        ([*start(), block(1), nn.ReLU(), block(1, nn.BatchNorm1d(2)), nn.Linear(2, 3)], (3,)),
        ([*start(), Residual(nn.Sequential(nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 2), nn.ReLU(),
                                           nn.Linear(2, 2))), nn.Linear(2, 2)], (3,)),
        ([Residual(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 3))), nn.ReLU(),
          Residual(nn.Sequential(nn.BatchNorm1d(3), nn.ReLU()), nn.Dropout()), nn.Linear(3, 2)],
         (3,)),
        ([nn.Conv2d(1, 1, 2), nn.ReLU(), conv_block(), nn.Flatten(), nn.Linear(2, 3)], image),
        ([nn.Conv2d(1, 1, 2), nn.ReLU(), nn.MaxPool2d((2, 1)),
          Residual(nn.Sequential(nn.ReLU(), nn.Conv2d(1, 1, 1))), nn.AvgPool2d((1, 2)),
          nn.Flatten(), nn.Linear(1, 2)], image),
        ([nn.Conv2d(1, 1, 2), nn.AvgPool2d((1, 2)), nn.ReLU(), nn.Flatten(), block(),
          nn.Linear(2, 3)], image),
    ]  # fmt: skip
    layers, shape = kinds[seed % len(kinds)]
    module = nn.Sequential(*layers)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
        parameter.requires_grad_(False)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.running_mean = torch.randn(layer.num_features, generator=generator)
            layer.running_var = 0.1 + torch.rand(layer.num_features, generator=generator)
    return module.eval(), shape


def smallest_module_margins(
    module: nn.Sequential, label: int, lower: np.ndarray, upper: np.ndarray
) -> np.ndarray:
    """Like ``smallest_margins``, from the torch module alone: its layers are never read.

    lower and upper have the shape of one input. A region is followed as an affine map of the input
    (its constant first, then one image for each coordinate) that torch carries from layer to layer.
    """
    n = lower.size
    zero = torch.zeros(1, *lower.shape, dtype=torch.float64)
    start = torch.cat([zero, torch.eye(n, dtype=torch.float64).reshape(n, *lower.shape)])
    limits = np.column_stack([lower.reshape(-1), upper.reshape(-1)])
    best: dict[int, float] = {}
    for rows, maps in _pieces(list(module.double()), start, torch.zeros(0, n + 1), limits):
        for j in (j for j in range(maps.shape[1]) if j != label):
            margin = (maps[:, label] - maps[:, j]).numpy()
            result = _minimum(margin, rows, limits)
            if result is not None:
                best[j] = min(best.get(j, np.inf), result)
    return np.array([best[j] for j in sorted(best)])


def smallest_blur_margins(
    module: nn.Sequential, image: np.ndarray, label: int, size: int
) -> np.ndarray:
    """min of logit[label] − logit[j] over all kernels (size, size) that are ≥ 0 with the sum 1.

    A kernel's image is the sum of shifted images (C, H, W): shifted here by indexing, not by torch.
    """
    reach, n = size // 2, size * size
    padded = np.pad(image, ((0, 0), (reach, reach), (reach, reach)))
    height, width = image.shape[1:]
    shifts = [padded[:, i : i + height, j : j + width] for i in range(size) for j in range(size)]
    start = torch.from_numpy(np.stack([np.zeros_like(image), *shifts]))
    total = torch.ones(1, n + 1, dtype=torch.float64)
    total[0, 0] = -1.0  # Σ θ − 1 ≥ 0, and the other way round
    limits = np.tile([0.0, 1.0], (n, 1))
    best: dict[int, float] = {}
    for rows, maps in _pieces(list(module.double()), start, torch.cat([total, -total]), limits):
        for j in (j for j in range(maps.shape[1]) if j != label):
            result = _minimum((maps[:, label] - maps[:, j]).numpy(), rows, limits)
            if result is not None:
                best[j] = min(best.get(j, np.inf), result)
    return np.array([best[j] for j in sorted(best)])


def _minimum(margin: np.ndarray, rows: torch.Tensor, limits: np.ndarray) -> float | None:
    """min of margin over {x in limits : rows · (1, x) ≥ 0}; None if there is no such x."""
    a = -rows.numpy()
    result = linprog(margin[1:], A_ub=a[:, 1:], b_ub=-a[:, 0], bounds=limits)
    return result.fun + margin[0] if result.status == 0 else None


def _pieces(
    layers: list[nn.Module], maps: torch.Tensor, rows: torch.Tensor, limits: np.ndarray
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Every linear piece that meets the box: its half-spaces, and the outputs there as maps."""
    if not layers:
        yield rows, maps
        return
    layer, *rest = layers
    flat = maps.reshape(len(maps), -1).T  # (units, 1 + n)
    choice = isinstance(layer, nn.ReLU | nn.MaxPool2d)
    if choice and _minimum(np.zeros(len(maps)), rows, limits) is None:
        return
    if isinstance(layer, nn.ReLU):
        for active in itertools.product((0.0, 1.0), repeat=len(flat)):
            on = torch.tensor(active, dtype=torch.float64)[:, None]
            new = torch.cat([rows, (2 * on - 1) * flat])
            yield from _pieces(rest, (on * flat).T.reshape(maps.shape), new, limits)
    elif isinstance(layer, nn.MaxPool2d):
        places = torch.arange(1, len(flat) + 1.0).reshape(1, *maps.shape[1:])
        shape = layer(places).shape[1:]
        windows = (
            nn.functional.unfold(
                places, layer.kernel_size, padding=layer.padding, stride=layer.stride
            ).long()
            - 1
        )  # −1 in the padding
        size = windows.shape[1] // maps.shape[1]
        windows = windows.reshape(maps.shape[1], size, -1).transpose(1, 2).reshape(-1, size)
        inside = [window[window >= 0].tolist() for window in windows]
        windows = torch.where(windows >= 0, windows, windows.amax(1, keepdim=True))
        for chosen in itertools.product(*inside):
            top = torch.tensor(chosen)
            above = (flat[top][:, None] - flat[windows]).reshape(-1, len(maps))
            out = flat[top].T.reshape(len(maps), *shape)
            yield from _pieces(rest, out, torch.cat([rows, above]), limits)
    elif isinstance(layer, Residual):
        skipped = _affine(layer.shortcut, maps)
        for where, out in _pieces(list(layer.body), maps, rows, limits):
            yield from _pieces(rest, out + skipped, where, limits)
    else:
        yield from _pieces(rest, _affine(layer, maps), rows, limits)


def _affine(layer: nn.Module, maps: torch.Tensor) -> torch.Tensor:
    """The layer applied to an affine map: its own constant is what it gives for 0."""
    with torch.no_grad():
        out = layer(maps)
        out[1:] -= layer(torch.zeros_like(maps[:1]))
    return out


class _Nearest:
    """min ‖v − x‖₂ or min g·v over a v ≤ b inside a box and maybe an l2 ball, by cvxpy."""

    def __init__(self, rows: int, x: np.ndarray, bounds: tuple[float, float], eps: float | None):
        self.a, self.b = cp.Parameter((rows, len(x))), cp.Parameter(rows)
        self.g = cp.Parameter(len(x))
        v = cp.Variable(len(x))
        inside = [self.a @ v <= self.b, v >= bounds[0], v <= bounds[1]]
        goal = cp.norm(v - x, 2) if eps is None else self.g @ v
        ball = [] if eps is None else [cp.norm(v - x, 2) <= eps]
        self.problem = cp.Problem(cp.Minimize(goal), inside + ball)

    def __call__(self, a: np.ndarray, b: np.ndarray, g: np.ndarray) -> float:
        self.a.value, self.b.value, self.g.value = a, b, g
        self.problem.solve(solver=cp.CLARABEL)
        return float(self.problem.value) if self.problem.status == cp.OPTIMAL else np.inf


def smallest_margins_in_ball(
    network: Network, x: np.ndarray, label: int, eps: float, norm: str, bounds: tuple[float, float]
) -> np.ndarray:
    """min of logit[label] − logit[j] for every j ≠ label over an l1 or l2 ball inside the box."""
    n, best, l2 = len(x), {j: np.inf for j in range(network.classes) if j != label}, None
    for a, b, w, c in regions(network):
        for j in best:
            g = w[label] - w[j]
            if norm == "2":
                l2 = l2 or _Nearest(len(b), x, bounds, eps)
                value = l2(a, b, g)
            else:
                near = np.block([[np.eye(n), -np.eye(n)], [-np.eye(n), -np.eye(n)]])
                rows = [np.hstack([a, np.zeros((len(a), n))]), near, np.repeat([[0.0, 1.0]], n, 1)]
                result = linprog(
                    np.append(g, np.zeros(n)), A_ub=np.vstack(rows),
                    b_ub=np.concatenate([b, x, -x, [eps]]), bounds=[bounds] * n + [(0, None)] * n,
                )  # fmt: skip
                value = result.fun if result.status == 0 else np.inf
            best[j] = min(best[j], value + c[label] - c[j])
    return np.array(list(best.values()))


def smallest_distortion_to(
    network: Network, x: np.ndarray, targets: list[int], norm: str, bounds: tuple[float, float],
    *, lead: float = 0.0,
) -> float:  # fmt: skip
    """The infimum of ‖x' − x‖ over the box where a target leads all other logits by ``lead``."""
    n, best, l2 = len(x), np.inf, None
    others = [j for j in range(network.classes) if j not in targets]
    sizes = 1 if norm == "inf" else n
    spread = np.ones((n, 1)) if norm == "inf" else np.eye(n)
    for a, b, w, c in regions(network):
        for t in targets:
            rows = np.vstack([a, w[others] - w[t]])
            limits = np.append(b, c[t] - c[others] - lead)
            if norm == "2":
                l2 = l2 or _Nearest(len(limits), x, bounds, None)
                best = min(best, l2(rows, limits, np.zeros(n)))
                continue
            near = np.block([[np.eye(n), -spread], [-np.eye(n), -spread]])
            result = linprog(
                np.append(np.zeros(n), np.ones(sizes)),
                A_ub=np.vstack([np.hstack([rows, np.zeros((len(rows), sizes))]), near]),
                b_ub=np.concatenate([limits, x, -x]),
                bounds=[bounds] * n + [(0, None)] * sizes,
            )
            if result.status == 0:
                best = min(best, result.fun)
    return best


def smallest_module_margins_in_ball(
    module: nn.Sequential, x: np.ndarray, label: int, eps: float, norm: str,
    bounds: tuple[float, float],
) -> np.ndarray:  # fmt: skip
    """Like ``smallest_module_margins``, over the ball of x (the input's shape) in any norm."""
    n, flat = x.size, x.reshape(-1)
    radius = eps if norm == "inf" else np.inf
    limits = np.clip(np.column_stack([flat - radius, flat + radius]), *bounds)
    start = torch.cat([torch.zeros(1, n), torch.eye(n)]).double().reshape(-1, *x.shape)
    near = np.block([[np.eye(n), -np.eye(n)], [-np.eye(n), -np.eye(n)]])
    total = np.repeat([[0.0, 1.0]], n, 1)
    best: dict[int, float] = {}
    solvers: dict[int, _Nearest] = {}
    none = torch.zeros(0, n + 1, dtype=torch.float64)
    for rows, maps in _pieces(list(module.double()), start, none, limits):
        a, b = -rows.numpy()[:, 1:], rows.numpy()[:, 0]
        for j in (j for j in range(maps.shape[1]) if j != label):
            margin = (maps[:, label] - maps[:, j]).numpy()
            if norm == "inf":
                value = _minimum(margin, rows, limits)
            elif norm == "1":
                result = linprog(
                    np.append(margin[1:], np.zeros(n)),
                    A_ub=np.vstack([np.hstack([a, np.zeros((len(a), n))]), near, total]),
                    b_ub=np.concatenate([b, flat, -flat, [eps]]),
                    bounds=[bounds] * n + [(0, None)] * n,
                )
                value = result.fun + margin[0] if result.status == 0 else None
            else:
                if len(b) not in solvers:
                    solvers[len(b)] = _Nearest(len(b), flat, bounds, eps)
                value = solvers[len(b)](a, b, margin[1:]) + margin[0]
            best[j] = min(best.get(j, np.inf), np.inf if value is None else value)
    return np.array([best[j] for j in sorted(best)])
