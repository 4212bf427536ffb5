"""MNIST and CIFAR-10, bit for bit as published.

torchvision downloads them and fixes their layout on disk (:mod:`robustlib.data.fetch`). The content
is decoded here, from exactly the bytes whose sha256 was checked: torchvision's own readers would
open the file a second time, prefer an unchecked legacy cache (``MNIST/processed``) and unpickle.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustlib import checks
from robustlib.data.fetch import read
from robustlib.data.select import SPLITS, positions


def mnist(
    split: str = "train", n: int | None = None, *, indices: Sequence[int] | None = None
) -> tuple[Tensor, Tensor]:
    """MNIST: handwritten digits, 60 000 for training and 10 000 for testing.

    Parameters
    ----------
    split : {"train", "test"}
    n : int, optional
        Take the first ``n`` examples; default all.
    indices : sequence of int, optional
        Take the examples at these positions instead; repetitions are allowed.

    Returns
    -------
    x : Tensor, float32, shape (n, 1, 28, 28)
        Images in [0, 1]: the gray levels 0 to 255 divided by 255, so one level is ``1/255``.
    y : Tensor, int64, shape (n,)
        The digits.

    Raises
    ------
    ValueError, TypeError
        If the split is unknown or the split has no such examples.
    DataError
        If a file is missing and cannot be downloaded, or is not the published one.

    Examples
    --------
    >>> from robustlib import data
    >>> x, y = data.mnist("test", n=3)  # doctest: +SKIP
    >>> y  # doctest: +SKIP
    tensor([7, 2, 1])
    """
    checks.choice("split", split, SPLITS)
    prefix = "train" if split == "train" else "t10k"
    labels = np.frombuffer(read("mnist", f"{prefix}-labels-idx1-ubyte"), np.uint8, offset=8)
    chosen = positions(split, len(labels), n, indices)
    pixels = np.frombuffer(read("mnist", f"{prefix}-images-idx3-ubyte"), np.uint8, offset=16)
    return as_tensors(pixels.reshape(-1, 1, 28, 28)[chosen], labels[chosen])


def cifar10(
    split: str = "train", n: int | None = None, *, indices: Sequence[int] | None = None
) -> tuple[Tensor, Tensor]:
    """CIFAR-10: small color photographs of ten classes, 50 000 for training and 10 000 for testing.

    The classes are airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck.

    Parameters
    ----------
    split : {"train", "test"}
    n : int, optional
        Take the first ``n`` examples; default all.
    indices : sequence of int, optional
        Take the examples at these positions instead; repetitions are allowed.

    Returns
    -------
    x : Tensor, float32, shape (n, 3, 32, 32)
        Images in [0, 1]: the levels 0 to 255 of red, green and blue divided by 255.
    y : Tensor, int64, shape (n,)
        The classes, 0 to 9.

    Raises
    ------
    ValueError, TypeError
        If the split is unknown or the split has no such examples.
    DataError
        If a file is missing and cannot be downloaded, or is not the published one.

    Examples
    --------
    >>> from robustlib import data
    >>> x, y = data.cifar10("test", indices=[0, 5])  # doctest: +SKIP
    >>> y  # doctest: +SKIP
    tensor([3, 6])
    """
    checks.choice("split", split, SPLITS)
    names = [f"data_batch_{i}" for i in range(1, 6)] if split == "train" else ["test_batch"]
    chosen = positions(split, 10_000 * len(names), n, indices)
    batches = [_batch(read("cifar10", name)) for name in names]
    pixels = np.concatenate([pixels for pixels, _ in batches]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([labels for _, labels in batches])
    return as_tensors(pixels[chosen], labels[chosen])


def as_tensors(pixels: np.ndarray, labels: np.ndarray, levels: int = 255) -> tuple[Tensor, Tensor]:
    """Whole-number pixels 0 … ``levels`` as float32 in [0, 1], labels as int64; always copies."""
    x = torch.from_numpy(pixels.astype(np.float32)) / levels
    return x, torch.from_numpy(labels.astype(np.int64))


class _ArraysOnly(pickle.Unpickler):
    """Rebuilds numpy arrays and plain containers, and refuses to call anything else.

    CIFAR-10 is published as pickles, and a pickle can run any code when it is opened. Two locks:
    only bytes with the pinned sha256 come here, and only these three names are resolved.
    """

    allowed = frozenset(
        {("numpy._core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")}
    )

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core", "numpy._core")  # numpy 2 moved it
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a data file.")
        return super().find_class(module, name)


def _batch(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    entry = _ArraysOnly(io.BytesIO(content), encoding="latin1").load()
    return entry["data"], np.array(entry["labels"])
