"""The recipes on drawn images whose robust and non-robust feature are known.

In :func:`robustlib.data.shapes` the shape is the robust feature and a faint pattern the non-robust
one. What a network has learned is read off probes in which the two contradict each other: does its
answer follow the shape or the pattern?
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from robustlib import data
from robustlib.features import files, inversion, mislabeled, networks
from robustlib.features.training import Schedule, fit, predictions

AMPLITUDE = 2  # of the pattern, in gray levels
EPS = 0.5  # l2, of the wrong labels: turning one pattern into another takes 0.31
ROBUST = 5 / 255  # l∞, of the robust network: 4/255 turns one pattern into another


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


def network() -> nn.Module:
    """The network of this experiment: stages of 16, 32 and 64 channels, four classes."""
    return networks.slim_resnet((16, 32, 64), classes=len(data.SHAPES))


def separate(
    folder: str | PathLike[str],
    *,
    n: int = 2000,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Answers]:
    """Train on the drawn set, build the four data sets, train on each, and probe all networks.

    Parameters
    ----------
    folder : path
        Where the data sets are kept; an interrupted call goes on with what is there.
    n : int
        How many images each of the four sets has.
    seed : int
    progress : callable, optional
        Called with one line before each network is trained.

    Returns
    -------
    dict of Answers
        For ``standard``, ``robust`` (the two teachers) and the students on ``robust_dataset``,
        ``nonrobust_dataset``, ``mislabeled_random`` and ``mislabeled_deterministic``.

    Examples
    --------
    >>> found = separate("sets")  # doctest: +SKIP
    >>> found["robust_dataset"].shape > 0.9  # doctest: +SKIP
    True
    """
    say = progress or (lambda text: None)
    place = Path(folder)
    x, y = data.shapes("train", amplitude=AMPLITUDE)

    def trained(name: str, pairs: tuple[Tensor, Tensor], schedule: Schedule) -> nn.Module:
        say(f"training on {name}")
        net, _ = fit(network, *pairs, schedule, seed=seed)
        return networks.folded(net)

    standard = trained("the images", (x, y), Schedule(epochs=3, batch=64, reach=None))
    robust = trained(
        "the images, adversarially",
        (x, y),
        Schedule(epochs=8, batch=64, rate=0.2, reach=None, eps=ROBUST, norm="inf"),
    )
    found = {"standard": answers(standard), "robust": answers(robust)}
    inverted: dict[str, Any] = {"steps": 20, "step_size": 0.5, "decay": True, "seed": seed}
    moved: dict[str, Any] = {"eps": EPS, "steps": 10, "step_size": EPS / 4, "seed": seed}
    for name, build, teacher, settings in (
        ("robust_dataset", inversion.robust_dataset, robust, inverted),
        ("nonrobust_dataset", inversion.nonrobust_dataset, standard, inverted),
        ("mislabeled_random", mislabeled.mislabeled_random, standard, moved),
        ("mislabeled_deterministic", mislabeled.mislabeled_deterministic, standard, moved),
    ):
        path = build(teacher, x[:n], y[:n], place / name, **settings)
        built_x, built_y, _ = files.load(path)
        found[name] = answers(
            trained(name, (built_x, built_y), Schedule(epochs=6, batch=64, rate=0.2, reach=None))
        )
    return found
