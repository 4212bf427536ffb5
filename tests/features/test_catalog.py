"""The table of experiments is consistent: a run of hours does not end at a misspelled name."""

from __future__ import annotations

import inspect

import pytest

from robustlib.features import networks
from robustlib.features.catalog import EXPERIMENTS
from robustlib.features.descent import Steps
from robustlib.features.experiments import ERRORS, RECIPES


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_rows_name_what_is_there(name: str) -> None:
    row = EXPERIMENTS[name]
    earlier = list(EXPERIMENTS)[: list(EXPERIMENTS).index(name)]
    assert row.name == name
    assert row.architecture in networks.ARCHITECTURES
    assert {row.teacher, *row.build.get("keep", [])} - {None} <= set(earlier)
    if row.recipe not in (None, ERRORS):
        inspect.signature(RECIPES[row.recipe]).bind_partial(**row.build)


@pytest.mark.parametrize("name", [k for k, row in EXPERIMENTS.items() if "eps" in row.build])
def test_steps_toward_a_label_can_cross_the_ball(name: str) -> None:
    build = EXPERIMENTS[name].build
    steps = Steps(build["steps"], build["step_size"], build.get("decay", False))
    assert sum(steps.rates) >= 1.99 * build["eps"]


def test_students_of_wrong_labels_differ_by_one_thing() -> None:
    """The rows with and without whitening share everything else, the data set included."""
    for name in ("mislabeled_deterministic", "mislabeled_random"):
        white, raw = EXPERIMENTS[name], EXPERIMENTS[f"{name}_raw"]
        assert (white.build, white.images, white.teacher) == (raw.build, raw.images, raw.teacher)
        assert white.student.whiten
        assert not raw.student.whiten
        assert white.student.epochs == raw.student.epochs
        assert white.student.rate == raw.student.rate
