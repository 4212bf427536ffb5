"""Models of scikit-learn as networks give their labels; a tree's nearest leaf is the nearest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier
from torch import Tensor

from robustlib import attacks, classical, data


def digits(n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x, y = data.digits("train", n=n)
    return x, y, *data.digits("test", n=100)


@pytest.mark.parametrize("kind", [LogisticRegression, LinearSVC])
def test_a_linear_model_and_its_network_agree(kind: type) -> None:
    x, y, new, answers = digits(300)
    model = kind(C=0.1).fit(x.flatten(1).numpy(), y.numpy())
    net = classical.linear(model)
    assert torch.equal(net(new).argmax(1), classical.judge(model)(new))
    points = attacks.fgsm(net, new, answers, eps=0.2)
    assert (classical.judge(model)(points) != answers).float().mean() > 0.5


def test_cold_neighbors_are_the_nearest_neighbor_rule_and_warm_ones_have_a_gradient() -> None:
    x, y, new, answers = digits(300)
    model = KNeighborsClassifier(1).fit(x.flatten(1).numpy(), y.numpy())
    net = classical.SmoothNeighbors(x, y, temperature=1e-3)
    assert torch.equal(net(new).argmax(1), classical.judge(model)(new))
    warm = classical.SmoothNeighbors(x, y, temperature=0.5)
    points = attacks.fgsm(warm, new, answers, eps=0.2)
    before = (classical.judge(model)(new) != answers).float().mean()
    assert (classical.judge(model)(points) != answers).float().mean() > before + 0.2


def test_no_grid_point_of_another_label_is_nearer_than_the_leaf() -> None:
    """In the plane every point of a fine grid can be tried."""
    draw = np.random.default_rng(0)
    examples = draw.random((60, 2)).astype(np.float32)
    tree = DecisionTreeClassifier(random_state=0).fit(examples, draw.integers(0, 3, 60))
    axis = torch.linspace(0, 1, 301)
    grid = torch.cartesian_prod(axis, axis)
    labels = classical.judge(tree)(grid)
    x = torch.from_numpy(draw.random((40, 2)).astype(np.float32))
    y = classical.judge(tree)(x)
    points = classical.nearest_leaf(tree, x, y)
    assert (classical.judge(tree)(points) != y).all()
    for point, start, label in zip(points, x, y, strict=True):
        distance = (point - start).abs().max()
        best = (grid[labels != label] - start).abs().amax(1).min()
        assert best - 1 / 300 <= distance <= best + 1e-6


def test_on_digits_the_leaf_is_entered_and_the_radius_is_kept() -> None:
    x, y, new, _ = digits(500)
    tree = DecisionTreeClassifier(random_state=0).fit(x.flatten(1).numpy(), y.numpy())
    own = classical.judge(tree)(new)
    far = classical.nearest_leaf(tree, new, own)
    assert (classical.judge(tree)(far) != own).all()
    eps = 0.03
    near = classical.nearest_leaf(tree, new, own, eps=eps)
    moved = (near != new).flatten(1).any(1)
    assert torch.equal(classical.judge(tree)(near) != own, moved)
    away = (far.double() - new.double()).flatten(1).abs().amax(1)
    assert torch.equal(moved, away <= eps)
    assert 0 < int(moved.sum()) < len(new)


def test_bad_input_is_named() -> None:
    x, y, *_ = digits(200)
    flat = x.flatten(1).numpy()
    tree = DecisionTreeClassifier().fit(flat, y.numpy())
    with pytest.raises(TypeError, match="LinearSVC"):
        classical.linear(LinearSVC())
    with pytest.raises(TypeError, match="LinearRegression"):
        classical.linear(LinearRegression().fit(flat, flat))
    with pytest.raises(ValueError, match="classes"):
        classical.linear(LogisticRegression().fit(flat, y.numpy() + 1))
    with pytest.raises(TypeError, match="DecisionTreeClassifier"):
        classical.nearest_leaf(DecisionTreeClassifier(), x, y)
    with pytest.raises(ValueError, match="features"):
        classical.nearest_leaf(tree, x[..., 1:], y)
    with pytest.raises(TypeError, match="float32"):
        classical.nearest_leaf(tree, x.double(), y)
    with pytest.raises(ValueError, match="eps"):
        classical.nearest_leaf(tree, x, y, eps=-1.0)
    with pytest.raises(ValueError, match="temperature"):
        classical.SmoothNeighbors(x, y, temperature=0.0)
    with pytest.raises(ValueError, match=r"\[1\]"):
        classical.SmoothNeighbors(x, 2 * (y > 4), temperature=1.0)
