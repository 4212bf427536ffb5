"""Fine-tuning joins what was found to the training set, and helps against what it was shown."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

import robustlib as rl
from robustlib import training, zoo
from robustlib.training import RECIPES, fine_tune
from robustlib.training.loop import accuracy

NAME = "digits_mlp_standard"
RECIPE = dataclasses.replace(RECIPES[NAME], epochs=3, learning_rate=2e-3, held_out=297)


def by_pgd(net: nn.Sequential, x: Tensor) -> list[Tensor | None]:
    labels = net(x).argmax(1)
    points = rl.attacks.pgd(net, x, labels, eps=0.08, random_start=False, steps=10)
    fooled = net(points).argmax(1) != labels
    return [p if f else None for p, f in zip(points, fooled, strict=True)]


def test_every_round_searches_original_inputs_of_the_right_label() -> None:
    x, y = RECIPE.training_sets()[0]
    net = zoo.load(NAME)
    state = {key: value.clone() for key, value in net.state_dict().items()}
    before = torch.get_rng_state()
    seen: list[Tensor] = []
    right: list[bool] = []

    def find(tuned: nn.Sequential, inputs: Tensor) -> list[Tensor | None]:
        places = [int(((x - one).abs().flatten(1).amax(1) == 0).nonzero()[0, 0]) for one in inputs]
        seen.append(torch.tensor(places))
        right.append(bool((tuned(inputs).argmax(1) == y[places]).all()))
        return by_pgd(tuned, inputs)

    tuned = fine_tune(net, find, recipe=RECIPE, rounds=2, examples=200)
    assert right == [True, True]
    assert tuned.searched == tuple(len(places) for places in seen)
    assert all(len(places.unique()) == len(places) for places in seen)
    assert all(
        0 < found <= searched for found, searched in zip(tuned.found, tuned.searched, strict=True)
    )
    assert not torch.equal(seen[0].sort().values, seen[1].sort().values)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    assert not any(p.requires_grad for p in tuned.net.parameters())
    assert tuned.net is tuned.after[1]
    once = fine_tune(net, by_pgd, recipe=RECIPE, rounds=1, examples=200)
    for a, b in zip(once.net.parameters(), tuned.after[0].parameters(), strict=True):
        assert torch.equal(a, b)
    assert not tuned.net.training


def test_it_helps_against_the_attack_it_was_shown_and_repeats() -> None:
    net = zoo.load(NAME)
    one, two = (fine_tune(net, by_pgd, recipe=RECIPE, rounds=2, examples=700) for _ in range(2))
    for a, b in zip(one.net.parameters(), two.net.parameters(), strict=True):
        assert torch.equal(a, b)
    x, y = RECIPE.data("test")
    fooled = [sum(p is not None for p in by_pgd(n, x)) for n in (net, one.net)]
    assert fooled[1] < 0.8 * fooled[0]
    assert accuracy(one.net, x, y) > accuracy(net, x, y) - 0.02


def test_the_labels_are_those_of_the_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What training sees: the training set, then each point with its input's true label."""
    x, y = RECIPE.training_sets()[0]
    calls = []

    def epoch(net: nn.Sequential, optimizer: object, x: Tensor, y: Tensor, **_: object) -> dict:
        calls.append((x, y))
        return {"loss": 0.0}

    monkeypatch.setattr("robustlib.training.fine_tuning.epoch", epoch)

    def every_third(net: nn.Sequential, inputs: Tensor) -> list[Tensor | None]:
        return [one.double() if i % 3 == 0 else None for i, one in enumerate(inputs)]

    tuned = fine_tune(zoo.load(NAME), every_third, recipe=RECIPE, rounds=2, examples=30)
    assert len(calls) == 6
    first, last = calls[0], calls[-1]
    assert len(first[0]) == len(x) + tuned.found[0]
    assert len(last[0]) == len(x) + sum(tuned.found)
    for inputs, labels in (first, last):
        assert torch.equal(inputs[: len(x)], x)
        assert inputs.dtype == x.dtype
        for one, label in zip(inputs[len(x) :], labels[len(x) :], strict=True):
            same = ((x - one).abs().flatten(1).amax(1) == 0).nonzero()[:, 0]
            assert label in y[same]


def test_bad_arguments() -> None:
    net = zoo.load(NAME)
    with pytest.raises(ValueError, match="examples=1001 is too large"):
        fine_tune(net, by_pgd, recipe=RECIPE, examples=1001)
    with pytest.raises(ValueError, match="find gave 0 points"):
        fine_tune(net, lambda net, x: [], recipe=RECIPE, examples=5)
    with pytest.raises(ValueError, match="rounds=0"):
        fine_tune(net, by_pgd, recipe=RECIPE, rounds=0)
    with pytest.raises(ValueError, match="training mode"):
        training.fine_tune(zoo.load(NAME).train(), by_pgd, recipe=RECIPE)
