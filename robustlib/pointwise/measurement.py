"""ρ̂ of many inputs as one job: over workers, into a store."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from robustlib.pointwise.baseline import baseline
from robustlib.pointwise.cegar import refine
from robustlib.pointwise.result import Answer
from robustlib.pointwise.search import Problem, Search, nothing
from robustlib.solvers import SOLVERS
from robustlib.verification.batch import Job
from robustlib.verification.plan import Image, Open, Task
from robustlib.verification.result import WORKER_DIED

METHODS = ("lp", "cegar", "lbfgs")
ENGINES = {"lp": (*SOLVERS,), "cegar": ("highs", "clarabel"), "lbfgs": (*SOLVERS,)}
STAGES = {"lp": "exact", "cegar": "exact", "lbfgs": "attack"}  # one input a task, or many


@dataclass(frozen=True, eq=False)
class Measurement(Job[Answer]):
    """One call of `pointwise_robustness`; an input's label is its target where they are given."""

    bounds: tuple[float, float] | None  # type: ignore[assignment]  # the whole space, for "lp"
    method: str
    targets: str
    alpha: float
    pixels: int | None
    limit: float
    form: str
    lazy: bool

    answers = Answer

    @property
    def stages(self) -> tuple[str, ...]:
        return (STAGES[self.method],)

    def work(self, task: Task) -> list[Answer | Open]:
        if self.method != "lbfgs":
            return [self.search(image) for image in task.images]
        assert self.bounds is not None
        x = torch.stack([image.x for image in task.images])
        given = torch.tensor([image.label for image in task.images])
        targets: str | Tensor = given if self.targets == "given" else self.targets
        return [
            *baseline(
                self.module,
                x,
                targets,
                bounds=self.bounds,
                alpha=self.alpha,
                pixels=self.pixels,
                limit=self.limit,
            )
        ]

    def search(self, image: Image) -> Answer:
        search = Search(self.problem, image.x)
        rules: dict[str, Sequence[int] | None] = {
            "second": None,
            "all": range(len(search.frozen.logits)),
            "given": [image.label],
        }
        reach = partial(refine, search) if self.method == "cegar" else search.reach
        return search.run(rules[self.targets], reach)

    @cached_property
    def problem(self) -> Problem:
        """As the linear programs want it; ``module`` is in float64 then."""
        own = {field.name for field in fields(Problem)}
        shared = {f.name: getattr(self, f.name) for f in fields(self) if f.name in own}
        return Problem(net=self.module, **shared)

    def settings(self) -> dict[str, Any]:
        other = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("module", "time_limit"):
            del other[name]
        digest = hashlib.sha256(str(self.module).encode())
        for name, value in self.module.state_dict().items():
            digest.update(f"{name} {value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return {"network": digest.hexdigest(), **other}

    def given_up(self, image: Image) -> Answer:
        return replace(nothing(-1), status="undecided", rho=math.nan, note=WORKER_DIED)

    def lasts(self, answer: Answer, had: float) -> bool:
        return answer.status != "undecided"

    def words(self, answer: Answer) -> tuple[str, str]:
        return answer.status, self.method
