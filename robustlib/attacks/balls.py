"""Norm balls: what a gradient attack has to know of a norm.

Each ball is the set of allowed points around one batch, cut by the box of valid inputs, and knows
three things: the step of steepest ascent, the projection and a random start. Points that
leave ``project`` or ``random`` are members exactly: the distance is at most ``eps`` in exact
arithmetic, not up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Ball(Protocol):
    """What the attack loop asks of a norm."""

    @property
    def center(self) -> Tensor: ...

    @property
    def eps(self) -> float: ...

    def take(self, rows: Tensor) -> Ball:
        """The ball of some of the images."""

    def step(self, z: Tensor, gradient: Tensor, length: float | Tensor) -> Tensor:
        """``z`` moved by ``length`` so that a linear function of this gradient grows the most.

        One length for all images, or one for each (n,).
        """

    def project(self, z: Tensor) -> Tensor:
        """A point of the ball and the box near ``z``."""

    def random(self, generators: Sequence[torch.Generator]) -> Tensor:
        """A uniform point of the ball, cut to the box; one generator for each image."""


def inward(x: Tensor, shift: Tensor | float) -> Tensor:
    """``x + shift`` rounded to the type of ``x`` so that the exact distance is at most ``|shift|``.

    Parameters
    ----------
    x : Tensor
        Floating-point values.
    shift : Tensor of float64, or float
        What to add, of either sign.

    Examples
    --------
    In float32, 0.7 + 0.1 rounds up; the value one below it is the largest one that is allowed.

    >>> x = torch.tensor([0.7])
    >>> float(x + 0.1) - float(x) <= 0.1, float(inward(x, 0.1)) - float(x) <= 0.1
    (False, True)
    """
    start = x.double()
    shift = torch.as_tensor(shift, dtype=torch.float64, device=x.device)
    z = (start + shift).to(x.dtype)
    # The distance without rounding error is gap + rest (Knuth's error-free difference).
    end = z.double()
    gap = end - start
    back = gap - end
    rest = (end - (gap - back)) - (start + back)
    sign = torch.where(shift < 0, -1.0, 1.0)
    far = (sign * gap > shift.abs()) | ((sign * gap == shift.abs()) & (sign * rest > 0))
    return torch.where(far, torch.nextafter(z, x), z)


def box(bounds: tuple[float, float], dtype: torch.dtype) -> tuple[float, float]:
    """The smallest and the largest value of ``dtype`` inside ``bounds``."""
    low, high = (torch.tensor(b, dtype=dtype) for b in bounds)
    if low.item() < bounds[0]:
        low = torch.nextafter(low, torch.tensor(math.inf, dtype=dtype))
    if high.item() > bounds[1]:
        high = torch.nextafter(high, torch.tensor(-math.inf, dtype=dtype))
    return low.item(), high.item()


@dataclass(frozen=True)
class Linf:
    """max |x' − x| ≤ eps: a box around each image, so a projection is a clamp."""

    center: Tensor
    eps: float
    lower: Tensor
    upper: Tensor

    @classmethod
    def around(cls, x: Tensor, eps: float, bounds: tuple[float, float]) -> Linf:
        low, high = box(bounds, x.dtype)
        return cls(x, eps, inward(x, -eps).clamp_min(low), inward(x, eps).clamp_max(high))

    def take(self, rows: Tensor) -> Linf:
        return Linf(self.center[rows], self.eps, self.lower[rows], self.upper[rows])

    def step(self, z: Tensor, gradient: Tensor, length: float | Tensor) -> Tensor:
        return z + _wide(length, z) * gradient.sign()

    def project(self, z: Tensor) -> Tensor:
        return torch.clamp(z, self.lower, self.upper)

    def random(self, generators: Sequence[torch.Generator]) -> Tensor:
        shape, dtype = self.center.shape[1:], self.center.dtype
        u = torch.stack([torch.rand(shape, dtype=dtype, generator=g) for g in generators])
        return self.project(self.center + self.eps * (2 * u.to(self.center.device) - 1))


@dataclass(frozen=True)
class L2:
    """√Σ(x' − x)² ≤ eps, then cut to the box (which only moves a point toward the center)."""

    center: Tensor
    eps: float
    low: float
    high: float

    @classmethod
    def around(cls, x: Tensor, eps: float, bounds: tuple[float, float]) -> L2:
        return cls(x, eps, *box(bounds, x.dtype))

    def take(self, rows: Tensor) -> L2:
        return L2(self.center[rows], self.eps, self.low, self.high)

    def step(self, z: Tensor, gradient: Tensor, length: float | Tensor) -> Tensor:
        flat = gradient.flatten(1)
        # Divide by the largest entry first: tiny gradients must not underflow when squared.
        flat = torch.nan_to_num(flat / flat.abs().amax(1, keepdim=True))
        flat = torch.nan_to_num(flat / flat.norm(dim=1, keepdim=True))
        return z + _wide(length, z) * flat.view_as(gradient)

    def project(self, z: Tensor) -> Tensor:
        shift = (z.double() - self.center.double()).flatten(1)
        radius = self.eps * _slightly_less(shift.shape[1])
        scale = (radius / shift.norm(dim=1, keepdim=True).clamp_min(1e-300)).clamp_max(1.0)
        return inward(self.center, (shift * scale).view_as(z)).clamp(self.low, self.high)

    def random(self, generators: Sequence[torch.Generator]) -> Tensor:
        shape, dtype = self.center.shape[1:], self.center.dtype
        steps = []
        for g in generators:
            normal = torch.randn(shape, dtype=dtype, generator=g)
            radius = torch.rand((), dtype=dtype, generator=g) ** (1 / normal.numel())
            steps.append(normal * (self.eps * radius / normal.norm()))
        return self.project(self.center + torch.stack(steps).to(self.center.device))


@dataclass(frozen=True)
class L1:
    """Σ|x' − x| ≤ eps inside the box.

    A step moves the coordinates of largest gradient to the ends of the box, one after the other,
    until its length is used up: few coordinates change. The projection is the nearest point of the
    ball and the box together; cutting a point of the ball to the box would waste much of eps
    (Croce and Hein 2021).
    """

    center: Tensor
    eps: float
    low: float
    high: float

    @classmethod
    def around(cls, x: Tensor, eps: float, bounds: tuple[float, float]) -> L1:
        return cls(x, eps, *box(bounds, x.dtype))

    def take(self, rows: Tensor) -> L1:
        return L1(self.center[rows], self.eps, self.low, self.high)

    def step(self, z: Tensor, gradient: Tensor, length: float | Tensor) -> Tensor:
        room = torch.where(gradient > 0, self.high - z, z - self.low).flatten(1).clamp_min(0)
        steep, order = gradient.flatten(1).abs().sort(dim=1, descending=True, stable=True)
        ordered = torch.where(steep > 0, room.gather(1, order), 0)
        used_before = ordered.cumsum(1) - ordered
        move = torch.minimum((_wide(length, used_before) - used_before).clamp_min(0), ordered)
        moves = torch.zeros_like(move).scatter(1, order, move)
        return z + gradient.sign() * moves.view_as(z)

    def project(self, z: Tensor) -> Tensor:
        center = self.center.double().flatten(1)
        shift = z.double().flatten(1) - center
        size = shift.abs()
        room = torch.where(shift > 0, self.high - center, center - self.low)
        moves = torch.minimum((size - self._threshold(size, room)).clamp_min(0), room)
        radius = self.eps * _slightly_less(shift.shape[1])
        scale = (radius / moves.sum(1, keepdim=True).clamp_min(1e-300)).clamp_max(1.0)
        moves = (shift.sign() * moves * scale).view_as(z)
        return inward(self.center, moves).clamp(self.low, self.high)

    def _threshold(self, size: Tensor, room: Tensor) -> Tensor:
        """The smallest τ ≥ 0 (n, 1) with Σ min(max(size − τ, 0), room) ≤ eps.

        From the left the sum is linear between the points size − room, where a coordinate leaves
        the end of the box, and size, where it reaches the center.
        """
        ends, order = torch.cat([size - room, size], 1).sort(dim=1, descending=True)
        change = torch.cat([-torch.ones_like(size), torch.ones_like(size)], 1).gather(1, order)
        slope = change.cumsum(1)  # of the sum to the left of each point: coordinates on their way
        gaps = ends[:, :-1] - ends[:, 1:]
        total = torch.cat([gaps.new_zeros(len(gaps), 1), (slope[:, :-1] * gaps).cumsum(1)], 1)
        last = ((total <= self.eps).sum(1, keepdim=True) - 1).clamp_min(0)
        rest = (self.eps - total.gather(1, last)) / slope.gather(1, last).clamp_min(1)
        return (ends.gather(1, last) - rest).clamp_min(0)

    def random(self, generators: Sequence[torch.Generator]) -> Tensor:
        shape, dtype = self.center.shape[1:], self.center.dtype
        steps = []
        for g in generators:
            u = torch.rand((2, *shape), dtype=dtype, generator=g)
            sizes = -torch.log1p(-u[0])  # exponential: their shares of the sum fill the simplex
            radius = torch.rand((), dtype=dtype, generator=g) ** (1 / sizes.numel())
            share = sizes / sizes.sum().clamp_min(torch.finfo(dtype).tiny)
            steps.append(self.eps * radius * share * torch.where(u[1] < 0.5, -1.0, 1.0))
        return self.project(self.center + torch.stack(steps).to(self.center.device))


def _wide(length: float | Tensor, like: Tensor) -> float | Tensor:
    """A length for each image, in a shape that multiplies the images."""
    return length.view(-1, *[1] * (like.ndim - 1)) if isinstance(length, Tensor) else length


def _slightly_less(terms: int) -> float:
    """Below 1 by the rounding of a norm of so many terms: times eps, safe to compare it with."""
    return 1 - (terms + 8) * 2.0**-53


BALLS: dict[str, type[Linf] | type[L2] | type[L1]] = {"inf": Linf, "2": L2, "1": L1}
