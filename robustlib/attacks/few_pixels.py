"""The one-pixel attack: differential evolution over places and values."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustlib import checks
from robustlib.attacks import balls, batch, checked
from robustlib.attacks.goal import Goal

FACTOR = 0.5  # F of differential evolution: the share of a difference that is added
FORWARD = 256  # images in one forward pass


def one_pixel(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    pixels: int = 1,
    targets: Tensor | None = None,
    population: int = 400,
    generations: int = 100,
    early_stop: bool = True,
    bounds: tuple[float, float] = (0.0, 1.0),
    generator: torch.Generator | None = None,
) -> Tensor:
    """Change at most ``pixels`` pixels, found by differential evolution (Su et al. 2019).

    A candidate is a list of pixels: row, column and the values of all channels. In each generation
    every candidate a is challenged by a_r1 + F (a_r2 − a_r3), F = 0.5, with three others drawn at
    random and no crossover, and the better one stays (section 3.2 of the paper). Better is the
    lower margin logit[y] − max_{j≠y} logit[j], or with ``targets`` max_{j≠t} logit[j] − logit[t];
    the paper takes the probability of the label, which in float32 is often exactly 1. Candidates
    that leave the image or the box are cut back to it. Only logits are asked for, no gradients.

    An image's result does not depend on the other images of the batch.

    Parameters
    ----------
    model : nn.Module
        Maps (n, channels, height, width) to logits (n, classes); in evaluation mode.
    x : Tensor (n, channels, height, width), float32 or float64
        Images inside ``bounds``.
    y : Tensor (n,), integers
        True labels.
    pixels : int
        Pixels that may change.
    targets : Tensor (n,), integers, optional
        Labels to reach, none equal to the true one; default: any wrong label.
    population : int
        Candidates for each image, at least 3; the paper's 400.
    generations : int
        Rounds; the paper's 100.
    early_stop : bool
        Leave an image alone once it is misclassified (or classified as its target). Without it
        every image takes all generations, for the lowest margin.
    bounds : (float, float)
        The box of valid inputs.
    generator : torch.Generator, optional
        Source of randomness; default: torch's global one. One number is drawn from it for each
        image, which seeds that image's own.

    Returns
    -------
    Tensor like ``x``
        The candidate of lowest margin, or ``x`` itself where none is below its own; inside the
        box, at most ``pixels`` pixels changed.

    Raises
    ------
    TypeError, ValueError
        For an argument that is not as described; the message names it and what is allowed.

    Examples
    --------
    A model that looks at one pixel only:

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(9, 2)).eval()
    >>> model[1].weight.data, model[1].bias.data = torch.zeros(2, 9), torch.tensor([0.5, 0.0])
    >>> model[1].weight.data[1, 4] = 1.0
    >>> z = one_pixel(model, torch.zeros(1, 1, 3, 3), torch.tensor([0]), population=30,
    ...               generator=torch.Generator().manual_seed(0))
    >>> (z > 0).flatten().nonzero().tolist()
    [[4]]
    """
    classes = checked.classes_of(model, x, bounds)
    checked.pictures(x)
    goal = checked.goal_of(y, targets, len(x), classes)
    pixels = checks.count("pixels", pixels)
    population = checks.count("population", population, low=3)
    generations = checks.count("generations", generations)
    checks.generator(generator)
    seeds = batch.seeds(len(x), generator)
    result = x.detach().clone()
    for rows in batch.groups(x):
        evolution = _Evolution(model, result[rows], goal.take(rows), pixels, bounds)
        sources = batch.sources(seeds[rows.cpu()])
        result[rows] = evolution.best(sources, population, generations, early_stop)
    return result


class _Evolution:
    """The images of one group; a population is (n, candidates, pixels, 2 + channels)."""

    def __init__(
        self, model: nn.Module, x: Tensor, goal: Goal, pixels: int, bounds: tuple[float, float]
    ) -> None:
        self.model, self.x, self.goal, self.pixels = model, x, goal, pixels
        _, self.channels, self.height, self.width = x.shape
        self.low, self.high = balls.box(bounds, x.dtype)

    @torch.no_grad()
    def best(
        self, sources: list[torch.Generator], population: int, generations: int, early_stop: bool
    ) -> Tensor:
        result, lowest = self.x.clone(), self.goal.margin(self.model(self.x))
        genes = self._cut(batch.drawn(sources, lambda g: self._first(population, g), self.x))
        rows = torch.arange(len(self.x), device=self.x.device)
        fitness = self.x.new_full((len(rows), population), torch.inf)
        challengers = genes
        for generation in range(generations + 1):
            if early_stop:
                still = torch.nonzero(~(lowest[rows] < 0))[:, 0]
                rows, fitness = rows[still], fitness[still]
                genes, challengers = genes[still], challengers[still]
            if not len(rows):
                break
            if generation:
                challengers = self._challengers(genes, batch.each(rows, sources))
            margins = self._margins(rows, challengers)
            better = margins < fitness
            genes = torch.where(better[:, :, None, None], challengers, genes)
            fitness = torch.where(better, margins, fitness)
            least, index = fitness.min(1)
            record = torch.nonzero(least < lowest[rows])[:, 0]
            lowest[rows[record]] = least[record]
            result[rows[record]] = self._painted(
                rows[record], genes[record, index[record]][:, None]
            )
        return result

    def _first(self, population: int, source: torch.Generator) -> Tensor:
        """Places uniform over the image; values normal around the middle of the box."""
        shape = (population, self.pixels)
        side = torch.tensor([self.height, self.width])
        places = torch.rand((*shape, 2), generator=source) * side
        values = torch.randn((*shape, self.channels), generator=source)
        middle, spread = (self.low + self.high) / 2, (self.high - self.low) / 2
        return torch.cat([places, middle + spread * values], 2).to(self.x.dtype)

    def _challengers(self, genes: Tensor, sources: list[torch.Generator]) -> Tensor:
        population = genes.shape[1]
        order = batch.drawn(
            sources, lambda g: torch.randperm(population, generator=g), self.x
        ).long()
        # Three that follow each other in a random order: never one twice.
        a, b, c = (
            genes.gather(1, order.roll(k, 1)[:, :, None, None].expand_as(genes)) for k in range(3)
        )
        return self._cut(a + FACTOR * (b - c))

    def _cut(self, genes: Tensor) -> Tensor:
        side = genes.new_tensor([self.height, self.width])
        places = torch.minimum(genes[..., :2].clamp_min(0), side - 0.5)
        return torch.cat([places, genes[..., 2:].clamp(self.low, self.high)], -1)

    def _margins(self, rows: Tensor, genes: Tensor) -> Tensor:
        n, population = genes.shape[:2]
        flat = genes.reshape(n * population, 1, *genes.shape[2:])
        owner = rows.repeat_interleave(population)
        margins = flat.new_empty(len(flat))
        for part in batch.chunks(len(flat), FORWARD):
            z = self._painted(owner[part], flat[part])
            margins[part] = self.goal.take(owner[part]).margin(self.model(z))
        return margins.view(n, population)

    def _painted(self, rows: Tensor, genes: Tensor) -> Tensor:
        """The images ``rows``, each with the pixels of one candidate (n, 1, pixels, …)."""
        z = self.x[rows]
        index = torch.arange(len(z), device=z.device)
        for pixel in genes[:, 0].unbind(1):
            place = pixel[:, :2].long()
            z[index, :, place[:, 0], place[:, 1]] = pixel[:, 2:]
        return z
