"""Pruned weights are the smallest ones, and they stay zero while the others are trained."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from robustlib import training, zoo
from robustlib.training import RECIPES, prune, sparsify


def kernels(net: nn.Sequential) -> list[torch.Tensor]:
    return [m.weight for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d)]


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.9, 1.0])
def test_the_smallest_weights_become_zero(fraction: float) -> None:
    net = zoo.load("digits_cnn")
    sparse = prune(net, fraction)
    for before, after in zip(kernels(net), kernels(sparse), strict=True):
        gone = after == 0
        assert int(gone.sum()) == int(fraction * before.numel())
        assert torch.equal(before[~gone], after[~gone])
        if 0 < fraction < 1:
            assert before[gone].abs().max() <= before[~gone].abs().min()
    for name, value in net.named_parameters():
        if name.endswith("bias"):
            assert torch.equal(value, dict(sparse.named_parameters())[name])
    assert not any((kernel == 0).any() for kernel in kernels(net)), "the argument is unchanged"


def test_equal_weights_are_pruned_in_turn() -> None:
    net = nn.Sequential(nn.Linear(4, 1))
    net[0].weight.data = torch.ones(1, 4)
    assert prune(net, 0.5)[0].weight.tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize("name", ["digits_mlp", "digits_cnn_ibp"])
def test_fine_tuning_keeps_the_zeros_and_wins_back_accuracy(name: str) -> None:
    recipe = dataclasses.replace(
        RECIPES[name], epochs=3, warm_up=0, ramp=0, learning_rate=2e-3, held_out=97
    )
    net = zoo.load(name)
    state = {key: value.clone() for key, value in net.state_dict().items()}
    before = torch.get_rng_state()
    sparse, again = (sparsify(net, 0.7, recipe=recipe) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    for a, b, c in zip(kernels(sparse), kernels(again), kernels(prune(net, 0.7)), strict=True):
        assert torch.equal(a, b), "equal seeds give equal parameters"
        assert torch.equal(a == 0, c == 0)
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    assert not any(p.requires_grad for p in sparse.parameters())
    x, y = recipe.data("test")
    right = [training.loop.accuracy(n, x, y) for n in (prune(net, 0.7), sparse)]
    assert right[1] > right[0]
    assert right[1] > 0.85


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan"), True, "half"])
def test_fractions_that_are_none(fraction: object) -> None:
    with pytest.raises((ValueError, TypeError), match="fraction="):
        prune(zoo.load("toy"), fraction)


def test_a_network_in_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="training mode"):
        sparsify(zoo.load("toy").train(), 0.5, recipe=RECIPES["toy"])
