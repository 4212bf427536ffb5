"""Maxima as ReLUs: the same function, and carried values that never look open."""

import numpy as np
import pytest

from robustlib.bounds import Box, network_bounds, unstable_units
from robustlib.encoders.maxima import largest, two_sides, without_max_pooling
from robustlib.network import MaxPool, from_torch
from tests.brute_force import random_network


@pytest.mark.parametrize("seed", range(24))
def test_pooling_and_sides_are_computed_by_relus(seed):
    module, shape = random_network(seed)
    network = from_torch(module, shape)
    n = network.input_size
    box = Box(np.zeros(n), np.ones(n))
    x = np.random.default_rng(seed).random((200, n))
    logits = network.forward(x)
    plain = without_max_pooling(network, box)
    assert not any(isinstance(step, MaxPool) for step in plain.steps)
    assert plain.forward(x) == pytest.approx(logits, abs=1e-12)
    targets = [network.classes - 1]
    others = list(range(network.classes - 1))
    sides = two_sides(plain, box, 0, targets).forward(x)
    expected = np.column_stack([logits[:, others].max(1), logits[:, targets].max(1)])
    assert sides == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 9])
def test_a_tournament_of_any_size(size):
    rng = np.random.default_rng(size)
    values = rng.uniform(-3, 1, (100, size))
    result = values
    for step in largest([list(range(size))], Box(np.full(size, -3.0), np.ones(size))):
        result = step(result)
    assert result[:, 0] == pytest.approx(values.max(1), abs=1e-12)


def test_only_the_comparisons_are_open():
    """Eight values: seven comparisons, and nothing that is carried is an open unit."""
    from robustlib.network import Network

    box = Box(np.zeros(8), np.ones(8))
    network = Network(tuple(largest([list(range(8))], box)), (8,))
    assert unstable_units(network, box, network_bounds(network, box)) == 7
