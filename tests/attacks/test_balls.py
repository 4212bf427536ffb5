"""The balls: membership in exact arithmetic, projection, random starts."""

from __future__ import annotations

from fractions import Fraction

import eagerpy as ep
import foolbox
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from robustlib.attacks.balls import BALLS, box, inward

DTYPES = [torch.float32, torch.float64]
seeds = st.integers(0, 2**31)
radii = st.one_of(st.floats(1e-6, 2.0), st.sampled_from([0.1, 0.3, 8 / 255, 1 / 3, 1.0, 0.0]))


def rational(values: torch.Tensor) -> list[Fraction]:
    return [Fraction(v) for v in values.flatten().tolist()]


def distance_is_within(a: torch.Tensor, b: torch.Tensor, eps: float, norm: str) -> bool:
    """Whether two points are at most ``eps`` apart, in rational arithmetic."""
    gaps = [abs(p - q) for p, q in zip(rational(a), rational(b), strict=True)]
    if norm != "2":
        return (max if norm == "inf" else sum)(gaps) <= Fraction(eps)
    return sum(g * g for g in gaps) <= Fraction(eps) ** 2


def inputs(seed: int, dtype: torch.dtype, n: int = 3, size: int = 17) -> torch.Tensor:
    """Values of [0, 1], some on its ends, some tiny, some multiples of 1/255."""
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(n, size, dtype=dtype, generator=g)
    kind = torch.randint(5, x.shape, generator=g)
    x = torch.where(kind == 0, torch.zeros_like(x), x)
    x = torch.where(kind == 1, torch.ones_like(x), x)
    x = torch.where(kind == 2, x * 1e-30, x)
    return torch.where(kind == 3, (x * 255).round() / 255, x)


@settings(deadline=None, max_examples=60)
@given(seed=seeds, eps=radii, dtype=st.sampled_from(DTYPES), sign=st.sampled_from([-1, 1]))
def test_inward_is_the_last_value_within_reach(seed, eps, dtype, sign):
    x = inputs(seed, dtype)
    z = inward(x, sign * eps)
    beyond = torch.nextafter(z, torch.full_like(z, sign * 10.0))
    for here, there, past in zip(rational(x), rational(z), rational(beyond), strict=True):
        assert 0 <= sign * (there - here) <= Fraction(eps)
        assert sign * (past - here) > Fraction(eps)


@pytest.mark.parametrize("norm", BALLS)
@pytest.mark.parametrize("dtype", DTYPES)
@settings(deadline=None, max_examples=40)
@given(seed=seeds, eps=radii, reach=st.floats(0.0, 3.0))
def test_projection_lands_in_ball_and_box_exactly(norm, dtype, seed, eps, reach):
    x = inputs(seed, dtype)
    ball = BALLS[norm].around(x, eps, (0.0, 1.0))
    z = x + reach * torch.randn(x.shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    generators = [torch.Generator().manual_seed(seed + i) for i in range(len(x))]
    for point in (ball.project(z), ball.random(generators)):
        assert point.dtype == dtype
        assert point.min() >= 0
        assert point.max() <= 1
        for a, b in zip(point, x, strict=True):
            assert distance_is_within(a, b, eps, norm)


@pytest.mark.parametrize("norm", BALLS)
def test_projection_leaves_members_where_they_are(norm):
    x = inputs(1, torch.float64)
    ball = BALLS[norm].around(x, 0.5, (0.0, 1.0))
    inner = (x + 0.01).clamp(0, 1)
    assert torch.allclose(ball.project(inner), inner, rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", DTYPES)
def test_box_ends_round_into_the_bounds(dtype):
    low, high = box((0.1, 0.7), dtype)
    assert 0.1 <= low <= 0.1 + 1e-7
    assert 0.7 - 1e-7 <= high <= 0.7


def test_a_step_has_its_length_and_the_largest_product_with_the_gradient():
    gradient = torch.randn(4, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    flat = gradient.flatten(1)
    x = torch.zeros_like(gradient)
    for norm, dual in (("inf", 1), ("2", 2), ("1", float("inf"))):
        step = BALLS[norm].around(x, 1.0, (-9, 9)).step(x, gradient, 1.0).flatten(1)
        assert torch.allclose(step.norm(float(norm), dim=1), torch.ones(4, dtype=torch.float64))
        assert torch.allclose((step * flat).sum(1), flat.norm(dual, dim=1))


def test_l2_step_survives_gradients_that_underflow_when_squared():
    gradient = torch.tensor([[3e-30, 4e-30], [0.0, 0.0]])
    step = BALLS["2"].around(torch.zeros(2, 2), 1.0, (-1, 1)).step(torch.zeros(2, 2), gradient, 1.0)
    assert torch.allclose(step, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))


def test_l1_step_is_the_best_inside_the_box():
    """The largest increase of a linear function over {‖s‖₁ ≤ length, z + s in the box}: an LP."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        z, gradient = rng.random(6).round(1), rng.normal(size=6).round(1)
        length = rng.uniform(0, 3)
        ball = BALLS["1"].around(torch.zeros(1, 6).double(), 9.0, (0.0, 1.0))
        ours = ball.step(torch.from_numpy(z[None]), torch.from_numpy(gradient[None]), length)[0]
        best = linprog(
            -np.concatenate([gradient, -gradient]), A_ub=np.ones((1, 12)), b_ub=[length],
            bounds=[*((0, 1 - v) for v in z), *((0, v) for v in z)],
        )  # fmt: skip
        assert float(gradient @ (ours.numpy() - z)) == pytest.approx(-best.fun, abs=1e-12)
        assert abs(ours.numpy() - z).sum() <= length + 1e-12


@settings(deadline=None, max_examples=60)
@given(seed=seeds, eps=radii, reach=st.floats(0.0, 2.0))
def test_l1_projection_is_the_nearest_point_of_ball_and_box(seed, eps, reach):
    """p is nearest iff (z − p)·(q − p) ≤ 0 for all q of the set; a step finds the worst of them."""
    x = inputs(seed, torch.float64)
    g = torch.Generator().manual_seed(seed)
    z = x + reach * torch.randn(x.shape, dtype=torch.float64, generator=g)
    ball = BALLS["1"].around(x, eps, (0.0, 1.0))
    p = ball.project(z)
    q = ball.step(x, z - p, eps)
    assert ((z - p) * (q - p)).sum(1).max() <= 1e-12


def test_l1_projection_is_nearer_than_that_of_foolbox_which_scales():
    g = torch.Generator().manual_seed(0)
    x = torch.rand(20, 9, dtype=torch.float64, generator=g)
    z = x + torch.randn(x.shape, dtype=torch.float64, generator=g)
    scaled = foolbox.attacks.L1PGD().project(ep.astensor(z), ep.astensor(x), 0.7).raw.clamp(0, 1)
    ours = BALLS["1"].around(x, 0.7, (0.0, 1.0)).project(z)
    assert ((ours - z).norm(dim=1) <= (scaled - z).norm(dim=1)).all()


def test_random_l1_starts_fill_the_ball_uniformly():
    x = torch.zeros(4000, 2)
    ball = BALLS["1"].around(x, 1.0, (-1, 1))
    points = ball.random([torch.Generator().manual_seed(i) for i in range(4000)])
    size = points.abs().sum(1)
    assert (size < 0.5).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert (points[:, 0].abs() < 0.5 * size).float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert (points > 0).float().mean().item() == pytest.approx(0.5, abs=0.03)


def test_random_l2_starts_fill_the_ball_uniformly():
    """In dimension d the share of points within half the radius is 2^-d."""
    x = torch.zeros(4000, 2)
    ball = BALLS["2"].around(x, 1.0, (-1, 1))
    radii = ball.random([torch.Generator().manual_seed(i) for i in range(4000)]).norm(dim=1)
    assert (radii < 0.5).float().mean().item() == pytest.approx(0.25, abs=0.03)
