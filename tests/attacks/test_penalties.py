"""The penalty objectives against a search along the only direction that a linear model has."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from test_gradient import generator, margin, network, predicted
from torch.nn import functional as F

from robustlib.attacks import penalty

SLIDES = [("ce", True), ("squared", True), ("ce", False)]


def objective(model, x, z, label, weight, loss, targeted):
    """‖z − x‖² + λ ‖F(z) − T‖², + λ CE(T, F(z)), − λ CE(q, F(z)): written out."""
    with torch.no_grad():
        logits = model(z)
    if loss == "squared":
        term = (logits.softmax(1) - F.one_hot(label, logits.shape[1])).square().sum(1)
    else:
        term = -logits.log_softmax(1).gather(1, label[:, None])[:, 0]
    return (z - x).square().sum(1) + (1 if targeted else -1) * weight * term


@pytest.mark.parametrize(("loss", "targeted"), SLIDES)
@pytest.mark.parametrize("weight", [0.01, 0.1])
def test_linear_model_reaches_the_minimum(loss, targeted, weight):
    """With two classes the best point lies on the line x − t w, t ≥ 0: a search over t alone."""
    model = network(2, sizes=(10, 2), gain=2.0)
    x = 0.4 + 0.2 * torch.rand(5, 10, dtype=torch.float64, generator=generator(0))
    y = predicted(model, x)
    label = 1 - y if targeted else y
    found = penalty(model, x, y, weight=weight, loss=loss, targets=label if targeted else None)
    assert found.min() > 0  # the box is not in the way
    assert found.max() < 1
    w = (model[0].weight[0] - model[0].weight[1]).detach()
    for i in range(5):
        away = -w if y[i] == 0 else w
        rows = slice(i, i + 1)

        def along(t, rows=rows, away=away):
            arguments = (model, x[rows], x[rows] + t * away, label[rows], weight, loss, targeted)
            return float(objective(*arguments))

        best = min(
            (minimize_scalar(along, bounds=b, method="bounded", options={"xatol": 1e-9})
             for b in ((0, 0.05), (0.05, 0.3))), key=lambda r: r.fun,
        )  # fmt: skip
        ours = float(objective(model, x[rows], found[rows], label[rows], weight, loss, targeted))
        assert ours == pytest.approx(best.fun, abs=1e-5)
        assert torch.allclose(found[i], x[i] + best.x * away, atol=3e-3)


@pytest.mark.parametrize(("loss", "targeted"), SLIDES)
def test_a_larger_weight_buys_a_lower_margin_with_distance(loss, targeted):
    model = network(4)
    x = torch.rand(20, 6, dtype=torch.float64, generator=generator(1))
    y = predicted(model, x)
    targets = (y + 1) % 4 if targeted else None
    distances, margins = [], []
    for weight in (1e-4, 1e-2, 1.0):
        z = penalty(model, x, y, weight=weight, loss=loss, targets=targets, steps=100)
        distances.append(float((z - x).norm(dim=1).mean()))
        toward = -margin(model, z, targets) if targeted else margin(model, z, y)
        margins.append(float(toward.mean()))
    assert distances == sorted(distances)
    assert margins == sorted(margins, reverse=True)


@pytest.mark.parametrize(("loss", "targeted"), SLIDES)
def test_the_result_is_never_worse_than_the_image(loss, targeted):
    model = network(6)
    x = torch.rand(20, 6, dtype=torch.float64, generator=generator(2))
    y = predicted(model, x)
    label = (y + 1) % 4 if targeted else y
    z = penalty(model, x, y, weight=0.3, loss=loss, targets=label if targeted else None, steps=30)
    after, before = (objective(model, x, p, label, 0.3, loss, targeted) for p in (z, x))
    assert bool((after <= before + 1e-12).all())
    assert np.isfinite(after.numpy()).all()
