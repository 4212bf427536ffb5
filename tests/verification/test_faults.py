"""What goes wrong around a verification: a clear message, "undecided" at worst."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

import robustlib as rl
from robustlib.network import from_torch
from robustlib.solvers import Solution, SolverError
from robustlib.verification import search
from tests.brute_force import smallest_margins
from tests.verification.test_verify import hard, line, question

X, Y = torch.tensor([[0.75]]), torch.tensor([0])


@pytest.mark.parametrize(
    ("norm", "size", "widest"), [("inf", 4, 1.0), ("1", 4, 4.0), ("2", 4, 2.0)]
)
def test_a_radius_larger_than_the_box_is_refused_and_the_largest_is_not(norm, size, widest):
    net = nn.Sequential(nn.Linear(size, 2)).eval()
    for p in net.parameters():
        p.data.zero_()
    net[0].bias.data[0] = 1.0
    x = torch.full((1, size), 0.5)
    with pytest.raises(ValueError, match=rf"eps=.* larger than the box.*{widest:g}.*8/255"):
        rl.verify(net, x, Y, eps=widest * 1.001, norm=norm)
    assert rl.verify(net, x, Y, eps=widest, norm=norm).verdict == ["robust"]


def test_an_unsupported_layer_is_named():
    net = nn.Sequential(nn.Linear(1, 3), nn.GELU(), nn.Linear(3, 2)).eval()
    with pytest.raises(ValueError, match="layer 1 is GELU, which is not supported"):
        rl.verify(net, X, Y, eps=0.1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(value):
    net = line()
    net[0].weight.data[0, 0] = value
    with pytest.raises(ValueError, match=r"layer 0 \(Linear\) has NaN or infinite weights"):
        rl.verify(net, X, Y, eps=0.1)


@pytest.mark.parametrize("method", ["cascade", "mip"])
def test_a_time_limit_of_zero_still_finds_misclassified_inputs(method):
    x, y = torch.tensor([[0.25], [0.75]]), torch.tensor([0, 0])
    result = rl.verify(line(1.0, -0.5), x, y, eps=0.25, time_limit=0, method=method)
    assert result.verdict == ["misclassified", "undecided"]
    assert result.results[1].note == "time limit"
    assert result.distance[0] == 0.0


@pytest.mark.parametrize("method", ["cascade", "mip"])
def test_a_missing_engine_leaves_undecided_with_the_line_that_installs_it(method, monkeypatch):
    module, x, y, eps = hard()
    for package in ("highspy", "robustlib.solvers.highs"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(search, "BRANCH_SHARE", 0.0)  # leave the work to the engine
    result = rl.verify(module, x, y, eps=eps, method=method).results[0]
    assert result.verdict in ("undecided", truth(module, x, y, eps))
    if result.verdict == "undecided":
        assert "pip install highspy" in result.note


def truth(module, x, y, eps):
    center = x[0].double().reshape(-1).numpy()
    network = from_torch(module, tuple(x.shape[1:]))
    low, high = np.maximum(center - eps, 0), np.minimum(center + eps, 1)
    return "robust" if smallest_margins(network, int(y), low, high).min() > 0 else "adversarial"


def test_an_engine_that_fails_leaves_undecided_with_its_words(monkeypatch):
    module, x, y, eps = hard()

    def fail(*args, **kwargs):
        raise SolverError("solver='highs' failed: out of luck")

    for name in ("branch", "prove_at_least", "solve"):
        monkeypatch.setattr(search, name, fail)
    result = rl.verify(module, x, y, eps=eps).results[0]
    assert (result.verdict, result.note) == ("undecided", "solver='highs' failed: out of luck")


def test_too_little_memory_leaves_undecided(monkeypatch):
    module, x, y, eps = hard()

    def fail(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(search, "branch", fail)
    monkeypatch.setattr(search, "prove_at_least", fail)
    result = rl.verify(module, x, y, eps=eps).results[0]
    assert (result.verdict, result.note) == ("undecided", "out of memory")


def test_an_engine_that_lies_decides_nothing(monkeypatch):
    """It returns a point that is no counterexample, and calls it optimal."""
    lie = Solution("optimal", np.zeros(1000), -1.0, -1.0, None, 0, 0.0)
    monkeypatch.setattr(search, "solve", lambda *a, **k: lie)
    module, x, y, eps = hard()
    assert rl.verify(module, x, y, eps=eps).verdict[0] in ("undecided", truth(module, x, y, eps))


def test_the_papers_method_agrees_with_the_cascade():
    for seed in range(1000, 1012):
        module, x, y, eps = question(seed)
        cascade = rl.verify(module, x, y, eps=eps).results[0]
        paper = rl.verify(module, x, y, eps=eps, method="mip").results[0]
        assert {cascade.verdict, paper.verdict} not in ({"robust", "adversarial"},), seed
        assert paper.verdict != "undecided"
        assert paper.seconds > 0
