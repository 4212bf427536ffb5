"""What is to be done next, stage by stage, and how far everything is."""

from __future__ import annotations

import heapq
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

# Images in one task. Tasks do not depend on the number of workers, so that answers do not either.
SIZES = {"bounds": 8, "attack": 32, "exact": 1}


@dataclass(frozen=True, eq=False)
class Open:
    """What an image that a stage left open takes to the next: margins' bounds, seconds so far."""

    lower: np.ndarray
    seconds: float


@dataclass(frozen=True, eq=False)
class Image:
    """One input of a task; ``open`` is None in the first stage."""

    index: int
    x: Tensor
    label: int
    open: Open | None = None


@dataclass(frozen=True, eq=False)
class Task:
    """Images that go through one stage together; ``retry`` after a worker died with them."""

    stage: str
    images: tuple[Image, ...]
    retry: bool = False


class Plan:
    """The order of the work, for any number of workers.

    All images go through the stage "bounds", then those that are left through "attack" in groups,
    then one by one through "exact", the one with the lowest bound first: it takes the longest, and
    no worker should begin with it when the others have ended.

    Parameters
    ----------
    total : number of images, with those that are decided already.
    stages : the names of the stages in their order.
    image : makes the task's part for an image and what was found about it so far.
    """

    def __init__(
        self, total: int, stages: Sequence[str], image: Callable[[int, Open | None], Image]
    ) -> None:
        self.total, self.stages, self.image = total, tuple(stages), image
        self.begun = time.monotonic()
        self.verdicts: Counter[str] = Counter()
        self.deciding: Counter[str] = Counter()
        self.left = dict.fromkeys(self.stages, 0)
        self._first: deque[int] = deque()
        self._open: dict[int, Open] = {}  # left open by a stage and not yet in the next
        self._groups: deque[int] = deque()
        self._hardest: list[tuple[float, int]] = []
        self._retries: deque[Task] = deque()
        self._in_flight: Counter[str] = Counter()
        self._passed: Counter[str] = Counter()
        self._done: Counter[str] = Counter()
        self._seconds = dict.fromkeys(self.stages, 0.0)

    def add(self, indices: Sequence[int]) -> None:
        """Images to be decided."""
        self._first.extend(indices)
        self.left[self.stages[0]] += len(indices)

    def next_task(self) -> Task | None:
        """The next task, or None if there is none before something in flight ends."""
        if self._retries:
            task = self._retries.popleft()
        elif self._first:
            task = self._task(self.stages[0], self._first)
        elif self._groups and not self._in_flight["bounds"]:  # all of them: then groups are fixed
            self._groups = deque(sorted(self._groups))
            task = self._task("attack", self._groups)
        elif self._hardest:
            task = self._task("exact", deque([heapq.heappop(self._hardest)[1]]))
        else:
            return None
        self._in_flight[task.stage] += 1
        return task

    def _task(self, stage: str, waiting: deque[int]) -> Task:
        chosen = [waiting.popleft() for _ in range(min(SIZES[stage], len(waiting)))]
        return Task(stage, tuple(self.image(i, self._open.pop(i, None)) for i in chosen))

    def finished(
        self, task: Task, answers: Sequence[Any] | None
    ) -> Iterator[tuple[Image, Any | None]]:
        """Take in a task's result: for each image its answer, or ``Open``; None if a worker died.

        Yields the images that are done with, and their answers: None if workers died with it.
        """
        self._in_flight[task.stage] -= 1
        if answers is None and not task.retry:
            self._retries.extend(Task(task.stage, (image,), retry=True) for image in task.images)
            return
        for image, answer in zip(task.images, answers or [None] * len(task.images), strict=True):
            self.left[task.stage] -= 1
            self._done[task.stage] += 1
            if answer is not None:
                before = 0.0 if image.open is None else image.open.seconds
                self._seconds[task.stage] += answer.seconds - before
            if isinstance(answer, Open):
                self._goes_on(image.index, task.stage, answer)
            else:
                yield image, answer

    def _goes_on(self, index: int, stage: str, found: Open) -> None:
        after = self.stages[self.stages.index(stage) + 1]
        self._passed[stage] += 1
        self._open[index] = found
        self.left[after] += 1
        if after == "attack":
            self._groups.append(index)
        else:
            heapq.heappush(self._hardest, (float(found.lower.min()), index))

    def decided(self, answer: str, stage: str) -> None:
        """Count an answer, by the words for it and for its stage."""
        self.verdicts[answer] += 1
        self.deciding[stage] += 1

    def event(self) -> dict[str, Any]:
        """How far everything is."""
        return {
            "done": self.verdicts.total(),
            "total": self.total,
            "verdicts": dict(self.verdicts),
            "stages": dict(self.deciding),
            "left": dict(self.left),
            "elapsed": time.monotonic() - self.begun,
            "eta": self.eta(),
        }

    def eta(self) -> float | None:
        """About how many seconds are left; None where a stage that has to come is not known yet.

        Each stage is expected to go on as it did: seconds for an image, and the share of its images
        that it leaves open.
        """
        work, coming = 0.0, 0.0
        for stage in self.stages:
            coming += self.left[stage]
            if coming and not self._done[stage]:
                return None
            if coming:
                work += coming * self._seconds[stage] / self._done[stage]
                coming *= self._passed[stage] / self._done[stage]
        spent = sum(self._seconds.values())
        return work * (time.monotonic() - self.begun) / spent if spent else 0.0
