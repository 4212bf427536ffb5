"""The exact encoding agrees with brute force over all activation patterns, with every engine."""

import numpy as np
import pytest

from robustlib.bounds import Box, Simplex, network_bounds, norm_ball, outer_ball
from robustlib.encoders.exact import ExactEncoding
from robustlib.network import Affine, MaxPool, Network, ReLU, from_torch, margin_rows
from robustlib.solvers import SOLVERS, prove_at_least, solve
from tests.brute_force import (
    random_network,
    smallest_distortion,
    smallest_distortion_to,
    smallest_margins,
    smallest_margins_in_ball,
)

CHUNKS, PER_CHUNK = 10, 30  # 300 networks, in chunks that workers can share


def question(seed):
    """A random network, an input, its label and a radius."""
    module, shape = random_network(seed)
    network = from_torch(module, shape)
    rng = np.random.default_rng(seed)
    x = rng.random(network.input_size)
    label = int(network.forward(x[None])[0].argmax())
    return network, x, label, rng.uniform(0.05, 0.5)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_margins_and_verdicts_equal_brute_force(chunk):
    for seed in range(chunk * PER_CHUNK, (chunk + 1) * PER_CHUNK):
        network, x, label, eps = question(seed)
        box = outer_ball(x, eps, (0.0, 1.0))
        encoding = ExactEncoding(network, box, network_bounds(network, box))
        expected = smallest_margins(network, label, box.lower, box.upper)
        for row, margin in zip(margin_rows(label, network.classes), expected, strict=True):
            program = encoding.minimize_logits(row)
            for solver in SOLVERS:
                answer = solve(program, solver=solver)
                assert answer.status == "optimal", (seed, solver)
                assert answer.objective == pytest.approx(margin, abs=2e-6), (seed, solver)
                exists = solve(program, solver=solver, cutoff=0.0, first=True).x is not None
                assert abs(margin) < 1e-6 or exists == (margin < 0), (seed, solver)
            # the proof tree: never above the truth, and it reaches a bound just below it
            proof = prove_at_least(program, margin - 1e-6)
            assert proof.finished, seed
            assert margin - 1e-6 <= proof.lower <= margin + 1e-9, seed
            assert not prove_at_least(program, margin + 1e-5).finished, seed


@pytest.mark.parametrize("norm", ["inf", "1"])
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_distortion_equals_brute_force(chunk, norm):
    for seed in range(chunk * PER_CHUNK, (chunk + 1) * PER_CHUNK):
        network, x, label, _ = question(seed)
        box = outer_ball(x, 1.0, (0.0, 1.0))
        boxes = network_bounds(network, box)
        expected = smallest_distortion(network, x, label, norm, (0.0, 1.0))
        for solver in SOLVERS:
            found = np.inf
            for row in margin_rows(label, network.classes):
                program = ExactEncoding(network, box, boxes).closest(x, row, norm)
                answer = solve(program, solver=solver)
                if answer.status == "optimal":
                    found = min(found, answer.objective)
            assert found == pytest.approx(expected, abs=1e-6), (seed, solver)


def test_each_unit_is_encoded_by_its_sign():
    """Inactive: no column. Active: its input's. Unstable: a 0–1 variable, big-M = its bounds."""
    first = Affine(np.ones((3, 1)), np.array([-2.0, 2.0, 0.0]))
    network = Network((first, ReLU(3), Affine(np.ones((1, 3)), np.zeros(1))), (1,))
    box = Box(-np.ones(1), np.ones(1))
    boxes = [Box(np.array([-3.0, 1.0, -1.0]), np.array([-1.0, 3.0, 1.0])),
             Box(np.array([0.0, 1.0, 0.0]), np.array([0.0, 3.0, 1.0])),
             Box(np.array([1.0]), np.array([4.0]))]  # fmt: skip
    program = ExactEncoding(network, box, boxes).minimize_logits(np.ones(1))
    # columns: x, z of the active and the unstable unit, y and a of the unstable one, the logit
    assert program.variables == 6
    assert program.integer.tolist() == [False, False, False, False, True, False]
    y_at_most_z = program.matrix.toarray()[2]  # y − z − l a ≤ −l with l = −1
    assert y_at_most_z.tolist() == [0, 0, -1, 1, 1, 0]
    assert program.row_upper[2] == 1.0
    assert solve(program).objective == pytest.approx(1.0)  # z = (−3, 1, −1): 0 + 1 + 0


def test_weights_of_windows_with_one_winner_are_not_summed():
    """Three windows share their maximum x; 1e14 x + 0.005 x − 1e14 x must stay 0.005 x."""
    pool = MaxPool(np.array([[0, 1], [1, 2], [1, 3]]))
    last = Affine(np.array([[0.0, 0.0, 0.0], [1e14, 0.005, -1e14]]), np.array([0.0025, 0.0]))
    network = Network((pool, last), (4,))
    box = Box(np.array([0.0, 0.3, 0.0, 0.0]), np.array([0.2, 0.7, 0.2, 0.2]))
    program = ExactEncoding(network, box, network_bounds(network, box)).minimize_logits(
        np.array([1.0, -1.0])
    )
    assert set(np.abs(program.matrix.data)) == {1.0, 0.005, 1e14}
    assert prove_at_least(program, 1e-9).lower <= 0.0025 - 0.005 * 0.7


@pytest.mark.parametrize("norm", ["1", "2"])
def test_margins_over_a_ball_equal_brute_force(norm):
    """The tangents of an l2 ball are added until the solution is in it; every program is below."""
    for seed in range(6):
        network, x, label, eps = question(seed)
        region = norm_ball(x, eps, norm, (0.0, 1.0))
        encoding = ExactEncoding(network, region, network_bounds(network, region))
        expected = smallest_margins_in_ball(network, x, label, eps, norm, (0.0, 1.0))
        for row, margin in zip(margin_rows(label, network.classes), expected, strict=True):
            program = encoding.minimize_logits(row)
            rounds = 0
            while program is not None and rounds < 30:  # near the ball an engine's tolerance rules
                answer = solve(program)
                assert answer.objective <= margin + 1e-5, seed
                program, rounds = encoding.refined(program, answer.x), rounds + 1
            assert answer.objective == pytest.approx(margin, abs=1e-5 if norm == "1" else 1e-4), (
                seed
            )
            assert norm == "2" or rounds == 1


def test_the_closest_point_in_l2_equals_brute_force():
    for seed in range(4):
        network, x, label, _ = question(seed)
        box = outer_ball(x, 1.0, (0.0, 1.0))
        boxes = network_bounds(network, box)
        found = np.inf
        for row in margin_rows(label, network.classes):
            encoding = ExactEncoding(network, box, boxes)
            program = encoding.closest(x, row, "2")
            for _ in range(30):
                answer = solve(program)
                if answer.x is None:
                    break
                program = encoding.refined(program, answer.x)
                if program is None:
                    break
            if answer.objective is not None:
                found = min(found, np.sqrt(answer.objective))
        others = [j for j in range(network.classes) if j != label]
        truth = smallest_distortion_to(network, x, others, "2", (0.0, 1.0))
        assert found == pytest.approx(truth, abs=1e-4), seed


def test_a_simplex_and_coordinates_with_one_way_to_go():
    """min 2 x₀ − x₁ + x₂: over the simplex −1; from (0, 1, 0.5) with Σ|x' − x| ≤ 0.75 at x₁."""
    network = Network((Affine(np.array([[2.0, -1.0, 1.0], [0.0, 0.0, 0.0]]), np.zeros(2)),), (3,))
    for region, least in [
        (Simplex(3), -1.0),
        (norm_ball(np.array([0.0, 1.0, 0.5]), 0.75, "1", (0.0, 1.0)), -1.0),
        (norm_ball(np.array([1.0, 0.0, 0.5]), 0.75, "1", (0.0, 1.0)), 1.0),
    ]:
        encoding = ExactEncoding(network, region, network_bounds(network, region))
        answer = solve(encoding.minimize_logits(np.array([1.0, -1.0])))
        assert answer.objective == pytest.approx(least, abs=1e-9)
