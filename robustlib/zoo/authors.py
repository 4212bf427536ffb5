"""The networks that other authors published, from their own files.

The files are read through :mod:`robustlib.data`, so a wrong size or sha256 is refused before
anything is decoded; neither decoder runs code from the file.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from robustlib.data.fetch import read


def wk17a() -> dict[str, Tensor]:
    """Wong and Kolter's CNN_A: a state dict for the same sequence of layers."""
    content = read("wk17a", "master_seed_1_epochs_100.pth")
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def rsl18a() -> dict[str, Tensor]:
    """Raghunathan et al.'s MLP_A, stored as ``x @ W + B``: torch wants the transpose."""
    w1, b1, w2, b2 = (
        torch.from_numpy(np.load(io.BytesIO(read("rsl18a", f"{name}.npy")), allow_pickle=False))
        for name in ("W1", "B1", "W2", "B2")
    )
    weights = {"1.weight": w1.T.contiguous(), "3.weight": w2.T.contiguous()}
    return {**weights, "1.bias": b1, "3.bias": b2}


STATES: dict[str, Callable[[], dict[str, Tensor]]] = {"wk17a": wk17a, "rsl18a": rsl18a}
