"""Minimum distortion and certified radii in every norm: the truth of brute force, or below it."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import robustlib as rl
from robustlib.network import from_torch
from robustlib.verification.radius import METHODS, certified_radius
from robustlib.verification.witness import distance, is_within
from tests.brute_force import (
    random_network,
    smallest_distortion_to,
    smallest_margins_in_ball,
)

NORMS = ["inf", "1", "2"]
BOX = (0.0, 1.0)


def case(seed):
    module, shape = random_network(seed)
    network = from_torch(module, shape)
    x = torch.from_numpy(np.random.default_rng(seed).random(shape)).float()
    flat = x.double().reshape(-1).numpy()
    return module, network, x, flat, int(network.forward(flat[None])[0].argmax())


def exact_distance(a, b, norm):
    """The distance, squared in the norm "2", in rational arithmetic."""
    gaps = [abs(Fraction(p) - Fraction(q)) for p, q in zip(a.tolist(), b.tolist(), strict=True)]
    return max(gaps) if norm == "inf" else sum(g if norm == "1" else g * g for g in gaps)


@given(st.integers(0, 10**6), st.sampled_from(NORMS), st.sampled_from([np.float32, np.float64]))
@settings(max_examples=60, deadline=None)
def test_distances_are_rounded_up_and_membership_is_exact(seed, norm, kind):
    rng = np.random.default_rng(seed)
    a, b = (rng.random(5).astype(kind).astype(float) * 10.0 ** rng.integers(-30, 1) for _ in "ab")
    power = 2 if norm == "2" else 1
    found, exact = distance(a, b, norm), exact_distance(a, b, norm)
    assert Fraction(found) ** power >= exact
    assert found == pytest.approx(np.linalg.norm(a - b, float(norm)), rel=1e-12)
    assert is_within(a, b, found, norm)
    below = float(np.nextafter(np.nextafter(found, 0), 0))
    assert not is_within(a, b, below, norm)
    assert distance(a, a, norm) == 0.0


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("chunk", range(3))
def test_minimum_distortion_is_that_of_brute_force(chunk, norm):
    """60 networks in each norm, with max-pooling too; every third asks for one target."""
    for seed in range(20 * chunk, 20 * chunk + 20):
        module, network, x, flat, label = case(seed)
        others = [j for j in range(network.classes) if j != label]
        targets = others[seed % len(others)] if seed % 3 == 0 else None
        wanted = others if targets is None else [targets]
        truth = smallest_distortion_to(network, flat, wanted, norm, BOX)
        found = rl.min_distortion(module, x, label, norm=norm, targets=targets)
        assert found.finished, seed
        assert found.lower <= truth + 1e-6, seed
        if np.isinf(truth):
            assert found.witness is None
            assert found.lower == np.inf
            continue
        assert truth - 1e-6 <= found.distance <= truth + 1e-4 * max(1, truth), seed
        assert found.lower >= found.distance - 1e-5 * max(1, truth), seed
        assert found.label in wanted
        assert int(module(found.witness[None]).argmax()) == found.label
        point = found.witness.double().reshape(-1).numpy()
        power = 2 if norm == "2" else 1
        assert exact_distance(point, flat, norm) <= Fraction(found.distance) ** power
        assert found.witness.min() >= 0
        assert found.witness.max() <= 1


@pytest.mark.parametrize("norm", ["1", "2"])
@pytest.mark.parametrize("chunk", range(3))
def test_verdicts_over_a_ball_are_those_of_brute_force(chunk, norm):
    for seed in range(500 + 10 * chunk, 510 + 10 * chunk):
        module, network, x, flat, label = case(seed)
        eps = float(np.random.default_rng(seed).uniform(0.1, 0.8))
        truth = smallest_margins_in_ball(network, flat, label, eps, norm, BOX).min()
        verdict = rl.verify(module, x[None], torch.tensor([label]), eps=eps, norm=norm).results[0]
        if abs(truth) > 1e-4:
            assert verdict.verdict == ("robust" if truth > 0 else "adversarial"), (seed, truth)
        assert verdict.lower <= truth + 1e-6, seed
        if verdict.witness is not None:
            point = verdict.witness.double().reshape(-1).numpy()
            assert exact_distance(point, flat, norm) <= Fraction(eps) ** (2 if norm == "2" else 1)
            assert int(module(verdict.witness[None]).argmax()) != label


@pytest.mark.parametrize("norm", NORMS)
def test_certified_radii_are_below_the_distortion_and_in_their_order(norm):
    for seed in range(0, 40, 4):  # two hidden layers
        module, network, x, flat, label = case(seed)
        target = (label + 1) % network.classes
        radius = {
            method: certified_radius(module, x, label, target=target, norm=norm, method=method)
            for method in METHODS
        }
        truth = smallest_distortion_to(network, flat, [target], norm, BOX)
        slack = 2e-3 * max(radius.values()) + 1e-9
        assert max(radius.values()) <= truth + 1e-6
        assert radius["fastlin"] <= radius["lp"] + slack
        assert radius["lp"] <= radius["lp_full"] + slack


def test_a_linear_network_has_its_radius_in_closed_form():
    """Margin w·x + b: |w·x + b| over the dual norm of w, while the box is far."""
    net = nn.Sequential(nn.Linear(4, 2)).double().eval()
    w = torch.tensor([3.0, -1.0, 0.5, 2.0], dtype=torch.float64)
    net[0].weight.data = torch.stack([w, torch.zeros(4, dtype=torch.float64)])
    net[0].bias.data = torch.tensor([-1.75, 0.0], dtype=torch.float64)
    x = torch.full((4,), 0.5, dtype=torch.float64)  # margin 0.5
    for norm, dual in (("inf", 6.5), ("1", 3.0), ("2", float(w.norm()))):
        found = rl.min_distortion(net, x, 0, norm=norm)
        assert found.distance == pytest.approx(0.5 / dual, abs=2e-6)
        assert found.finished
        for method in METHODS:
            radius = certified_radius(net, x, 0, norm=norm, method=method, tolerance=1e-6)
            assert radius == pytest.approx(0.5 / dual, rel=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_a_trained_network_is_robust_just_below_and_not_just_above(norm):
    net = rl.zoo.load("mlp_2x20")
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(1, 1, 28, 28, generator=generator).mul(2).sub(1).clamp(0, 1)
    y = net(x).argmax(1)
    events = []
    found = rl.min_distortion(net, x[0], int(y), norm=norm, progress=events.append)
    assert found.finished
    assert found.distance - found.lower < 1e-5 * max(1, found.distance)
    assert events[-1]["lower"] == found.lower
    assert rl.verify(net, x, y, eps=found.lower * (1 - 1e-6), norm=norm).verdict == ["robust"]
    above = rl.verify(net, x, y, eps=found.distance * (1 + 1e-4), norm=norm)
    assert above.verdict == ["adversarial"]


def test_time_that_is_too_short_leaves_a_proved_lower_bound():
    net = rl.zoo.load("mlp_3x20")
    x = torch.rand(1, 28, 28, generator=torch.Generator().manual_seed(0))
    label = int(net(x[None]).argmax())
    found = rl.min_distortion(net, x, label, norm="2", time_limit=0.0)
    assert not found.finished
    assert found.lower > 0
    assert found.lower <= rl.min_distortion(net, x, label, norm="2").distance


def test_bad_targets_and_methods_are_named():
    net, x = rl.zoo.load("mlp_2x20"), torch.zeros(1, 28, 28)
    for targets in ([], [3, 10], 3, [3]):
        with pytest.raises(ValueError, match="targets="):
            rl.min_distortion(net, x, 3, targets=targets)
    with pytest.raises(TypeError, match="targets='a'"):
        rl.min_distortion(net, x, 3, targets=["a"])
    with pytest.raises(ValueError, match="target=3 is not allowed"):
        certified_radius(net, x, 3, target=3)
    with pytest.raises(ValueError, match=r"method='lpfull'.*lp_full"):
        certified_radius(net, x, 3, method="lpfull")
    with pytest.raises(ValueError, match="norm='0'"):
        certified_radius(net, x, 3, norm="0")


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("method", METHODS)
def test_bounds_that_overflow_end_the_radius(method, norm):
    """max(a x − 2a, 0) · (b − b) with a b infinite: from x = 2 on the bounds are."""
    net = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    net = net.double().eval().requires_grad_(False)
    for layer, weight, bias in (
        (net[0], [[1e300], [1e300]], [-2e300, -2e300]),
        (net[2], [[1e10, -1e10], [0.0, 0.0]], [0.0, 0.0]),
        (net[4], [[1.0, 0.0], [0.0, 0.0]], [1.0, 0.0]),
    ):
        layer.weight[:] = torch.tensor(weight, dtype=torch.float64)
        layer.bias[:] = torch.tensor(bias, dtype=torch.float64)
    x = torch.tensor([0.5], dtype=torch.float64)
    with np.errstate(all="ignore"):
        found = certified_radius(net, x, 0, norm=norm, method=method, bounds=(0.0, 3.0))
    assert 1.4 < found < 1.6
