"""``verify`` on networks with batch norm, average pooling and residual blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robustlib.network import from_torch
from robustlib.verification import verify
from tests.brute_force import folded_network, smallest_module_margins


@pytest.mark.parametrize("seed", range(48))
def test_verdicts_are_those_of_every_activation_pattern(seed: int) -> None:
    """The last bias is moved so that the smallest margin is just above or just below 0."""
    module, shape = folded_network(seed)
    random = np.random.default_rng(seed)
    x, eps = random.random(shape), 0.1 + 0.4 * random.random()
    module = module.double()
    label = int(module(torch.from_numpy(x)[None])[0].argmax())
    lower, upper = np.maximum(x - eps, 0.0), np.minimum(x + eps, 1.0)
    smallest = smallest_module_margins(module, label, lower, upper).min()
    goal = 0.01 if seed % 2 else -0.01
    module[-1].bias[label] += goal - smallest
    if seed % 3 == 0:  # rounding the weights moves the margin by far less than 0.01
        module = module.float()
    images = torch.from_numpy(x)[None].to(next(module.parameters()).dtype)
    result = verify(module, images, torch.tensor([label]), eps=eps).results[0]
    if goal > 0:
        assert result.verdict == "robust"
        assert 0 < result.lower <= goal + 1e-4
    else:
        assert result.verdict in ("adversarial", "misclassified")
        assert result.upper < 0
    if result.witness is not None:
        assert int(module(result.witness[None])[0].argmax()) != label
        exact = from_torch(module, shape).forward(result.witness.double().reshape(1, -1).numpy())
        assert int(exact[0].argmax()) != label
