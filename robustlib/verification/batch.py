"""Answers for many inputs: through stages, over workers, into a store, with progress."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

from torch import Tensor, nn

from robustlib import checks
from robustlib.network import Network, from_torch
from robustlib.verification.parallel import run
from robustlib.verification.plan import Image, Open, Plan, Task
from robustlib.verification.store import METHOD, Store, input_key, network_hash

Answer = TypeVar("Answer")


@dataclass(frozen=True, eq=False)
class Job(Generic[Answer]):
    """What all inputs of a call share, and what is done with them; only fields go to a worker."""

    module: nn.Module
    input_shape: tuple[int, ...]
    norm: str
    bounds: tuple[float, float]
    solver: str
    time_limit: float
    seed: int

    answers: ClassVar[type]  # what an input gets in the end

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of the stages in their order."""
        raise NotImplementedError

    def work(self, task: Task) -> list[Answer | Open]:
        """The answers of one stage, or what the next one needs, for the images of a task."""
        raise NotImplementedError

    def given_up(self, image: Image) -> Answer:
        """The answer for an image with which workers died."""
        raise NotImplementedError

    def lasts(self, answer: Answer, had: float) -> bool:
        """Whether a stored answer, made with ``had`` seconds, is one to this call."""
        raise NotImplementedError

    def words(self, answer: Answer) -> tuple[str, str]:
        """The answer and its stage in a word each, to be counted."""
        raise NotImplementedError

    @cached_property
    def network(self) -> Network:
        return from_torch(self.module, self.input_shape)

    def settings(self) -> dict[str, Any]:
        """What answers depend on besides the input and the time limit."""
        kinds = {str(p.dtype) for p in self.module.parameters()}
        other = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("module", "input_shape", "time_limit"):
            del other[name]
        return {"network": network_hash(self.network), "dtype": ", ".join(sorted(kinds)), **other}

    def sent(self) -> Self:
        """The same on the CPU, where workers work."""
        return replace(self, module=copy.deepcopy(self.module).cpu())

    def __getstate__(self) -> dict[str, Any]:
        return {"version": METHOD, **{f.name: getattr(self, f.name) for f in fields(self)}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        version = state.pop("version")
        if version != METHOD:
            raise RuntimeError(
                f"a worker has another version of robustlib (its method is {METHOD!r}, the "
                f"caller's {version!r}); install the same version wherever a worker runs."
            )
        self.__dict__.update(state)


def work(job: Job[Answer], task: Task) -> list[Answer | Open]:
    """What a worker is asked for, by name."""
    return job.work(task)


def answer_all(
    job: Job[Answer],
    x: Tensor,
    y: Tensor,
    *,
    workers: int = 1,
    dask: str | None = None,
    store: str | Path | None = None,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[Answer, ...]:
    """The answer for every input, in their order; the parameters are those of ``verify``."""
    workers = checks.count("workers", workers)
    if dask is not None and workers != 1:
        raise ValueError(
            f"workers={workers} and dask={dask!r} exclude each other: a cluster has its own "
            "workers; leave workers at 1."
        )
    away = workers > 1 or dask is not None
    labels = y.tolist()
    results: list[Answer | None] = [None] * len(x)

    def image(i: int, before: Open | None) -> Image:
        point = x[i].detach()
        return Image(i, (point.cpu() if away else point).clone(), labels[i], before)

    plan = Plan(len(x), job.stages, image)

    def report(i: int, answer: Answer) -> None:
        results[i] = answer
        plan.decided(*job.words(answer))
        if progress is not None:
            progress(plan.event())

    opened = None if store is None else Store[Answer](store, job.answers, job.settings())
    with opened or nullcontext():
        for i in range(len(x)) if opened is not None else ():
            known = opened.get(input_key(x[i], labels[i]), x[i]) if opened is not None else None
            if known is not None and job.lasts(*known):
                report(i, known[0])
        plan.add([i for i, answer in enumerate(results) if answer is None])
        shared = job.sent() if away else job
        for task, answers in run(work, shared, plan.next_task, workers=workers, dask=dask):
            for done, found in plan.finished(task, answers):
                answer = job.given_up(done) if found is None else found
                if opened is not None:
                    opened.put(input_key(x[done.index], done.label), answer, job.time_limit)
                report(done.index, answer)
    return tuple(answer for answer in results if answer is not None)
