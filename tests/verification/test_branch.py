"""Branch and bound: the truth of brute force, and bounds that stay below it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from robustlib.bounds import Box, network_bounds, plane_offsets
from robustlib.bounds.alpha import BranchBounds
from robustlib.bounds.reduced import reduce_network, reduce_rows
from robustlib.network import Affine, Network, ReLU, from_torch, margin_rows
from robustlib.verification.branch import branch
from robustlib.verification.question import Question
from tests.brute_force import random_network, smallest_margins

NORMS = ("inf", "1", "2")


def question(seed, norm="inf"):
    """A network without max-pooling (kinds 0 and 1), an input, and a radius."""
    module, shape = random_network(4 * (seed // 2) + seed % 2)
    network = from_torch(module, shape)
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.random(shape))
    label = int(network.forward(x.reshape(1, -1).numpy())[0].argmax())
    eps = float(rng.uniform(0.1, 0.6))
    return Question(module.double(), network, x, label, eps, (0.0, 1.0), norm)


def all_rows(q):
    return margin_rows(q.label, q.network.classes)


def bounds_of(q, rows=None):
    return BranchBounds(q.network, q.region, q.boxes, all_rows(q) if rows is None else rows)


def samples(q, count, seed=0):
    """Points of the question's region."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(q.box.lower, q.box.upper, size=(count, q.network.input_size))
    norm = {"inf": np.inf, "1": 1, "2": 2}[q.norm]
    far = np.linalg.norm(x - q.center, norm, axis=1, keepdims=True)
    return q.center + (x - q.center) * np.minimum(1, 0.999 * q.eps / far)


def wild(bounds, seed, count=40):
    """Branches with random signs, α in [0, 1] and β ≥ 0, of random rows."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, bounds.units)
    row = torch.randint(0, len(bounds.rows), (count,), generator=generator)
    signs = torch.randint(-1, 2, shape, generator=generator).double()
    alpha = torch.rand(shape, generator=generator, dtype=torch.float64)
    beta = torch.rand(shape, generator=generator, dtype=torch.float64) * (signs != 0)
    return replace(bounds.roots().take(row.tolist()), signs=signs, alpha=alpha, beta=beta)


@pytest.mark.parametrize("chunk", range(4))
def test_branches_decide_as_brute_force_does(chunk):
    for seed in range(20 * chunk, 20 * chunk + 20):
        q = question(seed)
        truth = smallest_margins(q.network, q.label, q.box.lower, q.box.upper)
        for row, margin in zip(all_rows(q), truth, strict=True):
            found = branch(q, row[None], time_limit=20)
            assert found.lower[0] <= margin + 1e-9, seed
            if margin > 1e-5:
                assert found.lower[0] > 0, seed
            elif margin < 0:
                assert not found.lower[0] > 0, seed
            if found.witness is not None:
                assert found.witness.margin < 0
                assert truth.min() < 0


def test_one_tree_for_all_rows_decides_as_brute_force_does():
    """Rows that share a tree and planes: robust if all are proved, else the witness."""
    for seed in range(40):
        q = question(seed)
        truth = smallest_margins(q.network, q.label, q.box.lower, q.box.upper)
        found = branch(q, all_rows(q), time_limit=20)
        assert (found.lower <= truth + 1e-9).all(), seed
        if truth.min() > 1e-5:
            assert found.lower.min() > 0, seed
        elif truth.min() < -1e-5:
            assert found.witness is not None, seed


@pytest.mark.parametrize("norm", NORMS[1:])
def test_no_sample_of_a_ball_lies_below_what_its_branches_prove(norm):
    proved = 0
    for seed in range(40):
        q = question(seed, norm)
        found = branch(q, all_rows(q), time_limit=20)
        if found.witness is not None:
            assert found.witness.margin < 0
            continue
        margins = q.network.forward(samples(q, 2000)) @ all_rows(q).T
        assert (margins >= found.lower).all(), seed
        proved += bool(found.lower.min() > 0)
    assert proved > 5


@pytest.mark.parametrize("seed", range(12))
def test_the_reduced_form_computes_the_network(seed):
    """z of every unstable unit and the logits, from the input and the unstable units' outputs."""
    q = question(seed)
    layers = reduce_network(q.network, q.box, q.boxes)
    x = samples(q, 50, seed)
    outputs = list(q.network.outputs(x))
    rows = all_rows(q)
    logits = reduce_rows(q.network, q.box, q.boxes, layers, rows, len(q.network.steps) - 1)
    y = [outputs[layer.step][:, layer.index] for layer in layers]

    def value(part):
        units = sum((a @ b.T for a, b in zip(y, part.units, strict=False)), np.zeros(1))
        return x @ part.inputs.T + units + part.constant

    assert value(logits) == pytest.approx(outputs[-1] @ rows.T, abs=1e-12)
    for layer in layers:
        z = outputs[layer.step - 1][:, layer.index]
        assert value(layer.rows) == pytest.approx(z, abs=1e-12)


@pytest.mark.parametrize("turned", [False, True], ids=["lines", "planes"])
@pytest.mark.parametrize("norm", NORMS)
def test_any_slopes_and_multipliers_give_a_lower_bound(norm, turned):
    """Wild α in [0, 1] and β ≥ 0: each branch's bound is below all samples of its part."""
    for seed in range(20):
        q = question(seed, norm)
        bounds = bounds_of(q)
        if not bounds.units or (turned and not bounds.has_hull):
            continue
        batch = wild(bounds, seed)
        if turned:
            bounds.fit_planes(bounds.roots(), 3 + seed)
        safe = bounds.safe(batch)
        quick = bounds.evaluate(batch.row, batch.signs, batch.alpha, batch.beta)[0].numpy()
        assert safe == pytest.approx(quick, abs=1e-9)
        assert (safe <= quick + 1e-12).all()
        outputs = list(q.network.outputs(samples(q, 2000, seed)))
        margins = outputs[-1] @ bounds.rows.T
        z = np.hstack([outputs[s.step - 1][:, s.index] for s in bounds.layers])
        for bound, sign, row in zip(safe, batch.signs.numpy(), batch.row, strict=True):
            inside = (z * sign >= 0).all(axis=1)
            assert (margins[inside, int(row)] >= bound).all()


def test_planes_lie_above_their_units():
    """Any slopes, also absurd ones: no sample is above the plane, and it is not far off."""
    for seed in range(20):
        q = question(seed)
        layer = reduce_network(q.network, q.box, q.boxes)[0]
        rng = np.random.default_rng(seed)
        slopes = rng.normal(scale=10.0 ** rng.integers(-2, 3), size=(len(layer.index), 1))
        slopes = slopes * rng.random((len(layer.index), q.network.input_size))
        offsets = plane_offsets(q.network, q.boxes, q.region, layer.step, layer.index, slopes)
        corners = np.where(rng.random((4000, q.network.input_size)) < 0.5, q.box.lower, q.box.upper)
        y = list(q.network.outputs(corners))[layer.step][:, layer.index]
        gap = corners @ slopes.T + offsets - y
        assert (gap >= 0).all()
        assert (gap.min(axis=0) <= 1e-6 + 0.01 * np.abs(offsets)).all()


def test_planes_close_what_lines_leave_open():
    """x₁ − max(x₁ + x₂ − 1, 0) on the unit square: at least 0, at least −½ by the lines."""
    first = Affine(np.array([[1.0, 1.0], [1.0, 0.0]]), np.array([-1.0, 0.0]))
    net = Network((first, ReLU(2), Affine(np.array([[-1.0, 1.0]]), np.zeros(1))), (2,))
    square = Box(np.zeros(2), np.ones(2))
    bounds = BranchBounds(net, square, network_bounds(net, square), np.ones((1, 1)))
    root, _ = bounds.improve(bounds.roots(), 50)
    assert bounds.safe(root)[0] == pytest.approx(-0.5)
    assert -0.01 < bounds.safe(bounds.fit_planes(root, 200))[0] <= 0


def test_climbing_never_lowers_a_bound():
    """α-CROWN starts from CROWN: what it keeps is at least as good, row by row."""
    for seed in range(20):
        q = question(seed)
        bounds = bounds_of(q)
        improved, _ = bounds.improve(bounds.roots(), 30)
        open_ = improved.bound.numpy() < 1e-7
        assert (bounds.safe(improved)[open_] >= q.crown_margins()[open_] - 1e-9).all()


def test_a_closed_branch_is_recomputed_on_the_network(monkeypatch):
    """If the quick bounds were wrong, the safe ones would still keep the branch open."""
    q = next(
        q
        for q in map(question, range(200))
        if smallest_margins(q.network, q.label, q.box.lower, q.box.upper)[0] < -0.1
    )
    honest = BranchBounds.evaluate

    def boastful(self, *args):
        bound, coefficient, points = honest(self, *args)
        return bound + 10.0, coefficient, points

    monkeypatch.setattr(BranchBounds, "evaluate", boastful)
    monkeypatch.setattr("robustlib.verification.branch._Tree.try_points", lambda *_: None)
    assert not branch(q, all_rows(q)[:1], time_limit=2).lower[0] > 0


def test_branches_in_a_batch_do_not_touch_each_other():
    """One call for a batch equals a call for each."""
    for seed in (0, 1):
        bounds = bounds_of(question(seed))
        bounds.fit_planes(bounds.roots(), 5)
        batch = wild(bounds, seed, count=6)
        apart = [bounds.safe(batch.take([i]))[0] for i in range(6)]
        assert bounds.safe(batch) == pytest.approx(apart, abs=1e-12)


def test_a_row_and_its_gradient_are_those_of_the_network():
    """Value and derivative of the margins at random points, against autograd on the module."""
    for seed in range(12):
        q = question(seed)
        bounds = bounds_of(q)
        x = torch.from_numpy(samples(q, 20, seed))
        row = torch.arange(20) % len(bounds.rows)
        margin, gradient = bounds.row_and_gradient(x, row)
        points = x.reshape(20, *q.x.shape).requires_grad_(True)
        expected = (q.module(points) * torch.from_numpy(bounds.rows[row.numpy()])).sum(1)
        (slope,) = torch.autograd.grad(expected.sum(), points)
        assert margin.numpy() == pytest.approx(expected.detach().numpy(), abs=1e-12)
        assert gradient.numpy() == pytest.approx(slope.reshape(20, -1).numpy(), abs=1e-12)
