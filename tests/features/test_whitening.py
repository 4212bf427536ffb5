"""Whitening changes the coordinates of learning, not the network."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robustlib import data
from robustlib.features import networks
from robustlib.features.training import Schedule, fit
from robustlib.features.whitening import RIDGE, Whitening


def small() -> nn.Module:
    return networks.slim_resnet((8, 16), classes=4)


def test_steps_are_those_of_the_reparametrized_network() -> None:
    """SGD with momentum and decay on W, gradients times B², is SGD on P where W = P B."""
    x, y = data.shapes("train", n=64)
    x, start = x.double(), torch.randn(4, 27, dtype=torch.float64) / 5

    def loss(weight: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(F.conv2d(x, weight.view(4, 3, 3, 3)).amax((2, 3)), y)

    def sgd(parameter: torch.Tensor) -> torch.optim.Optimizer:
        return torch.optim.SGD([parameter], lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.1)

    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False)).double()
    white = Whitening(net, x)
    with torch.no_grad():
        net[0].weight.copy_(start.view(4, 3, 3, 3))
    white.start()
    p = start.clone().requires_grad_(True)
    ours, theirs = sgd(net[0].weight), sgd(p)
    for _ in range(5):
        ours.zero_grad()
        theirs.zero_grad()
        loss(net[0].weight).backward()
        white.gradient()
        loss(p @ white.basis).backward()
        ours.step()
        theirs.step()
    assert torch.allclose(net[0].weight.flatten(1), p @ white.basis, atol=1e-9)
    assert not torch.allclose(p, start, atol=1e-3)


def test_patches_become_white_down_to_the_ridge() -> None:
    x, _ = data.shapes("train", n=400)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2))
    basis = Whitening(net, x).basis.double()
    covariance = torch.cov(F.unfold(x, 3, stride=2).transpose(1, 2).flatten(0, 1).double().T)
    values = torch.linalg.eigvalsh(basis @ covariance @ basis)
    before = torch.linalg.eigvalsh(covariance)
    assert torch.allclose(values.sort().values, before / (before + RIDGE**2), atol=1e-3)


def test_a_network_without_convolutions_is_refused() -> None:
    x, y = data.shapes("train", n=8)
    with pytest.raises(ValueError, match="whiten=False"):
        fit(
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 4)),
            x,
            y,
            Schedule(epochs=1, whiten=True),
            seed=0,
        )
