"""APGD and the strong evaluation: never above PGD, and not deceived by hidden gradients."""

from __future__ import annotations

import pytest
import torch
from test_gradient import generator, margin, network, predicted
from test_queries import Steps
from torch import nn

from robustlib import data, zoo
from robustlib.attacks import apgd, evaluate, fooled, pgd
from robustlib.attacks.auto_pgd import Climb
from robustlib.attacks.evaluation import STAGES


class Scaled(nn.Module):
    """Logits so large that the cross-entropy of float32 has no gradient: labels are the same."""

    def __init__(self, inner: nn.Module, factor: float) -> None:
        super().__init__()
        self.inner, self.factor = inner, factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * self.inner(x)


# -- APGD ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("norm", "dual"), [("inf", 1), ("2", 2), ("1", torch.inf)])
@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_apgd_reaches_the_worst_case_of_a_linear_model(norm, dual, loss):
    """An image falls where the largest possible drop is 1 % above its margin, not 1 % below."""
    model = network(3, sizes=(50, 2))
    x = 0.3 + 0.4 * torch.rand(3, 50, dtype=torch.float64, generator=generator(0))
    w = (model[0].weight[0] - model[0].weight[1]).detach()
    for i in range(3):
        one, y = x[i : i + 1], torch.tensor([0])
        model[0].bias.data[0] += 0.2 - margin(model, one, y)[0]  # near: the box is not in the way
        for share in (0.99, 1.01):
            eps = float(0.2 / (share * w.norm(dual)))
            options = {"eps": eps, "norm": norm, "loss": loss, "generator": generator(0)}
            assert bool(fooled(model, apgd(model, one, y, **options), y)) == (share < 1)


def test_the_difference_of_logits_ratio_by_hand():
    logits = torch.tensor([[5.0, 3.0, 2.0, 1.0, 0.0], [1.0, 4.0, 3.0, 0.0, 0.5]])
    y = torch.tensor([0, 0])
    assert torch.allclose(
        Climb("dlr", y, None).value(logits), torch.tensor([-(5 - 3) / (5 - 2), (4 - 1) / (4 - 1)])
    )
    targets = torch.tensor([2, 2])
    assert torch.allclose(
        Climb("dlr", y, targets).value(logits),
        torch.tensor([-(5 - 2) / (5 - 1.5), -(1 - 3) / (4 - 0.75)]),
    )
    for factor in (1e-3, 1e4):
        assert torch.allclose(
            Climb("dlr", y, targets).value(factor * logits),
            Climb("dlr", y, targets).value(logits),
        )
    pair = torch.tensor([[2.0, 0.5]])
    assert float(Climb("dlr", y[:1], None).value(pair)) == -1.5  # two classes: the margin


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
def test_apgd_finds_at_least_as_many_as_pgd(norm):
    model = zoo.load("digits_cnn")
    x, y = data.digits("test", n=100)
    eps = {"inf": 0.1, "2": 0.6, "1": 2.0}[norm]
    options = {"eps": eps, "norm": norm, "steps": 40}
    found = [
        int(fooled(model, attack(model, x, y, generator=generator(0), **options), y).sum())
        for attack in (apgd, pgd)
    ]
    assert found[0] >= found[1] - 1


def test_restarts_are_for_what_still_stands():
    model = network(8)
    x = torch.rand(30, 6, dtype=torch.float64, generator=generator(7))
    y = predicted(model, x)
    once, often = (
        apgd(model, x, y, eps=0.15, steps=4, restarts=r, generator=generator(3)) for r in (1, 4)
    )
    fell = fooled(model, once, y)
    assert torch.equal(once[fell], often[fell])
    assert fooled(model, often, y).sum() >= fell.sum()


# -- the evaluation -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digits_mlp", "digits_cnn", "digits_mlp_standard"])
@pytest.mark.parametrize(("norm", "eps"), [("inf", 0.08), ("2", 0.5), ("1", 1.5)])
def test_robust_accuracy_is_never_above_that_of_pgd(name, norm, eps):
    model = zoo.load(name)
    x, y = data.digits("test", n=40)
    found = evaluate(model, x, y, eps=eps, norm=norm, steps=25, queries=60, generator=generator(0))
    attacked = pgd(model, x, y, eps=eps, norm=norm, restarts=2, generator=generator(0))
    standing = int((~fooled(model, attacked, y)).sum())
    assert int(found.robust.sum()) <= standing


def test_it_is_not_deceived_by_logits_too_large_for_the_cross_entropy():
    """Plain PGD finds nothing new; the evaluation finds what it finds on the honest model."""
    inner = zoo.load("digits_mlp_standard")
    x, y = data.digits("test", n=60)
    masked = Scaled(inner, 1e4).eval()
    clean = int((predicted(inner, x) == y).sum())
    plain = pgd(masked, x, y, eps=0.1, restarts=2, generator=generator(0))
    assert int((~fooled(masked, plain, y)).sum()) >= 0.8 * clean
    robust = [
        int(evaluate(net, x, y, eps=0.1, steps=25, queries=60, generator=generator(0)).robust.sum())
        for net in (masked, inner)
    ]
    assert robust[0] <= robust[1] + 1
    assert robust[0] < 0.5 * clean


def test_it_is_not_deceived_by_steps_without_a_gradient_and_says_who_found_it():
    x, y = data.digits("test", n=60)
    masked = Steps(zoo.load("digits_mlp_standard"), 30).eval()
    clean = int((predicted(masked, x) == y).sum())
    plain = pgd(masked, x, y, eps=0.1, restarts=2, generator=generator(0))
    assert int((~fooled(masked, plain, y)).sum()) >= 0.8 * clean
    found = evaluate(masked, x, y, eps=0.1, steps=5, queries=300, generator=generator(0))
    standing = found.standing
    assert standing["clean"] == clean
    assert standing["square"] < 0.7 * standing["apgd-dlr"]


def test_the_record_agrees_with_the_points():
    model = zoo.load("digits_mlp_standard")
    x, y = data.digits("test", n=60)
    y[3] = (y[3] + 1) % 10
    found = evaluate(model, x, y, eps=0.06, steps=20, queries=50, generator=generator(0))
    assert torch.equal(found.robust, predicted(model, found.points) == y)
    assert torch.equal(found.points[found.robust], x[found.robust])
    assert [stage == "" for stage in found.broken_by] == found.robust.tolist()
    assert found.broken_by[3] == "clean"
    assert (found.points - x).abs().max() <= 0.06 + 1e-7
    counts = list(found.standing.values())
    assert tuple(found.standing) == STAGES
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == int((predicted(model, x) == y).sum())
    assert counts[-1] == int(found.robust.sum())
