"""How the learning rate and the radius of the ball change during a run, by a recipe."""

from __future__ import annotations

import math

from robustlib.training.recipe import Recipe

RISING = 0.3  # share of all steps of one cycle, as in torch's OneCycleLR
FIRST, LAST = 1 / 25, 1 / 250_000  # of the highest rate


def rate(recipe: Recipe, done: float) -> float:
    """The learning rate after ``done`` epochs.

    Examples
    --------
    >>> from robustlib import data
    >>> from robustlib.training import Recipe
    >>> recipe = Recipe("x", data.digits, epochs=10, warm_up=2, learning_rate=0.01)
    >>> [rate(recipe, done) for done in (0, 1, 2, 6, 10)]
    [0.0, 0.005, 0.01, 0.005, 0.0]
    """
    if recipe.schedule == "one_cycle":
        return recipe.learning_rate * _one_cycle(done / recipe.epochs)
    if done < recipe.warm_up:
        return recipe.learning_rate * done / recipe.warm_up
    share = (done - recipe.warm_up) / max(1, recipe.epochs - recipe.warm_up)
    left = 1 - share if recipe.schedule == "linear" else _half_cosine(1.0, 0.0, share)
    return recipe.learning_rate * left


def grown(recipe: Recipe, done: float) -> float:
    """The share of the ramp that lies behind, after ``done`` epochs."""
    return min(1.0, max(0.0, done - recipe.warm_up) / max(1, recipe.ramp))


def radius(recipe: Recipe, done: float) -> float:
    """The radius of the ball after ``done`` epochs."""
    return recipe.eps * grown(recipe, done)


def _one_cycle(share: float) -> float:
    if share < RISING:
        return _half_cosine(FIRST, 1.0, share / RISING)
    return _half_cosine(1.0, LAST, (share - RISING) / (1 - RISING))


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
