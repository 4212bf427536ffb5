"""The convex restriction: the right disjuncts, the right half-spaces, the right affine map."""

import numpy as np
import pytest
import torch
from torch import nn

from robustlib.encoders.restriction import linear_region, nearest_program
from robustlib.network import Affine, MaxPool, Network, ReLU, from_torch

MODULES = {
    "fully connected": (
        lambda: nn.Sequential(
            nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)
        ),
        (3,),
    ),
    "convolution": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3)
        ),
        (2, 4, 4),
    ),
    "max-pooling": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 3, padding=1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3)
        ),
        (1, 4, 4),
    ),
    "max-pooling, padded and overlapping": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 2), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1), nn.Flatten(),
            nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2),
        ),
        (1, 4, 4),
    ),
}  # fmt: skip


@pytest.fixture(params=MODULES)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Network, np.ndarray]:
    """A random network, its list of steps, and twenty random inputs, flat."""
    make, shape = MODULES[request.param]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = make().double().eval()
    network = from_torch(module, shape)
    return module, network, np.random.default_rng(0).random((20, network.input_size))


def test_affine_map_is_the_gradient_of_the_module(case: tuple) -> None:
    """Inside its region the network is its own Taylor expansion: autograd is the oracle."""
    module, network, points = case
    for point in points:
        region = linear_region(network, point)
        x = torch.from_numpy(point).reshape(1, *network.input_shape)
        jacobian = torch.autograd.functional.jacobian(module, x).reshape(network.classes, -1)
        np.testing.assert_allclose(region.weight, jacobian.numpy(), atol=1e-12)
        np.testing.assert_allclose(
            region.logits(point[None]), module(x).detach().numpy(), atol=1e-12
        )


def test_region_is_where_the_pattern_stays_the_same(case: tuple) -> None:
    """x' lies in the half-spaces of x* exactly when every ReLU and maximum decides as at x*."""
    _, network, points = case
    rng = np.random.default_rng(2)
    seen = {True: 0, False: 0}
    for point in points:
        region = linear_region(network, point)
        assert region.contains(point[None]).all()
        steps = rng.standard_normal((60, len(point))) * rng.choice([0.003, 0.03, 0.3], (60, 1))
        for other in point + steps:
            there = linear_region(network, other)
            same = all(map(np.array_equal, region.pattern, there.pattern))
            assert bool(region.contains(other[None])[0]) == same
            seen[same] += 1
            if same:
                np.testing.assert_allclose(
                    region.logits(other[None]), network.forward(other[None]), atol=1e-12
                )
    assert min(seen.values()) > 50


def test_every_half_space_names_its_unit(case: tuple) -> None:
    """The slack of a row is |z| for a ReLU and the lead of the winner for a maximum."""
    _, network, points = case
    region = linear_region(network, points[0])
    values = [points[0], *(out[0] for out in network.outputs(points[:1]))]
    for row, bound, (number, unit) in zip(region.matrix, region.bound, region.units, strict=True):
        slack = bound - row @ points[0]
        step, value = network.steps[number], values[number]
        if isinstance(step, ReLU):
            assert slack == pytest.approx(abs(value[unit]), abs=1e-12)
        else:
            window = value[step.windows[unit][step.windows[unit] >= 0]]
            assert np.isclose(slack, window.max() - window, atol=1e-12).any()
    relus = sum(step.size for step in network.steps if isinstance(step, ReLU))
    losers = sum(
        int((step.windows >= 0).sum()) - step.size
        for step in network.steps
        if isinstance(step, MaxPool)
    )
    assert len(region.bound) == relus + losers


def test_relu_on_its_border_counts_as_active() -> None:
    """z = 0 satisfies (z ≥ 0 and y = z), so the region lies on the side z ≥ 0."""
    one = Affine(np.ones((1, 1)), np.zeros(1))
    region = linear_region(Network((one, ReLU(1), one), (1,)), np.zeros(1))
    assert region.pattern[0].tolist() == [True]
    assert region.contains(np.array([[0.0], [0.1], [-0.1]])).tolist() == [True, True, False]


def test_first_of_equal_inputs_of_a_maximum_is_kept() -> None:
    pool = MaxPool(np.array([[0, 1, 2]]))
    network = Network(
        (Affine(np.eye(3), np.zeros(3)), pool, Affine(np.ones((2, 1)), np.zeros(2))), (3,)
    )
    region = linear_region(network, np.array([0.1, 0.7, 0.7]))
    assert region.pattern[0].tolist() == [1]
    assert region.contains(np.array([[0.1, 0.8, 0.7], [0.1, 0.7, 0.8]])).tolist() == [True, False]


def ridge() -> nn.Sequential:
    """Logits (0.7, 2 max(x1, x2) − min(x1, x2)), the minimum as a maximum of −x."""
    net = nn.Sequential(
        nn.Conv2d(1, 2, 1, bias=False), nn.MaxPool2d((1, 2)), nn.Flatten(), nn.Linear(2, 2)
    )
    net[0].weight.data = torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1)
    net[3].weight.data = torch.tensor([[0.0, 0.0], [2.0, 1.0]])
    net[3].bias.data = torch.tensor([0.7, 0.0])
    return net.double().eval().requires_grad_(False)


def test_ties_decided_along_a_step_fit_together() -> None:
    """The first of equal inputs twice leaves the line x1 = x2; a step to x1 the half-plane."""
    network, tie = from_torch(ridge(), (1, 1, 2)), np.array([0.5, 0.5])
    points = np.array([[0.5, 0.5], [0.6, 0.4], [0.4, 0.6]])
    assert linear_region(network, tie).contains(points).tolist() == [True, False, False]
    region = linear_region(network, tie, np.array([1.0, -1.0]))
    assert region.contains(points).tolist() == [True, True, False]
    np.testing.assert_allclose(region.weight, [[0.0, 0.0], [2.0, -1.0]])


def test_relu_on_its_border_is_decided_along_a_step() -> None:
    one = Affine(np.ones((1, 1)), np.zeros(1))
    network = Network((one, ReLU(1), one), (1,))
    for way, expected in [(1.0, True), (0.0, True), (-1.0, False)]:
        assert linear_region(network, np.zeros(1), np.array([way])).pattern[0] == [expected]


def test_network_without_disjunctions_has_no_half_spaces() -> None:
    region = linear_region(Network((Affine(np.eye(2), np.ones(2)),), (2,)), np.zeros(2))
    assert region.matrix.shape == (0, 2)
    assert region.contains(np.full((1, 2), 1e6)).all()


def test_program_by_hand() -> None:
    """f(x) = (x1, x2) at (0.75, 0.25): x2 − x1 ≥ α, then −t ≤ x − x* ≤ t; columns x1 x2 t."""
    region = linear_region(Network((Affine(np.eye(2), np.zeros(2)),), (2,)), np.array([0.75, 0.25]))
    program = nearest_program(region, 1, alpha=0.5)
    assert program.matrix.toarray().tolist() == [
        [1, -1, 0],
        [1, 0, -1],
        [0, 1, -1],
        [-1, 0, -1],
        [0, -1, -1],
    ]
    assert program.row_upper.tolist() == [-0.5, 0.75, 0.25, -0.75, -0.25]
    assert program.lower.tolist() == [0, 0, 0]
    assert program.upper.tolist() == [1, 1, np.inf]
    assert nearest_program(region, 1, bounds=None).lower.tolist() == [-np.inf, -np.inf, 0]
