"""Which examples of a split: the first ``n``, or those at ``indices``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robustlib import checks

SPLITS = ("train", "test")


def positions(
    split: str, total: int, n: int | None, indices: Sequence[int] | None
) -> slice | np.ndarray:
    """Positions in a split of ``total`` examples, as something that an array can be indexed with.

    Raises
    ------
    ValueError, TypeError
        If both ``n`` and ``indices`` are given, or one of them asks for what is not there.
    """
    if n is not None and indices is not None:
        raise ValueError(f"n={n!r} and indices are both given; give one of them.")
    if n is not None:
        n = checks.count("n", n)
        if n > total:
            raise ValueError(f"n={n} is too large: the {split} split has {total} examples.")
        return slice(n)
    if indices is None:
        return slice(total)
    try:
        chosen = np.asarray(indices)
    except ValueError:  # rows of unequal length
        chosen = np.asarray(None)
    if chosen.ndim != 1 or not len(chosen) or not np.issubdtype(chosen.dtype, np.integer):
        raise TypeError(
            f"indices={indices!r} is not a sequence of whole numbers; give for example [0, 7, 7]."
        )
    outside = chosen[(chosen < 0) | (chosen >= total)]
    if len(outside):
        raise ValueError(
            f"indices has {outside[0]}, which is out of range: the {split} split has {total} "
            f"examples, 0 to {total - 1}."
        )
    return chosen.astype(np.int64)
