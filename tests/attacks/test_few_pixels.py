"""The one-pixel attack against all pixels and values of tiny images."""

from __future__ import annotations

import itertools

import pytest
import torch
from test_gradient import generator, margin, predicted
from test_promises import small_net
from torch import nn

from robustlib.attacks import fooled, one_pixel


def tiny(seed: int) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """One channel of 4 × 4 pixels."""
    g = generator(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3))
    for layer in (model[1], model[3]):
        layer.weight.data = torch.randn(layer.weight.shape, generator=g) / layer.in_features**0.5
        layer.bias.data = 0.1 * torch.randn(layer.bias.shape, generator=g)
    model = model.double().eval()
    x = torch.rand(6, 1, 4, 4, dtype=torch.float64, generator=g)
    return model, x, predicted(model, x)


def brute_force(model, x, y, values: int = 101) -> torch.Tensor:
    """The lowest margin over every pixel and ``values`` values of it."""
    lowest = margin(model, x, y)
    for r, c in itertools.product(range(4), range(4)):
        z = x.repeat_interleave(values, 0)
        z[:, 0, r, c] = torch.linspace(0, 1, values, dtype=x.dtype).repeat(len(x))
        margins = margin(model, z, y.repeat_interleave(values)).view(len(x), values)
        lowest = torch.minimum(lowest, margins.amin(1))
    return lowest


@pytest.mark.parametrize("seed", range(3))
def test_it_finds_the_best_pixel_of_all(seed):
    model, x, y = tiny(seed)
    found = one_pixel(model, x, y, population=60, generations=40, early_stop=False,
                      generator=generator(0))  # fmt: skip
    assert (margin(model, found, y) <= brute_force(model, x, y) + 1e-3).all()


@pytest.mark.parametrize("seed", range(3))
def test_early_stop_succeeds_where_a_pixel_can(seed):
    model, x, y = tiny(seed)
    found = one_pixel(model, x, y, population=60, generations=40, generator=generator(0))
    possible = brute_force(model, x, y) < -1e-3
    assert fooled(model, found, y)[possible].all()


@pytest.mark.parametrize("pixels", [1, 2, 5])
def test_so_many_pixels_change_and_no_more(pixels):
    model = small_net()
    x = torch.rand(8, 2, 6, 6, dtype=torch.float64, generator=generator(3))
    y = predicted(model, x)
    found = one_pixel(model, x, y, pixels=pixels, population=20, generations=8, early_stop=False,
                      generator=generator(0))  # fmt: skip
    changed = (found != x).any(1).flatten(1).sum(1)
    assert (changed <= pixels).all()
    assert (changed >= 1).any()


def test_more_pixels_reach_lower_margins():
    model = small_net()
    x = torch.rand(8, 2, 6, 6, dtype=torch.float64, generator=generator(3))
    y = predicted(model, x)
    means = [
        margin(model, one_pixel(model, x, y, pixels=k, population=40, generations=30,
                                early_stop=False, generator=generator(0)), y).mean()
        for k in (1, 3)
    ]  # fmt: skip
    assert means[1] < means[0]


def test_finished_images_are_dropped():
    """With early_stop what is misclassified, from the start too, is asked about no more."""
    model, x, y = tiny(1)
    y[2] = (y[2] + 1) % 3
    seen: list[int] = []
    handle = model.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    found = one_pixel(model, x, y, population=30, generations=10, generator=generator(0))
    handle.remove()
    assert torch.equal(found[2], x[2])
    assert seen[:3] == [1, 6, 150]
    assert seen[2:] == sorted(seen[2:], reverse=True)
