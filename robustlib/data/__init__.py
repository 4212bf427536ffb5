"""Data sets: images in [0, 1], float32, batch first; labels int64.

``mnist`` and ``cifar10`` are read from the folder :func:`home`, ``digits`` and ``shapes`` are
embedded, ``toys`` draws points in the plane.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from robustlib import checks
from robustlib.data import toys
from robustlib.data.drawn import SHAPES, shapes
from robustlib.data.embedded import digits
from robustlib.data.fetch import download, status
from robustlib.data.files import DataError, home
from robustlib.data.published import cifar10, mnist

__all__ = [
    "SHAPES",
    "DataError",
    "cifar10",
    "digits",
    "download",
    "home",
    "load",
    "mnist",
    "names",
    "shapes",
    "status",
    "toys",
]

SETS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "cifar10": cifar10,
    "digits": digits,
    "mnist": mnist,
    "shapes": shapes,
}


def names() -> list[str]:
    """The names that :func:`load` knows.

    >>> from robustlib import data
    >>> data.names()
    ['cifar10', 'digits', 'mnist', 'shapes']
    """
    return list(SETS)


def load(
    name: str,
    split: str = "train",
    n: int | None = None,
    *,
    indices: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """A data set by name; split, ``n`` and ``indices`` as for :func:`mnist`.

    Raises
    ------
    ValueError, TypeError
        If the name or the split is unknown (with the nearest names), or the split has no such
        examples.
    DataError
        If a file is missing and cannot be downloaded, or is not the published one.

    Examples
    --------
    >>> from robustlib import data
    >>> x, y = data.load("digits", "test", n=5)
    >>> x.shape
    torch.Size([5, 1, 8, 8])
    """
    return SETS[checks.choice("name", name, SETS)](split, n, indices=indices)
