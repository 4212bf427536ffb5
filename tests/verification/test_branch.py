"""β-CROWN branch and bound: the truth of brute force, and bounds that stay below it."""

import numpy as np
import pytest
import torch

from robustlib.bounds.reduced import reduce_network, reduce_rows
from robustlib.network import from_torch, margin_rows
from robustlib.verification import branch as branching
from robustlib.verification.branch import branch
from robustlib.verification.question import Question
from tests.brute_force import random_network, smallest_margins


def question(seed):
    """A network without max-pooling (kinds 0 and 1), an input, and a radius."""
    module, shape = random_network(4 * (seed // 2) + seed % 2)
    network = from_torch(module, shape)
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.random(shape))
    label = int(network.forward(x.reshape(1, -1).numpy())[0].argmax())
    return Question(module.double(), network, x, label, float(rng.uniform(0.1, 0.6)), (0.0, 1.0))


@pytest.mark.parametrize("chunk", range(4))
def test_branches_decide_as_brute_force_does(chunk):
    for seed in range(30 * chunk, 30 * chunk + 30):
        q = question(seed)
        truth = smallest_margins(q.network, q.label, q.box.lower, q.box.upper)
        for row, margin in zip(margin_rows(q.label, q.network.classes), truth, strict=True):
            found = branch(q, row, time_limit=20)
            assert found.lower <= margin + 1e-9, seed
            if margin > 1e-5:
                assert found.lower > 0, seed
            elif margin < 0:
                assert not found.lower > 0, seed
            if found.witness is not None:
                assert found.witness.margin < 0
                assert truth.min() < 0


@pytest.mark.parametrize("seed", range(12))
def test_the_reduced_form_computes_the_network(seed):
    """z of every unstable unit and the logits, from the input and the unstable units' outputs."""
    q = question(seed)
    layers = reduce_network(q.network, q.box, q.boxes)
    rng = np.random.default_rng(seed)
    x = rng.uniform(q.box.lower, q.box.upper, size=(50, q.network.input_size))
    outputs = list(q.network.outputs(x))
    rows = margin_rows(q.label, q.network.classes)
    logits = reduce_rows(q.network, q.boxes, layers, rows, len(q.network.steps) - 1)
    y = [outputs[layer.step][:, layer.index] for layer in layers]

    def value(part):
        units = sum((a @ b.T for a, b in zip(y, part.units, strict=False)), np.zeros(1))
        return x @ part.inputs.T + units + part.constant

    assert value(logits) == pytest.approx(outputs[-1] @ rows.T, abs=1e-12)
    for layer in layers:
        z = outputs[layer.step - 1][:, layer.index]
        assert value(layer.rows) == pytest.approx(z, abs=1e-12)


def test_any_slopes_and_multipliers_give_a_lower_bound():
    """Wild α in [0, 1] and β ≥ 0: each branch's bound is below all samples of its part."""
    for seed in range(20):
        q = question(seed)
        row = margin_rows(q.label, q.network.classes)[0]
        search = branching._Search(q, row)
        units = sum(search.sizes)
        if not units:
            continue
        generator = torch.Generator().manual_seed(seed)
        signs = torch.randint(-1, 2, (40, units), generator=generator).double()
        alpha = torch.rand(40, units, generator=generator, dtype=torch.float64)
        beta = torch.rand(40, units, generator=generator, dtype=torch.float64) * (signs != 0)
        batch = branching._Branches(signs, alpha, beta, torch.zeros(40), torch.zeros(40, units))
        safe = search.safe_bounds(batch, np.arange(40))
        quick = search.evaluate(signs, alpha, beta)[0].numpy()
        assert safe == pytest.approx(quick, abs=1e-9)
        assert (safe <= quick + 1e-12).all()
        rng = np.random.default_rng(seed)
        x = rng.uniform(q.box.lower, q.box.upper, size=(3000, q.network.input_size))
        outputs = list(q.network.outputs(x))
        margins = outputs[-1] @ row
        z = np.hstack([outputs[s.step - 1][:, s.index] for s in search.layers])
        for bound, sign in zip(safe, signs.numpy(), strict=True):
            inside = (z * sign >= 0).all(axis=1)
            assert (margins[inside] >= bound).all()


def test_a_closed_branch_is_recomputed_on_the_network(monkeypatch):
    """If the quick bounds were wrong, the safe ones would still keep the branch open."""
    q = next(
        q
        for q in map(question, range(200))
        if smallest_margins(q.network, q.label, q.box.lower, q.box.upper)[0] < -0.1
    )
    row = margin_rows(q.label, q.network.classes)[0]
    honest = branching._Search.evaluate

    def boastful(self, *args):
        bound, coefficient, on_x = honest(self, *args)
        return bound + 10.0, coefficient, on_x

    monkeypatch.setattr(branching._Search, "evaluate", boastful)
    monkeypatch.setattr(branching._Search, "try_corners", lambda self, points: None)
    assert not branch(q, row, time_limit=2).lower > 0


def test_lines_of_each_row_are_its_own():
    """One call with two rows of lines equals two calls."""
    q = question(0)
    rows = np.repeat(margin_rows(q.label, q.network.classes)[:1], 2, axis=0)
    search = branching._Search(q, rows[0])
    units = sum(search.sizes)
    signs, beta = torch.zeros(2, units).double(), torch.zeros(2, units).double()
    alpha = torch.stack([torch.zeros(units), torch.ones(units)]).double()
    both = branching._Branches(signs, alpha, beta, torch.zeros(2), torch.zeros(2, units))
    together = search.safe_bounds(both, np.arange(2))
    apart = [search.safe_bounds(both, np.array([i]))[0] for i in range(2)]
    assert together == pytest.approx(apart, abs=1e-12)


def test_the_reduced_margin_and_its_gradient_are_those_of_the_network():
    """Value and derivative of the margin at random points, against autograd on the module."""
    for seed in range(12):
        q = question(seed)
        row = margin_rows(q.label, q.network.classes)[0]
        search = branching._Search(q, row)
        rng = np.random.default_rng(seed)
        x = torch.from_numpy(rng.uniform(q.box.lower, q.box.upper, (20, q.network.input_size)))
        margin, gradient = search.margin_and_gradient(x)
        points = x.reshape(20, *q.x.shape).requires_grad_(True)
        expected = q.module(points) @ torch.from_numpy(row)
        (slope,) = torch.autograd.grad(expected.sum(), points)
        assert margin.numpy() == pytest.approx(expected.detach().numpy(), abs=1e-12)
        assert gradient.numpy() == pytest.approx(slope.reshape(20, -1).numpy(), abs=1e-12)
