"""The reduced encoding: every point of the network is in it, and its optimum is the network's."""

from dataclasses import replace

import numpy as np
import pytest

from robustlib.bounds import L2Ball, network_bounds, norm_ball
from robustlib.encoders.reduced import ReducedEncoding
from robustlib.network import from_torch, margin_rows
from robustlib.solvers import prove_at_least, solve
from tests.brute_force import random_network, smallest_margins


def case(seed, norm="inf"):
    """A network without max-pooling, the rows of its margins, a ball, its center and radius."""
    module, shape = random_network(4 * (seed // 2) + seed % 2)
    network = from_torch(module, shape)
    rng = np.random.default_rng(seed)
    x, eps = rng.random(network.input_size), float(rng.uniform(0.1, 0.5))
    ball = norm_ball(x, eps, norm, (0.0, 1.0))
    return network, margin_rows(0, network.classes), ball, x, eps


@pytest.mark.parametrize("chunk", range(2))
def test_the_optimum_is_that_of_brute_force_and_the_tree_proves_just_below_it(chunk):
    for seed in range(10 * chunk, 10 * chunk + 10):
        network, rows, box, _, _ = case(seed)
        truth = smallest_margins(network, 0, box.lower, box.upper)
        encoding = ReducedEncoding(network, box, network_bounds(network, box), rows)
        for row, margin in zip(np.eye(len(rows)), truth, strict=True):
            program = encoding.minimize_logits(row)
            assert solve(program).objective == pytest.approx(margin, abs=1e-5), seed
            assert prove_at_least(program, margin - 1e-6).finished, seed
            assert not prove_at_least(program, margin + 1e-6).finished, seed


@pytest.mark.parametrize("norm", ["inf", "1", "2"])
def test_every_point_of_the_ball_is_feasible_with_the_margins_of_the_network(norm):
    for seed in range(12):
        network, rows, ball, x, eps = case(seed, norm)
        inputs = ball.box if isinstance(ball, L2Ball) else ball
        encoding = ReducedEncoding(network, inputs, network_bounds(network, ball), rows)
        move = np.random.default_rng(seed).uniform(ball.box.lower, ball.box.upper) - x
        length = np.linalg.norm(move, {"inf": np.inf, "1": 1, "2": 2}[norm])
        point = x + move * min(1.0, 0.99 * eps / length)
        margins = rows @ network.forward(point[None])[0]
        program = encoding.minimize_logits(np.zeros(len(rows)))
        lower, upper = program.lower.copy(), program.upper.copy()
        lower[encoding.inputs] = upper[encoding.inputs] = point
        found = solve(replace(program, lower=lower, upper=upper))
        assert found.status == "optimal", seed
        assert found.x[encoding.logits] == pytest.approx(margins, abs=1e-5), seed
