"""A batch as single images: groups that stay in the cache, and random numbers for each image."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

# On a CPU, so many images at a time stay in the cache; larger groups are slower (see
# tests/benchmarks/bench_pgd.py).
GROUP = 128


def groups(x: Tensor) -> tuple[Tensor, ...]:
    """The rows of ``x`` in groups; on an accelerator all of them at once."""
    size = GROUP if x.device.type == "cpu" else max(1, len(x))
    return torch.arange(len(x), device=x.device).split(size)


def seeds(n: int, generator: torch.Generator | None) -> Tensor:
    """One seed for each of ``n`` images, in order: the first do not depend on ``n``."""
    return torch.randint(2**62, (n,), generator=generator)


def sources(seeds: Tensor) -> list[torch.Generator]:
    """A generator for each seed, so that an image's random numbers are its own."""
    return [torch.Generator().manual_seed(seed) for seed in seeds.tolist()]


def drawn(
    sources: list[torch.Generator], draw: Callable[[torch.Generator], Tensor], like: Tensor
) -> Tensor:
    """What ``draw`` makes of each generator, stacked, on the device of ``like``."""
    if not sources:
        return like.new_zeros(0, *draw(torch.Generator()).shape)
    return torch.stack([draw(source) for source in sources]).to(like.device)


def each(rows: Tensor, sources: list[torch.Generator]) -> list[torch.Generator]:
    """The generators of some images."""
    return [sources[i] for i in rows.tolist()]


def chunks(n: int, size: int) -> Iterator[slice]:
    """The slices of ``size`` that cover 0 … n − 1."""
    return (slice(start, start + size) for start in range(0, n, size))


def column(values: Tensor, like: Tensor) -> Tensor:
    """``values`` (n,) in the shape (n, 1, 1, …), to multiply ``like`` (n, …)."""
    return values.view(-1, *[1] * (like.ndim - 1))
