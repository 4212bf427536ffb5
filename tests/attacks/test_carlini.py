"""Carlini and Wagner against the exact distance on linear models, and foolbox."""

from __future__ import annotations

import warnings

import foolbox
import pytest
import torch
from test_gradient import generator, margin, network, predicted

from robustlib import data, zoo
from robustlib.attacks import carlini_wagner, fooled


def linear_distance(model, x, y):
    """min over j of (z_y − z_j) / ‖w_y − w_j‖₂."""
    w, logits = model[0].weight.detach(), model(x).detach()
    gaps = logits.gather(1, y[:, None]) - logits
    ratios = gaps / (w[y][:, None] - w[None]).norm(dim=2).clamp_min(1e-12)
    ratios[torch.arange(len(x)), y] = torch.inf
    return ratios.amin(1)


def linear(classes: int, n: int = 8):
    model = network(3, sizes=(30, classes))
    x = 0.35 + 0.3 * torch.rand(n, 30, dtype=torch.float64, generator=generator(0))
    return model, x, predicted(model, x)


@pytest.mark.parametrize("targeted", [False, True])
def test_with_two_classes_it_stops_at_the_exact_distance(targeted):
    model, x, y = linear(2)
    found = carlini_wagner(model, x, y, targets=1 - y if targeted else None)
    assert fooled(model, found, y).all()
    exact, distance = linear_distance(model, x, y), (found - x).norm(dim=1)
    assert (distance >= exact - 1e-9).all()
    assert (distance <= 1.01 * exact + 1e-4).all()


def test_with_more_classes_it_may_go_to_a_label_that_is_not_the_nearest():
    """It follows the largest of the other logits: never nearer than the nearest, often as near."""
    model, x, y = linear(4, 12)
    found = carlini_wagner(model, x, y, steps=100)
    assert fooled(model, found, y).all()
    ratio = (found - x).norm(dim=1) / linear_distance(model, x, y)
    assert ratio.min() >= 1 - 1e-9
    assert ratio.median() <= 1.02
    assert ratio.max() <= 1.25


def test_confidence_is_won_in_logits():
    model, x, y = linear(4)
    plain, sure = (carlini_wagner(model, x, y, confidence=kappa, steps=100) for kappa in (0.0, 1.0))
    assert (margin(model, sure, y) <= -1).all()
    assert ((sure - x).norm(dim=1) > (plain - x).norm(dim=1)).all()


def test_where_nothing_is_found_the_image_comes_back():
    """A model whose label never changes."""
    model = network(0, sizes=(6, 2))
    model[0].weight.data.zero_()
    x = torch.rand(3, 6, dtype=torch.float64, generator=generator(0))
    y = predicted(model, x)
    assert torch.equal(carlini_wagner(model, x, y, steps=20, searches=3), x)


@pytest.mark.parametrize("name", ["digits_mlp_standard", "digits_cnn"])
def test_distances_are_not_above_those_of_foolbox(name):
    model = zoo.load(name)
    x, y = data.digits("test", n=8)
    found = carlini_wagner(model, x, y, steps=100, searches=6)
    oracle = foolbox.attacks.L2CarliniWagnerAttack(
        steps=100, binary_search_steps=6, initial_const=1e-2, stepsize=0.01
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))
        theirs = oracle(wrapped, x, foolbox.criteria.Misclassification(y), epsilons=None)[0]
    assert fooled(model, found, y).all()
    ours, expected = ((z - x).flatten(1).norm(dim=1) for z in (found, theirs))
    assert ours.mean() <= 1.02 * expected.mean()
