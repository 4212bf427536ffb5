"""Transfer: what is counted, and who may judge."""

from __future__ import annotations

import math
from functools import partial

import torch
from sklearn.tree import DecisionTreeClassifier
from test_gradient import generator, network, predicted

from robustlib import data, zoo
from robustlib.attacks import fgsm, pgd, transfer


def test_the_rate_counts_what_was_right_with_both_and_fools_the_source():
    source, other = network(1), network(2)
    x = torch.rand(200, 6, dtype=torch.float64, generator=generator(0))
    y = predicted(source, x)
    y[:20] = (y[:20] + 1) % 4
    found = transfer(source, {"other": other}, x, y, attack=partial(fgsm, eps=0.2))
    counted = wrong = 0
    for i in range(200):
        rows = slice(i, i + 1)
        right = (
            bool(predicted(source, x[rows]) == y[rows]),
            bool(predicted(other, x[rows]) == y[rows]),
        )
        fools = bool(predicted(source, found.points[rows]) != y[rows])
        if all(right) and fools:
            counted += 1
            wrong += bool(predicted(other, found.points[rows]) != y[rows])
    assert counted > 10
    assert found.rate("other") == wrong / counted


def test_a_model_transfers_to_itself_and_to_a_copy_of_other_scale():
    model, twice = network(1), network(1)
    twice[-1].weight.data *= 2
    twice[-1].bias.data *= 2
    x = torch.rand(50, 6, dtype=torch.float64, generator=generator(0))
    y = predicted(model, x)
    found = transfer(model, {"itself": model, "twice": twice}, x, y, attack=partial(fgsm, eps=0.2))
    assert found.rate("itself") == found.rate("twice") == 1
    assert math.isnan(
        transfer(model, {"itself": model}, x, y, attack=lambda model, x, y: x).rate("itself")
    )


def test_targets_count_only_where_they_are_reached():
    source, other = network(1), network(2)
    x = torch.rand(50, 6, dtype=torch.float64, generator=generator(0))
    y = predicted(source, x)
    targets = (y + 1) % 4
    attack = partial(pgd, eps=0.3, targets=targets, generator=generator(0))
    found = transfer(source, {"other": other}, x, y, attack=attack, targets=targets)
    assert torch.equal(found.source, predicted(source, found.points) == targets)
    reached = (predicted(other, x) == y) & (predicted(other, found.points) == targets)
    assert torch.equal(found.judges["other"], reached)


def test_a_judge_may_be_any_function_that_gives_labels():
    """A decision tree of scikit-learn: worse on the points than on the images."""
    source = zoo.load("digits_mlp_standard")
    x, y = data.digits("train", n=500)
    tree = DecisionTreeClassifier(random_state=0).fit(x.flatten(1).numpy(), y.numpy())
    x, y = data.digits("test", n=100)
    judge = {"tree": lambda x: torch.from_numpy(tree.predict(x.flatten(1).numpy()))}
    found = transfer(source, judge, x, y, attack=partial(pgd, eps=0.2, generator=generator(0)))
    assert 0.1 < found.rate("tree") < 1
