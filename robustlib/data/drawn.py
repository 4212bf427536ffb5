"""A drawn data set in which the robust and the non-robust feature are known, and can be moved."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from robustlib import checks
from robustlib.data.published import as_tensors
from robustlib.data.select import SPLITS, positions

SHAPES = ("circle", "square", "triangle", "cross")
SIZE = 16
TOTALS = {"train": 4000, "test": 1000}
AMPLITUDE = 6  # of the pattern, in gray levels
FOLLOWS = ("label", "next", "random", "off")


def shapes(
    split: str = "train",
    n: int | None = None,
    *,
    indices: Sequence[int] | None = None,
    shape: str = "label",
    pattern: str = "label",
    amplitude: int = AMPLITUDE,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Colored shapes under a faint pattern: two features, each enough by itself.

    The *robust* feature is the shape: 0 circle, 1 square, 2 triangle, 3 cross, of random place,
    size and color, in every channel 40 to 79 levels brighter or darker than the ground. Noise
    aside, a perturbation in the l∞ norm erases it only if ε ≥ 20/255, where shape and ground meet.

    The *non-robust* feature is one of four fixed patterns p of ±1 (:func:`pattern_of`), added with
    ``amplitude``/255 to all three channels. The patterns are orthogonal: ⟨x, p⟩/768 rises by
    exactly that much if p is the pattern that was added, and by 0 if another was. At the default
    of 6/255 each of these four numbers correlates with its label by 0.98 or more, and the largest
    of them tells the label in 99 % of the images or more; yet a perturbation of ε = 6/255 removes
    the pattern, and ε = 12/255 turns it into another label's.

    The shape is harder to learn, so a network that is trained on both features looks mostly at
    the pattern.

    Noise, color, place and size depend on ``seed``, the split and the position only, so images
    drawn with other values of ``shape`` and ``pattern`` match one by one.

    Parameters
    ----------
    split : {"train", "test"}
        4000 and 1000 images.
    n : int, optional
        Take the first ``n`` examples; default all.
    indices : sequence of int, optional
        Take the examples at these positions instead; repetitions are allowed.
    shape, pattern : {"label", "next", "random", "off"}
        What each feature follows: the label; the label's successor (``(y + 1) % 4``, so that the
        features contradict each other); a class drawn without regard to the label; or nothing,
        and it is left out.
    amplitude : int
        Of the pattern, in gray levels, at least 1.
    seed : int
        Another seed draws another data set.

    Returns
    -------
    x : Tensor, float32, shape (n, 3, 16, 16)
        Images in [0, 1], in steps of 1/255.
    y : Tensor, int64, shape (n,)
        The labels, 0 to 3, all equally frequent.

    Raises
    ------
    ValueError, TypeError
        If an argument is unknown or the split has no such examples.

    Examples
    --------
    >>> from robustlib import data
    >>> x, y = data.shapes("test", n=2)
    >>> x.shape
    torch.Size([2, 3, 16, 16])
    >>> plain, _ = data.shapes("test", n=2, pattern="off")
    >>> round(float((x - plain).abs().max() * 255), 3)
    6.0
    """
    checks.choice("split", split, SPLITS)
    checks.choice("shape", shape, FOLLOWS)
    checks.choice("pattern", pattern, FOLLOWS)
    checks.count("amplitude", amplitude)
    total = TOTALS[split]
    chosen = positions(split, total, n, indices)
    rng = np.random.default_rng([checks.count("seed", seed, low=0), SPLITS.index(split)])
    y = rng.permutation(np.arange(total) % len(SHAPES))
    other_shape, other_pattern = rng.integers(len(SHAPES), size=(2, total))
    ground = rng.integers(95, 161, size=(total, 3, 1, 1))
    contrast = rng.integers(40, 80, size=(total, 3, 1, 1)) * rng.choice([-1, 1], (total, 3, 1, 1))
    noise = rng.integers(-8, 9, size=(total, 3, SIZE, SIZE))
    radius = rng.uniform(4.0, 6.0, size=total)
    center = rng.uniform(radius, SIZE - 1 - radius, size=(2, total))

    mask = _masks(_followed(shape, y, other_shape), center, radius)
    levels = ground + contrast * mask[:, None] + noise
    planted = _followed(pattern, y, other_pattern)
    signs = np.stack([*(_signs(c) for c in range(len(SHAPES))), np.zeros((SIZE, SIZE), int)])
    levels += amplitude * signs[planted][:, None]
    return as_tensors(levels[chosen], y[chosen])


def pattern_of(label: int) -> Tensor:
    """The planted pattern of a class: ±1, shape (16, 16), float32, mean 0.

    Examples
    --------
    >>> from robustlib.data import drawn
    >>> drawn.pattern_of(0)[:2, :4]
    tensor([[ 1., -1.,  1., -1.],
            [-1.,  1., -1.,  1.]])
    """
    if checks.count("label", label, low=0) >= len(SHAPES):
        raise ValueError(f"label={label} is too large: the classes are 0 to {len(SHAPES) - 1}.")
    return as_tensors(_signs(label), np.zeros(1), levels=1)[0]


def _signs(label: int) -> np.ndarray:
    """Checks of one pixel, one by two, two by one; and checks on checks: mutually orthogonal."""
    i, j = np.indices((SIZE, SIZE))
    exponent = (i + j, i + j // 2, i // 2 + j, i + j + i // 2 + j // 2)[label]
    return 1 - 2 * (exponent % 2)


def _followed(mode: str, y: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """The class that a feature shows for each image; −1 where it is left out."""
    return {
        "label": y,
        "next": (y + 1) % len(SHAPES),
        "random": drawn,
        "off": np.full_like(y, -1),
    }[mode]


def _masks(kind: np.ndarray, center: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Which pixels belong to the shape: bool, shape (n, 16, 16)."""
    i, j = np.indices((SIZE, SIZE))
    v = (i - center[0][:, None, None]) / radius[:, None, None]
    u = (j - center[1][:, None, None]) / radius[:, None, None]
    inside = (
        u**2 + v**2 <= 1,
        np.maximum(abs(u), abs(v)) <= 0.85,
        (v <= 0.8) & (2 * abs(u) <= v + 1),
        (np.minimum(abs(u), abs(v)) <= 0.3) & (np.maximum(abs(u), abs(v)) <= 1),
    )
    return np.select([(kind == k)[:, None, None] for k in range(len(SHAPES))], inside, False)
