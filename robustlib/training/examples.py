"""Adversarial examples of earlier networks as a part of the training set (Bastani et al. 2016)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from robustlib import checks, zoo
from robustlib.pointwise import pointwise_robustness
from robustlib.pointwise.measurement import ENGINES, METHODS

FOLDER = "_build/examples"  # what a search has found so far: an interrupted one goes on


@dataclass(frozen=True)
class Examples:
    """Adversarial examples of one network after the other, each found from original inputs.

    Attributes
    ----------
    sources : tuple of str
        Networks of the zoo that are attacked: the one that is trained on, and, in the second round,
        the one before it.
    method, alpha, limit, pixels, solver
        Of :func:`robustlib.pointwise_robustness`; only examples that survive the rounding to whole
        pixels count. A limit of infinity is none.
    images : int
        Training inputs that are tried for each network, drawn without repetition; those that it
        misclassifies are passed over.

    Raises
    ------
    ValueError
        For a value that is not as described; the message names it and what is allowed.
    """

    sources: tuple[str, ...]
    method: str
    alpha: float
    images: int
    limit: float = math.inf
    pixels: int = 255
    solver: str = "highs"

    def __post_init__(self) -> None:
        for source in self.sources:
            zoo.info(source)
        checks.choice("method", self.method, METHODS)
        checks.number("alpha", self.alpha, low=0.0)
        checks.count("images", self.images)
        checks.count("pixels", self.pixels)
        checks.choice("solver", self.solver, ENGINES[self.method])
        if self.limit < math.inf:
            checks.number("limit", self.limit, low=0.0, strict=True)

    def found(
        self, x: Tensor, y: Tensor, seed: int, progress: Callable[[str], None] | None = None
    ) -> tuple[Tensor, Tensor]:
        """The examples for the training inputs ``x``, each with the label of its input.

        Parameters
        ----------
        x : Tensor (n, …), the original training inputs, in whole pixels.
        y : Tensor (n,), their labels.
        seed : int, decides which inputs are tried.
        progress : callable, optional, hears in words how far the search is.
        """
        if self.images > len(x):
            raise ValueError(f"images={self.images} is too large: there are {len(x)} inputs.")
        points, labels = [x[:0]], [y[:0]]
        for number, source in enumerate(self.sources):
            net = zoo.load(source)
            generator = Generator().manual_seed(seed + number)
            rows = torch.randperm(len(x), generator=generator)[: self.images]
            with torch.no_grad():
                right = [net(x[part]).argmax(1) == y[part] for part in rows.split(500)]
            rows = rows[torch.cat(right)]
            store = Path(FOLDER, f"{source}_{self.method}_{seed + number}.sqlite")
            store.parent.mkdir(parents=True, exist_ok=True)

            def told(event: dict[str, Any], source: str = source) -> None:
                if progress:
                    progress(f"{event['done']} of {event['total']} images searched on {source}")

            answers = pointwise_robustness(
                net,
                x[rows],
                method=self.method,
                alpha=self.alpha,
                pixels=self.pixels,
                solver=self.solver,
                limit=None if self.limit == math.inf else self.limit,
                store=store,
                progress=told,
            )
            kept = [i for i, point in enumerate(answers.rounded) if point is not None]
            made = [point.to(x)[None] for point in answers.rounded if point is not None]
            points += made
            labels.append(y[rows[kept]])
        return torch.cat(points), torch.cat(labels)

    def settings(self) -> dict[str, Any]:
        """As it is recorded beside the checkpoint."""
        rows = dataclasses.asdict(self) | {"sources": list(self.sources)}
        if self.method == "lbfgs":  # which solves no program
            del rows["solver"]
        return {name: value for name, value in rows.items() if value != math.inf}
