"""The balls: membership in exact arithmetic, projection, random starts."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustlib.attacks.balls import BALLS, box, inward

DTYPES = [torch.float32, torch.float64]
seeds = st.integers(0, 2**31)
radii = st.one_of(st.floats(1e-6, 2.0), st.sampled_from([0.1, 0.3, 8 / 255, 1 / 3, 1.0, 0.0]))


def rational(values: torch.Tensor) -> list[Fraction]:
    return [Fraction(v) for v in values.flatten().tolist()]


def distance_is_within(a: torch.Tensor, b: torch.Tensor, eps: float, norm: str) -> bool:
    """Whether two points are at most ``eps`` apart, in rational arithmetic."""
    gaps = [abs(p - q) for p, q in zip(rational(a), rational(b), strict=True)]
    if norm == "inf":
        return max(gaps) <= Fraction(eps)
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


def test_direction_has_norm_one_and_the_largest_product_with_the_gradient():
    gradient = torch.randn(4, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    flat = gradient.flatten(1)
    x = torch.zeros_like(gradient)
    for norm, dual in (("inf", 1), ("2", 2)):
        step = BALLS[norm].around(x, 1.0, (-9, 9)).direction(gradient).flatten(1)
        assert torch.allclose(step.norm(float(norm), dim=1), torch.ones(4, dtype=torch.float64))
        assert torch.allclose((step * flat).sum(1), flat.norm(dual, dim=1))


def test_l2_direction_survives_gradients_that_underflow_when_squared():
    gradient = torch.tensor([[3e-30, 4e-30], [0.0, 0.0]])
    step = BALLS["2"].around(torch.zeros(2, 2), 1.0, (-1, 1)).direction(gradient)
    assert torch.allclose(step, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))


def test_random_l2_starts_fill_the_ball_uniformly():
    """In dimension d the share of points within half the radius is 2^-d."""
    x = torch.zeros(4000, 2)
    ball = BALLS["2"].around(x, 1.0, (-1, 1))
    radii = ball.random([torch.Generator().manual_seed(i) for i in range(4000)]).norm(dim=1)
    assert (radii < 0.5).float().mean().item() == pytest.approx(0.25, abs=0.03)
