"""Convolutions of few channels on torch's own kernel: the same values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robustlib.attacks.speed import FewChannels

LAYERS = [
    nn.Conv2d(1, 4, 3),
    nn.Conv2d(3, 4, 4, stride=2, padding=1),
    nn.Conv2d(2, 4, (3, 2), stride=(1, 2), padding=(0, 1), bias=False),
    nn.Conv2d(1, 4, 3, dilation=2),
    nn.Conv2d(2, 4, 3, groups=2),
    nn.Conv2d(1, 4, 3, padding="same"),
    nn.Conv2d(1, 4, 3, padding=1, padding_mode="circular"),
    nn.Conv2d(5, 4, 3),
]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_are_those_of_torch(layer, dtype):
    layer = layer.to(dtype)
    x = torch.rand(6, layer.in_channels, 9, 9, dtype=dtype, requires_grad=True)
    plain = layer(x)
    with FewChannels():
        fast = layer(x)
    assert torch.allclose(fast, plain, rtol=1e-5, atol=1e-6)
    weights = torch.rand_like(plain)
    for a, b in zip(*(torch.autograd.grad(z, x, weights) for z in (fast, plain)), strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-5)
