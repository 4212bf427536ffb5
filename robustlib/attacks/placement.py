"""Rotated, scaled and shifted images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def placed(
    x: Tensor,
    degrees: Tensor,
    shift: Tensor,
    *,
    scale: Tensor | None = None,
    fill: float = 0.0,
) -> Tensor:
    """Turn each image counterclockwise about its center, scale it, then shift it.

    Values between pixels are interpolated linearly; what comes from outside is ``fill``.

    Parameters
    ----------
    x : Tensor (n, channels, height, width)
    degrees : Tensor (n,)
    shift : Tensor (n, 2)
        Pixels to the right and down.
    scale : Tensor (n,), optional
        Factors, above 0; default 1.
    fill : float
        The value outside of the image.

    Examples
    --------
    >>> x = torch.tensor([[[[0.0, 1.0], [0.0, 0.0]]]])
    >>> placed(x, torch.tensor([90.0]), torch.zeros(1, 2)).abs().round(decimals=3)
    tensor([[[[1., 0.],
              [0., 0.]]]])
    """
    if not len(x):
        return x  # which grid_sample refuses
    height, width = x.shape[-2:]
    angle = torch.deg2rad(degrees.to(x.dtype))
    factor = 1 / scale.to(x.dtype) if scale is not None else torch.ones_like(angle)
    cos, sin = factor * angle.cos(), factor * angle.sin()
    # Where a pixel of the result, in pixels from the center, comes from; y points down.
    back = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    start = -(back @ shift.to(x.dtype)[:, :, None])
    # grid_sample counts in half widths and half heights.
    half = x.new_tensor([width / 2, height / 2])
    matrix = torch.cat([back * half / half[:, None], start / half[:, None]], 2)
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    return F.grid_sample(x - fill, grid, align_corners=False) + fill
