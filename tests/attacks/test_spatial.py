"""Placement against shifts by hand, quarter turns and scipy; the grid against a plain loop."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage
from test_gradient import generator, margin, predicted

from robustlib import data, zoo
from robustlib.attacks import spatial_grid, spatial_random
from robustlib.attacks.placement import placed


def by_scipy(image: np.ndarray, degrees: float, shift: tuple[float, float], scale: float = 1.0):
    """One channel, turned counterclockwise, scaled and shifted; 0 comes from outside."""
    angle = np.deg2rad(degrees)
    # Rows point down: the point at (row, column) of the result comes from back @ (row, column).
    back = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / scale
    center = (np.array(image.shape) - 1) / 2
    offset = center - back @ (center + np.array([shift[1], shift[0]]))
    return ndimage.affine_transform(image, back, offset, order=1, mode="grid-constant")


@pytest.mark.parametrize(("right", "down"), [(0, 0), (2, 0), (0, -1), (-3, 2)])
def test_whole_pixels_move_as_they_are(right, down):
    x = torch.rand(2, 3, 5, 8, dtype=torch.float64, generator=generator(0))
    expected = torch.zeros_like(x)
    rows, columns = range(5), range(8)
    for r, c in itertools.product(rows, columns):
        if r - down in rows and c - right in columns:
            expected[:, :, r, c] = x[:, :, r - down, c - right]
    shift = torch.tensor([[right, down]]).expand(2, 2)
    assert torch.allclose(placed(x, torch.zeros(2), shift), expected, atol=1e-12)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_quarter_turns_are_counterclockwise(quarters):
    x = torch.rand(2, 3, 6, 6, dtype=torch.float64, generator=generator(0))
    turned = placed(x, torch.full((2,), 90.0 * quarters), torch.zeros(2, 2))
    assert torch.allclose(turned, torch.rot90(x, quarters, (2, 3)), atol=1e-12)


@pytest.mark.parametrize("shape", [(7, 7), (6, 9)])
def test_placement_is_that_of_scipy(shape):
    g = np.random.default_rng(0)
    image = g.random(shape)
    for _ in range(10):
        degrees, scale = g.uniform(-60, 60), g.uniform(0.8, 1.3)
        shift = tuple(g.uniform(-2, 2, 2))
        ours = placed(
            torch.from_numpy(image)[None, None], torch.tensor([degrees]).double(),
            torch.tensor([shift]).double(), scale=torch.tensor([scale]).double(),
        )  # fmt: skip
        assert np.allclose(ours[0, 0].numpy(), by_scipy(image, degrees, shift, scale), atol=1e-9)


def test_what_comes_from_outside_is_the_fill():
    x = torch.rand(1, 1, 4, 4, generator=generator(0))
    assert torch.equal(
        placed(x, torch.zeros(1), torch.tensor([[9.0, 0.0]]), fill=0.25), x * 0 + 0.25
    )


def test_the_grid_finds_the_worst_of_all_its_points():
    model = zoo.load("digits_cnn").double()
    x, y = data.digits("test", n=5)
    x = x.double()
    options = {"degrees": 20.0, "pixels": 1.5, "angles": 5, "shifts": 3}
    found = spatial_grid(model, x, y, **options)
    lowest = margin(model, x, y)
    for degrees, right, down in itertools.product(
        np.linspace(-20, 20, 5), np.linspace(-1.5, 1.5, 3), np.linspace(-1.5, 1.5, 3)
    ):
        turned = [by_scipy(image[0].numpy(), degrees, (right, down)) for image in x]
        moved = torch.from_numpy(np.stack(turned))[:, None]
        lowest = torch.minimum(lowest, margin(model, moved, y))
    assert torch.allclose(margin(model, found.points, y), lowest, atol=1e-6)
    assert torch.equal(found.success, predicted(model, found.points) != y)


def test_the_angles_and_shifts_told_give_the_points():
    model = zoo.load("digits_cnn")
    x, y = data.digits("test", n=5)
    for found in (
        spatial_grid(model, x, y, angles=3, shifts=3),
        spatial_random(model, x, y, generator=generator(0)),
    ):
        again = placed(x, found.degrees, found.shift).clamp(0, 1)
        assert torch.allclose(found.points, again, atol=1e-6)
        assert found.degrees.abs().max() <= 30
        assert found.shift.abs().max() <= 3


def test_more_tries_are_worse_and_no_range_is_no_attack():
    model = zoo.load("digits_cnn")
    x, y = data.digits("test", n=20)
    one, ten = (
        margin(model, spatial_random(model, x, y, tries=k, generator=generator(0)).points, y)
        for k in (1, 10)
    )
    assert (ten <= one + 1e-4).all()
    assert (one <= margin(model, x, y) + 1e-4).all()
    still = spatial_random(model, x, y, degrees=0, pixels=0, generator=generator(0))
    assert torch.allclose(still.points, x, atol=1e-6)
