"""ρ̂ against geometry in the plane, against scipy on the paper's own program, and by hand."""

import itertools
import math

import clarabel
import cvxpy as cp
import numpy as np
import pyscipopt
import pytest
import torch
from scipy.optimize import linprog
from torch import nn

import robustlib as rl
from robustlib.encoders.restriction import Region, linear_region
from robustlib.network import Affine, Network, ReLU, from_torch
from robustlib.pointwise import STRICT, pointwise_robustness
from robustlib.pointwise.search import whole_pixels
from robustlib.solvers import NearestPoint
from robustlib.solvers.lazy import Found
from tests.encoders.test_restriction import ridge

SOLVERS = ["highs", "scip", "cvxpy"]
FORMS = [(form, lazy) for form in ("reduced", "layered") for lazy in (True, False)]


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
    every = pointwise_robustness(module, x, targets="all", solver=solver)
    second = pointwise_robustness(module, x, targets="second", solver=solver)
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
    result = pointwise_robustness(module, x, targets="all")
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
    """|x − ½| reaches 0 only at ½, and label 0 keeps the tie: no point has another label, ρ = ∞."""
    result = pointwise_robustness(valley(1.0, 1.0, 0.0), torch.tensor([[0.25]]))
    assert result.status == ["none"]
    assert result.rho[0] == result.distance[0] == np.inf
    assert result.nearest[0].tolist() == pytest.approx([0.5])
    assert result.witness == [None]


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


@pytest.mark.parametrize(("method", "alpha"), [("lp", 0.0), ("cegar", 1e-3), ("lbfgs", 1e-3)])
def test_limit_zero_finds_decision_boundaries_by_linear_programs_only(
    method: str, alpha: float
) -> None:
    """At 0.25 both labels tie, at 0.2 they do not. The other methods' rho is that of a witness."""
    module, x = valley(1.0, 1.0, -0.25), torch.tensor([[0.25], [0.2]])
    anywhere = pointwise_robustness(module, x, method=method, alpha=alpha)
    assert anywhere.status == ["found", "found"]
    result = pointwise_robustness(module, x, method=method, alpha=alpha, limit=0.0)
    first = (0.0, "found") if method == "lp" else (np.inf, "none")
    assert list(zip(result.rho, result.status, strict=True)) == [first, (np.inf, "none")]
    assert result.note == ["", ""]


@pytest.mark.parametrize("method", ["lp", "cegar", "lbfgs"])
def test_limit_zero_on_a_boundary_that_cannot_be_crossed_finds_nothing(method: str) -> None:
    """|x − ½| is 0 at ½ and never below: label 0 is everywhere."""
    module, x = valley(1.0, 1.0, 0.0), torch.tensor([[0.5]])
    result = pointwise_robustness(module, x, method=method, limit=0.0)
    assert (result.status, result.rho.tolist()) == (["none"], [np.inf])


@pytest.mark.parametrize(("form", "lazy"), FORMS)
def test_ties_are_decided_so_that_the_region_has_an_inside(form: str, lazy: bool) -> None:
    """From ½, 2 max − min reaches 0.7 by ±0.2/3; the first of equal inputs leaves x1 = x2."""
    tie = torch.full((1, 1, 1, 2), 0.5, dtype=torch.float64)
    result = pointwise_robustness(ridge(), tie, form=form, lazy=lazy)
    assert result.rho.tolist() == pytest.approx([0.2 / 3], abs=1e-7)
    corner = torch.zeros_like(tie)  # both can only grow
    result = pointwise_robustness(ridge(), corner, form=form, lazy=lazy)
    assert result.rho.tolist() == pytest.approx([0.35], abs=1e-7)


def test_every_form_decides_ties_alike() -> None:
    """Images on a plain background, near the border of two labels."""
    found = 0
    for seed in range(3):
        module = pooled_module(seed)
        x = torch.zeros((6, 1, 6, 6))
        generator = torch.Generator().manual_seed(seed)
        x[:, :, 2:4, 2:5] = torch.rand((6, 1, 2, 3), generator=generator)
        module[-1].bias.data -= module(x).detach().mean(0)
        some = pointwise_robustness(module, x, targets="all")
        for form, lazy in [("layered", True), ("reduced", False)]:
            same = pointwise_robustness(module, x, targets="all", form=form, lazy=lazy)
            np.testing.assert_allclose(same.rho, some.rho, atol=1e-6)
        for i, status in enumerate(some.status):
            if status == "found":
                found += 1
                assert_witness_holds(module, x, some, i)
    assert found >= 3


def test_empty_batch() -> None:
    result = pointwise_robustness(valley(1.0, 1.0, 1.0), torch.zeros((0, 1)))
    assert result.rho.shape == result.seconds.shape == (0,)
    assert result.witness == []


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"targets": "secnd"}, ValueError, "targets='secnd' is not known. Did you mean 'second'"),
        ({"targets": torch.tensor([0])}, ValueError, "own label for 1 inputs; give another"),
        ({"targets": torch.tensor([2])}, ValueError, r"targets has labels in \[2, 2\]"),
        ({"method": "pgd"}, ValueError, "method='pgd' is not known"),
        ({"method": "lbfgs", "bounds": None}, ValueError, "bounds=None needs method='lp'"),
        ({"form": "reducd"}, ValueError, "form='reducd' is not known. Did you mean 'reduced'"),
        ({"alpha": -1.0}, ValueError, "alpha=-1.0 is out of range"),
        ({"limit": -0.1}, ValueError, "limit=-0.1 is out of range"),
        ({"pixels": 255}, ValueError, "x holds values that are no whole numbers over 255"),
        ({"workers": 0}, ValueError, "workers=0"),
        ({"solver": "clarabel"}, ValueError, "solver='clarabel' is not known"),
        ({"method": "cegar", "solver": "scip"}, ValueError, "solver='scip' .* highs, clarabel"),
        ({"solver": "gurobi"}, ValueError, "solver='gurobi' is not known"),
        ({"x": torch.tensor([[2.0]])}, ValueError, "x has values in"),
        ({"x": torch.tensor([[float("nan")]])}, ValueError, "x holds 1 NaN"),
        ({"x": torch.tensor([[1]])}, TypeError, "x has dtype torch.int64"),
        ({"x": torch.tensor([[0.5, 0.5]])}, ValueError, "which the network refuses"),
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


def pooled_module(seed: int) -> nn.Sequential:
    """Convolutions, max-pooling and ReLUs, with weights so large that other labels are near."""
    generator = torch.Generator().manual_seed(seed)
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(4, 4, 2), nn.ReLU(),
        nn.MaxPool2d(2, stride=1), nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3),
    ).eval()  # fmt: skip
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return module


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("form", "lazy"), FORMS)
def test_every_form_has_the_same_optimum(form: str, lazy: bool, solver: str) -> None:
    """Layers of all kinds: the paper's program, lazily too, and the reduced ones, by any engine."""
    found = 0
    for seed in range(3):
        module = pooled_module(seed)
        x = torch.rand((4, 1, 6, 6), generator=torch.Generator().manual_seed(seed))
        whole = pointwise_robustness(module, x, targets="all", form="layered", lazy=False)
        same = pointwise_robustness(module, x, targets="all", form=form, lazy=lazy, solver=solver)
        assert same.status == whole.status
        np.testing.assert_allclose(same.rho, whole.rho, atol=1e-6)
        assert (same.constraints == 2 * (108 + 16 + 12 + 5 + 2)).all()
        assert (same.used < same.constraints).all() if lazy else (same.used == 286).all()
        for i, status in enumerate(same.status):
            if status == "found":
                found += 1
                assert_witness_holds(module, x, same, i)
    assert found >= 4


def test_never_below_the_exact_robustness() -> None:
    """ρ̂ ≥ ρ, by the verification's proved lower bound of the minimum distortion."""
    module = random_module(2, 4, 12, 4)
    x = torch.rand((8, 4), generator=torch.Generator().manual_seed(0))
    result = pointwise_robustness(module, x, targets="all")
    equal = 0
    for i, label in enumerate(result.label):
        exact = rl.min_distortion(module, x[i], int(label))
        assert exact.finished
        assert result.rho[i] >= exact.lower - 1e-7
        equal += bool(result.rho[i] <= exact.distance + 1e-5)
    assert equal > 0


def test_given_targets_are_reached() -> None:
    module = random_module(2, 4, 12, 4)
    x = torch.rand((20, 4), generator=torch.Generator().manual_seed(0))
    every = pointwise_robustness(module, x, targets="all")
    best = np.full(20, np.inf)
    for shift in range(1, 4):
        targets = torch.from_numpy((every.label + shift) % 4)
        one = pointwise_robustness(module, x, targets=targets)
        for i, status in enumerate(one.status):
            if status == "found":
                assert one.target[i] == targets[i]
                assert int(module.double()(one.witness[i][None]).argmax()) == targets[i]
                module.float()
        best = np.minimum(best, one.rho)
    np.testing.assert_allclose(every.rho, best, atol=1e-7)
    assert np.isfinite(best).any()


def test_a_limit_finds_the_same_and_nothing_beyond() -> None:
    module = random_module(2, 4, 12, 4)
    x = torch.rand((20, 4), generator=torch.Generator().manual_seed(0))
    free = pointwise_robustness(module, x)
    limit = float(np.median(free.rho[np.isfinite(free.rho)]))
    near = pointwise_robustness(module, x, limit=limit)
    np.testing.assert_allclose(near.rho, np.where(free.rho <= limit, free.rho, np.inf), atol=1e-9)


def test_alpha_asks_the_target_to_win_by_so_much() -> None:
    module = random_module(2, 4, 12, 4).double()
    x = torch.rand((20, 4), generator=torch.Generator().manual_seed(0)).double()
    plain, wide = pointwise_robustness(module, x), pointwise_robustness(module, x, alpha=0.5)
    assert (wide.rho >= plain.rho - 1e-9).all()
    found = [i for i, status in enumerate(wide.status) if status == "found"]
    assert found
    for i in found:
        ranked = module(wide.witness[i][None])[0].detach().sort(descending=True).values
        assert float(ranked[0] - ranked[1]) == pytest.approx(0.5, abs=1e-6)


def test_a_margin_survives_rounding() -> None:
    """Rounding moves each pixel by half a level at most: a large margin outweighs it."""
    module = random_module(2, 4, 12, 4)
    x = whole_pixels(torch.rand((30, 4), generator=torch.Generator().manual_seed(0)), 20).float()
    survivors = {}
    for alpha in (0.0, 1.5):
        result = pointwise_robustness(module, x, alpha=alpha, pixels=20)
        found = [i for i, status in enumerate(result.status) if status == "found"]
        for i in found:
            point = result.rounded[i]
            if point is None:
                continue
            assert torch.allclose(20 * point, (20 * point).round(), atol=1e-5)
            assert float((point - result.witness[i]).abs().max()) <= 0.5 / 20 + 1e-6
            assert int(module.double()(point[None]).argmax()) == result.target[i]
            module.float()
        kept = sum(result.rounded[i] is not None for i in found)
        survivors[alpha] = kept / len(found)
    assert survivors[0.0] < survivors[1.5]


@pytest.mark.parametrize(
    ("solver", "note"),
    [("highs", "out of luck"), ("scip", "SCIP stopped with memlimit"), ("cvxpy", "out of luck")],
)
def test_an_engine_that_fails_leaves_an_input_undecided(
    solver: str, note: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither robust nor adversarial: rho is NaN, and no frequency can count it unnoticed."""

    def failing(*_: object, **__: object) -> None:
        raise (cp.SolverError if solver == "cvxpy" else RuntimeError)("out of luck")

    class OutOfMemory(pyscipopt.Model):
        def getStatus(self) -> str:
            return "memlimit"

    monkeypatch.setattr("robustlib.solvers.highs.HighsModel.solve", failing)
    monkeypatch.setattr("robustlib.solvers.scip.Model", OutOfMemory)
    monkeypatch.setattr(cp.Problem, "solve", failing)
    result = pointwise_robustness(valley(1.0, 1.0, -0.1), torch.tensor([[0.25]]), solver=solver)
    assert result.status == ["undecided"]
    assert np.isnan(result.rho[0])
    assert f"solver='{solver}' failed: " in result.note[0]
    assert note in result.note[0]
    with pytest.raises(ValueError, match="leave undecided inputs out"):
        rl.metrics.adversarial_frequency(result, 0.1)


@pytest.mark.parametrize(
    ("status", "bias"), [(cp.INFEASIBLE_INACCURATE, 1.0), (cp.OPTIMAL_INACCURATE, -0.1)]
)
def test_an_inaccurate_answer_leaves_an_input_undecided(
    status: str, bias: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With bias 1 the region holds no other label; with −0.1 it does."""
    monkeypatch.setattr(cp.Problem, "status", status)
    result = pointwise_robustness(valley(1.0, 1.0, bias), torch.tensor([[0.25]]), solver="cvxpy")
    assert result.status == ["undecided"]
    assert np.isnan(result.rho[0])
    assert result.note == ["solver='cvxpy' stopped with 'limit'."]


def test_a_wrong_answer_of_the_engine_is_no_witness(monkeypatch: pytest.MonkeyPatch) -> None:
    """The forward pass has the last word: here the engine's points are all x* itself."""
    monkeypatch.setattr(
        "robustlib.pointwise.search.Search.inside", lambda self, x: self.center.copy()
    )
    result = pointwise_robustness(valley(1.0, 1.0, -0.1), torch.tensor([[0.25]]))
    assert result.status == ["undecided"]
    assert result.witness == [None]


def test_the_border_of_a_region() -> None:
    """At ½ both disjuncts hold. The active one of both units is kept: only ½ satisfies both."""
    result = pointwise_robustness(valley(1.0, 1.0, -0.1), torch.tensor([[0.5]]))
    assert result.label.tolist() == [1]
    assert result.status == ["none"]
    assert rl.min_distortion(valley(1.0, 1.0, -0.1), torch.tensor([0.5]), 1).distance < 0.11


@pytest.mark.parametrize("method", ["lp", "cegar", "lbfgs"])
def test_a_store_makes_the_second_call_free(method: str, tmp_path) -> None:
    module = random_module(2, 4, 12, 4)
    x = torch.rand((8, 4), generator=torch.Generator().manual_seed(0))
    path = tmp_path / "rho.sqlite"
    first = pointwise_robustness(module, x, method=method, store=path)
    events: list[dict] = []
    second = pointwise_robustness(module, x, method=method, store=path, progress=events.append)
    assert second.to_frame().equals(first.to_frame())
    assert len(events) == 8
    for a, b in zip(first.witness, second.witness, strict=True):
        assert (a is None) == (b is None)
        assert a is None or a.equal(b)
    with pytest.raises(ValueError, match=r"alpha 0\.0, not 0\.5"):
        pointwise_robustness(module, x, method=method, alpha=0.5, store=path)
    for parameter in module.parameters():
        parameter.data *= 1.5
    with pytest.raises(ValueError, match=r"network [0-9a-f]{12}…, not"):
        pointwise_robustness(module, x, method=method, store=path)


def test_workers_change_nothing() -> None:
    module = random_module(2, 4, 12, 4)
    x = torch.rand((6, 4), generator=torch.Generator().manual_seed(0))
    one, two = (pointwise_robustness(module, x, workers=n) for n in (1, 2))
    same = [name for name in one.to_frame().columns if name != "seconds"]
    assert one.to_frame()[same].equals(two.to_frame()[same])


def test_the_baseline_is_an_upper_bound_too() -> None:
    """ρ ≤ what L-BFGS finds, and its witnesses hold."""
    module = random_module(1, 4, 8, 6, 3)
    x = torch.rand((6, 4), generator=torch.Generator().manual_seed(1))
    result = pointwise_robustness(module, x, method="lbfgs", targets="all")
    found = [i for i, status in enumerate(result.status) if status == "found"]
    assert len(found) > 3
    for i in found:
        assert_witness_holds(module, x, result, i)
        assert result.rho[i] == result.distance[i]
    for i in found[:3]:
        exact = rl.min_distortion(module, x[i], int(result.label[i]))
        assert result.rho[i] >= exact.lower - 1e-9


def test_cegar_leaves_the_region_for_a_point_that_fools() -> None:
    """f₁ − f₀ = x − 0.75 + 4 max(x − 0.5, 0): its linear piece at 0.25 is zero at 0.75 only.

    The region of 0.25 ends at 0.5, so it holds no other label. The first program, without the
    region's row, ends at 0.75, where the network itself has long had the other label.
    """
    module = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2)).eval()
    module[0].weight.data, module[0].bias.data = torch.ones(2, 1), torch.tensor([0.0, -0.5])
    module[2].weight.data = torch.tensor([[0.0, 0.0], [1.0, 4.0]])
    module[2].bias.data = torch.tensor([0.75, 0.0])
    x = torch.tensor([[0.25]])
    assert pointwise_robustness(module, x).status == ["none"]
    found = pointwise_robustness(module, x, method="cegar")
    assert found.status == ["found"]
    assert found.rho[0] == pytest.approx(0.5, abs=1e-9)
    assert found.iterations[0] <= 2
    assert_witness_holds(module, x, found, 0)
    assert pointwise_robustness(module, x, method="cegar", limit=0.49).status == ["none"]


@pytest.mark.parametrize("solver", ["highs", "clarabel"])
@pytest.mark.parametrize("seed", range(4))
def test_cegar_is_an_upper_bound_and_no_farther_than_the_region(seed: int, solver: str) -> None:
    """Its programs are relaxations of the region's; its witnesses are those of the network."""
    module = random_module(seed, 4, 12, 4)
    x = torch.rand((20, 4), generator=torch.Generator().manual_seed(seed))
    region = pointwise_robustness(module, x)
    found = pointwise_robustness(module, x, method="cegar", alpha=STRICT, solver=solver)
    count = 0
    for i, status in enumerate(found.status):
        if status != "found":
            continue
        count += 1
        assert_witness_holds(module, x, found, i)
        assert found.rho[i] == found.distance[i]
        assert found.target[i] == int(module.double()(found.witness[i][None]).argmax())
        module.float()
        assert found.rho[i] <= region.rho[i] + 1e-4  # what the margin may add
        if count <= 3:
            exact = rl.min_distortion(module, x[i], int(found.label[i]))
            assert found.rho[i] >= exact.lower - 1e-7
    assert count >= 3


@pytest.mark.parametrize("solver", ["highs", "clarabel"])
def test_cegar_takes_whole_pixels_only(solver: str) -> None:
    module = random_module(2, 4, 12, 4)
    x = whole_pixels(torch.rand((30, 4), generator=torch.Generator().manual_seed(0)), 20).float()
    result = pointwise_robustness(module, x, method="cegar", pixels=20, limit=5 / 20, solver=solver)
    found = [i for i, status in enumerate(result.status) if status == "found"]
    assert found
    for i in found:
        point = result.witness[i]
        assert point.equal(result.rounded[i])
        assert torch.allclose(20 * point, (20 * point).round(), atol=1e-5)
        assert result.rho[i] in np.arange(6) / 20
        assert result.rho[i] == pytest.approx(result.distance[i], abs=1e-7)
        assert_witness_holds(module, x, result, i)


def test_cegar_gives_up_after_five_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the 286 rows one at a time may join, so that at most four do."""
    module = pooled_module(1)
    x = torch.rand((8, 1, 6, 6), generator=torch.Generator().manual_seed(1))
    free = pointwise_robustness(module, x, method="cegar", targets="all")
    monkeypatch.setattr("robustlib.pointwise.cegar.ROWS", 1)
    few = pointwise_robustness(module, x, method="cegar", targets="all")
    assert (few.used <= 2 * (2 + 4)).all()
    assert (free.used > few.used).any()


def test_cegar_solves_each_program_to_the_optimum_over_all_its_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """How many rows the engine sees at once changes no optimum."""
    optima: list[list[float]] = []

    class Told(NearestPoint):
        def minimize(self, limit: float = math.inf) -> Found:
            found = super().minimize(limit)
            optima[-1].append(found.objective)
            return found

    monkeypatch.setattr("robustlib.pointwise.cegar.NearestPoint", Told)
    net = rl.zoo.load("digits_mlp_standard")
    x, _ = rl.data.digits("test", n=30)
    second = 0
    for one in x:
        for each in (1, 10_000):
            monkeypatch.setattr("robustlib.pointwise.cegar.AT_ONCE", each)
            optima.append([])
            pointwise_robustness(net, one[None], method="cegar")
        few, many = optima[-2:]  # from the third program on the points before may differ
        np.testing.assert_allclose(few[:2], many[:2], rtol=1e-6)
        second += len(few) > 1
    assert second > 3


def test_the_first_program_has_one_optimum_whatever_the_engine() -> None:
    """Where the first optimum fools the network by a margin, both engines stop there."""
    net = rl.zoo.load("digits_mlp_standard")
    x, _ = rl.data.digits("test", n=60)
    corner, middle = (
        pointwise_robustness(net, x, method="cegar", alpha=0.5, solver=solver)
        for solver in ("highs", "clarabel")
    )
    both = (corner.iterations == 1) & (middle.iterations == 1) & np.isfinite(corner.rho)
    assert both.sum() > 10
    np.testing.assert_allclose(corner.rho[both], middle.rho[both], rtol=1e-5)


@pytest.mark.parametrize("name", ["MaxIterations", "AlmostPrimalInfeasible", "AlmostSolved"])
def test_cegar_reports_a_failure_of_the_interior_point_method(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped:
        status = getattr(clarabel.SolverStatus, name)

    monkeypatch.setattr("robustlib.solvers.interior.InteriorPoint._solve", lambda _: Stopped())
    x = torch.tensor([[0.25]])
    result = pointwise_robustness(valley(1.0, 1.0, -0.1), x, method="cegar", solver="clarabel")
    assert result.status == ["undecided"]
    assert name in result.note[0]


def test_cegar_reports_an_engine_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr("robustlib.solvers.highs.HighsModel.solve", failing)
    x = torch.tensor([[0.25]])
    result = pointwise_robustness(valley(1.0, 1.0, -0.1), x, method="cegar")
    assert result.status == ["undecided"]
    assert "out of luck" in result.note[0]
