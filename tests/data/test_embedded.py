"""The embedded digits: scikit-learn's images, split once and for all."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from sklearn.datasets import load_digits

from robustlib import data


def test_the_two_splits_are_scikit_learns_digits() -> None:
    """Every image occurs in exactly one split, its pixels divided by 16."""
    pixels, labels = load_digits(return_X_y=True)
    (a, b), (c, d) = data.digits("train"), data.digits("test")
    assert a.shape == (1297, 1, 8, 8)
    assert c.shape == (500, 1, 8, 8)
    assert a.dtype == torch.float32
    assert b.dtype == torch.int64
    rows = np.column_stack([torch.cat([a, c]).flatten(1).double() * 16, torch.cat([b, d])])
    expected = np.column_stack([pixels, labels])
    assert np.array_equal(rows[np.lexsort(rows.T)], expected[np.lexsort(expected.T)])


def test_each_digit_has_its_share_of_both_splits() -> None:
    (_, train), (_, test) = data.digits("train"), data.digits("test")
    share = test.bincount() / (train.bincount() + test.bincount())
    assert float((share - 500 / 1797).abs().max()) < 0.005


def test_the_split_never_changes() -> None:
    """Shipped checkpoints were tested on exactly these 500 images."""
    x, y = data.digits("test")
    content = (x * 16).to(torch.uint8).numpy().tobytes() + y.to(torch.uint8).numpy().tobytes()
    assert hashlib.sha256(content).hexdigest()[:16] == "79c09b92f3b6eca6"


def test_what_is_returned_may_be_changed() -> None:
    x, _ = data.digits("test", n=2)
    x.zero_()
    assert data.digits("test", n=2)[0].any()
