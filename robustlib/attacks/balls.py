"""Norm balls: what a gradient attack has to know of a norm.

Each ball is the set of allowed points around one batch, cut by the box of valid inputs, and knows
three things: the direction of steepest ascent, the projection and a random start. Points that
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

    def take(self, rows: Tensor) -> Ball:
        """The ball of some of the images."""

    def direction(self, gradient: Tensor) -> Tensor:
        """The step of norm one along which a linear function of this gradient grows fastest."""

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

    def direction(self, gradient: Tensor) -> Tensor:
        return gradient.sign()

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

    def direction(self, gradient: Tensor) -> Tensor:
        flat = gradient.flatten(1)
        # Divide by the largest entry first: tiny gradients must not underflow when squared.
        flat = torch.nan_to_num(flat / flat.abs().amax(1, keepdim=True))
        return torch.nan_to_num(flat / flat.norm(dim=1, keepdim=True)).view_as(gradient)

    def project(self, z: Tensor) -> Tensor:
        shift = (z.double() - self.center.double()).flatten(1)
        # Rounding of the norm is at most that of a sum of so many squares: stay below by as much.
        radius = self.eps * (1 - (shift.shape[1] + 8) * 2.0**-53)
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


BALLS: dict[str, type[Linf] | type[L2]] = {"inf": Linf, "2": L2}
