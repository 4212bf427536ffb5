"""Frequencies and means with their intervals: what a set of verdicts or distances says.

Every number is an `Estimate`: its value on the sample at hand and an interval for the population
that the sample was drawn from.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from robustlib import checks

VERDICTS = ("robust", "adversarial", "misclassified", "undecided")


@dataclass(frozen=True)
class Estimate:
    """A number, the interval around it, and how many samples it rests on.

    Attributes
    ----------
    value : the number; nan where no sample says anything.
    low, high : ends of the interval (95 % unless told otherwise).
    n : number of samples.
    """

    value: float
    low: float
    high: float
    n: int

    def text(self, digits: int = 1, scale: float = 1.0) -> str:
        """The number and its interval for a table, times ``scale``; a dash for nan.

        >>> Estimate(0.071, 0.066, 0.0763, 10_000).text(digits=2, scale=100)
        '7.10 (6.60–7.63)'
        """
        if math.isnan(self.value):
            return "–"
        value, low, high = (f"{scale * v:.{digits}f}" for v in (self.value, self.low, self.high))
        return f"{value} ({low}–{high})"


@dataclass(frozen=True)
class Bracket:
    """A share that some undecided samples leave open: it lies between ``lower`` and ``upper``.

    Attributes
    ----------
    lower : all undecided samples counted against it.
    upper : all undecided samples counted for it.
    """

    lower: Estimate
    upper: Estimate

    @property
    def exact(self) -> bool:
        """Whether no sample is undecided."""
        return self.lower.value == self.upper.value


def wilson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of a share: k successes in n independent trials (Wilson 1927).

    Inside [0, 1] for every k, and not of length zero at k = 0 or k = n. With n = 0 it is (0, 1).

    Parameters
    ----------
    k, n : int
        Successes and trials, 0 ≤ k ≤ n.
    level : float
        Coverage, between 0 and 1.

    Raises
    ------
    TypeError, ValueError
        For counts and levels out of range.

    Examples
    --------
    >>> low, high = wilson(3, 100)
    >>> f"{low:.3f} {high:.3f}"
    '0.010 0.085'
    """
    n = checks.count("n", n, low=0)
    k = checks.count("k", k, low=0)
    if k > n:
        raise ValueError(f"k={k} is more than n={n}; give at most n successes.")
    level = checks.number("level", level, low=0.0, high=1.0, strict=True)
    if level == 1.0 or n == 0:
        return 0.0, 1.0
    z = float(stats.norm.ppf((1 + level) / 2))
    share = k / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (0.0 if k == 0 else middle - half), (1.0 if k == n else middle + half)


def proportion(k: int, n: int, level: float = 0.95) -> Estimate:
    """The share k/n with its Wilson interval; nan in (0, 1) for n = 0.

    Examples
    --------
    >>> proportion(1, 4).value
    0.25
    """
    low, high = wilson(k, n, level)
    return Estimate(k / n if n else math.nan, low, high, n)


@dataclass(frozen=True)
class Change:
    """What became of the same inputs from one network, or one search, to another.

    Attributes
    ----------
    gone, new : inputs of which something held before only, and after only.
    p : how likely fair coins share out ``gone + new`` inputs so unevenly, or more so: the exact
        McNemar test, or sign test. 1 where none changed.
    n : inputs in all.
    """

    gone: int
    new: int
    p: float
    n: int

    @property
    def fewer(self) -> bool:
        """Whether fewer are left, and chance does so in less than one case of twenty."""
        return self.gone > self.new and self.p < 0.05


def paired_change(before: ArrayLike, after: ArrayLike) -> Change:
    """Compare two shares of the same inputs, pair by pair (McNemar 1947).

    Two intervals that overlap do not say that two shares may be equal where both were counted on
    the same inputs: only the inputs that changed tell the two apart.

    Parameters
    ----------
    before, after : (n,) bool, whether something holds of each input, such as ``rho <= eps``.

    Raises
    ------
    TypeError, ValueError
        For arrays of different or other shapes, or of other things than truth values.

    Examples
    --------
    >>> change = paired_change([True, True, True, False], [False, False, True, True])
    >>> change.gone, change.new, change.p
    (2, 1, 1.0)
    """
    one, two = _truths("before", before), _truths("after", after)
    if one.shape != two.shape:
        raise ValueError(f"after has shape {two.shape}, before {one.shape}; give the same inputs.")
    gone, new = int((one & ~two).sum()), int((~one & two).sum())
    p = float(stats.binomtest(gone, gone + new).pvalue) if gone + new else 1.0
    return Change(gone, new, p, len(one))


@dataclass(frozen=True, eq=False)
class Curve:
    """How many inputs have a distance up to each of the radii: Figure 3 of Bastani et al. (2016).

    Attributes
    ----------
    eps : (k,) the radii.
    count : (k,) int, inputs with ρ ≤ ε.
    frequency, low, high : (k,) their share φ̂(f, ε), and the Wilson interval of each radius.
    n : inputs.
    """

    eps: np.ndarray
    count: np.ndarray
    frequency: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: int


class Measured(Protocol):
    """A result with distances, such as that of ``robustlib.pointwise_robustness``."""

    @property
    def rho(self) -> np.ndarray: ...


def frequency_curve(rho: ArrayLike | Measured, eps: ArrayLike, level: float = 0.95) -> Curve:
    """φ̂(f, ε) at many radii: the cumulative number of inputs with ρ(f, x*) ≤ ε.

    Parameters
    ----------
    rho : as in `adversarial_frequency`.
    eps : (k,) radii, in the unit of rho.

    Raises
    ------
    TypeError, ValueError
        As in `adversarial_frequency`.

    Examples
    --------
    >>> frequency_curve([0.01, 0.2, float("inf"), 0.03], eps=[0.0, 0.03, 0.5]).count
    array([0, 2, 3])
    """
    distances = np.sort(_distances(rho))
    radii = np.array([checks.eps(radius) for radius in np.atleast_1d(eps).tolist()])
    count = np.searchsorted(distances, radii, side="right")
    n = len(distances)
    ends = np.array([wilson(int(k), n, level) for k in count]).reshape(-1, 2)
    share = count / n if n else np.full(len(radii), math.nan)
    return Curve(radii, count, share, ends[:, 0], ends[:, 1], n)


def adversarial_frequency(rho: ArrayLike | Measured, eps: float, level: float = 0.95) -> Estimate:
    """φ̂ = |{x* : ρ(f, x*) ≤ ε}| / |X| (Bastani et al. 2016), with its Wilson interval.

    Where ρ is over-estimated, as by a convex restriction, φ̂ is too low: the interval covers the
    sampling of the test set, not that.

    Parameters
    ----------
    rho : (n,) distances to the nearest adversarial example found; inf where none was found, 0 for
        an input that is misclassified, if that is to count. Or a result that has them as ``rho``.
    eps : threshold, in the unit of rho.

    Raises
    ------
    TypeError, ValueError
        For distances that are NaN, negative or not one-dimensional, and eps < 0.

    Examples
    --------
    >>> adversarial_frequency([0.01, 0.2, float("inf"), 0.03], eps=0.1).value
    0.5
    """
    distances, eps = _distances(rho), checks.eps(eps)
    return proportion(int((distances <= eps).sum()), len(distances), level)


def adversarial_severity(rho: ArrayLike | Measured, eps: float, level: float = 0.95) -> Estimate:
    """μ̂, the mean of the ρ(f, x*) that are at most ε (Bastani et al. 2016): smaller is worse.

    The interval is Student's t for the mean of these distances, cut to [0, ε], where the mean must
    lie; with one distance it is all of [0, ε]. With none the value and its interval are nan.

    Parameters
    ----------
    rho, eps : as in `adversarial_frequency`.

    Raises
    ------
    TypeError, ValueError
        As in `adversarial_frequency`.

    Examples
    --------
    >>> adversarial_severity([0.01, 0.2, float("inf"), 0.03], eps=0.1)
    Estimate(value=0.02, low=0.0, high=0.1, n=2)
    """
    eps = checks.eps(eps)
    level = checks.number("level", level, low=0.0, high=1.0, strict=True)
    distances = _distances(rho)
    near = distances[distances <= eps]
    n = len(near)
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    mean = float(near.mean())
    if n == 1 or level == 1.0:
        return Estimate(mean, 0.0, eps, n)
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * float(near.std(ddof=1)) / math.sqrt(n)
    return Estimate(mean, max(0.0, mean - half), min(eps, mean + half), n)


def certified_accuracy(verdicts: Iterable[str], level: float = 0.95) -> Estimate:
    """The share of inputs whose robustness is proved, with its Wilson interval.

    Parameters
    ----------
    verdicts : each "robust", "adversarial", "misclassified" or "undecided", as in
        ``Verification.verdict``.

    Raises
    ------
    ValueError
        For any other word.

    Examples
    --------
    >>> certified_accuracy(["robust", "undecided", "adversarial", "robust"]).value
    0.5
    """
    counts = _counts(verdicts)
    return proportion(counts["robust"], counts.total(), level)


def adversarial_accuracy(verdicts: Iterable[str], level: float = 0.95) -> Bracket:
    """The share of inputs that no allowed perturbation takes from their true label.

    Tjeng et al. (2019), section 3: a misclassified input counts as not robust. An undecided one
    counts against the lower end and for the upper end.

    Parameters
    ----------
    verdicts : as in `certified_accuracy`.

    Raises
    ------
    ValueError
        For any other word.

    Examples
    --------
    >>> b = adversarial_accuracy(["robust", "undecided", "adversarial", "misclassified"])
    >>> b.lower.value, b.upper.value, b.exact
    (0.25, 0.5, False)
    """
    counts = _counts(verdicts)
    n, sure = counts.total(), counts["robust"]
    return Bracket(proportion(sure, n, level), proportion(sure + counts["undecided"], n, level))


def adversarial_error(verdicts: Iterable[str], level: float = 0.95) -> Bracket:
    """One minus `adversarial_accuracy`: what Table 2 of Tjeng et al. (2019) prints.

    Examples
    --------
    >>> b = adversarial_error(["robust", "undecided", "adversarial", "misclassified"])
    >>> b.lower.value, b.upper.value
    (0.5, 0.75)
    """
    counts = _counts(verdicts)
    n, sure = counts.total(), counts["adversarial"] + counts["misclassified"]
    return Bracket(proportion(sure, n, level), proportion(sure + counts["undecided"], n, level))


def _counts(verdicts: Iterable[str]) -> Counter[str]:
    return Counter(checks.choice("verdicts", verdict, VERDICTS) for verdict in verdicts)


def _truths(name: str, values: ArrayLike) -> np.ndarray:
    truths = np.asarray(values)
    if truths.ndim != 1:
        raise ValueError(f"{name} has shape {truths.shape}; give one truth value per input: (n,).")
    if truths.dtype != bool and len(truths):
        raise TypeError(f"{name} holds {truths.dtype}; give truth values, such as rho <= eps.")
    return truths.astype(bool)


def _distances(rho: ArrayLike | Measured) -> np.ndarray:
    rho = getattr(rho, "rho", rho)
    try:
        distances = np.asarray(rho, dtype=float)
    except (TypeError, ValueError):
        raise TypeError(
            f"rho is a {type(rho).__name__}; give distances, one number per input: (n,)."
        ) from None
    if distances.ndim != 1:
        raise ValueError(f"rho has shape {distances.shape}; give one distance per input: (n,).")
    bad = np.isnan(distances) | (distances < 0)
    if bad.any():
        raise ValueError(
            f"rho holds {int(bad.sum())} NaN or negative values; give distances, inf where no "
            "adversarial example was found, and leave undecided inputs out: rho[~np.isnan(rho)]."
        )
    return distances
