"""Robust accuracies against what they bound: the exact one of a linear network."""

from __future__ import annotations

import torch
from torch import nn

from robustlib.features import measure


def test_the_nearest_example_gives_the_exact_accuracy_of_a_linear_network() -> None:
    """The distance to the boundary is |w·x + b| / ‖w‖, so robust accuracy is known."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((60, 2), generator=generator) * 0.4 + 0.3  # the box is far away
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 2)).eval().requires_grad_(False)
    net[1].weight.copy_(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    net[1].bias.copy_(torch.tensor([-3.5, 0.0]))
    away = (x @ torch.tensor([3.0, 4.0]) - 3.5) / 5
    y = (away < 0).long()
    y[:5] = 1 - y[:5]  # wrong labels: not robust at any radius
    radii = (0.02, 0.08)
    images = x.view(-1, 1, 1, 2)
    found = measure.nearest_accuracy(net, images, y, radii=radii, steps=200, searches=6)
    for eps, one in zip(radii, found, strict=True):
        near = away.abs() < eps
        near[:5] = True
        assert one.n == 60
        assert abs(one.value - float((~near).double().mean())) <= 1 / 60
    assert found[1].value < found[0].value <= 55 / 60
