"""What a step of training is shown: noise, moves and attacks are those that the recipe asks for."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from robustlib import attacks, data
from robustlib.features import moves
from robustlib.training import Recipe
from robustlib.training.inputs import LowPrecision, attacked, augmented, noisy, shifted
from robustlib.training.loop import epoch
from robustlib.zoo import architectures

ADVERSARIAL = Recipe("x", data.digits, epochs=1, method="adversarial", eps=0.1, attack="fgsm")


def source(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def small(seed: int = 0) -> nn.Sequential:
    net = architectures.mlp([12], inputs=64).eval()
    architectures.initialize(net, source(seed))
    return net


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    return data.digits("train", n=64)


@pytest.mark.parametrize("channels", [1, 3])
def test_shifts_against_a_loop_over_images(channels: int) -> None:
    x = torch.rand(30, channels, 7, 5, generator=source())
    drawn = torch.randint(-3, 4, (30, 2), generator=source(1))
    still = torch.zeros(30, 1, dtype=torch.long)
    assert torch.equal(shifted(x, drawn), moves.move(x, torch.cat([-drawn, still], 1)))


def test_every_shift_up_to_the_reach_is_drawn(digits: tuple[Tensor, Tensor]) -> None:
    x = torch.ones(1000, 1, 8, 8)
    recipe = Recipe("x", data.digits, epochs=1, shift=2)
    moved = augmented(x, recipe, source())
    empty = [(1 - moved[:, 0, :, 4]).sum(1), (1 - moved[:, 0, 4]).sum(1)]
    for count in empty:
        seen = Counter(count.int().tolist())
        assert set(seen) == {0, 1, 2}
        assert 120 < seen[0] < 280, "one of five moves is none"
        assert 300 < seen[2] < 500, "two of five are by two pixels"


def test_noise_has_the_standard_deviation_that_was_asked_for() -> None:
    recipe = Recipe("x", data.digits, epochs=1, noise=0.3)
    x = torch.zeros(400, 1, 10, 10)
    noise = noisy(x, recipe, source())
    error = 5 / len(noise.flatten()) ** 0.5
    assert abs(float(noise.std()) / 0.3 - 1) < error
    assert abs(float(noise.mean())) < 0.3 * error
    assert float(noise.min()) < 0, "nothing is cut off"
    assert torch.equal(noisy(x, dataclasses.replace(recipe, noise=0.0), source()), x)


def test_attacks_are_those_of_the_library(digits: tuple[Tensor, Tensor]) -> None:
    net, (x, y) = small(), digits
    expected = {
        "fgsm": attacks.fgsm(net, x, y, eps=0.1),
        "r_fgsm": attacks.r_fgsm(net, x, y, eps=0.1, generator=source()),
        "pgd": attacks.pgd(net, x, y, eps=0.1, steps=7, early_stop=False, generator=source()),
    }
    for name, points in expected.items():
        recipe = dataclasses.replace(ADVERSARIAL, attack=name)
        assert torch.equal(attacked(net, x, y, 0.1, recipe, source()), points)
        assert torch.equal(attacked(net, x, y, 0.0, recipe, source()), x)


def test_an_ensemble_takes_turns_at_random(digits: tuple[Tensor, Tensor]) -> None:
    """The trained network and its sources are attacked equally often, one for a whole batch."""
    nets, (x, y) = [small(seed) for seed in range(3)], digits
    expected = [attacks.fgsm(net, x, y, eps=0.1) for net in nets]
    generator, seen = source(), Counter[int]()
    for _ in range(300):
        points = attacked(nets[0], x, y, 0.1, ADVERSARIAL, generator, nets[1:])
        (which,) = (i for i, e in enumerate(expected) if torch.equal(points, e))
        seen[which] += 1
    assert all(70 < seen[i] < 130 for i in range(3))


def test_the_share_of_the_clean_loss(digits: tuple[Tensor, Tensor]) -> None:
    net, (x, y) = small(), digits
    clean = F.cross_entropy(net(x), y).item()
    fooled = F.cross_entropy(net(attacks.fgsm(net, x, y, eps=0.1)), y).item()
    for share in (0.0, 0.25, 1.0):
        recipe = dataclasses.replace(ADVERSARIAL, clean=share, batch=64)
        again = small()
        optimizer = recipe.optimizer(again)
        row = epoch(again, optimizer, x, y, recipe=recipe, number=1, generator=source())
        assert row["loss"] == pytest.approx(share * clean + (1 - share) * fooled, rel=1e-5)


def test_low_precision_is_the_same_network_roughly(digits: tuple[Tensor, Tensor]) -> None:
    net, (x, y) = small(), digits
    low = LowPrecision(net)
    assert low(x).dtype == torch.float32
    assert torch.allclose(low(x), net(x), atol=0.02)
    assert not torch.equal(low(x), net(x))
    assert attacks.pgd(low, x, y, eps=0.1, steps=2).dtype == torch.float32
