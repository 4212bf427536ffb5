"""Box-constrained L-BFGS with a search over its constant (Szegedy et al. 2014)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor, nn
from torch.nn import functional as F

from robustlib import checks
from robustlib.attacks.speed import FewChannels

GROUP = 64  # inputs that are searched side by side
FACTOR = 10.0  # between two constants, until the search has one that works and one that does not
TOLERANCE = 2.2e-9  # as scipy has it
NORMS = {"inf": torch.inf, "2": 2.0}

Value = tuple[float, np.ndarray]


def lbfgs(
    model: nn.Module,
    x: Tensor,
    *,
    targets: Tensor | None = None,
    margin: float = 0.0,
    constant: float = 1.0,
    search: int = 10,
    steps: int = 100,
    tolerance: float = TOLERANCE,
    norm: str = "inf",
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Tensor:
    """min c ‖r‖₂² + J(x + r, ℓ) over the box by L-BFGS-B, for the largest c that still reaches ℓ.

    J is the cross-entropy of the target label ℓ. A large c keeps r small, a small one lets J win.
    The search over c multiplies or divides it by 10 until one value succeeds and another fails, and
    then halves their ratio on a logarithmic scale. Of all successes the nearest one is kept: in l∞,
    which is what Bastani et al. (2016) measure, or in l2 as Szegedy et al. do.

    Parameters
    ----------
    model : nn.Module
        Maps (n, …) to logits (n, classes); in evaluation mode. Its parameters are not touched.
    x : Tensor (n, …), float32 or float64
        Inputs inside ``bounds``.
    targets : Tensor (n,), integers, optional
        ℓ for each input, not the label that the model gives it; default: the second most probable
        label.
    margin : float
        α: count a point only where logit[ℓ] ≥ logit[l] + α for every other l.
    constant : float
        The first c.
    search : int
        Values of c that are tried.
    steps : int
        Iterations of L-BFGS-B for each.
    tolerance : float
        A run ends earlier where a step lowers what is minimized by less than this share of it.
    norm : {"inf", "2"}
        In which the nearest success is chosen; what is minimized does not depend on it.
    bounds : (float, float)
        The box of valid inputs.

    Returns
    -------
    Tensor like ``x``
        Inside the box exactly; the input itself where no point was found. Whether one was is seen
        at the model's labels for what is returned: it is that tensor that was checked.

    Raises
    ------
    TypeError, ValueError
        For an argument that is not as described; the message names it and what is allowed.

    Notes
    -----
    scipy's L-BFGS-B runs once for each input and c. The runs of a group of inputs go side by side,
    and the model sees the points that all of them ask for as one batch.

    Examples
    --------
    >>> model = nn.Linear(2, 2, bias=False).eval()
    >>> model.weight.data = torch.tensor([[1.0, -1.0], [0.0, 0.0]])
    >>> found = lbfgs(model, torch.tensor([[0.5, 0.375]]))
    >>> model(found).argmax(1), (found - torch.tensor([[0.5, 0.375]])).abs().max() < 0.07
    (tensor([1]), tensor(True))
    """
    checks.eval_mode(model)
    low, high = checks.box(bounds)
    checks.same_dtype(checks.images(x, bounds=(low, high)), model)
    margin = checks.number("margin", margin, low=0.0)
    constant = checks.number("constant", constant, low=0.0, strict=True)
    search, steps = checks.count("search", search), checks.count("steps", steps)
    tolerance = checks.number("tolerance", tolerance, low=0.0)
    order = NORMS[checks.choice("norm", norm, NORMS)]
    found = x.detach().clone()
    if not len(x):
        return found
    with torch.no_grad():
        logits = torch.cat([model(part) for part in x.split(500)])
    labels, classes = logits.argmax(1), logits.shape[1]
    if targets is None:
        targets = logits.scatter(1, labels[:, None], -torch.inf).argmax(1)
    targets = checks.labels(targets, len(x), classes, "targets").to(x.device)
    if bool((targets == labels).any()):
        raise ValueError("targets equals the model's own label for some inputs; give another one.")
    for rows in torch.arange(len(x), device=x.device).split(GROUP):
        group = _Group(model, x[rows].detach(), targets[rows], margin, (low, high))
        options = {"maxiter": steps, "maxfun": 2 * steps, "ftol": tolerance}
        found[rows] = group.nearest(constant, search, options, order)
    return found


class _Group:
    """The searches over c of a few inputs, whose L-BFGS-B runs share the model's passes."""

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        targets: Tensor,
        margin: float,
        bounds: tuple[float, float],
    ) -> None:
        self.model, self.x, self.targets = model, x, targets
        self.margin, self.bounds = margin, bounds
        self.centers = x.flatten(1).cpu().double().numpy()

    def nearest(
        self, constant: float, search: int, options: dict[str, Any], order: float
    ) -> Tensor:
        """For each input the nearest point that counts, or the input."""
        n = len(self.x)
        constants = np.full(n, constant)
        works, fails = np.zeros(n), np.full(n, np.inf)  # the largest and the smallest so far
        best, distance = self.x.clone(), torch.full((n,), torch.inf, dtype=torch.float64)
        for _ in range(search):
            ends = self.minimize(constants, options)
            points = torch.from_numpy(ends).to(self.x).clamp(*self.bounds).reshape(self.x.shape)
            counts = self.leads(points)
            away = (points.double() - self.x.double()).flatten(1).norm(order, dim=1).cpu()
            better = counts.cpu() & (away < distance)
            best[better], distance[better] = points[better], away[better]
            success = counts.cpu().numpy()
            works = np.where(success, np.maximum(works, constants), works)
            fails = np.where(success, fails, np.minimum(fails, constants))
            between = np.sqrt(works) * np.sqrt(np.where(np.isfinite(fails), fails, 1.0))
            constants = np.where(
                works == 0.0,
                constants / FACTOR,
                np.where(np.isinf(fails), constants * FACTOR, between),
            )
        return best

    def leads(self, points: Tensor) -> Tensor:
        """Whether the target's logit is above all others, and by the margin."""
        index = self.targets[:, None]
        with torch.no_grad():
            logits = self.model(points)
        own = logits.gather(1, index)[:, 0]
        other = logits.scatter(1, index, -torch.inf).amax(1)
        return (own > other) & (own - other >= self.margin)

    def minimize(self, constants: np.ndarray, options: dict[str, Any]) -> np.ndarray:
        """Where L-BFGS-B ends for each input, (n, inputs), from the input itself."""
        ends = self.centers.copy()

        def run(i: int, evaluate: Callable[[np.ndarray], Value]) -> None:
            box = [self.bounds] * len(self.centers[i])
            ends[i] = minimize(
                evaluate, self.centers[i], jac=True, method="L-BFGS-B", bounds=box, options=options
            ).x

        _side_by_side(
            len(ends), run, lambda rows, points: self.values(constants[rows], rows, points)
        )
        return ends

    def values(self, constants: np.ndarray, rows: np.ndarray, points: np.ndarray) -> list[Value]:
        """c ‖r‖₂² + J and its gradient at one point for each of the inputs ``rows``."""
        z = torch.from_numpy(points).to(self.x).reshape(len(rows), *self.x.shape[1:])
        with torch.enable_grad():
            z.requires_grad_(True)
            with FewChannels():
                logits = self.model(z)
            losses = F.cross_entropy(logits, self.targets[rows], reduction="none")
            (gradient,) = torch.autograd.grad(losses.sum(), z)
        r = points - self.centers[rows]
        totals = constants * (r * r).sum(1) + losses.detach().cpu().double().numpy()
        slopes = 2 * constants[:, None] * r + gradient.flatten(1).cpu().double().numpy()
        return [(float(total), slope) for total, slope in zip(totals, slopes, strict=True)]


def _side_by_side(
    n: int,
    run: Callable[[int, Callable[[np.ndarray], Value]], None],
    values: Callable[[np.ndarray, np.ndarray], list[Value]],
) -> None:
    """Call run(i, evaluate) for i < n, each in a thread; ``values`` answers all of them at once.

    A round begins when every run that goes on waits for a value, so that the batches, and with them
    the results, do not depend on which thread is faster. Each run sleeps at a queue of its own:
    an answer wakes no other.
    """
    inbox: SimpleQueue[tuple[int, np.ndarray | BaseException | None]] = SimpleQueue()
    replies: list[SimpleQueue[Value | None]] = [SimpleQueue() for _ in range(n)]

    def work(i: int) -> None:
        def evaluate(point: np.ndarray) -> Value:
            inbox.put((i, np.array(point)))
            answer = replies[i].get()
            if answer is None:
                raise InterruptedError
            return answer

        try:
            run(i, evaluate)
        except BaseException as error:
            inbox.put((i, error))
        else:
            inbox.put((i, None))

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(n)]
    for thread in threads:
        thread.start()
    going = n
    asked: dict[int, np.ndarray] = {}
    try:
        while going:
            i, message = inbox.get()
            if isinstance(message, BaseException):
                raise message
            if message is None:
                going -= 1
            else:
                asked[i] = message
            if asked and len(asked) == going:
                rows = np.array(sorted(asked))
                points = np.stack([asked[i] for i in rows])
                asked.clear()
                for i, value in zip(rows.tolist(), values(rows, points), strict=True):
                    replies[i].put(value)
    finally:
        for reply in replies:
            reply.put(None)  # whoever still waits, or will, after an error
        for thread in threads:
            thread.join()
