"""ρ̂ against geometry in the plane, against scipy on the paper's own program, and by hand."""

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import nn

from robustlib.encoders.restriction import Region, linear_region
from robustlib.network import Affine, Network, ReLU, from_torch
from robustlib.pointwise import STRICT, pointwise_robustness

SOLVERS = ["highs", "scip", "cvxpy"]


def random_module(seed: int, *widths: int) -> nn.Sequential:
    """Fully connected, with weights large enough for several regions in the unit box."""
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(widths):
        layer = nn.Linear(fan_in, fan_out)
        layer.weight.data = torch.randn(fan_out, fan_in, generator=generator)
        layer.bias.data = -layer.weight.data.sum(1) * torch.rand(fan_out, generator=generator)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1]).eval()


def clip(polygon: list[np.ndarray], row: np.ndarray, bound: float) -> list[np.ndarray]:
    """The part of a convex polygon in row · x ≤ bound (Sutherland and Hodgman)."""
    kept = []
    for p, q in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        at_p, at_q = row @ p - bound, row @ q - bound
        if at_p <= 0:
            kept.append(p)
        if at_p * at_q < 0:
            kept.append(p + (q - p) * at_p / (at_p - at_q))
    return kept


def distance(x: np.ndarray, polygon: list[np.ndarray]) -> float:
    """The l∞ distance from x to a convex polygon that does not hold x; inf if it is empty.

    Along an edge the distance is convex and piecewise linear; it bends where a coordinate is 0 or
    where both are equal in size, so its smallest value is at one of these places or at an end.
    """
    best = np.inf
    for p, q in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        (a, b), (c, d) = p - x, q - p
        pairs = [(a, c), (b, d), (a - b, c - d), (a + b, c + d)]
        places = [0.0, 1.0, *(-value / slope for value, slope in pairs if slope != 0)]
        best = min([best, *(np.abs(p - x + s * (q - p)).max() for s in places if 0 <= s <= 1)])
    return best


def brute_force(region: Region, label: int, target: int) -> float:
    polygon = [np.array(corner, dtype=float) for corner in [(0, 0), (1, 0), (1, 1), (0, 1)]]
    rows = [*region.matrix, region.weight[label] - region.weight[target]]
    bounds = [*region.bound, region.bias[target] - region.bias[label]]
    for row, bound in zip(rows, bounds, strict=True):
        polygon = clip(polygon, row, bound)
    return distance(region.center, polygon)


def assert_witness_holds(module: nn.Module, x: torch.Tensor, result: object, i: int) -> None:
    """A witness is in the box, at the distance stated, and given another label by the module."""
    witness = result.witness[i]
    assert witness.dtype == torch.float64
    assert witness.shape == x.shape[1:]
    assert ((witness >= 0) & (witness <= 1)).all()
    assert result.distance[i] == float((witness - x[i].double()).abs().max())
    logits = module.double()(witness[None])[0]
    module.float()
    assert int(logits.argmax()) != result.label[i]
    assert logits[result.label[i]] < logits.max()


@pytest.mark.parametrize("seed", range(8))
def test_equals_geometry_in_the_plane(seed: int) -> None:
    """In two dimensions the region is a polygon and ρ̂ a distance that can be computed exactly."""
    module = random_module(seed, 2, 8, 2)
    network = from_torch(module, (2,))
    x = torch.rand((40, 2), generator=torch.Generator().manual_seed(seed))
    result = pointwise_robustness(module, x)
    for i, point in enumerate(x.double().numpy()):
        region = linear_region(network, point)
        exact = brute_force(region, result.label[i], 1 - result.label[i])
        assert result.rho[i] == pytest.approx(exact, abs=1e-7)
        assert (result.target[i] == -1) == np.isinf(exact)
        if result.witness[i] is not None:
            assert_witness_holds(module, x, result, i)
            assert result.distance[i] >= result.rho[i] - 1e-9


def test_nothing_nearer_in_the_region() -> None:
    """Of many samples of the region none with another label is nearer than ρ̂, and one is close."""
    module = random_module(3, 2, 8, 2)
    network = from_torch(module, (2,))
    x = torch.rand((30, 2), generator=torch.Generator().manual_seed(0))
    result = pointwise_robustness(module, x)
    axis = np.linspace(0, 1, 201)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    labels = network.forward(grid).argmax(axis=1)
    for i, point in enumerate(x.double().numpy()):
        inside = linear_region(network, point).contains(grid)
        away = np.abs(grid - point).max(axis=1)
        other = labels != result.label[i]
        assert away[other].min(initial=np.inf) <= result.rho[i] + 0.005  # ρ ≤ ρ̂
        assert away[inside & other].min(initial=np.inf) >= result.rho[i] - 1e-9


def layered(network: Network, x: np.ndarray, target: int) -> float:
    """ρ̂ as the paper writes it: variables for every layer, equalities, the kept disjuncts."""
    sizes = [network.input_size, *(step.size for step in network.steps)]
    starts = np.cumsum([0, *sizes])
    n = starts[-1] + 1
    equal, equal_rhs, less, less_rhs = [], [], [], []
    values = [x, *(out[0] for out in network.outputs(x[None]))]
    for k, step in enumerate(network.steps):
        for j in range(step.size):
            row = np.zeros(n)
            row[starts[k + 1] + j] = 1.0
            if isinstance(step, Affine):
                row[starts[k] : starts[k + 1]] = -step.weight[j]
                equal_rhs.append(step.bias[j])
            else:
                assert isinstance(step, ReLU)
                active = values[k][j] >= 0
                row[starts[k] + j] = -1.0 if active else 0.0
                equal_rhs.append(0.0)
                side = np.zeros(n)
                side[starts[k] + j] = -1.0 if active else 1.0
                less.append(side)
                less_rhs.append(0.0)
            equal.append(row)
    last = starts[-2]
    for other in set(range(network.classes)) - {target}:
        row = np.zeros(n)
        row[last + other], row[last + target] = 1.0, -1.0
        less.append(row)
        less_rhs.append(0.0)
    for j, sign in itertools.product(range(len(x)), [1.0, -1.0]):
        row = np.zeros(n)
        row[j], row[-1] = sign, -1.0
        less.append(row)
        less_rhs.append(sign * x[j])
    answer = linprog(
        np.append(np.zeros(n - 1), 1.0),
        A_ub=np.array(less),
        b_ub=less_rhs,
        A_eq=np.array(equal),
        b_eq=equal_rhs,
        bounds=[(0, 1)] * len(x) + [(None, None)] * (n - 1 - len(x)) + [(0, None)],
    )
    assert answer.status in (0, 2)
    return answer.fun if answer.status == 0 else np.inf


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("seed", range(6))
def test_equals_the_layered_program(seed: int, solver: str) -> None:
    """Eliminating the inner variables changes nothing: scipy on the paper's program agrees."""
    module = random_module(seed, 4, 7, 6, 3)
    network = from_torch(module, (4,))
    x = torch.rand((4, 4), generator=torch.Generator().manual_seed(seed))
    every = pointwise_robustness(module, x, labels="all", solver=solver)
    second = pointwise_robustness(module, x, labels="second", solver=solver)
    for i, point in enumerate(x.double().numpy()):
        order = np.argsort(-network.forward(point[None])[0])
        expected = {int(other): layered(network, point, other) for other in order[1:]}
        assert every.rho[i] == pytest.approx(min(expected.values()), abs=1e-6)
        assert second.rho[i] == pytest.approx(expected[int(order[1])], abs=1e-6)
        assert second.rho[i] >= every.rho[i] - 1e-6
        if np.isfinite(every.rho[i]):
            assert expected[every.target[i]] == pytest.approx(every.rho[i], abs=1e-6)
        if every.witness[i] is not None:
            assert_witness_holds(module, x, every, i)


def test_convolution_and_max_pooling() -> None:
    """On images: the witness fools the module, and inside radius ρ̂ the region holds one label."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(12, 3),
        ).eval()  # fmt: skip
    network = from_torch(module, (1, 4, 4))
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((12, 1, 4, 4), generator=generator)
    result = pointwise_robustness(module, x, labels="all")
    found = [i for i in range(len(x)) if result.witness[i] is not None]
    assert len(found) >= 3
    rng = np.random.default_rng(0)
    for i in found:
        assert_witness_holds(module, x, result, i)
        point = x[i].double().flatten().numpy()
        region = linear_region(network, point)
        inside = point + rng.uniform(-1, 1, (2000, 16)) * result.rho[i] * 0.999
        inside = inside[region.contains(inside)]
        assert (network.forward(inside).argmax(axis=1) == result.label[i]).all()


def test_toy_of_verifinn() -> None:
    """The 2-2 network of the package verifiNN: ρ = 0.5 at (1, 2), attained at (1.5, 1.5)."""
    module = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)).eval()
    module[0].weight.data, module[0].bias.data = torch.eye(2), torch.ones(2)
    module[2].weight.data = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    module[2].bias.data = torch.full((2,), 2.0)
    for solver in SOLVERS:
        result = pointwise_robustness(
            module, torch.tensor([[1.0, 2.0]]), bounds=None, solver=solver
        )
        assert result.rho[0] == pytest.approx(0.5, abs=1e-7)
        assert result.nearest[0].tolist() == pytest.approx([1.5, 1.5], abs=1e-6)
        assert 0.5 < result.distance[0] < 0.5 + 1e-5


def valley(left: float, right: float, bias: float) -> nn.Sequential:
    """Logits (slope · |x − ½| + bias, 0) in one dimension, with one slope on either side."""
    module = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2)).eval()
    module[0].weight.data = torch.tensor([[1.0], [-1.0]])
    module[0].bias.data = torch.tensor([-0.5, 0.5])
    module[2].weight.data = torch.tensor([[right, left], [0.0, 0.0]])
    module[2].bias.data = torch.tensor([bias, 0.0])
    return module


def test_region_without_another_label() -> None:
    """|x − ½| + 1 is never below 0: rho is inf and nothing is claimed."""
    result = pointwise_robustness(valley(1.0, 1.0, 1.0), torch.tensor([[0.25]]))
    assert result.rho[0] == result.distance[0] == np.inf
    assert result.witness == result.nearest == [None]
    assert result.target.tolist() == [-1]


def test_tie_that_cannot_be_crossed_has_no_witness() -> None:
    """|x − ½| reaches 0 only at ½, the border of the region: ρ̂ = ¼, but no strict witness there."""
    result = pointwise_robustness(valley(1.0, 1.0, 0.0), torch.tensor([[0.25]]))
    assert result.rho[0] == pytest.approx(0.25)
    assert result.nearest[0].tolist() == pytest.approx([0.5])
    assert result.witness == [None]
    assert result.distance[0] == np.inf


def test_another_region_may_be_nearer() -> None:
    """Label 1 holds from 0.49 to 0.6. From 0.52 ρ = 0.03, but the region starts at ½: ρ̂ = 0.08."""
    result = pointwise_robustness(valley(10.0, 1.0, -0.1), torch.tensor([[0.52], [0.495]]))
    assert result.label.tolist() == [1, 1]
    assert result.rho.tolist() == pytest.approx([0.08, 0.005], abs=1e-7)


def test_point_on_the_decision_boundary_has_rho_zero() -> None:
    result = pointwise_robustness(valley(1.0, 1.0, -0.25), torch.tensor([[0.25]]))
    assert result.rho.tolist() == [0.0]
    assert result.label.tolist() == [0]
    assert 0 < result.distance[0] <= 2 * STRICT


def test_empty_batch() -> None:
    result = pointwise_robustness(valley(1.0, 1.0, 1.0), torch.zeros((0, 1)))
    assert result.rho.shape == result.seconds.shape == (0,)
    assert result.witness == []


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"labels": "secnd"}, ValueError, "labels='secnd' is not known. Did you mean 'second'"),
        ({"solver": "gurobi"}, ValueError, "solver='gurobi' is not known"),
        ({"x": torch.tensor([[2.0]])}, ValueError, "x has values in"),
        ({"x": torch.tensor([[float("nan")]])}, ValueError, "x holds 1 NaN"),
        ({"x": torch.tensor([[1]])}, TypeError, "x has dtype torch.int64"),
        ({"x": torch.tensor([[0.5, 0.5]])}, ValueError, "input has shape"),
        ({"net": nn.Sequential(nn.Linear(1, 2), nn.Sigmoid()).eval()}, ValueError, "Sigmoid"),
        ({"net": nn.Sequential(nn.Linear(1, 2)).train()}, ValueError, "net is in training mode"),
        ({"bounds": (1.0, 0.0)}, ValueError, "bounds=.* is empty"),
        ({"bounds": (0.0,)}, TypeError, r"bounds=\(0.0,\) is not a pair of numbers"),
    ],
)
def test_bad_arguments_are_named(change: dict, error: type, message: str) -> None:
    arguments = {"net": valley(1.0, 1.0, 1.0), "x": torch.tensor([[0.25]])} | change
    with pytest.raises(error, match=message):
        pointwise_robustness(arguments.pop("net"), arguments.pop("x"), **arguments)
