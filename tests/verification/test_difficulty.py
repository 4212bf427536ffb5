"""Counts of stable units and labels, against points of the ball and the definition."""

import numpy as np
import pytest
import torch

from robustlib.network import ReLU, from_torch
from robustlib.verification.difficulty import difficulty
from tests.brute_force import random_network


@pytest.mark.parametrize("seed", [0, 1, 4, 5, 8])
def test_units_that_switch_inside_the_ball_are_counted_as_unstable(seed):
    """Sampling the ball shows some switches; the bounds must leave at least these units open."""
    module, shape = random_network(seed)
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand((1, *shape), generator=generator)
    eps = 0.2
    network = from_torch(module, shape)
    y = torch.from_numpy(network.forward(x.double().flatten(1).numpy()).argmax(1))
    counts = difficulty(module, x, y, eps=eps).iloc[0]

    noise = torch.rand((2000, *shape), generator=generator) * 2 - 1
    points = (x + eps * noise).clamp(0, 1).double().flatten(1).numpy()
    values = list(network.outputs(points))
    before = [values[k - 1] for k, s in enumerate(network.steps) if isinstance(s, ReLU)]
    z = np.concatenate(before, axis=1)
    on, off = (z > 0).all(axis=0), (z < 0).all(axis=0)
    stable = counts.stably_active + counts.stably_inactive
    assert counts.unstable + stable == z.shape[1]
    assert counts.unstable >= (~on & ~off).sum()
    assert counts.stably_active <= (z >= 0).all(axis=0).sum()

    logits = values[-1]
    never = sum((logits[:, j] < logits[:, y]).all() for j in range(logits.shape[1]) if j != y)
    assert counts.labels_by_logits <= logits.shape[1] - 1
    assert counts.labels_by_margins <= never


def test_at_radius_zero_every_unit_is_stable_and_every_wrong_label_is_out():
    module, shape = random_network(0)
    x = torch.rand((3, *shape), generator=torch.Generator().manual_seed(1))
    y = module(x).argmax(1)
    counts = difficulty(module, x, y, eps=0.0)
    assert (counts.unstable == 0).all()
    assert (counts.labels_by_logits == 2).all()
    assert (counts.labels_by_margins == 2).all()


def test_bad_input_is_refused():
    module, shape = random_network(0)
    with pytest.raises(ValueError, match="eps"):
        difficulty(module, torch.zeros(1, *shape), torch.tensor([0]), eps=-1.0)
