"""Random shifts and flips of images, their adjoints, and blur.

A targeted perturbation of a network with strides does not survive a shift by one pixel, so a
student that is trained with augmentation never sees it. An attack that averages its gradient over
moved copies finds one that does.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F


def draw(n: int, reach: int, generator: Generator) -> Tensor:
    """``n`` moves (n, 3): shifts down and right in −reach … reach, and whether to flip."""
    shifts = torch.randint(-reach, reach + 1, (n, 2), generator=generator)
    return torch.cat([shifts, torch.randint(2, (n, 1), generator=generator)], dim=1)


def move(x: Tensor, moves: Tensor) -> Tensor:
    """Each image (n, C, H, W) shifted, zeros coming in at the border, then flipped if so drawn.

    Examples
    --------
    >>> x = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    >>> move(x, torch.tensor([[0, 1, 0]])).flatten().tolist()
    [2.0, 3.0, 0.0]
    >>> move(x, torch.tensor([[0, 1, 1]])).flatten().tolist()
    [0.0, 3.0, 2.0]
    """
    image = x.detach().permute(0, 2, 3, 1).cpu().numpy()
    moved = np.empty_like(image, order="C")
    for old, new, (down, right, flip) in zip(image, moved, moves.tolist(), strict=True):
        _shift(old, new[:, ::-1] if flip else new, down, right)
    return torch.from_numpy(moved).to(x.device).permute(0, 3, 1, 2)


def adjoint(g: Tensor, moves: Tensor) -> Tensor:
    """The transpose of :func:`move`, which is linear: where a gradient at the moved images goes.

    Examples
    --------
    >>> g = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    >>> adjoint(g, torch.tensor([[0, 1, 0]])).flatten().tolist()
    [0.0, 1.0, 2.0]
    """
    image = g.detach().permute(0, 2, 3, 1).cpu().numpy()
    moved = np.empty_like(image, order="C")
    for old, new, (down, right, flip) in zip(image, moved, moves.tolist(), strict=True):
        _shift(old[:, ::-1] if flip else old, new, -down, -right)
    return torch.from_numpy(moved).to(g.device).permute(0, 3, 1, 2)


def blur(x: Tensor, amount: Tensor) -> Tensor:
    """Each image (n, C, H, W) led toward its average over 3×3 pixels, weights 1, 2, 1 both ways.

    ``amount`` (n,) says how far: 0 keeps an image, 1 gives the average. Beyond the border stands
    the nearest pixel.

    Examples
    --------
    >>> x = torch.tensor([[[[0.0, 4.0, 0.0, 0.0]]]])
    >>> blur(x, torch.ones(1)).flatten().tolist(), blur(x, torch.zeros(1)).flatten().tolist()
    ([1.0, 2.0, 1.0, 0.0], [0.0, 4.0, 0.0, 0.0])
    """
    wide = F.pad(x, (1, 1, 1, 1), mode="replicate")
    smooth = F.avg_pool2d(F.avg_pool2d(wide, 2, stride=1), 2, stride=1)
    return x + amount.view(-1, 1, 1, 1) * (smooth - x)


def _shift(old: np.ndarray, new: np.ndarray, down: int, right: int) -> None:
    """new[i, j] = old[i + down, j + right], zero where that lies outside."""
    i, j = (
        slice(max(-down, 0), old.shape[0] - max(down, 0)),
        slice(max(-right, 0), old.shape[1] - max(right, 0)),
    )
    new[...] = 0
    new[i, j] = old[max(down, 0) :, max(right, 0) :][: i.stop - i.start, : j.stop - j.start]
