"""Where robust and non-robust features are planted, each data set keeps the one that it should."""

from __future__ import annotations

import pytest

from robustlib import data
from robustlib.features import known_truth
from robustlib.features.known_truth import Answers


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answers]:
    return known_truth.separate(tmp_path_factory.mktemp("sets"))


def test_the_two_teachers_go_by_different_features(found: dict[str, Answers]) -> None:
    assert found["standard"].pattern > 0.9 > 0.1 > found["standard"].shape
    assert found["robust"].shape > 0.8 > 0.2 > found["robust"].pattern


def test_the_robust_set_teaches_the_shape(found: dict[str, Answers]) -> None:
    assert found["robust_dataset"].shape > 0.7 > 0.2 > found["robust_dataset"].pattern


@pytest.mark.parametrize(
    "name", ["nonrobust_dataset", "mislabeled_random", "mislabeled_deterministic"]
)
def test_the_other_sets_teach_the_pattern(found: dict[str, Answers], name: str) -> None:
    """Also where every label is wrong: to a person, all of D̂_det is labeled y + 1."""
    assert found[name].pattern > 0.7 > 0.2 > found[name].shape
    assert found[name].clean > 0.7


def test_amplitude_scales_the_pattern_only() -> None:
    plain, _ = data.shapes("test", n=3, pattern="off")
    for amplitude in (1, 6):
        x, _ = data.shapes("test", n=3, amplitude=amplitude)
        assert float((x - plain).abs().min() * 255) == pytest.approx(amplitude, abs=1e-3)
        assert float((x - plain).abs().max() * 255) == pytest.approx(amplitude, abs=1e-3)
