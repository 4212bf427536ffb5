"""The experiments on drawn images whose robust and non-robust feature are known.

In :func:`robustlib.data.shapes` the shape is the robust feature and a faint pattern the non-robust
one. What a network has learned is read off probes in which the two contradict each other: does its
answer follow the shape or the pattern?

The rows have the names of those on CIFAR-10 (:mod:`robustlib.features.catalog`), and the same
runner trains them: here in seconds.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

from torch import nn

from robustlib import data
from robustlib.features import networks
from robustlib.features.experiments import Experiment, Place, network, run
from robustlib.features.training import Schedule, predictions

AMPLITUDE = 2  # of the pattern, in gray levels
EPS = 0.5  # l2, of the wrong labels: turning one pattern into another takes 0.31
ROBUST = 5 / 255  # l∞, of the robust network: 4/255 turns one pattern into another

ATTACK = {"steps": 10, "restarts": 1, "images": 150}

STANDARD = Schedule(epochs=3, batch=64, reach=None)
STUDENT = Schedule(epochs=6, batch=64, rate=0.2, reach=None)
SHORT = replace(STUDENT, epochs=4)
INVERTED: dict[str, Any] = {"steps": 16, "step_size": 0.6, "decay": True}
ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {
    name: functools.partial(networks.slim_resnet, widths, classes=len(data.SHAPES))
    for name, widths in {
        "wide": (16, 32, 64),
        "narrow": (8, 16, 32),
        "two_stages": (16, 48),
        "four_stages": (12, 24, 48, 48),
    }.items()
}
OTHERS = ("narrow", "two_stages", "four_stages")


def _moved(eps: float) -> dict[str, Any]:
    return {"eps": eps, "steps": 10, "step_size": eps / 4}


_row = functools.partial(Experiment, architecture="wide")
_wrong = functools.partial(_row, images=1600, teacher="standard", build=_moved(EPS), attack=False)
CORE = {
    row.name: row
    for row in (
        _row("standard", STANDARD),
        _row("robust", Schedule(epochs=7, batch=64, rate=0.2, reach=None, eps=ROBUST, norm="inf")),
        _row("robust_dataset", STUDENT, 2000, "robust", "robust", INVERTED),
        _row("nonrobust_dataset", STUDENT, 2000, "nonrobust", "standard", INVERTED),
        _wrong("mislabeled_random", STUDENT, recipe="random"),
        _wrong("mislabeled_deterministic", STUDENT, recipe="deterministic"),
    )
}


def _small(name: str, like: str, **changes: Any) -> Experiment:
    return replace(CORE[like], **{"name": name, "images": 800, "student": SHORT, **changes})


_RANDOM, _NEXT = "mislabeled_random", "mislabeled_deterministic"
_NOISE = {**INVERTED, "start": "noise"}
EXTRA = {
    row.name: row
    for row in (
        _small("robust_dataset_noise", "robust_dataset", images=1000, build=_NOISE),
        _small("nonrobust_dataset_noise", "nonrobust_dataset", images=1000, build=_NOISE),
        _small("mislabeled_random_1", _RANDOM, build=_moved(1.0)),
        _small("mislabeled_deterministic_1", _NEXT, build=_moved(1.0)),
        _small("deterministic_from_robust", _NEXT, teacher="robust"),
        _small("random_from_robust", _RANDOM, teacher="robust"),
        _row("half", STANDARD, 2000, attack=False),
        _row("random_labels", SHORT, 1000, labels="random", attack=False),
        _row("early", replace(STANDARD, epochs=1, rate=0.02), attack=False),
        _row("errors", SHORT, recipe="errors", teacher="early", attack=False),
        *(
            Experiment(f"{a}_standard", STANDARD, 2000, attack=False, architecture=a)
            for a in OTHERS
        ),
        *(_small(f"{a}_random_1", _RANDOM, build=_moved(1.0), architecture=a) for a in OTHERS),
        _small("bugs", _NEXT, build={**_moved(1.0), "keep": ["narrow_standard"]}),
    )
}
EXPERIMENTS = {**CORE, **EXTRA}
SIZES: dict[str, dict[str, Any]] = {  # of the studies
    "pgd_steps": {"steps": [1, 2, 5, 10, 50], "images": 100},
    "reduced_precision": {"steps": [1, 10, 50], "images": 100},
    "carlini": {"images": 50, "steps": 40, "searches": 3},
    "norms": {"images": 100, "steps": 5},
    "robust_train_test": {"images": 100},
    "transfer": {"images": 200},
    "leakage": {"controls": 4},
    "usefulness": {"features": 10, "images": 120, "steps": 3},
    "gradient_frequencies": {"images": 200},
    "inverted": {},
    "noise": {},
    "mislabeled": {},
    "alignment": {"eps": 4.0, "steps": 20},
}


@dataclass(frozen=True)
class Answers:
    """What a network goes by, as shares of the test images.

    Attributes
    ----------
    clean : float
        Right answers where both features say the label.
    shape, pattern : float
        Where the pattern says the label's successor: answers that follow the shape, the robust
        feature, and answers that follow the pattern, the non-robust one.
    shape_alone, pattern_alone : float
        Right answers where the other feature is drawn without regard to the label.
    """

    clean: float
    shape: float
    pattern: float
    shape_alone: float
    pattern_alone: float


def answers(net: nn.Module, *, n: int = 1000) -> Answers:
    """Probe ``net`` on the first ``n`` test images of the drawn set."""

    def share(next_label: bool = False, **drawn: str) -> float:
        x, y = data.shapes("test", n=n, amplitude=AMPLITUDE, **drawn)  # type: ignore[arg-type]
        wanted = (y + next_label) % len(data.SHAPES)
        return float((predictions(net, x) == wanted).double().mean())

    return Answers(
        clean=share(),
        shape=share(pattern="next"),
        pattern=share(True, pattern="next"),
        shape_alone=share(pattern="random"),
        pattern_alone=share(shape="random"),
    )


def place(folder: str | PathLike[str]) -> Place:
    """The drawn set as the runner wants it; everything is kept in ``folder``."""
    return Place(
        Path(folder) / "work",
        Path(folder) / "records",
        data.shapes("train", amplitude=AMPLITUDE),
        data.shapes("test", n=500, amplitude=AMPLITUDE, seed=1),
        data.shapes("test", amplitude=AMPLITUDE),
        ARCHITECTURES,
        ATTACK,
    )


def separate(
    folder: str | PathLike[str],
    *,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Answers]:
    """Train on the drawn set, build the four data sets, train on each, and probe all networks.

    Parameters
    ----------
    folder : path
        Where data sets and networks are kept; an interrupted call goes on with what is there.
    seed : int
    progress : callable, optional
        Called with one line after each epoch of training.

    Returns
    -------
    dict of Answers
        For ``standard``, ``robust`` (the two teachers) and the students on ``robust_dataset``,
        ``nonrobust_dataset``, ``mislabeled_random`` and ``mislabeled_deterministic``.

    Examples
    --------
    >>> found = separate("sets")  # doctest: +SKIP
    >>> found["robust_dataset"].shape > 0.7  # doctest: +SKIP
    True
    """
    drawn = place(folder)
    for row in CORE.values():
        run(row, seed, drawn, EXPERIMENTS, progress=progress)
    return {name: answers(networks.folded(network(drawn, row, seed))) for name, row in CORE.items()}
