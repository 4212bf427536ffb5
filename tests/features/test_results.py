"""What the chapters show is computed where it is missing, in the right order, and kept by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from robustlib import data
from robustlib.features import catalog, known_truth, pictures, results, studies
from robustlib.features.experiments import Experiment, Place
from robustlib.features.training import Schedule

SHORT = Schedule(epochs=1, batch=32, reach=None)
TABLE = {
    row.name: row
    for row in (
        Experiment("standard", SHORT, attack=False, architecture="narrow"),
        Experiment("robust", SHORT, attack=False, architecture="narrow"),
        Experiment(
            "bugs",
            SHORT,
            32,
            "random",
            "standard",
            {"steps": 1, "keep": ["robust"]},
            attack=False,
            architecture="narrow",
        ),
    )
}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    train, test = data.shapes("train", n=64), data.shapes("test", n=50)
    return Place(
        tmp_path / "work", tmp_path / "records", train, test, test, known_truth.ARCHITECTURES
    )


def test_a_row_runs_after_all_rows_that_it_needs(place: Place) -> None:
    results.experiment("bugs", 0, place, TABLE)
    assert {path.name for path in place.records.iterdir()} == {
        "bugs-0.json",
        "robust-0.json",
        "standard-0.json",
    }


def test_an_unknown_row_is_named(place: Place) -> None:
    with pytest.raises(ValueError, match="name='bug'"):
        results.experiment("bug", 0, place, TABLE)


def test_studies_and_pictures_run_what_they_need(place: Place) -> None:
    rows = results.study("gradient_frequencies", 0, place, TABLE, images=20)
    assert [row["network"] for row in rows] == ["standard", "robust"]
    found = results.picture("alignment", 0, place, TABLE, images=2, steps=2)
    assert found["robust_target"].shape == (2, 16, 16, 3)
    assert found["targets"] == [2, 3]


class Kept:
    """A store in memory that computes nothing unless told to."""

    def __init__(self, compute: bool = False) -> None:
        self.asked: dict[str, dict[str, Any]] = {}
        self.compute = compute

    def __call__(self, name: str, settings: dict[str, Any], compute: Callable[[], Any]) -> Any:
        self.asked[name] = settings
        return compute() if self.compute else []


def folder(name: str) -> Path:
    raise AssertionError("nothing has to be computed")


def test_each_part_is_kept_under_its_name_with_the_settings_it_depends_on() -> None:
    kept = Kept()
    runs = results.Runs("reference", kept, folder, seeds=3)
    assert len(runs.experiment("mislabeled_random")) == 3
    runs.experiment("errors", seeds=1)
    runs.study("transfer")
    assert set(kept.asked) == {
        "features.mislabeled_random-0",
        "features.mislabeled_random-1",
        "features.mislabeled_random-2",
        "features.errors-0",
        "features.transfer",
    }
    made_by = kept.asked["features.mislabeled_random-0"]["experiment"]["teacher"]
    assert made_by == kept.asked["features.transfer"]["needs"]["standard"]


def test_both_worlds_have_what_studies_and_pictures_need() -> None:
    for table in (catalog.EXPERIMENTS, known_truth.EXPERIMENTS):
        needed = {name for study in studies.STUDIES.values() for name in study.needs(table)}
        needed |= {name for _, names in pictures.PICTURES.values() for name in names}
        assert needed <= set(table)
    assert set(known_truth.SIZES) == {*studies.STUDIES, *pictures.PICTURES}


def test_shares_of_low_frequencies_are_shares(place: Place) -> None:
    results.experiment("standard", 0, place, TABLE)
    results.experiment("robust", 0, place, TABLE)
    for row in results.study("gradient_frequencies", 0, place, TABLE, images=20):
        assert row["white"] == pytest.approx(25 / 256)
        assert 0 <= row["value"] <= 1


def test_levels_keep_the_pixels() -> None:
    x, _ = data.shapes("test", n=2)
    assert torch.equal(torch.from_numpy(pictures.levels(x)).permute(0, 3, 1, 2) / 255, x)
