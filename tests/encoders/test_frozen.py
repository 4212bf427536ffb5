"""Rows on demand are the half-spaces that `linear_region` writes down all at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from robustlib.encoders.frozen import Frozen, first_matrix
from robustlib.encoders.restriction import linear_region
from robustlib.network import Residual, from_torch, margin_rows
from tests.encoders.test_restriction import MODULES

MORE = {
    "average pooling, batch norm and dropout": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(),
            nn.MaxPool2d(3, stride=2, padding=1), nn.Conv2d(3, 4, 1), nn.ReLU(),
            nn.AvgPool2d(3, stride=2, padding=1), nn.Conv2d(4, 3, 1), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        ),
        (1, 6, 6),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", [*MODULES, *MORE])
def test_rows_and_slacks_are_those_of_the_region(name: str) -> None:
    make, shape = {**MODULES, **MORE}[name]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = make().double().eval().requires_grad_(False)
    network = from_torch(module, shape)
    rng = np.random.default_rng(0)
    for point in rng.random((5, network.input_size)):
        region = linear_region(network, point)
        frozen = Frozen(module, torch.from_numpy(point).reshape(shape))
        assert len(frozen) == len(region.bound)
        which = rng.permutation(len(frozen))
        rows, bounds = frozen.rows(which)
        np.testing.assert_allclose(rows, region.matrix[which], atol=1e-12)
        np.testing.assert_allclose(bounds, region.bound[which], atol=1e-12)
        first = first_matrix(module, shape)
        given = Frozen(module, torch.from_numpy(point).reshape(shape), first=first)
        for one, other in zip(given.rows(which), (rows, bounds), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-12)
        np.testing.assert_allclose(frozen.slack, region.bound - region.matrix @ point, atol=1e-12)
        other = rng.random(network.input_size)
        np.testing.assert_allclose(
            frozen.slacks(other), region.bound - region.matrix @ other, atol=1e-12
        )
        np.testing.assert_allclose(frozen.logits, network.forward(point[None])[0], atol=1e-12)
        wins, limits = frozen.target_rows(1)
        expected = -margin_rows(1, network.classes)
        np.testing.assert_allclose(wins, expected @ region.weight, atol=1e-12)
        np.testing.assert_allclose(limits, -expected @ region.bias, atol=1e-12)


def test_the_first_matrix_ends_at_the_first_disjunction() -> None:
    """Layers without one are multiplied; Dropout and Flatten do nothing; a block ends it."""
    linear = nn.Linear(4, 3), nn.Linear(3, 2)
    one = nn.Sequential(nn.Flatten(), nn.Dropout(), *linear, nn.ReLU(), nn.Linear(2, 2)).eval()
    expected = (linear[1].weight @ linear[0].weight).detach().double().numpy()
    np.testing.assert_allclose(first_matrix(one, (1, 2, 2)).toarray(), expected, atol=1e-6)
    assert first_matrix(nn.Sequential(nn.ReLU(), nn.Linear(2, 2)), (2,)) is None
    block = Residual(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    assert first_matrix(nn.Sequential(nn.Linear(2, 2), block), (2,)).shape == (2, 2)


@pytest.mark.parametrize("name", MODULES)
def test_on_a_plain_background_the_region_is_the_one_that_a_step_enters(name: str) -> None:
    """Ties everywhere: by torch and by matrices the same region, and a small step stays inside."""
    make, shape = MODULES[name]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = make().double().eval().requires_grad_(False)
    network = from_torch(module, shape)
    rng, tied = np.random.default_rng(0), 0
    for _ in range(5):
        point = np.full(network.input_size, 0.5)
        point[-1] = rng.random()
        way = rng.choice([-1.0, 0.0, 1.0], network.input_size)
        region = linear_region(network, point, way)
        tensors = [torch.from_numpy(v).reshape(shape) for v in (point, way)]
        frozen = Frozen(module, *tensors)
        rows, bounds = frozen.rows(np.arange(len(frozen)))
        np.testing.assert_allclose(rows, region.matrix, atol=1e-12)
        np.testing.assert_allclose(bounds, region.bound, atol=1e-12)
        tied += int((np.abs(frozen.slack) < 1e-12).sum())
        assert frozen.slacks(point + 1e-5 * way).min() >= -1e-12
    assert tied > 0 or name != "max-pooling, padded and overlapping"


def test_a_residual_block_is_affine_where_its_pattern_stays() -> None:
    """Inside the half-spaces the module is its own Taylor expansion; outside it need not be."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))
        module = nn.Sequential(
            nn.Linear(3, 6), nn.ReLU(), Residual(body, nn.Linear(6, 4)), nn.ReLU(), nn.Linear(4, 3)
        )
    module = module.double().eval().requires_grad_(False)
    rng = np.random.default_rng(0)
    inside = 0
    for point in rng.standard_normal((20, 3)):
        frozen = Frozen(module, torch.from_numpy(point))
        assert len(frozen) == 6 + 5 + 4
        jacobian = torch.autograd.functional.jacobian(module, torch.from_numpy(point)).numpy()
        for other in point + 0.2 * rng.standard_normal((20, 3)):
            if (frozen.slacks(other) > 0).all():
                inside += 1
                values = module(torch.from_numpy(other)).numpy()
                np.testing.assert_allclose(values, frozen.logits + jacobian @ (other - point))
    assert inside > 50


def test_the_most_violated_of_every_layer() -> None:
    net = nn.Sequential(nn.Linear(1, 3), nn.ReLU(), nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))
    frozen = Frozen(net.double().eval().requires_grad_(False), torch.zeros(1).double())
    slack, given = np.array([-1.0, -3.0, -2.0, 0.5, -0.5]), np.zeros(5, dtype=bool)
    assert frozen.most_violated(slack, given, 2).tolist() == [1, 2, 4]
    given[1] = True
    assert frozen.most_violated(slack, given, 1).tolist() == [2, 4]


def test_what_cannot_be_frozen_is_refused_by_name() -> None:
    x = torch.zeros(2).double()
    with pytest.raises(ValueError, match="layer 1 is Sigmoid"):
        Frozen(nn.Sequential(nn.Linear(2, 2), nn.Sigmoid()).double().eval(), x)
    with pytest.raises(ValueError, match=r"layer 0 is Linear.*its input has shape \(2,\)"):
        Frozen(nn.Sequential(nn.Linear(3, 2)).double().eval(), x)
    norm = nn.BatchNorm1d(2, track_running_stats=False)
    with pytest.raises(ValueError, match="without running statistics"):
        Frozen(nn.Sequential(norm, nn.Linear(2, 2)).double().eval(), x)
