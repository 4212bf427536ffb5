"""The steps that every supported network is made of, each affine or a maximum."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from scipy import sparse

Matrix: TypeAlias = Any  # np.ndarray or scipy.sparse.csr_array: both know @, abs and shape


@dataclass(frozen=True, eq=False)
class Affine:
    """z = W x + b, with W of shape (m, n) dense or sparse (CSR) and b of shape (m,), float64."""

    weight: Matrix
    bias: np.ndarray

    @property
    def size(self) -> int:
        return len(self.bias)

    @cached_property
    def absolute(self) -> Matrix:
        """|W|, entry by entry."""
        return abs(self.weight)

    @cached_property
    def copies(self) -> tuple[np.ndarray, np.ndarray]:
        """The outputs that are one input each, as it is (weight 1, bias 0), and these inputs."""
        entries = sparse.coo_array(self.weight)
        there = entries.data != 0
        rows, columns = (places[there] for places in entries.coords)
        alone = np.bincount(rows, minlength=self.size)[rows] == 1
        same = alone & (entries.data[there] == 1.0) & (self.bias[rows] == 0.0)
        return rows[same], columns[same]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return (self.weight @ x.T).T + self.bias


@dataclass(frozen=True, eq=False)
class ReLU:
    """y = max(z, 0), unit by unit."""

    size: int

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return np.maximum(x, 0.0)


@dataclass(frozen=True, eq=False)
class MaxPool:
    """y_j = max of x over ``windows[j]``; windows is (m, k), −1 marks a padded place."""

    windows: np.ndarray

    @property
    def size(self) -> int:
        return len(self.windows)

    def gather(self, x: np.ndarray, empty: float) -> np.ndarray:
        """x (…, n) laid out as (…, m, k), with ``empty`` in the padded places."""
        padded = np.concatenate([x, np.full((*x.shape[:-1], 1), empty)], axis=-1)
        return padded[..., self.windows]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self.gather(x, -np.inf).max(axis=-1)


Step = Affine | ReLU | MaxPool
