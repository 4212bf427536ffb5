"""Models of scikit-learn as sources and judges of adversarial examples.

Linear models and a smoothed nearest-neighbor rule become networks, which every gradient attack
takes; a decision tree has no gradient, and its nearest leaf with another label is found exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustlib import checks

BLOCK = 1 << 22  # numbers that the search over leaves holds at a time


def linear(model: Any) -> nn.Sequential:
    """A fitted linear classifier (``LogisticRegression``, ``LinearSVC``) as a network.

    The logits are its scores, so the labels are those of ``model.predict``, up to rounding to
    float32.

    Parameters
    ----------
    model : scikit-learn classifier of at least three classes 0, 1, 2, …

    Returns
    -------
    nn.Sequential
        Flatten, Linear; float32, in evaluation mode, its parameters frozen.

    Raises
    ------
    TypeError, ValueError
        For a model that is not linear, not fitted, or has other classes.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> model = LogisticRegression().fit(np.eye(3), [0, 1, 2])
    >>> linear(model)(torch.eye(3)[:, None]).argmax(1)
    tensor([0, 1, 2])
    """
    weights, bias = getattr(model, "coef_", None), getattr(model, "intercept_", None)
    if weights is None or bias is None or not hasattr(model, "classes_"):
        raise TypeError(f"model is a {type(model).__name__}; give a fitted linear classifier.")
    _classes(model, len(weights))
    layer = nn.utils.skip_init(nn.Linear, weights.shape[1], len(weights))
    layer.weight.data = torch.from_numpy(weights).float()
    layer.bias.data = torch.from_numpy(np.asarray(bias)).float()
    return nn.Sequential(nn.Flatten(), layer).eval().requires_grad_(False)


class SmoothNeighbors(nn.Module):
    """The nearest-neighbor rule with a gradient (Papernot et al. 2016).

    Every example votes for its label, with the weight exp(−‖x − xᵢ‖₂² / T); the logits are the
    logarithms of the votes. As T → 0 the label becomes that of the nearest example.

    Parameters
    ----------
    x : Tensor (n, …)
        The examples.
    y : Tensor (n,), integers
        Their labels, each of 0, 1, … at least once.
    temperature : float
        T, in the squared unit of ``x``.

    Raises
    ------
    TypeError, ValueError
        For an argument that is not as described; the message names it and what is allowed.

    Examples
    --------
    >>> net = SmoothNeighbors(torch.eye(2), torch.tensor([0, 1]), temperature=0.1)
    >>> net(torch.tensor([[0.9, 0.2]])).argmax(1)
    tensor([0])
    """

    examples: Tensor

    def __init__(self, x: Tensor, y: Tensor, *, temperature: float) -> None:
        super().__init__()
        self.temperature = checks.number("temperature", temperature, low=0.0, strict=True)
        classes = int(y.max()) + 1
        labels = checks.labels(y, len(x), classes)
        self.register_buffer("examples", checks.images(x, bounds=None).flatten(1))
        absent = sorted(set(range(classes)) - set(labels.tolist()))
        if absent:
            raise ValueError(f"y has no example of the labels {absent}; give one of each.")
        self.rows = [torch.nonzero(labels == j)[:, 0] for j in range(classes)]
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        near = torch.cdist(x.flatten(1), self.examples).square()
        votes = [(-near[:, rows] / self.temperature).logsumexp(1) for rows in self.rows]
        return torch.stack(votes, 1)


def judge(model: Any) -> Callable[[Tensor], Tensor]:
    """``model.predict`` as a function from images to integer labels, for ``attacks.transfer``.

    Examples
    --------
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> tree = DecisionTreeClassifier().fit([[0.0], [1.0]], [0, 1])
    >>> judge(tree)(torch.tensor([[[0.2]], [[0.7]]]))
    tensor([0, 1])
    """

    def labels(x: Tensor) -> Tensor:
        found = model.predict(x.detach().flatten(1).cpu().numpy())
        return torch.from_numpy(np.asarray(found)).long().to(x.device)

    return labels


def nearest_leaf(tree: Any, x: Tensor, y: Tensor, *, eps: float = 1.0) -> Tensor:
    """The nearest point in l∞ that a decision tree gives another label than ``y``, exactly.

    A leaf is a box: its path bounds some features from above and some from below. The nearest
    point of a box is found coordinate by coordinate, and all leaves are tried. (Papernot et al.
    2016 go to a leaf that is near in the tree.)

    Parameters
    ----------
    tree : fitted ``DecisionTreeClassifier`` of classes 0, 1, 2, …
    x : Tensor (n, …), float32 in [0, 1]
    y : Tensor (n,), integers
        Labels to leave.
    eps : float
        Only points at most so far away count.

    Returns
    -------
    Tensor like ``x``
        Inside [0, 1]; ``x`` itself where no such point is within ``eps``.

    Raises
    ------
    TypeError, ValueError
        For an argument that is not as described; the message names it and what is allowed.

    Examples
    --------
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> tree = DecisionTreeClassifier().fit([[0.0, 0.3], [1.0, 0.3]], [0, 1])
    >>> nearest_leaf(tree, torch.tensor([[0.25, 0.75]]), torch.tensor([0]))
    tensor([[0.5000, 0.7500]])
    """
    inner = getattr(tree, "tree_", None)
    if inner is None:
        raise TypeError(f"tree is a {type(tree).__name__}; give a fitted DecisionTreeClassifier.")
    classes = len(tree.classes_)
    _classes(tree, classes)
    flat = checks.images(x).detach().flatten(1).cpu().numpy()
    if x.dtype != torch.float32:
        raise TypeError(f"x is of {x.dtype}; a tree of scikit-learn compares float32.")
    if flat.shape[1] != inner.n_features:
        raise ValueError(f"x has {flat.shape[1]} features an image; tree has {inner.n_features}.")
    eps = checks.eps(eps)
    answers = checks.labels(y, len(x), classes).cpu().numpy()
    low, high, labels = _leaves(inner)
    result = flat.copy()
    size = max(1, BLOCK // low.size)
    for start in range(0, len(flat), size):
        rows = flat[start : start + size]
        away = np.maximum(low - rows[:, None], rows[:, None] - high).max(2).clip(0)
        away[labels == answers[start : start + size, None]] = np.inf
        leaf = away.argmin(1)
        moved = np.clip(rows, low[leaf], high[leaf])
        distance = abs(moved.astype(np.float64) - rows).max(1)
        reached = np.isfinite(away.min(1)) & (distance <= eps)
        result[start : start + size][reached] = moved[reached]
    return torch.from_numpy(result).reshape(x.shape).to(x.device)


def _leaves(inner: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The leaves that touch [0, 1]: least and greatest float32 of each feature, and labels."""
    found: list[tuple[np.ndarray, np.ndarray, int]] = []
    whole = np.zeros(inner.n_features, np.float32), np.ones(inner.n_features, np.float32)
    stack = [(0, *whole)]
    while stack:
        node, low, high = stack.pop()
        if inner.children_left[node] < 0:
            found.append((low, high, int(inner.value[node, 0].argmax())))
            continue
        feature, threshold = inner.feature[node], inner.threshold[node]
        left = np.float32(threshold)  # to the left goes what is at most the threshold
        if left > threshold:
            left = np.nextafter(left, np.float32(-np.inf))
        below, above = high.copy(), low.copy()
        below[feature] = min(below[feature], left)
        above[feature] = max(above[feature], np.nextafter(left, np.float32(np.inf)))
        if low[feature] <= below[feature]:
            stack.append((inner.children_left[node], low, below))
        if above[feature] <= high[feature]:
            stack.append((inner.children_right[node], above, high))
    lows, highs, labels = zip(*found, strict=True)
    return np.stack(lows), np.stack(highs), np.array(labels)


def _classes(model: Any, count: int) -> None:
    known = np.asarray(model.classes_).tolist()
    if known != list(range(count)):
        raise ValueError(f"model has the classes {known} and {count} scores; give 0, 1, 2, ….")
