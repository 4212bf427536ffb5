"""Blurred images: the adversary chooses the kernel (Tjeng, Xiao, Tedrake, arXiv 1711.07356v1).

Every channel of the image x is filtered by the same k × k kernel θ with θ ≥ 0 and Σ θ = 1, the
image being 0 outside its border. The blurred image x' = A θ is linear in the kernel, and the
entries of A are pixels of x: nothing in it is rounded. So the question is the usual one for the
network with A as an affine step in front, over the probability simplex in place of a ball.
"""

from __future__ import annotations

import time
from functools import cached_property

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from robustlib import checks
from robustlib.bounds import Region, Simplex, network_bounds, rows_lower_bound, unstable_units
from robustlib.bounds.box import sum_and_error
from robustlib.network import Affine, Network, from_torch, margin_rows
from robustlib.solvers import SOLVERS
from robustlib.verification.question import Question
from robustlib.verification.result import OVERFLOW, TIME_LIMIT, Verdict, Verification
from robustlib.verification.search import Outcome, exact_search
from robustlib.verification.witness import Witness, strict_witness

GRAIN = 2**20  # a witness's entries are multiples of 1 / GRAIN: float32 holds them and their sum
STARTS = 40  # random kernels in which the attack looks for good starting points
RUNS, STEPS = 3, 100  # of the attack for each label that is still open
# Many open units: halve the simplex first, for this share of the time. With few, branching on their
# signs is better (``exact_search``).
MANY, SPLIT_SHARE = 100, 0.75


def blur(x: Tensor, kernel: Tensor) -> Tensor:
    """x'[c, i, j] = Σ_uv kernel[u, v] · x[c, i + u − k//2, j + v − k//2], with 0 outside x.

    Parameters
    ----------
    x : (n, C, H, W) images.
    kernel : (k, k) for all of them, or (n, k, k) with one for each; k odd.

    Examples
    --------
    >>> kernel = torch.zeros(3, 3)
    >>> kernel[1, 2] = 1.0  # takes the right neighbor: a shift to the left
    >>> blur(torch.tensor([[[[1.0, 2.0, 3.0]]]]), kernel)
    tensor([[[[2., 3., 0.]]]])
    """
    if x.ndim != 4:
        raise ValueError(f"x has shape {tuple(x.shape)}; give images (n, channels, height, width).")
    sizes = kernel.shape[-2:]
    if kernel.ndim not in (2, 3) or sizes[0] != sizes[1] or not sizes[0] % 2:
        raise ValueError(
            f"kernel has shape {tuple(kernel.shape)}; give (k, k) or (n, k, k) with an odd k."
        )
    flat = kernel.reshape(-1, sizes[0] ** 2).expand(len(x), -1)
    return torch.einsum("nckp,nk->ncp", _patches(x, sizes[0]), flat).reshape(x.shape)


def verify_blur(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    size: int = 5,
    bounds: tuple[float, float] = (0.0, 1.0),
    solver: str = "highs",
    time_limit: float = 60.0,
    seed: int = 0,
) -> Verification:
    """For every image: a blur that changes its label, or a proof that there is none.

    The stages are the clean image; CROWN bounds over all kernels; gradient steps from many kernels
    ("pgd"); CROWN on parts of the simplex, halved again and again ("branch"); the exact search of
    ``verify`` with mixed-integer programs. "robust" is about every kernel in real arithmetic. A
    witness is a kernel whose entries are multiples of 2⁻²⁰ with the sum 1 exactly; the network
    prefers another label for the image that is blurred with it in real arithmetic, and so does the
    module for ``blur(x, kernel)``.

    Parameters
    ----------
    net : nn.Sequential of supported layers (``network.SUPPORTED``), in evaluation mode.
    x : (n, C, H, W) floating point inside ``bounds``.
    y : (n,) the true labels.
    size : k, odd. A kernel that is 1 in a corner shifts the image by k // 2 pixels both ways.
    solver, time_limit, seed : as for ``verify``.

    Returns
    -------
    Verification : the ``witness`` of an adversarial image is the kernel (k, k), in x's dtype.

    Raises
    ------
    TypeError, ValueError
        For bad input; the message names the argument, the value and what is allowed.

    Examples
    --------
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(3, 2)).eval()
    >>> weight = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.5, 0.0]])
    >>> _ = net[1].weight.data.copy_(weight), net[1].bias.data.zero_()
    >>> image = torch.tensor([[[[0.5, 0.5, 0.0]]]])
    >>> r = verify_blur(net, image, torch.tensor([0]), size=3)
    >>> r.verdict, blur(image, r.witness[0])[0, 0, 0, 0] < 0.25
    (['adversarial'], tensor(True))
    """
    if checks.count("size", size) % 2 == 0:
        raise ValueError(f"size={size} is even; a kernel needs a middle: give 3, 5, 7 or so.")
    checks.choice("solver", solver, SOLVERS)
    time_limit = checks.number("time_limit", time_limit, low=0.0)
    seed = checks.count("seed", seed, low=0)
    checks.eval_mode(net, "net")
    checks.same_dtype(checks.images(x, bounds=checks.box(bounds)), net)
    if x.ndim != 4:
        raise ValueError(f"x has shape {tuple(x.shape)}; give images (n, channels, height, width).")
    network = from_torch(net, tuple(x.shape[1:]))
    y = checks.labels(y, len(x), network.classes)
    return Verification(
        tuple(
            _decide(
                BlurQuestion.ask(net, network, image, int(label), size), solver, time_limit, seed
            )
            for image, label in zip(x.detach(), y, strict=True)
        )
    )


class BlurQuestion(Question):
    """Is there another label than ``label`` for some kernel? Its inputs ``x`` are the kernels."""

    @classmethod
    def ask(
        cls, module: nn.Module, network: Network, image: Tensor, label: int, size: int
    ) -> BlurQuestion:
        columns = _patches(image.cpu().double()[None], size)[0].transpose(1, 2)
        pixels = columns.reshape(-1, size * size).numpy()  # A
        front = Affine(sparse.csr_array(pixels), np.zeros(len(pixels)))
        kernel = torch.zeros(size, size, dtype=image.dtype)
        kernel[size // 2, size // 2] = 1.0
        return cls(
            _Blurred(module, image),
            Network((front, *network.steps), (size, size)),
            kernel,
            label,
            eps=1.0,
            bounds=(0.0, 1.0),
        )

    @cached_property
    def region(self) -> Region:
        return Simplex(self.x.numel())

    def bounds_of_part(self, corners: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Safe lower bounds of the margins of ``targets`` over the simplex with these corners."""
        choice = Affine(corners, np.zeros(len(corners)))
        network = Network((choice, *self.network.steps), self.network.input_shape)
        boxes = network_bounds(network, self.region)
        rows = margin_rows(self.label, network.classes)[targets]
        return rows_lower_bound(network, boxes, self.region, rows)

    def check(self, candidate: np.ndarray) -> Witness | None:
        """The kernel next to the candidate as a strict witness, or None."""
        kernel = torch.from_numpy(nearest_kernel(candidate)).to(self.x.dtype)
        point = kernel.reshape(self.x.shape)
        return strict_witness(self.module, self.network, point, self.label, self.targets)


def nearest_kernel(values: np.ndarray) -> np.ndarray:
    """Multiples of 1 / ``GRAIN``, none negative, whose sum is 1 exactly, close to ``values``.

    >>> nearest_kernel(np.full(3, 1 / 3)).sum()
    np.float64(1.0)
    """
    values = np.maximum(np.nan_to_num(values), 0.0)
    total = values.sum()
    share = GRAIN * (values / total if total > 0 else np.full(len(values), 1.0 / len(values)))
    whole = np.floor(share)
    missing = round(GRAIN - whole.sum())
    order = np.argsort(whole - share)
    if missing >= 0:
        whole[order[:missing]] += 1.0
    else:  # rounding put the sum of the shares above GRAIN
        whole[np.argmax(whole)] += missing
    return whole / GRAIN


class _Blurred(nn.Module):
    """Kernels (n, k, k) → logits of one image blurred with each."""

    def __init__(self, module: nn.Module, image: Tensor) -> None:
        super().__init__()
        self.module = module
        self.image = image
        self.training = False

    def forward(self, kernels: Tensor) -> Tensor:
        images = self.image.to(kernels.device).expand(len(kernels), *self.image.shape)
        logits: Tensor = self.module(blur(images, kernels))
        return logits


def _patches(x: Tensor, size: int) -> Tensor:
    """Every pixel's neighborhood, (n, C, size², H · W), with 0 outside the image."""
    single = x.reshape(-1, 1, *x.shape[2:])
    patches = nn.functional.unfold(single, size, padding=size // 2)
    return patches.reshape(*x.shape[:2], size * size, -1)


def _decide(question: BlurQuestion, solver: str, time_limit: float, seed: int) -> Verdict:
    start = time.perf_counter()
    lower = np.full(len(question.targets), -np.inf)
    low, stage, witness, note = -np.inf, "clean", question.check(question.center), ""
    if witness is not None:
        spent = time.perf_counter() - start
        return Verdict("misclassified", stage, -np.inf, witness.margin, None, spent)
    lower, stage = question.crown_margins(), "crown"
    if not question.finite:
        note = OVERFLOW
    elif lower.min() <= 0:
        witness, stage = attack_kernels(question, lower, seed=seed), "pgd"
        if witness is None and time_limit == 0:
            note = TIME_LIMIT
        elif witness is None:
            found = _search(question, lower, solver, time_limit)
            lower, witness, stage, note = found.lower, found.witness, found.stage, found.note
    low, spent = float(lower.min()), time.perf_counter() - start
    if witness is not None:
        return Verdict("adversarial", stage, low, witness.margin, witness.point, spent)
    if low > 0:
        return Verdict("robust", stage, low, np.nan, None, spent)
    return Verdict("undecided", stage, low, np.nan, None, spent, note)


def _search(question: BlurQuestion, lower: np.ndarray, solver: str, time_limit: float) -> Outcome:
    start = time.perf_counter()
    if unstable_units(question.network, question.region, question.boxes) >= MANY:
        found = split_kernels(question, lower, time_limit=SPLIT_SHARE * time_limit)
        if found.witness is not None or found.lower.min() > 0:
            return found
        lower = found.lower
    rest = max(0.0, time_limit - (time.perf_counter() - start))
    return exact_search(question, lower, solver=solver, time_limit=rest)


def attack_kernels(question: BlurQuestion, lower: np.ndarray, *, seed: int) -> Witness | None:
    """Exponentiated gradient steps down the margin of every target that is still open.

    They start from the best kernels among all shifts, the flat kernel and random ones, moved a
    little to the inside: a step multiplies the entries, and what is 0 stays 0.
    """
    n = question.x.numel()
    generator = torch.Generator().manual_seed(seed)
    draws = -torch.log(torch.rand(STARTS, n, generator=generator, dtype=torch.float64))
    pool = torch.cat([torch.eye(n), torch.ones(1, n), draws]).to(question.x)
    pool = pool / pool.sum(1, keepdim=True)
    targets = [t for t, bound in zip(question.targets, lower, strict=True) if bound <= 0]
    with torch.no_grad():
        margins = _margins(question, pool)[:, targets]
    best = margins.argsort(0)[:RUNS].T.reshape(-1)  # target by target
    goal = torch.tensor(targets).repeat_interleave(RUNS)
    kernels = 0.9 * pool[best] + 0.1 / n
    candidates = [pool[margins.amin(1).argmin()][None]]
    lowest = torch.full((len(goal),), torch.inf)
    kept = kernels.clone()
    for step in range(STEPS):
        kernels.requires_grad_(True)
        margin = _margins(question, kernels).gather(1, goal[:, None])[:, 0]
        (gradient,) = torch.autograd.grad(margin.sum(), kernels)
        better = margin.detach() < lowest
        lowest = torch.where(better, margin.detach(), lowest)
        kept = torch.where(better[:, None], kernels.detach(), kept)
        gradient = gradient - (gradient * kernels).sum(1, keepdim=True)
        size = gradient.abs().amax(1, keepdim=True).clamp(min=1e-30)
        kernels = kernels.detach() * torch.exp(-(1 - step / STEPS) * gradient / size)
        kernels = kernels / kernels.sum(1, keepdim=True)
    candidates.append(kept[lowest.argsort()])
    found = (question.check(k.double().numpy()) for k in torch.cat(candidates))
    return next((witness for witness in found if witness is not None), None)


def split_kernels(question: BlurQuestion, lower: np.ndarray, *, time_limit: float) -> Outcome:
    """Halve the simplex of kernels until CROWN decides every part, or time is over.

    A part is a simplex again, with the kernels in the columns of C as its corners. It is the whole
    simplex in front of which C stands as one more affine step; halving an edge puts its midpoint in
    the place of one end. There are few kernels' entries and many units, which is what makes it
    better to branch on the former.
    """
    start = time.perf_counter()
    lower = lower.copy()
    n = question.x.numel()
    open_ = np.flatnonzero(lower <= 0)
    closed = np.where(lower <= 0, np.inf, lower)
    parts = [(np.eye(n), open_, lower[open_])]
    while parts:
        corners, targets, known = parts[-1]
        i, j = _longest_edge(question.network.steps[0](corners.T))
        total, error = sum_and_error(corners[:, i], corners[:, j])
        if error.any() or time.perf_counter() - start >= time_limit:
            break  # a middle that is rounded would leave a gap between the halves
        parts.pop()
        middle = 0.5 * total
        label = int(question.network.forward(middle[None]).argmax())
        witness = question.check(middle) if label != question.label else None
        if witness is not None:
            return Outcome(lower, witness, "branch")
        for end in (i, j):
            half = corners.copy()
            half[:, end] = middle
            found = np.maximum(question.bounds_of_part(half, targets), known)
            done = found > 0
            np.minimum.at(closed, targets[done], found[done])
            if not done.all():
                parts.append((half, targets[~done], found[~done]))
    for _, targets, known in parts:
        np.minimum.at(closed, targets, known)
    return Outcome(np.maximum(lower, closed), None, "branch", TIME_LIMIT if parts else "")


def _longest_edge(images: np.ndarray) -> tuple[int, int]:
    """The two corners whose blurred images (corners, pixels) are farthest apart."""
    products = images @ images.T
    squares = products.diagonal()
    distances = squares[:, None] + squares - 2.0 * products
    i, j = np.unravel_index(distances.argmax(), distances.shape)
    return int(i), int(j)


def _margins(question: BlurQuestion, kernels: Tensor) -> Tensor:
    """logit[label] − logit[j] for every j, for kernels (n, k²)."""
    logits = question.module(kernels.reshape(-1, *question.x.shape))
    return logits[:, [question.label]] - logits
