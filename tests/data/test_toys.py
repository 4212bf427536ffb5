"""The toy points of the chapter on linear regions."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from robustlib.data import toys


def test_points_are_in_the_box_and_the_classes_take_turns() -> None:
    x, y = toys.two_class(101)
    assert x.shape == (101, 2)
    assert x.dtype == torch.float32
    assert y.dtype == torch.int64
    assert ((x >= 0) & (x <= 1)).all()
    assert y.tolist() == [i % 2 for i in range(101)]


def test_same_seed_same_points_other_seed_other_points() -> None:
    first, again, other = (toys.two_class(50, seed)[0] for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_global_random_state_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    toys.two_class(10)
    assert torch.equal(before, torch.random.get_rng_state())


def test_no_straight_line_separates_the_classes() -> None:
    x, y = toys.two_class()
    line = LogisticRegression(C=1e6).fit(x, y)
    assert line.score(x, y) < 0.9


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n": 0}, ValueError, "n=0 is too small"),
        ({"n": 2.5}, TypeError, "n=2.5 is not a whole number"),
        ({"seed": -1}, ValueError, "seed=-1 is too small"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        toys.two_class(**arguments)
