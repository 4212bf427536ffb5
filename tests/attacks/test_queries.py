"""Attacks that only ask: their counts, their budgets, and how near they come."""

from __future__ import annotations

import warnings

import foolbox
import pytest
import torch
from test_gradient import generator, margin, network, predicted
from test_promises import small_net
from torch import nn
from torch.nn import functional as F

from robustlib import data, zoo
from robustlib.attacks import fooled, hop_skip_jump, square


def count(model, attack) -> tuple[object, int]:
    """What ``attack`` returns, and how many inputs the model saw."""
    seen: list[int] = []
    handle = model.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    found = attack()
    handle.remove()
    return found, sum(seen)


class Labels(nn.Module):
    """A model that tells labels only."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.one_hot(self.inner(x).argmax(1), 5).to(x.dtype)


class Steps(nn.Module):
    """Rounds its input: the gradient is zero everywhere."""

    def __init__(self, inner: nn.Module, levels: int) -> None:
        super().__init__()
        self.inner, self.levels = inner, levels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner((x * self.levels).round() / self.levels)


def problem(n: int = 6):
    model = small_net()
    x = torch.rand(n, 2, 6, 6, dtype=torch.float64, generator=generator(1))
    y = predicted(model, x)
    y[n - 1] = (y[n - 1] + 1) % 5
    return model, x, y


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
@pytest.mark.parametrize("queries", [1, 2, 30])
def test_square_counts_what_it_asks(norm, queries):
    model, x, y = problem()
    found, seen = count(
        model, lambda: square(model, x, y, eps=0.05, norm=norm, queries=queries,
                              generator=generator(0))
    )  # fmt: skip
    assert seen == int(found.queries.sum()) + 1 + len(x)  # the check before, the judging after
    assert found.queries.max() <= queries
    assert found.queries[5] == 1
    assert (found.queries[~found.success] == queries).all()
    assert torch.equal(found.success, predicted(model, found.points) != y)


@pytest.mark.parametrize("queries", [1, 5, 40, 300])
def test_hop_skip_jump_counts_what_it_asks(queries):
    model, x, y = problem(4)
    found, seen = count(
        model, lambda: hop_skip_jump(model, x, y, queries=queries, generator=generator(0))
    )
    assert seen == int(found.queries.sum()) + 1 + len(x)
    assert found.queries.max() <= queries
    assert found.queries[3] == 1
    assert torch.equal(found.success, predicted(model, found.points) != y)


# The share of the exact worst case that the search must reach in 1 500 queries.
REACHED = {"inf": 0.97, "2": 0.75, "1": 0.5}


@pytest.mark.parametrize(("norm", "dual"), [("inf", 1), ("2", 2), ("1", torch.inf)])
def test_square_comes_near_the_worst_case_of_a_linear_model(norm, dual):
    model = nn.Sequential(nn.Flatten(), *network(3, sizes=(36, 2))).eval()
    x = 0.3 + 0.4 * torch.rand(8, 1, 6, 6, dtype=torch.float64, generator=generator(0))
    y = predicted(model, x)
    model[1].bias.data += torch.where(torch.arange(2) == y[0], 50.0, 0.0)  # never misclassified
    x, y = x[y == y[0]], y[y == y[0]]
    w = (model[1].weight[0] - model[1].weight[1]).detach()
    found = square(model, x, y, eps=0.2, norm=norm, queries=1500, generator=generator(0))
    drop = margin(model, x, y) - margin(model, found.points, y)
    worst = 0.2 * w.norm(dual)
    assert (drop <= worst + 1e-9).all()
    assert (drop >= REACHED[norm] * worst).all()


def test_square_needs_no_gradient():
    """Where gradients are zero it finds what PGD finds on the model without rounding."""
    inner = zoo.load("digits_cnn")
    x, y = data.digits("test", n=60)
    model = Steps(inner, 40).eval()
    found = square(model, x, y, eps=0.15, queries=300, generator=generator(0))
    assert int(found.success.sum()) >= 20


def test_square_takes_inputs_that_are_not_images():
    model = network(3, sizes=(10, 8, 3))
    x = torch.rand(20, 10, dtype=torch.float64, generator=generator(0))
    y = predicted(model, x)
    for norm, eps in (("inf", 0.2), ("2", 0.5), ("1", 1.0)):
        found = square(model, x, y, eps=eps, norm=norm, queries=200, generator=generator(0))
        assert found.success.float().mean() > 0.3


def test_hop_skip_jump_needs_labels_only():
    """With the scores taken away the points are the same."""
    model, x, y = problem(4)
    options = {"queries": 400, "generator": generator(0)}
    found = hop_skip_jump(model, x, y, **options)
    options["generator"] = generator(0)
    blind = hop_skip_jump(Labels(model).eval(), x, y, **options)
    assert torch.equal(found.points, blind.points)
    assert torch.equal(found.queries, blind.queries)


def test_hop_skip_jump_comes_near_the_exact_distance_of_a_linear_model():
    model = network(3, sizes=(20, 2))
    x = 0.35 + 0.3 * torch.rand(6, 20, dtype=torch.float64, generator=generator(0))
    y = predicted(model, x)
    w = (model[0].weight[0] - model[0].weight[1]).detach()
    exact = margin(model, x, y) / w.norm()
    found = hop_skip_jump(model, x, y, queries=2000, generator=generator(0))
    distance = (found.points - x).norm(dim=1)
    assert (distance >= exact - 1e-9).all()
    assert (distance <= 1.1 * exact + 1e-3).all()


def test_hop_skip_jump_goes_from_given_starts_to_targets():
    model = zoo.load("digits_mlp_standard")
    x, y = data.digits("test", n=200)
    right = predicted(model, x) == y
    x, y = x[right], y[right]
    targets = (y[:6] + 1) % 10
    starts = torch.stack([x[y == t][0] for t in targets])
    found = hop_skip_jump(model, x[:6], y[:6], targets=targets, starts=starts, queries=500,
                          generator=generator(0))  # fmt: skip
    assert found.success.all()
    away = (found.points - x[:6]).flatten(1).norm(dim=1)
    assert (away < 0.8 * (starts - x[:6]).flatten(1).norm(dim=1)).all()


def test_a_start_that_is_not_misclassified_is_no_start():
    model, x, y = problem(3)
    found = hop_skip_jump(model, x[:2], y[:2], starts=x[:2], queries=50)
    assert found.queries.tolist() == [2, 2]
    assert torch.equal(found.points, x[:2])


def test_hop_skip_jump_is_as_near_as_that_of_foolbox():
    """The mean distance after as many queries, from the same kind of start."""
    model = zoo.load("digits_mlp_standard")
    x, y = data.digits("test", n=8)
    oracle = foolbox.attacks.HopSkipJumpAttack(
        init_attack=foolbox.attacks.LinearSearchBlendedUniformNoiseAttack(steps=50),
        steps=12, initial_gradient_eval_steps=100, max_gradient_eval_steps=10_000,
    )  # fmt: skip

    def theirs() -> torch.Tensor:
        with warnings.catch_warnings(), torch.random.fork_rng():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))
            return oracle(wrapped, x, foolbox.criteria.Misclassification(y), epsilons=None)[0]

    points, asked = count(model, theirs)
    found = hop_skip_jump(model, x, y, queries=asked // 8, generator=generator(0))
    ours, expected = ((z - x).flatten(1).norm(dim=1) for z in (found.points, points))
    assert fooled(model, found.points, y).all()
    assert ours.mean() <= 1.1 * expected.mean()
