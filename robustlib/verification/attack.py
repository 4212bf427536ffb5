"""The attack stage: PGD on every input that the bounds left open, all together."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from robustlib.attacks import pgd
from robustlib.verification.question import Question
from robustlib.verification.witness import Witness

# Few steps for the many easy ones, then many decaying ones toward each label that is still open.
QUICK: dict[str, Any] = {"steps": 50, "restarts": 2}
THOROUGH: dict[str, Any] = {"steps": 200, "restarts": 10}


def attack(
    questions: list[Question],
    lower: list[np.ndarray],
    *,
    generator: torch.Generator,
    thorough: bool = True,
) -> list[Witness | None]:
    """A strict witness for each question, or None.

    Parameters
    ----------
    questions : of one module, one ε and one norm.
    lower : for each question, the lower bounds of its targets' margins; only targets with a bound
        not above 0 are attacked.
    thorough : go on with many decaying steps toward each of these targets.
    """
    witnesses: list[Witness | None] = [None] * len(questions)
    first = questions[0]
    x = torch.stack([q.x for q in questions])
    y = torch.tensor([q.label for q in questions], device=x.device)
    common: dict[str, Any] = {
        "eps": first.eps,
        "norm": first.norm,
        "bounds": first.bounds,
        "loss": "margin",
        "generator": generator,
    }
    for i, point in enumerate(pgd(first.module, x, y, **common, **QUICK)):
        witnesses[i] = _check(questions[i], point)
    pairs = [
        (i, q.targets[j])
        for i, q in enumerate(questions)
        if thorough and witnesses[i] is None
        for j in np.argsort(lower[i])
        if lower[i][j] <= 0
    ]
    if pairs:
        index = torch.tensor([i for i, _ in pairs])
        targets = torch.tensor([t for _, t in pairs], device=x.device)
        points = pgd(
            first.module, x[index], y[index], targets=targets, decay=True,
            step_size=first.eps / 4 or None, **common, **THOROUGH,
        )  # fmt: skip
        for (i, _), point in zip(pairs, points, strict=True):
            witnesses[i] = witnesses[i] or _check(questions[i], point)
    return witnesses


def _check(question: Question, point: torch.Tensor) -> Witness | None:
    return question.check(point.detach().cpu().double().reshape(-1).numpy())
