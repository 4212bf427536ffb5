"""scikit-learn's handwritten digits: real data that needs neither a file nor a network."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from torch import Tensor

from robustlib import checks
from robustlib.data.published import as_tensors
from robustlib.data.select import SPLITS, positions

TEST = 500


def digits(
    split: str = "train", n: int | None = None, *, indices: Sequence[int] | None = None
) -> tuple[Tensor, Tensor]:
    """scikit-learn's digits: 8×8 images, 1297 for training and 500 for testing.

    The split is fixed, shuffled, and holds each digit in the same proportion on both sides.

    Parameters
    ----------
    split : {"train", "test"}
    n : int, optional
        Take the first ``n`` examples; default all.
    indices : sequence of int, optional
        Take the examples at these positions instead; repetitions are allowed.

    Returns
    -------
    x : Tensor, float32, shape (n, 1, 8, 8)
        Images in [0, 1]: the 17 gray levels 0 to 16 divided by 16.
    y : Tensor, int64, shape (n,)
        The digits.

    Raises
    ------
    ValueError, TypeError
        If the split is unknown or the split has no such examples.

    Examples
    --------
    >>> from robustlib import data
    >>> x, y = data.digits("test", n=100)
    >>> x.shape, float(x.max())
    (torch.Size([100, 1, 8, 8]), 1.0)
    """
    checks.choice("split", split, SPLITS)
    pixels, labels, rows = _digits()
    chosen = rows[split][positions(split, len(rows[split]), n, indices)]
    return as_tensors(pixels[chosen], labels[chosen], levels=16)


@cache
def _digits() -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=TEST, stratify=labels, random_state=0
    )
    return pixels.reshape(-1, 1, 8, 8), labels, {"train": train, "test": test}
