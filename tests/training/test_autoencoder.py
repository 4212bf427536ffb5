"""The features of an autoencoder keep what the images hold, without having seen a label."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from robustlib import data
from robustlib.training.autoencoder import encoder


def test_its_features_hold_nearly_what_principal_components_hold() -> None:
    """No linear map from 12 numbers gives images back better than that of 12 components does."""
    x, _ = data.digits("train", n=800)
    new, _ = data.digits("test", n=200)
    mean = x.flatten(1).mean(0)
    components = torch.linalg.svd(x.flatten(1) - mean, full_matrices=False).Vh[:12].T

    def lost(features: Callable[[Tensor], Tensor]) -> float:
        """The squared distance to ``new`` of the best linear map that was fitted to ``x``."""
        columns = [torch.cat([features(z), torch.ones(len(z), 1)], 1) for z in (x, new)]
        solution = torch.linalg.lstsq(columns[0], x.flatten(1)).solution
        return float((columns[1] @ solution - new.flatten(1)).square().sum(1).mean())

    best = lost(lambda z: (z.flatten(1) - mean) @ components)
    learned, drawn = (
        lost(encoder(x, hidden=12, epochs=epochs, seed=0, batch=32, rate=0.01))
        for epochs in (40, 1)
    )
    assert 0.95 * best < learned < 1.25 * best
    assert drawn > 1.5 * best


def test_the_penalty_makes_values_small_and_seeds_decide_all() -> None:
    x, _ = data.digits("train", n=200)
    settings = {"hidden": 10, "epochs": 5, "seed": 3}
    first, again = encoder(x, **settings), encoder(x, **settings)
    assert all(map(torch.equal, first.parameters(), again.parameters()))
    assert encoder(x, sparsity=1.0, **settings)(x).mean() < first(x).mean()
    assert not torch.equal(encoder(x, **{**settings, "seed": 4})(x), first(x))


@pytest.mark.parametrize(
    ("argument", "value"), [("hidden", 0), ("epochs", 0), ("sparsity", -1.0), ("rate", 0.0)]
)
def test_bad_input_is_named(argument: str, value: float) -> None:
    settings = {"hidden": 4, "epochs": 1, "seed": 0, argument: value}
    with pytest.raises(ValueError, match=argument):
        encoder(torch.rand(4, 1, 2, 2), **settings)
