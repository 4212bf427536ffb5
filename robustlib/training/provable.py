"""IBP and CROWN-IBP: lower bounds of margins that can be trained, in torch (Zhang et al. 2020).

Each layer maps an interval of its input to one of its output (``_forward``), and says how linear
rows on its output become rows on its input (its ``Back``). IBP carries the margins back through the
last layer only and closes them on its interval; CROWN carries them back to the input box. The
formulas are those of :mod:`robustlib.bounds` with no margin for rounding: to train, not to prove.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

from robustlib import checks
from robustlib.network import Residual

Rows: TypeAlias = tuple[Tensor, Tensor]  # coefficients (n, r, *shape), constant (n, r)
Back: TypeAlias = Callable[[Tensor, Tensor], Rows]


@dataclass(frozen=True)
class _Interval:
    """All z with ``lower`` ≤ z ≤ ``upper``, each (n, *shape)."""

    lower: Tensor
    upper: Tensor

    def below(self, rows: Tensor, constant: Tensor) -> Tensor:
        """The least value of rows · z + constant, shape (n, r)."""
        center, radius = (self.upper + self.lower) / 2, (self.upper - self.lower) / 2
        return constant + _dot(rows, center) - _dot(rows.abs(), radius)


def margin_bounds(
    net: nn.Sequential,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    crown: float = 1.0,
    crown_targets: int | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Tensor:
    """Lower bounds of all margins over the l∞ balls around ``x``, differentiable in everything.

    Of Zhang et al. (2020), equation 11: β m_CROWN + (1 − β) m_IBP with β = ``crown``; both rest on
    interval bounds of the hidden layers.

    Parameters
    ----------
    net : nn.Sequential of Linear, Conv2d, ReLU, Flatten, Residual; the last layer a Linear.
    x : Tensor (n, …), labels y : Tensor (n,).
    eps : float
        Radius, above 0, in the unit of ``x``.
    crown : float
        β in [0, 1]: 0 is IBP, 1 is CROWN-IBP.
    crown_targets : int, optional
        Use CROWN for the so many labels of lowest IBP margin only, an image; default all.
    bounds : (float, float)
        The box of valid inputs; the balls are cut to it.

    Returns
    -------
    Tensor (n, classes − 1)
        Bounds of logit[y] − logit[j] for the labels j ≠ y in turn. They hold but for rounding: a
        proof comes from :func:`robustlib.verify`.

    Raises
    ------
    ValueError
        For a layer that is not in the list (named), eps ≤ 0, or ``crown`` outside [0, 1].

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(1, 2, bias=False))
    >>> net[0].weight.data = torch.tensor([[1.0], [-1.0]])
    >>> margin_bounds(net, torch.tensor([[0.5]]), torch.tensor([0]), eps=0.25).tolist()
    [[0.5]]
    """
    eps = checks.number("eps", eps, low=0.0, strict=True)
    crown = checks.number("crown", crown, low=0.0, high=1.0)
    low, high = checks.box(bounds)
    box = _Interval((x - eps).clamp(min=low), (x + eps).clamp(max=high))
    *hidden, last = _layers(net)
    if not isinstance(last, nn.Linear):
        raise ValueError("the network must end in a Linear layer that gives the logits.")
    targets = last.out_features - 1 if crown_targets is None else crown_targets
    penultimate, back = _chain(hidden, box)
    rows, constant = _linear_back(last)(*_margin_rows(x, y, last.out_features))
    margins = penultimate.below(rows, constant)
    if crown == 0:
        return margins
    if targets >= margins.shape[1]:
        return (1 - crown) * margins + crown * box.below(*back(rows, constant))
    index = torch.arange(len(x), device=x.device)[:, None]
    lowest = margins.detach().topk(targets, dim=1, largest=False).indices
    some = box.below(*back(rows[index, lowest], constant[index, lowest]))
    mixed = (1 - crown) * margins[index, lowest] + crown * some
    return margins.scatter(1, lowest, mixed)


def robust_cross_entropy(margins: Tensor) -> Tensor:
    """The cross-entropy at the worst logits that the bounds allow, mean over the batch.

    Relative to the true logit the others are at most −margins: log(1 + Σ_j exp(−m_j)), an upper
    bound of the cross-entropy in the ball (Wong and Kolter 2018, theorem 2).
    """
    worst = torch.cat([torch.zeros_like(margins[:, :1]), -margins], dim=1)
    return worst.logsumexp(1).mean()


def _margin_rows(x: Tensor, y: Tensor, classes: int) -> Rows:
    labels = torch.arange(classes, device=x.device)
    others = labels.expand(len(y), -1)[labels != y[:, None]].reshape(len(y), classes - 1)
    one = torch.eye(classes, dtype=x.dtype, device=x.device)
    return one[y][:, None] - one[others], x.new_zeros(len(y), classes - 1)


def _layers(module: nn.Module) -> list[nn.Module]:
    """The layers in turn, nested sequences flattened, each of a kind in ``_FORWARD``."""
    if type(module) is nn.Sequential:
        return [layer for child in module for layer in _layers(child)]
    if type(module) not in _FORWARD:
        names = ", ".join(kind.__name__ for kind in _FORWARD)
        raise ValueError(
            f"layer {type(module).__name__} has no bounds for training; a network may hold {names} "
            "in nn.Sequential."
        )
    return [module]


def _chain(layers: list[nn.Module], z: _Interval) -> tuple[_Interval, Back]:
    backs = []
    for layer in layers:
        z, back = _FORWARD[type(layer)](layer, z)
        backs.append(back)

    def through_all(rows: Tensor, constant: Tensor) -> Rows:
        for back in reversed(backs):
            rows, constant = back(rows, constant)
        return rows, constant

    return z, through_all


def _dot(rows: Tensor, values: Tensor) -> Tensor:
    """rows (n, r, *shape) · values (n, *shape), shape (n, r)."""
    return torch.bmm(rows.flatten(2), values.flatten(1)[:, :, None])[:, :, 0]


def _linear_back(layer: nn.Linear) -> Back:
    def back(rows: Tensor, constant: Tensor) -> Rows:
        return rows @ layer.weight, constant + (0 if layer.bias is None else rows @ layer.bias)

    return back


def _linear(layer: nn.Linear, z: _Interval) -> tuple[_Interval, Back]:
    center, radius = (z.upper + z.lower) / 2, (z.upper - z.lower) / 2
    center, radius = layer(center), F.linear(radius, layer.weight.abs())
    return _Interval(center - radius, center + radius), _linear_back(layer)


def _conv(layer: nn.Conv2d, z: _Interval) -> tuple[_Interval, Back]:
    if layer.groups != 1 or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise ValueError(
            f"layer {layer} has no bounds for training; only groups=1, padding_mode='zeros' and "
            "numeric padding are supported."
        )
    center, radius = (z.upper + z.lower) / 2, (z.upper - z.lower) / 2
    geometry = (layer.stride, layer.padding, layer.dilation)
    center, radius = layer(center), F.conv2d(radius, layer.weight.abs(), None, *geometry)
    shape = z.lower.shape[1:]

    def back(rows: Tensor, constant: Tensor) -> Rows:
        if layer.bias is not None:
            constant = constant + rows.sum((-2, -1)) @ layer.bias
        size = (rows.shape[0] * rows.shape[1], *shape)
        flat = conv2d_input(size, layer.weight, rows.flatten(0, 1), *geometry)
        return flat.unflatten(0, rows.shape[:2]), constant

    return _Interval(center - radius, center + radius), back


def _relu(layer: nn.ReLU, z: _Interval) -> tuple[_Interval, Back]:
    def back(rows: Tensor, constant: Tensor) -> Rows:
        unstable = (z.lower < 0) & (z.upper > 0)
        active = (z.lower >= 0).to(rows.dtype)
        width = torch.where(unstable, z.upper - z.lower, 1.0)
        above = torch.where(unstable, z.upper / width, active)
        below = torch.where(unstable, (z.upper > -z.lower).to(rows.dtype), active)
        intercept = torch.where(unstable, -above * z.lower, 0.0)
        negative = rows.clamp(max=0)
        constant = constant + _dot(negative, intercept)
        return rows * below[:, None] + negative * (above - below)[:, None], constant

    return _Interval(z.lower.clamp(min=0), z.upper.clamp(min=0)), back


def _flatten(layer: nn.Flatten, z: _Interval) -> tuple[_Interval, Back]:
    shape = z.lower.shape[1:]

    def back(rows: Tensor, constant: Tensor) -> Rows:
        return rows.unflatten(2, shape), constant

    return _Interval(z.lower.flatten(1), z.upper.flatten(1)), back


def _identity(layer: nn.Module, z: _Interval) -> tuple[_Interval, Back]:
    return z, lambda rows, constant: (rows, constant)


def _residual(layer: Residual, z: _Interval) -> tuple[_Interval, Back]:
    body, body_back = _chain(_layers(layer.body), z)
    around, around_back = _chain(_layers(layer.shortcut), z)

    def back(rows: Tensor, constant: Tensor) -> Rows:
        through, constant = body_back(rows, constant)
        past, constant = around_back(rows, constant)
        return through + past, constant

    return _Interval(body.lower + around.lower, body.upper + around.upper), back


_FORWARD: dict[type[nn.Module], Callable[..., tuple[_Interval, Back]]] = {
    nn.Linear: _linear,
    nn.Conv2d: _conv,
    nn.ReLU: _relu,
    nn.Flatten: _flatten,
    nn.Identity: _identity,
    Residual: _residual,
}
