"""A recipe that makes no sense is refused; schedules rise and fall as they say."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from torch import nn

from robustlib import data
from robustlib.training import RECIPES, Recipe
from robustlib.training.schedules import grown, radius, rate


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"method": "provabel", "eps": 0.1}, r"method='provabel'.*Did you mean 'provable'"),
        ({"method": "provable"}, r"eps=0\.0 is out of range: give a finite number above 0"),
        ({"method": "adversarial", "eps": -0.1}, r"eps=-0\.1 is out of range"),
        ({"eps": 0.1}, r"eps=0\.1 has no meaning with method='standard'"),
        ({"kappa": (1.0, 1.5)}, r"kappa=1\.5 is out of range: give .* at least 0 and at most 1"),
        ({"beta": (-0.5, 0.0)}, r"beta=-0\.5 is out of range"),
        ({"epochs": 0}, "epochs=0"),
        ({"batch": 0}, "batch=0"),
        ({"ramp": -1}, "ramp=-1"),
        ({"learning_rate": 0.0}, r"learning_rate=0\.0"),
        ({"attack": "pdg", "method": "adversarial", "eps": 0.1}, "attack='pdg'.*'pgd'"),
        ({"schedule": "cosin"}, "schedule='cosin'.*'cosine'"),
        ({"precision": "float16"}, "precision='float16' is not known"),
        ({"noise": -0.1}, r"noise=-0\.1 is out of range"),
        ({"shift": -1}, "shift=-1"),
        ({"clean": 0.5}, r"clean=0\.5 has no meaning with method='standard'; give 0\.0"),
        ({"sources": ("digits_mlp",)}, "sources=.* has no meaning with method='standard'"),
        ({"sources": ("digits_mpl",)}, "name='digits_mpl'.*'digits_mlp'"),
        ({"sources": (nn.Linear(2, 2),)}, "sources is in training mode"),
        (
            {"method": "adversarial", "eps": 0.1, "noise": 0.1},
            r"noise=0\.1 has no meaning with method='adversarial'",
        ),
    ],
)
def test_recipes_that_make_no_sense(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**{"name": "x", "data": data.digits, "epochs": 5, **wrong})


def test_the_rate_rises_in_the_warm_up_and_falls_to_zero() -> None:
    recipe = Recipe("x", data.digits, epochs=10, warm_up=2, learning_rate=0.01)
    assert [rate(recipe, done) for done in (0, 1, 2, 6, 10)] == [0, 0.005, 0.01, 0.005, 0]
    plain = dataclasses.replace(recipe, warm_up=0)
    assert [rate(plain, done) for done in (0, 5, 10)] == [0.01, 0.005, 0]
    assert rate(dataclasses.replace(recipe, warm_up=10), 5) == 0.005, "the warm-up alone"


def test_the_cosine_is_that_of_torch() -> None:
    recipe = Recipe("x", data.digits, epochs=50, schedule="cosine", learning_rate=0.01)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.01)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50)
    for done in range(50):
        assert rate(recipe, done) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    late = dataclasses.replace(recipe, warm_up=10)
    assert [rate(late, done) for done in (5, 10, 30)] == pytest.approx([0.005, 0.01, 0.005])


def test_one_cycle_is_that_of_torch() -> None:
    """Theirs reaches the ends one step early, which no longer counts with many steps."""
    steps = 5000
    recipe = Recipe("x", data.digits, epochs=10, schedule="one_cycle", learning_rate=0.01)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.01)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=steps)
    for step in range(steps):
        expected = theirs.get_last_lr()[0]
        assert rate(recipe, 10 * step / steps) == pytest.approx(expected, rel=0.003, abs=1e-5)
        optimizer.step()
        if step < steps - 1:
            theirs.step()


def test_the_radius_is_zero_in_the_warm_up_and_full_behind_the_ramp() -> None:
    recipe = Recipe("x", data.digits, epochs=10, method="provable", warm_up=2, ramp=4, eps=0.4)
    assert [radius(recipe, done) for done in (0, 2, 3, 6, 10)] == [0, 0, 0.1, 0.4, 0.4]
    assert grown(dataclasses.replace(recipe, ramp=0), 3) == 1


def test_settings_are_those_of_the_method() -> None:
    for recipe in RECIPES.values():
        settings = recipe.settings()
        assert json.loads(json.dumps(settings)) == settings
        assert ("eps" in settings) == (recipe.method != "standard")
        by_steps = recipe.method == "adversarial" and recipe.attack == "pgd"
        assert ("attack_steps" in settings) == by_steps
        assert ("kappa" in settings) == (recipe.method == "provable")


def test_the_last_examples_are_held_out() -> None:
    recipe = Recipe("x", data.digits, epochs=1, held_out=297)
    (x, _), (unseen, labels) = recipe.training_sets()
    assert (len(x), len(unseen), len(labels)) == (1000, 297, 297)
    assert (unseen == data.digits("train", indices=range(1000, 1297))[0]).all()
    with pytest.raises(ValueError, match="held_out=1297 leaves none of the 1297 examples"):
        dataclasses.replace(recipe, held_out=1297).training_sets()
