"""Covariance matrices and vectors as arguments: checked once, taken apart once."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array: TypeAlias = NDArray[np.float64]

SYMMETRY = 1e-10  # largest asymmetry allowed, relative to the largest entry


def numbers(argument: str, value: ArrayLike, ndim: int) -> Array:
    """A finite float64 array with ``ndim`` dimensions, none of them empty."""
    if np.iscomplexobj(value):
        raise TypeError(f"{argument} holds complex numbers; give real ones.")
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(
            f"{argument} is a {type(value).__name__}; give an array of numbers."
        ) from None
    if array.ndim != ndim or array.size == 0:
        raise ValueError(
            f"{argument} has shape {array.shape}; give a non-empty array with {ndim} "
            f"dimension{'s' if ndim != 1 else ''}."
        )
    if not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise ValueError(f"{argument} holds {bad} NaN or infinite values; give finite numbers.")
    return array


def vector(argument: str, value: ArrayLike, dim: int, *, asked_by: str = "the covariance") -> Array:
    """A vector of ``dim`` finite numbers that are not all zero."""
    array = numbers(argument, value, 1)
    if array.shape != (dim,):
        raise ValueError(f"{argument} has shape {array.shape}; {asked_by} asks for ({dim},).")
    if not array.any():
        raise ValueError(f"{argument} is the zero vector; give a vector with a direction.")
    return array


def spectrum(argument: str, value: ArrayLike) -> tuple[Array, Array]:
    """Eigenvalues (d,), ascending, and eigenvectors (d, d), in columns, of a covariance matrix.

    Raises
    ------
    ValueError
        A matrix that is not square, not symmetric, or not positive definite.
    """
    matrix = numbers(argument, value, 2)
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"{argument} has shape {matrix.shape}; a covariance matrix is square.")
    asymmetry = np.abs(matrix - matrix.T).max()
    if asymmetry > SYMMETRY * np.abs(matrix).max():
        raise ValueError(
            f"{argument} is not symmetric: two mirrored entries differ by {asymmetry:.3g}."
        )
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    if values[0] <= len(values) * np.finfo(float).eps * values[-1]:
        raise ValueError(
            f"{argument} is not positive definite: its smallest eigenvalue is {values[0]:.3g}, "
            f"its largest {values[-1]:.3g}."
        )
    return values, vectors


def assemble(values: Array, vectors: Array) -> Array:
    """The symmetric matrix with these eigenvalues and eigenvectors."""
    matrix = (vectors * values) @ vectors.T
    return (matrix + matrix.T) / 2
