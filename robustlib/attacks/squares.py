"""Random squares: the perturbations that the Square attack tries."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robustlib.attacks import batch

SHARE = 0.8  # of the pixels, in the first squares
# After so many of 10 000 queries the share of pixels in a square is halved again.
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
TILES = 5  # along a side, of the first perturbation in l2 and l1


@dataclass(frozen=True)
class Squares:
    """Perturbations of norm ``eps`` of inputs like ``like``, changed a square at a time.

    Inputs that are not images are one channel and one column of pixels.
    """

    like: Tensor
    channels: int
    height: int
    width: int
    eps: float
    norm: str
    share: float

    @classmethod
    def on(cls, x: Tensor, eps: float, norm: str, share: float) -> Squares:
        column = (1, math.prod(x.shape[1:]), 1)
        channels, height, width = x.shape[1:] if x.ndim == 4 else column
        return cls(x, channels, height, width, eps, norm, share)

    def first(self, sources: list[torch.Generator]) -> Tensor:
        """Vertical stripes in l∞, tiles in l2 and l1; of random signs, (n, …)."""
        if self.norm == "inf":
            rows = 1 if self.width > 1 else self.height
            signs = self._signs(sources, self.channels, rows, self.width)
            return self._inputs(
                (self.eps * signs).expand(-1, self.channels, self.height, self.width)
            )
        side = max(1, self.height // TILES)
        tall, wide = -(-self.height // side), -(-self.width // side)
        signs = self._signs(sources, self.channels, tall, wide)
        tiles = signs.repeat_interleave(side, 2).repeat_interleave(side, 3)
        tiles = tiles * _pyramids(side, self.like).repeat(tall, wide)
        return self._inputs(self._sized(tiles[..., : self.height, : self.width]))

    def numbers(self, sources: list[torch.Generator], count: int) -> Tensor:
        """Uniform numbers (n, count, k) for so many changes: two corners, a turn and signs."""
        k = 5 + self.channels
        return batch.drawn(sources, lambda g: torch.rand(count, k, generator=g), self.like)

    def changed(self, shift: Tensor, done: float, numbers: Tensor) -> Tensor:
        """The perturbations (n, …) with one square changed, when a share of queries is used up."""
        shift = shift.reshape(len(shift), self.channels, self.height, self.width)
        side = self._side(done)
        signs = torch.where(numbers[:, 5:] < 0.5, -1.0, 1.0).to(shift.dtype)[:, :, None, None]
        first, row, column = self._window(numbers[:, :2], side)
        if self.norm == "inf":
            paint = self.eps * signs
            # Painted the same already: the other color, or the query would be wasted.
            same = (((shift - paint) * first).abs() < 0.5 * self.eps).flatten(1).all(1)
            paint = torch.where(batch.column(same, paint), -paint, paint)
            return self._inputs(torch.where(first, paint, shift))
        second, _, _ = self._window(numbers[:, 2:4], side)
        upright = _pyramids(side, self.like)
        turned = (numbers[:, 4] < 0.5)[:, None, None]
        rows, columns = row[:, :, None], column[:, None]
        pattern = torch.where(turned, upright.T[rows, columns], upright[rows, columns])[:, None]
        new = (pattern * signs + self._unit(shift * first)) * first
        outside = shift * ~(first | second)
        left = (self.eps**self._power - self._total(outside)).clamp_min(0)
        new = self._unit(new) * batch.column(left ** (1 / self._power), new)
        return self._inputs(self._sized(outside + new))

    def _inputs(self, images: Tensor) -> Tensor:
        return images.reshape(len(images), *self.like.shape[1:])

    def _signs(self, sources: list[torch.Generator], *shape: int) -> Tensor:
        bits = batch.drawn(sources, lambda g: torch.randint(2, shape, generator=g), self.like)
        return (2 * bits - 1).to(self.like.dtype)

    def _side(self, done: float) -> int:
        share = self.share / 2 ** sum(done * 10_000 > after for after in HALVINGS)
        if self.width == 1:
            return max(1, min(round(share * self.height), self.height))
        side = round(math.sqrt(share * self.height * self.width))
        return max(1, min(side, self.height, self.width))

    def _window(self, unit: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
        """A random window for each image: whether a pixel is in it, its row and its column."""
        places = []
        for k, length in enumerate((self.height, self.width)):
            start = (unit[:, k, None] * (max(length - side, 0) + 1)).long()
            places.append(torch.arange(length, device=unit.device)[None] - start)
        tall, wide = ((place >= 0) & (place < side) for place in places)
        row, column = (place.clamp(0, side - 1) for place in places)
        return (tall[:, :, None] & wide[:, None])[:, None], row, column

    @property
    def _power(self) -> float:
        return float(self.norm)

    def _total(self, shift: Tensor) -> Tensor:
        return (shift.abs() ** self._power).flatten(1).sum(1)

    def _unit(self, shift: Tensor) -> Tensor:
        length = self._total(shift) ** (1 / self._power)
        return shift / batch.column(length, shift).clamp_min(1e-12)

    def _sized(self, shift: Tensor) -> Tensor:
        return self.eps * self._unit(shift)


def _pyramids(side: int, like: Tensor) -> Tensor:
    """A pyramid above one, upside down, on a square.

    >>> _pyramids(4, torch.zeros(()))
    tensor([[ 1.,  1.,  1.,  1.],
            [ 1.,  1.,  1.,  1.],
            [-1., -1., -1., -1.],
            [-1., -1., -1., -1.]])
    """

    def pyramid(height: int) -> Tensor:
        row, column = torch.arange(height), torch.arange(side)
        row, column = torch.minimum(row, height - 1 - row), torch.minimum(column, side - 1 - column)
        return 1 + torch.minimum(2 * row[:, None], column[None])

    upper = side - side // 2
    return torch.cat([pyramid(upper), -pyramid(side // 2)]).to(like.device, like.dtype)
