"""Normalized gradient steps: the one loop that all four data sets are made with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustlib import checks
from robustlib.features import moves as moving

NORMS = ("2", "inf")
Loss = Callable[[Tensor, Tensor | None], Tensor]
"""Maps points (n, …) and their moves (n, 3), or None, to one loss each (n,)."""


@dataclass(frozen=True)
class Steps:
    """How far and along which gradient each step goes.

    Attributes
    ----------
    number : int
        How many steps.
    size : float
        Length of a step, in the unit of the images.
    decay : bool
        Let the length fall linearly to zero: ``size`` (1 − t/``number``) at step t = 0, 1, ….
    copies : int
        Average the gradient over so many freshly drawn moved copies of each image; 0 takes the
        gradient at the image itself, as the paper does.
    reach : int
        Largest shift of a copy, in pixels, in each direction.
    """

    number: int
    size: float
    decay: bool = False
    copies: int = 0
    reach: int = 0

    def __post_init__(self) -> None:
        checks.count("steps", self.number)
        checks.number("step_size", self.size, low=0.0, strict=True)
        checks.count("copies", self.copies, low=0)
        checks.count("reach", self.reach, low=0)

    @property
    def rates(self) -> list[float]:
        return [
            self.size * (1 - t / self.number) if self.decay else self.size
            for t in range(self.number)
        ]


def descend(
    loss: Loss,
    z: Tensor,
    steps: Steps,
    project: Callable[[Tensor], Tensor],
    moves: Tensor | None = None,
    norm: str = "2",
) -> Tensor:
    """z ← Π(z − α d(∇loss)), image by image; ``moves`` (n, steps, copies, 3) says the copies.

    d divides by the length in l2 and takes the sign in l∞.

    Examples
    --------
    A quadratic with minimum at 0.5, inside the box:

    >>> quadratic = lambda z, _: (z - 0.5).square().flatten(1).sum(1)
    >>> z = descend(quadratic, torch.zeros(1, 4), Steps(200, 0.05, decay=True), lambda z: z)
    >>> torch.allclose(z, torch.full((1, 4), 0.5), atol=0.01)
    True
    """
    for t, rate in enumerate(steps.rates):
        copies: Sequence[Tensor | None] = [None]
        if moves is not None and steps.copies:
            copies = moves[:, t].unbind(1)
        total = sum(_gradient(loss, z, copy) for copy in copies)
        assert isinstance(total, Tensor)
        z = project(z - rate * (unit(total) if norm == "2" else total.sign()))
    return z


def _gradient(loss: Loss, z: Tensor, moves: Tensor | None) -> Tensor:
    """The gradient of ``loss`` at the moved points, brought back to where they came from."""
    point = (z if moves is None else moving.move(z, moves)).detach().requires_grad_(True)
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(loss(point, moves).sum(), point)
    return gradient if moves is None else moving.adjoint(gradient, moves)


def unit(g: Tensor) -> Tensor:
    """Each image of ``g`` divided by its l2 length; zero stays zero."""
    return g * _length(g).clamp_min(1e-30).reciprocal()


def ball(x: Tensor, eps: float, norm: str = "2") -> Callable[[Tensor], Tensor]:
    """The projection on ‖z − x‖ ≤ eps, then on the box [0, 1] (up to rounding)."""
    if norm == "inf":
        lower, upper = (x - eps).clamp_min(0), (x + eps).clamp_max(1)
        return lambda z: torch.clamp(z, lower, upper)

    def project(z: Tensor) -> Tensor:
        shift = z - x
        return (x + shift * (eps / _length(shift).clamp_min(1e-30)).clamp_max(1.0)).clamp_(0, 1)

    return project


def _length(g: Tensor) -> Tensor:
    return g.flatten(1).norm(dim=1).view(-1, *[1] * (g.ndim - 1))


class Representation:
    """The output of the submodule ``layer`` of ``net`` as a function of the input, (n, features).

    ``precision=torch.bfloat16`` computes under autocast: half the time on processors that have it.
    """

    def __init__(self, net: nn.Module, layer: str, precision: torch.dtype = torch.float32) -> None:
        names = [name for name, _ in net.named_modules() if name]
        if layer not in names:
            checks.choice("layer", layer, names)
        self.net, self.layer, self.precision = net, layer, precision

    def __call__(self, x: Tensor) -> Tensor:
        found: list[Tensor] = []
        module = self.net.get_submodule(self.layer)
        handle = module.register_forward_hook(lambda _module, _inputs, out: found.append(out))
        try:
            logits(self.net, x, self.precision)
        finally:
            handle.remove()
        return found[-1].flatten(1).to(x.dtype)


def logits(net: nn.Module, x: Tensor, precision: torch.dtype = torch.float32) -> Tensor:
    """``net(x)`` in the type of ``x``, computed under autocast if ``precision`` is bfloat16."""
    with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == torch.bfloat16):
        return net(x).to(x.dtype)
