"""Pointwise robustness of Bastani et al. (2016): ρ̂, the best that one linear region holds."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustlib import checks
from robustlib.network import leaves
from robustlib.pointwise.measurement import ENGINES, METHODS, Measurement
from robustlib.pointwise.result import PointwiseRobustness, together
from robustlib.pointwise.search import FORMS, STRICT, whole_pixels
from robustlib.verification.batch import answer_all

__all__ = ["STRICT", "PointwiseRobustness", "pointwise_robustness"]

RULES = ("second", "all")


def pointwise_robustness(
    net: nn.Module,
    x: Tensor,
    *,
    targets: str | Tensor = "second",
    method: str = "lp",
    bounds: tuple[float, float] | None = (0.0, 1.0),
    alpha: float = 0.0,
    pixels: int | None = None,
    limit: float | None = None,
    form: str = "reduced",
    lazy: bool = True,
    solver: str = "highs",
    workers: int = 1,
    dask: str | None = None,
    store: str | Path | None = None,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> PointwiseRobustness:
    """ρ̂(f, x*) = min_ℓ ρ̂(f, x*, ℓ), each a linear program over the convex restriction at x*.

    In every disjunction of the network the disjunct that x* satisfies is kept; what is left is a
    polytope Z(x*), and ρ̂(f, x*, ℓ) is min ‖x − x*‖∞ over the x in it, and in ``bounds``, where the
    logit of ℓ is at least every other one plus α.

    Parameters
    ----------
    net : nn.Sequential of the layers that `robustlib.network.from_torch` reads, eval mode.
    x : Tensor (n, …), one input x* a row, values in ``bounds``.
    targets : which ℓ to try. "second": the second most probable label, as in the paper's
        experiments; "all": every label but f(x*); or (n,) integers, none of them f(x*).
    method : "lp": the optimum in the linear region, as the paper defines it. "cegar": the first
        optimum of the lazy program that fools the network, in the region or not, as the authors'
        published program takes it; it gives up after 5 programs. "lbfgs": the paper's baseline
        (`robustlib.attacks.lbfgs`, which says what ``alpha`` does there). Form and lazy have a
        meaning for "lp" only, solver none for "lbfgs".
    bounds : the box of valid inputs, None for the whole space ("lp" only).
    alpha : the margin α in logits. A larger one finds points farther away that survive rounding.
    pixels : the largest grey level, 255: round each witness to whole pixels and say in ``rounded``
        which survive; "cegar" rounds every point before the network sees it. x must hold whole
        pixels over ``pixels`` itself.
    limit : look no farther than this; rho is inf beyond. A frequency at ε needs no more than ε. At
        0 "lp" has rho 0 where x* lies on a decision boundary that its region crosses ("cvxpy" may
        miss it by a rounding error) and inf elsewhere, "cegar" and "lbfgs" inf everywhere, since
        their witnesses are farther.
    form : "reduced": the inputs are the only variables, a row is a gradient; "layered": the paper's
        program, a variable for every value of every layer. Both have the same optimum.
    lazy : begin with few inequalities and add those that a solution violates, as the paper does;
        False writes all of them down.
    solver : "highs", "scip" or "cvxpy" for "lp". For "cegar" "highs", a simplex method that ends at
        a corner, or "clarabel", an interior-point method, accurate to a millionth of the distance:
        much faster for a wide network of convolutions, whose programs hold thousands of rows.
    workers, dask, store, progress : as in `robustlib.verify`: processes, a cluster, a file that
        makes the same call go on after a kill, and a function that hears how far it is.

    Returns
    -------
    PointwiseRobustness
        For each input status, rho, witness, target, counts and seconds.

    Raises
    ------
    TypeError, ValueError
        For inputs that are not finite floating-point numbers in ``bounds``, a network that is not
        piecewise linear or is in training mode, and unknown words or labels.

    Notes
    -----
    ρ asks whether the label *changes*, so it knows no true label: at a misclassified x* it is the
    distance to a point that is labeled otherwise, right or wrong. Studies that count a
    misclassified input as not robust set ρ = 0 there.

    "cegar" searches no region to its end. Its points have any label but f(x*), and rho is the
    distance of the witness, so it is not below ρ either. Not taken over from the published program
    (https://github.com/microsoft/NeuralNetworkAnalysis): a row that lifts one random pixel by a
    level, one in a hundred of the active ReLUs' rows at the start, and that it passes over inputs
    that are misclassified.

    Searching one linear region over-estimates: ρ̂ ≥ ρ, so frequencies computed from it are too low.
    A minimum over the closed set {logit[ℓ] ≥ logit[l]} is attained on the tie. The witness
    therefore comes from a second program that asks ℓ to win by 1e-6, and counts only if the
    forward pass agrees. Where the region meets the target's in its border only, there is no such
    point: rho is inf then, though ``nearest`` is the point of the border.

    On the border of a linear region x* satisfies several disjuncts, which is the rule, not the
    exception, for a maximum over an image's plain background. The paper does not say which one to
    keep; each choice is a restriction. Here the region is the one that a small step from x* along
    the signed gradient of logit[ℓ] − logit[f(x*)] enters, inside ``bounds``: choices made one by
    one may contradict each other and leave a region without an inside.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(2, 2)).eval()
    >>> net[0].weight.data, net[0].bias.data = torch.eye(2), torch.zeros(2)
    >>> result = pointwise_robustness(net, torch.tensor([[0.75, 0.25]]))
    >>> result.rho.round(9), result.target, result.status
    (array([0.25]), array([1]), ['found'])
    """
    checks.choice("method", method, METHODS)
    checks.choice("form", form, FORMS)
    checks.choice("solver", solver, ENGINES[method])
    checks.eval_mode(net, "net")
    bounds = None if bounds is None else checks.box(bounds)
    if bounds is None and method != "lp":
        raise ValueError(f"bounds=None needs method='lp'; method={method!r} searches a box.")
    checks.images(x, bounds=bounds)
    alpha = checks.number("alpha", alpha, low=0.0)
    limit = float("inf") if limit is None else checks.eps(limit, "limit")
    if pixels is not None:
        _check_pixels(x, checks.count("pixels", pixels))
    for _ in leaves(net):  # names a layer that is not supported
        pass
    exact = copy.deepcopy(net).to(device="cpu", dtype=torch.float64).requires_grad_(False)
    labels, classes = _labels(exact, x)
    rule, wanted = _targets(targets, labels, classes)
    job = Measurement(
        module=net if method == "lbfgs" else exact,
        input_shape=tuple(x.shape[1:]),
        norm="inf",
        bounds=bounds,
        solver=solver,
        time_limit=float("inf"),
        seed=0,
        method=method,
        targets=rule,
        alpha=alpha,
        pixels=pixels,
        limit=limit,
        form=form,
        lazy=bool(lazy),
    )
    if method != "lbfgs":
        x = x.detach().to(device="cpu", dtype=torch.float64)
    answers = answer_all(job, x, wanted, workers=workers, dask=dask, store=store, progress=progress)
    return together(answers)


def _labels(net: nn.Module, x: Tensor) -> tuple[Tensor, int]:
    """f(x*) for every input, and the number of labels."""
    inputs = x.detach().to(device="cpu", dtype=torch.float64)
    try:
        with torch.no_grad():
            parts = [net(part) for part in (inputs.split(100) if len(x) else [inputs])]
            logits = torch.cat(parts)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"x has shape {tuple(x.shape)}, which the network refuses: {error}"
        ) from error
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(
            f"the network gives shape {tuple(logits.shape)}; expected logits (n, classes) with at "
            "least two classes."
        )
    if not torch.isfinite(logits).all():
        raise ValueError("the network gives NaN or infinite logits; give one with finite weights.")
    return logits.argmax(1), logits.shape[1]


def _targets(targets: Any, labels: Tensor, classes: int) -> tuple[str, Tensor]:
    """The rule by name, and the label asked for at each input (0 where the rule decides)."""
    if not isinstance(targets, Tensor):
        return checks.choice("targets", targets, RULES), torch.zeros_like(labels)
    wanted = checks.labels(targets, len(labels), classes, "targets").cpu()
    same = int((wanted == labels).sum())
    if same:
        raise ValueError(
            f"targets equals the network's own label for {same} inputs; give another label."
        )
    return "given", wanted


def _check_pixels(x: Tensor, pixels: int) -> None:
    exact = x.detach().cpu().double()
    if not torch.allclose(whole_pixels(exact, pixels), exact, rtol=0.0, atol=1e-6):
        raise ValueError(
            f"pixels={pixels}, but x holds values that are no whole numbers over {pixels}; round "
            f"it first: (x * {pixels}).round() / {pixels}."
        )
