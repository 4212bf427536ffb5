"""Bounds of every stage hold, grow tighter from stage to stage, and cost what is counted."""

import numpy as np
import pytest
from scipy.optimize import linprog

from robustlib.bounds import Box, network_bounds, outer_ball
from robustlib.encoders.exact import ExactEncoding
from robustlib.encoders.relaxation import Relaxation, relaxation_program
from robustlib.encoders.tightening import tighten
from robustlib.network import Affine, MaxPool, Network, ReLU, from_torch, margin_rows
from robustlib.solvers import safe_lower_bound, solve
from robustlib.solvers.highs import HighsModel
from tests.brute_force import random_network, regions

STAGES = [("interval",), ("interval", "lp"), ("lp",), ("interval", "lp", "mip"), ("mip",)]


def question(seed):
    """A random network and a box in [0, 1]."""
    module, shape = random_network(seed)
    network = from_torch(module, shape)
    rng = np.random.default_rng(seed)
    x = rng.random(network.input_size)
    return network, outer_ball(x, rng.uniform(0.05, 0.5), (0.0, 1.0))


def true_range(network, box):
    """The exact range of every output of a network, over all its activation patterns."""
    sides = np.column_stack([box.lower, box.upper])
    lower, upper = np.full((2, network.classes), [[np.inf], [-np.inf]])
    for a, b, w, c in regions(network):
        for unit, (row, constant) in enumerate(zip(w, c, strict=True)):
            for sign in (1.0, -1.0):
                found = linprog(sign * row, A_ub=a, b_ub=b, bounds=sides)
                if found.status == 0:
                    value = sign * found.fun + constant
                    lower[unit] = min(lower[unit], value)
                    upper[unit] = max(upper[unit], value)
    return lower, upper


@pytest.mark.parametrize("chunk", range(4))
def test_every_stage_holds_and_the_last_is_exact(chunk):
    """On 16 networks; a bound of a settled unit may be loose, but its sign is true."""
    for seed in range(4000 + chunk, 4016, 4):
        network, box = question(seed)
        found = {stages: tighten(network, box, stages=stages) for stages in STAGES}
        for k, step in enumerate(network.steps):
            if isinstance(step, ReLU):
                continue
            lower, upper = true_range(Network(network.steps[: k + 1], network.input_shape), box)
            for stages, result in found.items():
                assert (result.boxes[k].lower <= lower + 1e-9).all(), (seed, k, stages)
                assert (result.boxes[k].upper >= upper - 1e-9).all(), (seed, k, stages)
            wide, lp, mip = (found[stages].boxes[k] for stages in (STAGES[0], STAGES[1], STAGES[3]))
            for loose, tight in ((wide, lp), (lp, mip)):  # where the tighter ones settle nothing
                is_open = (tight.lower < 0) & (tight.upper > 0)
                assert (loose.lower <= tight.lower + 1e-9)[is_open].all(), (seed, k)
                assert (loose.upper >= tight.upper - 1e-9)[is_open].all(), (seed, k)
            if k + 1 == len(network.steps):  # both bounds of every logit
                exact = found[("mip",)].boxes[k]
                assert exact.lower == pytest.approx(lower, abs=1e-5), seed
                assert exact.upper == pytest.approx(upper, abs=1e-5), seed
            elif isinstance(network.steps[k + 1], ReLU):
                is_open = (mip.lower < -1e-6) & (mip.upper > 1e-6)
                assert mip.lower[is_open] == pytest.approx(lower[is_open], abs=1e-5), seed
                assert mip.upper[is_open] == pytest.approx(upper[is_open], abs=1e-5), seed


def test_counts_add_up():
    """Units = settled + open; a settled unit costs one program or two, an open one two a stage."""
    for seed in range(4100, 4124):
        network, box = question(seed)
        result = tighten(network, box, stages=("interval", "lp"))
        units = 0
        for k, step in enumerate(network.steps):
            if isinstance(step, ReLU) and k:
                units += step.size
            elif isinstance(step, MaxPool):
                units += len(np.unique(step.windows))
        assert sum(result.settled.values()) == units
        assert result.settled["mip"] == result.seconds["mip"] == 0
        assert result.programs <= 2 * (units + network.classes)
        assert result.exits <= result.settled["lp"]
        assert result.finished


def test_the_upper_bound_alone_settles_an_inactive_unit():
    """|x| − 1.5 < 0 and 1.5 − |x| > 0: by intervals open, by the triangles 1 and 2 programs."""
    first = Affine(np.array([[1.0], [-1.0]]), np.zeros(2))
    second = Affine(np.array([[1.0, 1.0], [-1.0, -1.0]]), np.array([-1.5, 1.5]))
    network = Network((first, ReLU(2), second, ReLU(2), Affine(np.eye(2), np.zeros(2))), (1,))
    box = Box(-np.ones(1), np.ones(1))
    assert tighten(network, box, stages=("interval",)).settled["open"] == 4
    result = tighten(network, box)
    assert result.settled == {"interval": 0, "lp": 2, "mip": 0, "open": 2}
    logits = 4  # two bounds for each of two
    assert (result.programs - logits, result.exits) == (3, 1)
    alone = tighten(network, box, stages=("lp",))
    assert alone.boxes[2].upper == pytest.approx(result.boxes[2].upper)


def test_a_maximum_needs_no_bound_of_an_input_that_always_loses():
    """x₀ ∈ [0, 1] and x₁ = x₀ / 2 − 1: settled by intervals, for the windows of both."""
    first = Affine(np.array([[1.0], [0.5]]), np.array([0.0, -1.0]))
    network = Network(
        (first, MaxPool(np.array([[0, 1]])), Affine(np.ones((2, 1)), np.zeros(2))), (1,)
    )
    result = tighten(network, Box(np.zeros(1), np.ones(1)))
    assert result.settled == {"interval": 2, "lp": 0, "mip": 0, "open": 0}


def test_symmetric_bounds_hold_and_leave_every_unit_open():
    for seed in range(4200, 4212):
        network, box = question(seed)
        wide = tighten(network, box, asymmetric=False)
        points = np.random.default_rng(seed).uniform(box.lower, box.upper, (50, len(box.lower)))
        for k, values in enumerate(network.outputs(points)):
            assert (wide.boxes[k].lower <= values + 1e-12).all()
            assert (wide.boxes[k].upper >= values - 1e-12).all()
            if k + 1 < len(network.steps) and isinstance(network.steps[k + 1], ReLU):
                assert np.array_equal(wide.boxes[k].lower, -wide.boxes[k].upper)


@pytest.mark.parametrize("first", [ReLU(2), MaxPool(np.array([[0], [1]]))])
def test_a_network_that_starts_without_weights(first):
    """The programs of its first units have no rows: what stands before them is settled."""
    affine, last = Affine(np.array([[1.0, -1.0]]), np.zeros(1)), Affine(np.eye(1), np.zeros(1))
    network, box = Network((first, affine, ReLU(1), last), (2,)), Box(np.zeros(2), np.ones(2))
    for stages in STAGES:
        z = tighten(network, box, stages=stages).boxes[1]
        assert (z.lower[0], z.upper[0]) == pytest.approx((-1.0, 1.0))
        assert z.lower[0] <= -1.0
        assert z.upper[0] >= 1.0


def test_time_and_engines_that_fail_leave_the_bounds_of_intervals(monkeypatch):
    network, box = question(4000)  # two hidden layers
    intervals = tighten(network, box, stages=("interval",))

    def fails(*_, **__):
        raise RuntimeError("out of tune")

    late = tighten(network, box, time_limit=0.0)
    assert not late.finished
    monkeypatch.setattr(HighsModel, "solve", fails)
    broken = tighten(network, box)
    for result in (late, broken):
        assert result.programs == 0 or result is broken
        for a, b in zip(intervals.boxes, result.boxes, strict=True):
            assert np.array_equal(a.lower, b.lower)
            assert np.array_equal(a.upper, b.upper)


def test_weights_beyond_the_engine_leave_the_bounds_of_intervals():
    first, second = Affine(np.array([[1e16], [-1e16]]), np.zeros(2)), Affine(np.eye(2), -np.ones(2))
    network = Network((first, ReLU(2), second, ReLU(2), Affine(np.eye(2), np.zeros(2))), (1,))
    box = Box(-np.ones(1), np.ones(1))
    intervals = tighten(network, box, stages=("interval",))
    for a, b in zip(intervals.boxes, tighten(network, box).boxes, strict=True):
        assert np.array_equal([a.lower, a.upper], [b.lower, b.upper])


def test_the_relaxation_is_what_the_exact_encoding_relaxes_to():
    """For each step and a random row: the same optimum; the multipliers' bound meets it."""
    for seed in range(4300, 4332):
        network, box = question(seed)
        boxes = network_bounds(network, box)
        rng = np.random.default_rng(seed)
        for k in range(len(network.steps)):
            row = rng.normal(size=network.steps[k].size)
            program = relaxation_program(network, box, boxes, row, k)
            prefix = Network(network.steps[: k + 1], network.input_shape)
            whole = ExactEncoding(prefix, box, boxes[: k + 1]).minimize_logits(row).relaxed()
            assert program.variables <= whole.variables
            answer = solve(program)
            assert answer.objective == pytest.approx(solve(whole).objective, abs=1e-7), (seed, k)
            if answer.duals is not None:
                safe = safe_lower_bound(program, answer.duals)
                assert safe == pytest.approx(answer.objective, abs=1e-6), (seed, k)
                assert safe <= answer.objective + 1e-9


def test_one_model_with_many_objectives_answers_like_fresh_ones():
    network, box = question(4300)
    encoding = Relaxation(network, box, network_bounds(network, box))
    rows = margin_rows(0, network.classes)
    model = HighsModel(encoding.minimize_logits(rows[0]))
    for row in (*rows, *-rows):
        model.set_objective(encoding.objective(row))
        fresh = solve(encoding.minimize_logits(row))
        assert model.solve().objective == pytest.approx(fresh.objective, abs=1e-9)
