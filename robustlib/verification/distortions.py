"""The minimum adversarial distortion of many inputs, as ``verify`` does it for verdicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from robustlib import checks
from robustlib.solvers import SOLVERS
from robustlib.verification.batch import Job, answer_all
from robustlib.verification.distortion import NORMS, Distortion, min_distortion
from robustlib.verification.plan import Image, Open, Task


def min_distortions(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    norm: str = "inf",
    bounds: tuple[float, float] = (0.0, 1.0),
    solver: str = "highs",
    time_limit: float = 600.0,
    workers: int = 1,
    dask: str | None = None,
    store: str | Path | None = None,
    progress: Callable[[dict[str, Any]], None] | None = None,
    seed: int = 0,
) -> tuple[Distortion, ...]:
    """``min_distortion`` of every input, in the order of the inputs.

    Parameters
    ----------
    net, norm, bounds, solver, seed : those of ``min_distortion``.
    x : (n, …) floating point inside ``bounds``.
    y : (n,) the true labels.
    time_limit : wall seconds for one input.
    workers, dask, store, progress : those of ``verify``. An answer that was not finished is tried
        again where the stored one had less time.

    Raises
    ------
    TypeError, ValueError, OSError, RuntimeError
        As ``verify`` does.

    Examples
    --------
    >>> import torch
    >>> net = nn.Sequential(nn.Linear(1, 2)).eval()
    >>> _ = net[0].weight.data.copy_(torch.tensor([[1.0], [-1.0]])), net[0].bias.data.zero_()
    >>> x, y = torch.tensor([[0.5], [-0.25]]), torch.tensor([0, 1])
    >>> [round(d.distance, 4) for d in min_distortions(net, x, y, bounds=(-1.0, 1.0))]
    [0.5, 0.25]
    """
    checks.choice("norm", norm, NORMS)
    checks.choice("solver", solver, SOLVERS)
    time_limit = checks.number("time_limit", time_limit, low=0.0)
    seed = checks.count("seed", seed, low=0)
    bounds = checks.box(bounds)
    checks.eval_mode(net, "net")
    checks.same_dtype(checks.images(x, bounds=bounds), net)
    job = Distortions(net, tuple(x.shape[1:]), norm, bounds, solver, time_limit, seed)
    y = checks.labels(y, len(x), job.network.classes)
    return answer_all(job, x, y, workers=workers, dask=dask, store=store, progress=progress)


@dataclass(frozen=True, eq=False)
class Distortions(Job[Distortion]):
    """One call of ``min_distortions``."""

    answers = Distortion

    @property
    def stages(self) -> tuple[str, ...]:
        return ("exact",)

    def work(self, task: Task) -> list[Distortion | Open]:
        return [self.measure(image) for image in task.images]

    def measure(self, image: Image) -> Distortion:
        return min_distortion(
            self.module,
            image.x,
            image.label,
            norm=self.norm,
            bounds=self.bounds,
            solver=self.solver,
            time_limit=self.time_limit,
            seed=self.seed,
        )

    def given_up(self, image: Image) -> Distortion:
        return Distortion(np.inf, 0.0, None, None, False, 0, 0.0)

    def lasts(self, answer: Distortion, had: float) -> bool:
        """An unfinished one does if it had as much time, and a worker did not die with it."""
        return answer.finished or (had >= self.time_limit and answer.seconds > 0)

    def words(self, answer: Distortion) -> tuple[str, str]:
        return ("finished" if answer.finished else "open"), "exact"
