"""Stickers: the exact best one on a linear model, and that it survives the views it is made for."""

from __future__ import annotations

import torch
from test_gradient import generator, margin, network, predicted
from torch import nn

from robustlib import data, zoo
from robustlib.attacks import Views, fooled, fooled_views, sticker

STILL = Views(degrees=0, pixels=0, scale=0, light=0)


def middle(size: int) -> torch.Tensor:
    mask = torch.zeros(size, size, dtype=torch.bool)
    mask[2:6, 2:6] = True
    return mask


def test_on_a_linear_model_seen_as_it_is_every_pixel_goes_to_the_better_end():
    model = nn.Sequential(nn.Flatten(), *network(1, sizes=(64, 2))).eval()
    x = torch.rand(4, 1, 8, 8, dtype=torch.float64, generator=generator(0))
    y = predicted(model, x)
    mask = middle(8)
    found = sticker(model, x, y, mask=mask, views=STILL, samples=1, generator=generator(0))
    w = (model[1].weight[0] - model[1].weight[1]).detach().view(8, 8)
    for i in range(4):
        away = -w if y[i] == 0 else w
        assert torch.equal(found[i, 0], torch.where(mask, (away > 0).double(), x[i, 0]))


def test_only_the_mask_is_painted_each_image_its_own():
    model = zoo.load("digits_cnn")
    x, y = data.digits("test", n=3)
    masks = torch.zeros(3, 8, 8, dtype=torch.bool)
    masks[0, :3, :3], masks[1, 4:, 4:] = True, True
    found = sticker(model, x, y, mask=masks, steps=5, generator=generator(0))
    assert torch.equal(found[~masks[:, None]], x[~masks[:, None]])
    assert torch.equal(found[2], x[2])
    assert not torch.equal(found[:2], x[:2])


def test_made_for_views_it_fools_more_views_than_made_for_one():
    model = zoo.load("digits_cnn")
    x, y = data.digits("test", n=20)
    views = Views(degrees=20, pixels=1, scale=0.1, light=0.05)
    shares = {}
    for name, made_for in (("many", views), ("one", STILL)):
        z = sticker(model, x, y, mask=middle(8), views=made_for, steps=40, generator=generator(0))
        shares[name] = fooled_views(model, z, y, views=views, generator=generator(1)).mean()
    clean = fooled_views(model, x, y, views=views, generator=generator(1)).mean()
    assert clean < shares["one"] < shares["many"]


def test_targets_are_reached():
    model = zoo.load("digits_mlp_standard")
    x, y = data.digits("test", n=10)
    targets = (y + 1) % 10
    z = sticker(model, x, y, mask=middle(8), views=STILL, targets=targets, generator=generator(0))
    assert fooled(model, z, y, targets=targets).float().mean() >= 0.8
    assert (margin(model, z, targets) > margin(model, x, targets)).all()


def test_the_share_of_views_without_any_change_is_zero_or_one():
    model = zoo.load("digits_cnn")
    x, y = data.digits("test", n=10)
    y = torch.where(torch.arange(10) < 3, (y + 1) % 10, y)
    share = fooled_views(model, x, y, views=STILL, samples=3)
    assert torch.equal(share, (predicted(model, x) != y).float())


def test_views_stay_in_their_ranges():
    """Light alone adds the same to all pixels; shift alone moves the mass."""
    x = torch.full((1, 1, 8, 8), 0.5, dtype=torch.float64)
    lit = Views(degrees=0, pixels=0, scale=0, light=0.2).of(x, [generator(0)], 50, (0.0, 1.0))
    change = (lit - 0.5).flatten(2)
    assert change.std(2).max() < 1e-9
    assert 0.15 < change.abs().max() <= 0.2
    moved = Views(degrees=0, pixels=1, scale=0, light=0).of(x, [generator(0)], 50, (0.0, 1.0))
    assert torch.allclose(moved[..., 2:-2, 2:-2], x[..., 2:-2, 2:-2], atol=1e-9)
    assert (moved[..., 0] < 0.5 - 1e-6).any()
