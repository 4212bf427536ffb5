"""The worst case of a linear model: as good as a convex solver's, as an attack's, as a proof's."""

from __future__ import annotations

import itertools

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import nn

import robustlib as rl
from robustlib import attacks
from robustlib.theory import dual_norm, worst_margins, worst_points

NORMS = ("inf", "2", "1")
ORDER = {"inf": np.inf, "2": 2, "1": 1}


def cases(norm: str, bounds: tuple[float, float] | None):
    """Weights of which some are zero or equal, inputs of which some are at the ends of the box."""
    rng = np.random.default_rng(7)
    sizes = [*itertools.product((1, 3, 12), (0.05, 0.4, 1.5)), (3, 0.0), (3, 20.0)]
    for m, eps in sizes:
        weights = rng.normal(size=m).round(1)
        x = rng.random((4, m)).round(1)
        yield weights, x, {"eps": eps, "norm": norm, "bounds": bounds}


def smallest(weights: np.ndarray, x: np.ndarray, eps: float, norm: str, bounds) -> float:
    """The same minimum by a convex solver."""
    z = cp.Variable(len(x))
    constraints = [cp.norm(z - x, ORDER[norm]) <= eps]
    if bounds is not None:
        constraints += [z >= bounds[0], z <= bounds[1]]
    return cp.Problem(cp.Minimize(weights @ z), constraints).solve(solver=cp.CLARABEL)


@pytest.mark.parametrize("bounds", [None, (0, 1)])
@pytest.mark.parametrize("norm", NORMS)
def test_no_point_of_the_ball_and_box_is_below_the_worst_one(norm: str, bounds) -> None:
    for weights, x, how in cases(norm, bounds):
        z = worst_points(weights, x, **how)
        sizes = np.linalg.norm(z - x, ORDER[norm], axis=1)
        assert (sizes <= how["eps"] * (1 + 1e-12)).all()
        if bounds is not None:
            assert z.min() >= 0
            assert z.max() <= 1
        found = smallest(weights, x[0], how["eps"], norm, bounds)
        assert weights @ z[0] == pytest.approx(found, abs=2e-6 * (1 + how["eps"]))


@pytest.mark.parametrize("norm", NORMS)
def test_without_a_box_the_fall_is_eps_times_the_dual_norm(norm: str) -> None:
    for weights, x, how in cases(norm, None):
        fall = weights @ x.T - weights @ worst_points(weights, x, **how).T
        assert fall == pytest.approx(how["eps"] * dual_norm(weights, norm=norm), abs=1e-12)


def test_a_function_for_each_input_is_as_good_as_one_by_one() -> None:
    rng = np.random.default_rng(1)
    weights, x = rng.normal(size=(6, 9)), rng.random((6, 9))
    for norm in NORMS:
        together = worst_points(weights, x, eps=0.7, norm=norm, bounds=(0, 1))
        for i in range(6):
            alone = worst_points(weights[i], x[i : i + 1], eps=0.7, norm=norm, bounds=(0, 1))
            assert np.array_equal(together[i], alone[0])


@pytest.mark.parametrize("norm", NORMS)
def test_no_attack_comes_below_the_worst_margin_and_pgd_comes_near_it(norm: str) -> None:
    ten = rl.zoo.load("digits_linear").double()
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).double().eval().requires_grad_(False)
    net[1].weight.copy_(ten[1].weight[[3, 7]])
    net[1].bias.copy_(ten[1].bias[[3, 7]])
    x, y = rl.data.digits("test")
    keep = (y == 3) | (y == 7)
    x, y = x[keep].double(), (y[keep] == 7).long()
    eps = {"inf": 0.08, "2": 0.4, "1": 1.5}[norm]
    how = {"eps": eps, "norm": norm, "bounds": (0.0, 1.0)}
    exact = worst_margins(net[1].weight, net[1].bias, x.flatten(1), y, **how)
    start = torch.Generator().manual_seed(0)
    points = attacks.pgd(net, x, y, steps=100, early_stop=False, generator=start, **how)
    logits = net(points)
    found = (logits.gather(1, y[:, None]) - logits.gather(1, 1 - y[:, None]))[:, 0].numpy()
    assert (found >= exact - 1e-9).all()
    assert (found <= exact + 0.02 * np.abs(exact).mean()).all()  # in l2 the box costs PGD a little


@pytest.mark.parametrize("eps", [0.02, 0.06, 0.1])
def test_the_verifier_agrees(eps: float) -> None:
    net = rl.zoo.load("digits_linear")
    x, y = rl.data.digits("test", n=30)
    exact = worst_margins(
        net[1].weight, net[1].bias, x.flatten(1), y, eps=eps, norm="inf", bounds=(0, 1)
    )
    found = rl.verify(net, x, y, eps=eps)
    assert [v == "robust" for v in found.verdict] == (exact > 0).tolist()


def test_with_two_classes_the_margin_is_the_function_and_its_dual_norm() -> None:
    weight, bias = np.array([[3.0, -4.0], [1.0, 1.0]]), np.array([0.5, 0.0])
    x, y = np.array([[0.2, -0.1], [0.4, 0.9]]), np.array([0, 1])
    score = x @ np.array([2.0, -5.0]) + 0.5
    for norm, size in (("inf", 7.0), ("2", np.sqrt(29)), ("1", 5.0)):
        found = worst_margins(weight, bias, x, y, eps=0.1, norm=norm)
        assert found == pytest.approx(score * [1, -1] - 0.1 * size)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm": "l2"}, "norm='l2' is not known"),
        ({"eps": -1}, "eps"),
        ({"weights": [1.0, 2.0]}, r"weights has shape \(2,\)"),
        ({"weights": [1.0, np.nan, 0.0]}, "weights holds 1 NaN"),
        ({"x": [0.1, 0.2, 0.3]}, r"x has shape \(3,\)"),
        ({"bounds": (1, 0)}, "is empty"),
        ({"bounds": (0, 0.25)}, "does not hold them"),
    ],
)
def test_bad_input_is_named(change: dict, message: str) -> None:
    good = {"weights": [1.0, -2.0, 0.0], "x": [[0.1, 0.2, 0.3]], "eps": 0.1}
    arguments = good | change
    with pytest.raises((ValueError, TypeError), match=message):
        worst_points(arguments.pop("weights"), arguments.pop("x"), **arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": [0.0]}, "give 1 integer labels"),
        ({"y": [2]}, r"allowed is \[0, 1\]"),
        ({"bias": [0.0]}, "bias"),
        ({"weight": [[1.0, 2.0]], "bias": [0.0]}, "one row"),
    ],
)
def test_bad_labels_and_shapes_are_named(change: dict, message: str) -> None:
    good = {"weight": [[1.0, 2.0], [0.0, 0.0]], "bias": [0.0, 0.0], "x": [[0.1, 0.2]], "y": [0]}
    with pytest.raises(ValueError, match=message):
        worst_margins(**(good | change), eps=0.1)
