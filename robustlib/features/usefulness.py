"""ρ-useful and γ-robustly useful features (Ilyas et al. 2019, section 2), estimated."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robustlib import checks
from robustlib.features.builder import check
from robustlib.features.descent import Representation, Steps, ball, descend
from robustlib.features.networks import folded
from robustlib.features.training import PRECISIONS


def usefulness(features: Tensor, y: Tensor, *, classes: int) -> Tensor:
    """ρ = E[y f(x)] of each feature for each class against the rest.

    The paper defines usefulness for y = ±1 and a feature f of mean zero and variance one. Here y is
    +1 for one class and −1 for all others, both sides weighted ½, and f is standardized under
    these weights. So ρ lies in [−1, 1]; where it is negative, −f is |ρ|-useful.

    Parameters
    ----------
    features : Tensor (n, k)
        Values of k features on n examples.
    y : Tensor (n,), integers
        Labels; every class has to occur.
    classes : int

    Returns
    -------
    Tensor (k, classes)
        A constant feature has ρ = 0.

    Raises
    ------
    TypeError, ValueError
        For features that are not finite or of another shape, labels out of range, a class without
        an example.

    Examples
    --------
    >>> f = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]])
    >>> usefulness(f, torch.tensor([0, 0, 1, 1]), classes=2).tolist()
    [[1.0, -1.0]]
    """
    if not isinstance(features, Tensor) or features.ndim != 2:
        raise ValueError("features is no Tensor of shape (n, k); give k values for each example.")
    checks.images(features, "features", bounds=None)
    y = checks.labels(y, len(features), checks.count("classes", classes, low=2))
    return torch.stack([_useful(features, y == c, c) for c in range(classes)], dim=1)


def _useful(features: Tensor, positive: Tensor, label: int) -> Tensor:
    mean, spread, weight = _moments(features, positive, label)
    sign = torch.where(positive, 1.0, -1.0).double()
    rho = ((weight * sign)[:, None] * (features.double() - mean)).sum(0)
    return torch.where(spread > 0, rho / spread, 0.0).to(features.dtype)


def _moments(features: Tensor, positive: Tensor, label: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and spread of each feature, both sides weighted ½, and the weights of the examples."""
    if not positive.any() or positive.all():
        raise ValueError(f"y holds no example of class {label}, or of no other; give both.")
    weight = torch.where(positive, 0.5 / positive.sum(), 0.5 / (~positive).sum()).double()
    mean = (weight[:, None] * features.double()).sum(0)
    spread = (weight[:, None] * (features.double() - mean).square()).sum(0).sqrt()
    return mean, spread, weight


def robust_usefulness(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    layer: str = "features",
    which: Sequence[int] | None = None,
    steps: int = 20,
    step_size: float | None = None,
    precision: str = "float32",
) -> tuple[Tensor, Tensor, Tensor]:
    """ρ and γ = E[inf over ‖δ‖₂ ≤ eps of y f(x + δ)] of features of the layer ``layer``.

    Each feature is judged for the class for which it is most useful, and with the sign for which ρ
    is positive. The infimum is approximated by projected gradient descent, so γ is an upper bound:
    where it is negative the feature is certainly useful but not γ-robust for any γ ≥ 0.

    Parameters
    ----------
    net : nn.Module
        A trained network in evaluation mode.
    x : Tensor (n, …) in [0, 1]
    y : Tensor (n,), integers
        Labels; every class has to occur.
    eps : float
        Radius in l2.
    layer : str
        Name of the submodule whose outputs are the features.
    which : sequence of int, optional
        The features to judge; default all.
    steps, step_size : int, float
        Of the descent; the step is by default 2.5 ``eps`` / ``steps``.
    precision : {"float32", "bfloat16"}

    Returns
    -------
    rho, gamma : Tensor (k,)
        For the k features asked for, gamma at most rho.
    label : Tensor (k,)
        The class that each feature was judged for.

    Raises
    ------
    TypeError, ValueError
        For arguments that are not as described.

    Examples
    --------
    >>> from robustlib import data, zoo
    >>> net, (x, y) = zoo.load("digits_mlp"), data.digits("test", n=100)
    >>> rho, gamma, label = robust_usefulness(net, x, y, eps=0.5, layer="4", which=[0, 1], steps=5)
    >>> bool((gamma <= rho).all())
    True
    """
    classes = check(net, x, y)
    eps = checks.number("eps", eps, low=0.0, strict=True)
    checks.choice("precision", precision, PRECISIONS)
    step_size = 2.5 * eps / checks.count("steps", steps) if step_size is None else step_size
    schedule = Steps(steps, step_size)
    g = Representation(folded(net), layer, PRECISIONS[precision])
    with torch.no_grad():
        values = torch.cat([g(part) for part in x.split(256)])
    chosen = list(range(values.shape[1])) if which is None else list(which)
    if not chosen or min(chosen) < 0 or max(chosen) >= values.shape[1]:
        raise ValueError(f"which={which!r}: {layer!r} has the features 0 to {values.shape[1] - 1}.")
    rho = usefulness(values[:, chosen], y, classes=classes)
    label = rho.abs().argmax(1)
    gamma: list[float] = []
    for k, c in zip(chosen, label.tolist(), strict=True):
        positive = y == c
        mean, spread, weight = _moments(values[:, [k]], positive, c)
        sign = torch.where(positive, 1.0, -1.0) * (-1.0 if rho[len(gamma), c] < 0 else 1.0)
        lowest = [
            _lowest(g, x[rows], k, sign[rows], schedule, eps)
            for rows in torch.arange(len(x)).split(128)
        ]
        shifted = torch.cat(lowest).double() - sign * mean
        gamma.append(float((weight * shifted).sum() / spread.clamp_min(1e-12)))
    best = rho.abs().amax(1)
    return best, torch.minimum(torch.tensor(gamma, dtype=best.dtype), best), label


def _lowest(g: Representation, x: Tensor, k: int, sign: Tensor, steps: Steps, eps: float) -> Tensor:
    """The lowest found value of ``sign`` · f over the ball, or that at ``x`` if it is lower."""
    sign = sign.to(x.dtype)
    z = descend(lambda p, _: sign * g(p)[:, k], x, steps, ball(x, eps))
    with torch.no_grad():
        return torch.minimum(sign * g(z)[:, k], sign * g(x)[:, k])
