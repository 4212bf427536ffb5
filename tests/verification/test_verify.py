"""Verdicts: those of brute force, with strict witnesses and safe bounds, or "undecided"."""

import fractions
import functools

import numpy as np
import pytest
import torch
from torch import nn

import robustlib as rl
from robustlib.network import from_torch
from robustlib.solvers import SolverError
from robustlib.verification import attack, search
from robustlib.verification.question import Question
from tests.brute_force import random_network, smallest_distortion, smallest_margins


def question(seed):
    module, shape = random_network(seed)
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.random((1, *shape)).astype(np.float32))
    y = module(x).argmax(1)
    return module, x, y, float(rng.uniform(0.02, 0.4))


def check_witness(module, x, y, eps, witness):
    """Inside the ball and the box in rational arithmetic; another label in both precisions."""
    assert witness.dtype == x.dtype
    assert witness.shape == x.shape
    for a, b in zip(witness.reshape(-1).tolist(), x.reshape(-1).tolist(), strict=True):
        assert 0 <= a <= 1
        assert abs(fractions.Fraction(a) - fractions.Fraction(b)) <= fractions.Fraction(eps)
    logits = module(witness[None])[0]
    assert logits.max() > logits[y]
    double = from_torch(module, tuple(x.shape)).forward(witness.double().reshape(1, -1).numpy())[0]
    assert double.max() > double[int(y)]


@pytest.mark.parametrize("chunk", range(6))
def test_verdicts_equal_brute_force(chunk):
    for seed in range(1000 + 20 * chunk, 1020 + 20 * chunk):
        module, x, y, eps = question(seed)
        result = rl.verify(module, x, y, eps=eps, solver=["highs", "scip", "cvxpy"][seed % 3])
        center = x.double().reshape(-1).numpy()
        truth = smallest_margins(
            from_torch(module, tuple(x.shape[1:])), int(y), np.maximum(center - eps, 0),
            np.minimum(center + eps, 1),
        ).min()  # fmt: skip
        if abs(truth) > 1e-5:
            assert result.verdict[0] == ("robust" if truth > 0 else "adversarial"), (seed, truth)
        assert result.lower[0] <= truth + 1e-9
        if result.verdict[0] == "adversarial":
            check_witness(module, x[0], y[0], eps, result.witness[0])
            assert result.upper[0] < 0


@pytest.mark.parametrize("norm", ["inf", "1"])
def test_minimum_distortion_equals_brute_force(norm):
    for seed in range(2000, 2016):
        module, x, y, _ = question(seed)
        network = from_torch(module, tuple(x.shape[1:]))
        truth = smallest_distortion(
            network, x.double().reshape(-1).numpy(), int(y), norm, (0.0, 1.0)
        )
        found = rl.min_distortion(
            module, x[0], y, norm=norm, solver=["highs", "scip", "cvxpy"][seed % 3]
        )
        assert found.finished
        assert found.lower <= truth + 1e-9, seed
        if np.isinf(truth):
            assert found.witness is None
            assert found.lower == np.inf
            continue
        assert truth - 1e-9 <= found.distance <= truth + 1e-3, seed
        assert found.lower >= truth - 1e-5, seed
        assert int(module(found.witness[None]).argmax()) == found.label != int(y)


def line(slope=1.0, offset=0.0):
    """Two logits (slope · x + offset, 0) of one input."""
    module = nn.Sequential(nn.Linear(1, 2)).eval()
    module[0].weight.data = torch.tensor([[slope], [0.0]])
    module[0].bias.data = torch.tensor([offset, 0.0])
    return module


def test_a_tie_at_the_edge_of_the_ball_is_neither_robust_nor_adversarial():
    """Margin x − 0.5 from x = 0.75 with ε = 0.25: it reaches 0 and never falls below."""
    result = rl.verify(
        line(1.0, -0.5), torch.tensor([[0.75]]), torch.tensor([0]), eps=0.25
    ).results[0]
    assert result.verdict == "undecided"
    assert "rounding" in result.note
    assert result.lower <= 0


@pytest.mark.parametrize(("eps", "verdict"), [(0.2499, "robust"), (0.2501, "adversarial")])
def test_on_either_side_of_the_tie(eps, verdict):
    result = rl.verify(line(1.0, -0.5), torch.tensor([[0.75]]), torch.tensor([0]), eps=eps)
    assert result.verdict == [verdict]


def test_a_misclassified_input_and_a_radius_of_zero():
    net, x = line(1.0, -0.5), torch.tensor([[0.25], [0.75]])
    result = rl.verify(net, x, torch.tensor([0, 0]), eps=0.0)
    assert result.verdict == ["misclassified", "robust"]
    assert result.stage == ["clean", "crown"]
    assert result.upper[0] == pytest.approx(-0.25)
    assert result.counts() == {"misclassified": 1, "robust": 1}
    assert rl.min_distortion(net, x[0], 0).distance == 0.0


@functools.cache
def hard():
    """A question that the bounds and the attack leave open, for the exact stages."""
    for seed in range(3000, 4000):
        module, x, y, _ = question(seed)
        for eps in (0.1, 0.2, 0.3, 0.4):
            if rl.verify(module, x, y, eps=eps, time_limit=0).verdict == ["undecided"]:
                return module, x, y, eps
    raise AssertionError("no such question")


def test_exact_stages_are_left_out_by_a_time_limit_of_zero_and_by_a_failing_solver(monkeypatch):
    module, x, y, eps = hard()
    result = rl.verify(module, x, y, eps=eps, time_limit=0).results[0]
    assert (result.verdict, result.note) == ("undecided", "time limit")
    assert rl.verify(module, x, y, eps=eps).verdict[0] in ("robust", "adversarial")

    def fail(*args, **kwargs):
        raise SolverError("no licence")

    monkeypatch.setattr(search, "prove_at_least", fail)
    monkeypatch.setattr(search, "branch", fail)
    result = rl.verify(module, x, y, eps=eps).results[0]
    assert (result.verdict, result.note) == ("undecided", "no licence")


def test_a_claim_of_the_engine_alone_proves_nothing(monkeypatch):
    """An engine that calls everything infeasible must not make a vulnerable input robust."""
    from robustlib.solvers import Solution

    nothing = Solution("infeasible", None, None, np.inf, None, 0, 0.0)
    monkeypatch.setattr(search, "solve", lambda *a, **k: nothing)
    monkeypatch.setattr(attack, "pgd", lambda model, x, y, **k: x)  # and no help from the attack
    for seed in range(1000, 1040):
        module, x, y, eps = question(seed)
        center = x.double().reshape(-1).numpy()
        truth = smallest_margins(
            from_torch(module, tuple(x.shape[1:])), int(y), np.maximum(center - eps, 0),
            np.minimum(center + eps, 1),
        ).min()  # fmt: skip
        if truth < 0:
            assert rl.verify(module, x, y, eps=eps).verdict[0] != "robust"


def test_images_left_open_do_not_change_the_others():
    """A batch gives what its images give one by one."""
    module, x, _, eps = question(1003)
    rng = np.random.default_rng(0)
    batch = torch.from_numpy(rng.random((12, *x.shape[1:])).astype(np.float32))
    labels = module(batch).argmax(1)
    together = rl.verify(module, batch, labels, eps=eps)
    apart = [
        rl.verify(module, batch[i : i + 1], labels[i : i + 1], eps=eps).verdict[0]
        for i in range(12)
    ]
    assert together.verdict == apart


X, Y = torch.tensor([[0.75]]), torch.tensor([0])
BAD = {
    "NaN": ({"x": torch.tensor([[float("nan")]])}, ValueError, "x holds 1 NaN"),
    "infinite": ({"x": torch.tensor([[float("inf")]])}, ValueError, "x holds 1 NaN or inf"),
    "range": ({"x": torch.tensor([[1.5]])}, ValueError, r"x has values in \[1.5, 1.5\]"),
    "8-bit": ({"x": torch.tensor([[1]])}, TypeError, "/ 255"),
    "no batch": ({"x": torch.tensor([0.5])}, ValueError, "x\\[None\\]"),
    "shape": ({"x": torch.zeros(1, 2)}, ValueError, r"its input has shape \(2,\)"),
    "labels' number": ({"y": torch.tensor([0, 1])}, ValueError, r"one label per input: \(1,\)"),
    "label": ({"y": torch.tensor([2])}, ValueError, r"allowed is \[0, 1\]"),
    "label dtype": ({"y": torch.tensor([0.0])}, TypeError, "integer labels"),
    "eps": ({"eps": -0.1}, ValueError, "eps=-0.1"),
    "eps NaN": ({"eps": float("nan")}, ValueError, "eps=nan"),
    "norm": ({"norm": "linf"}, ValueError, "norm='linf'.*Did you mean 'inf'"),
    "solver": ({"solver": "gurobi"}, ValueError, "solver='gurobi'.*highs, scip, cvxpy"),
    "time limit": ({"time_limit": -1.0}, ValueError, "time_limit=-1.0"),
    "bounds": ({"bounds": (1.0, 0.0)}, ValueError, "low < high"),
    "training mode": ({"net": nn.Sequential(nn.Linear(1, 2))}, ValueError, "net is in training"),
    "bounds' number": ({"bounds": (0.0,)}, TypeError, "not a pair of numbers"),
    "seed": ({"seed": "a"}, TypeError, "seed='a' is not a whole number"),
    "dtype": ({"x": torch.tensor([[0.75]]).double()}, TypeError, "the network has torch.float32"),
    "store": ({"store": "/nowhere/else/v.sqlite"}, ValueError, "store='/nowhere"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    change, kind, message = BAD[name]
    arguments = {"net": line(), "x": X, "y": Y, "eps": 0.1, **change}
    net, x, y = (arguments.pop(key) for key in ("net", "x", "y"))
    with pytest.raises(kind, match=message):
        rl.verify(net, x, y, **arguments)


@pytest.mark.parametrize("index", [0, 5])
def test_minimum_distortion_and_verify_agree_on_a_trained_network(index):
    """Just below the distance every image is robust, just above it has a counterexample."""
    net = rl.zoo.load("digits_mlp")
    x, y = rl.data.digits("test", indices=[index])
    found = rl.min_distortion(net, x[0], y[0])
    assert found.finished
    assert found.distance - 1e-4 < found.lower <= found.distance
    check_witness(net, x[0], y[0], found.distance, found.witness)
    assert rl.verify(net, x, y, eps=found.lower - 1e-6).verdict == ["robust"]
    assert rl.verify(net, x, y, eps=found.distance + 1e-6).verdict == ["adversarial"]


def test_a_first_layer_that_works_in_place_does_not_change_the_witness():
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(2, 2)).eval()
    net[1].weight.data, net[1].bias.data = torch.eye(2), torch.zeros(2)
    x = torch.tensor([0.5, -0.9])
    found = rl.min_distortion(net, torch.tensor([0.1, 0.0]), 0, bounds=(-1.0, 1.0))
    assert found.distance == pytest.approx(0.05, abs=1e-4)
    point = torch.tensor([0.3, -0.5], dtype=torch.float64).numpy()
    net[1].weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    net[1].bias.data = torch.tensor([0.0, 0.4])
    network = from_torch(net, (2,))
    witness = Question(net, network, x, 0, 0.5, (-1.0, 1.0)).check(point)
    assert witness.point.tolist() == pytest.approx([0.3, -0.5])


def test_the_nearest_point_in_the_sum_of_changes_is_far_in_one_coordinate():
    """Label 2 needs x₀ ≥ 0.3, label 1 a sum of 2 over 20: the small balls hold only label 1."""
    net = nn.Sequential(nn.Linear(20, 3)).eval()
    net[0].weight.data = torch.zeros(3, 20)
    net[0].weight.data[1], net[0].weight.data[2, 0] = 1.0, 2.0
    net[0].bias.data = torch.tensor([0.0, -2.0, -0.6])
    found = rl.min_distortion(net, torch.zeros(20), 0, norm="1")
    assert found.finished
    assert found.label == 2
    assert 0.3 - 1e-5 < found.lower <= found.distance < 0.3 + 1e-4


def test_overflow_is_undecided_and_proves_no_distance():
    """relu(1e200 (x − 1)) · 1e200 is infinite for floating point and decides the label."""
    net = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2)).double().eval()
    for layer, (weight, bias) in zip(
        (net[0], net[2]), (([[1e200]], [-1e200]), ([[-1e200], [0.0]], [1.0, 0.0])), strict=True
    ):
        layer.weight.data = torch.tensor(weight, dtype=torch.float64)
        layer.bias.data = torch.tensor(bias, dtype=torch.float64)
    x = torch.tensor([[0.5]], dtype=torch.float64)
    with np.errstate(all="ignore"):
        result = rl.verify(net, x, torch.tensor([0]), eps=1.0, bounds=(-2.0, 2.0)).results[0]
        found = rl.min_distortion(net, x[0], 0, bounds=(-2.0, 2.0))
    assert result.verdict != "robust"
    assert result.lower == -np.inf
    assert found.lower <= 0.5 + 1e-9
    assert not found.finished


def test_a_tie_at_the_input_is_not_misclassified():
    """Two equal logits: no margin above 0, and no label that wins."""
    net = line(0.0, 0.0)
    result = rl.verify(net, torch.tensor([[0.5]]), torch.tensor([0]), eps=0.1).results[0]
    assert result.verdict == "undecided"
    found = rl.min_distortion(net, torch.tensor([0.5]), 0)
    assert found.witness is None
    assert found.lower <= 0
    tie = rl.min_distortion(line(1.0, -0.5), torch.tensor([0.5]), 0)
    assert 0 <= tie.lower <= tie.distance < 1e-4


def test_the_lower_bound_of_a_misclassified_input_is_not_its_own_margin():
    result = rl.verify(line(1.0, -0.5), torch.tensor([[0.25]]), torch.tensor([0]), eps=0.1)
    assert result.verdict == ["misclassified"]
    assert result.lower[0] <= -0.35 < result.upper[0] == pytest.approx(-0.25)


def test_bad_input_of_the_minimum_distortion_is_named():
    for change, kind, message in [
        ({"x": X}, ValueError, r"its input has shape \(1, 1\)"),
        ({"x": X[0].double()}, TypeError, "the network has torch.float32"),
        ({"y": None}, TypeError, "y=None"),
        ({"y": 2}, ValueError, r"allowed is \[0, 1\]"),
        ({"norm": "3"}, ValueError, "norm='3'.*inf, 1, 2"),
        ({"bounds": (1.0, 0.0)}, ValueError, "low < high"),
        ({"time_limit": -1}, ValueError, "time_limit=-1"),
    ]:
        arguments = {"x": X[0], "y": 0, **change}
        with pytest.raises(kind, match=message):
            rl.min_distortion(line(), arguments.pop("x"), arguments.pop("y"), **arguments)
