"""What one epoch does: the loss of the method, on the inputs that the recipe says."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from robustlib import data
from robustlib.training import RECIPES, loop
from robustlib.training.loop import accuracy, certified, epoch, provable_loss
from robustlib.training.provable import margin_bounds, robust_cross_entropy
from robustlib.training.recipe import Recipe
from robustlib.zoo import architectures

PROVABLE = Recipe(
    "x",
    data.digits,
    epochs=8,
    batch=16,
    method="provable",
    eps=0.1,
    warm_up=1,
    ramp=4,
    kappa=(1.0, 0.2),
    beta=(1.0, 0.0),
)


def small(seed: int = 0) -> nn.Sequential:
    net = architectures.mlp([12], inputs=64).eval()
    architectures.initialize(net, Generator().manual_seed(seed))
    return net


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    return data.digits("train", n=200)


def run(recipe: Recipe, digits: tuple[Tensor, Tensor], epochs: int, seed: int = 0) -> nn.Sequential:
    net, generator = small(), Generator().manual_seed(seed)
    optimizer = recipe.optimizer(net)
    before = torch.get_rng_state()
    for number in range(1, epochs + 1):
        epoch(net, optimizer, *digits, recipe=recipe, number=number, generator=generator)
    assert torch.equal(torch.get_rng_state(), before), "no draw from the global random state"
    return net


def test_kappa_and_beta_move_along_the_ramp(digits: tuple[Tensor, Tensor]) -> None:
    net, (x, y) = small(), digits
    clean = F.cross_entropy(net(x), y)

    def bound(eps: float, crown: float) -> Tensor:
        return robust_cross_entropy(margin_bounds(net, x, y, eps=eps, crown=crown))

    for done, expected in [
        (0.5, clean),
        (3.0, 0.6 * clean + 0.4 * bound(0.05, 0.5)),
        (5.0, 0.2 * clean + 0.8 * bound(0.1, 0.0)),
        (7.5, 0.2 * clean + 0.8 * bound(0.1, 0.0)),
    ]:
        assert torch.isclose(provable_loss(net, x, y, clean, PROVABLE, done), expected)


def test_the_provable_loss_is_above_the_loss_at_attacked_inputs(digits) -> None:
    from robustlib.attacks import pgd

    net, (x, y) = run(PROVABLE, digits, 3), digits
    attacked = pgd(net, x, y, eps=0.1, steps=10, generator=Generator().manual_seed(0))
    for crown in (0.0, 1.0):
        bound = robust_cross_entropy(margin_bounds(net, x, y, eps=0.1, crown=crown))
        assert F.cross_entropy(net(attacked), y) <= bound


def test_provable_training_proves_more_than_standard_training(digits) -> None:
    x, y = digits
    standard = Recipe("x", data.digits, epochs=8, batch=16)
    shares = [
        certified(run(recipe, digits, 8), x, y, eps=0.1, crown=1.0).double().mean()
        for recipe in (standard, PROVABLE)
    ]
    assert shares[1] > shares[0] + 0.1


@pytest.mark.parametrize(
    "recipe",
    [
        PROVABLE,
        dataclasses.replace(PROVABLE, crown_targets=2),
        dataclasses.replace(PROVABLE, method="adversarial", attack_steps=1),
        dataclasses.replace(PROVABLE, mirror=True),
    ],
)
def test_equal_seeds_give_equal_parameters(recipe: Recipe, digits) -> None:
    one, two, other = (run(recipe, digits, 2, seed) for seed in (0, 0, 1))
    assert all(map(torch.equal, one.parameters(), two.parameters()))
    assert not all(map(torch.equal, one.parameters(), other.parameters()))


def test_half_of_the_images_are_mirrored(digits, monkeypatch) -> None:
    x, y = digits
    seen: list[Tensor] = []

    class Watched(nn.Flatten):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return super().forward(x)

    net = nn.Sequential(Watched(), *list(small())[1:])
    recipe = Recipe("x", data.digits, epochs=1, batch=200, mirror=True)
    generator = Generator().manual_seed(0)
    epoch(net, recipe.optimizer(net), x, y, recipe=recipe, number=1, generator=generator)
    order = torch.randperm(200, generator=Generator().manual_seed(0))
    same = (seen[0] == x[order]).flatten(1).all(1)
    turned = (seen[0] == x[order].flip(-1)).flatten(1).all(1)
    assert (same | turned).all()
    assert 60 < int(turned.sum()) < 140


def test_gradients_of_the_bounds_are_cut(digits, monkeypatch) -> None:
    monkeypatch.setattr(loop, "LARGEST_GRADIENT", 0.0)
    net = small()
    start = copy.deepcopy(net)
    recipe = dataclasses.replace(PROVABLE, epochs=1, warm_up=0)
    epoch(net, recipe.optimizer(net), *digits, recipe=recipe, number=1, generator=Generator())
    assert all(map(torch.equal, net.parameters(), start.parameters()))


def test_accuracy_of_the_shipped_provable_network() -> None:
    """Far more is certified than on the adversarially trained network of the same size."""
    from robustlib import zoo

    x, y = data.digits("test", n=200)
    found = {
        name: (accuracy(net, x, y), certified(net, x, y, eps=0.1, crown=1.0).double().mean())
        for name in ("digits_cnn_ibp", "digits_cnn")
        for net in [zoo.load(name)]
    }
    assert found["digits_cnn_ibp"][1] > found["digits_cnn"][1] + 0.2
    assert found["digits_cnn_ibp"][0] > 0.9
    assert RECIPES["digits_cnn_ibp"].eps == 0.1
