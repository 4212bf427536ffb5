"""FGSM and PGD against closed forms, foolbox and their own promises."""

from __future__ import annotations

import copy
import itertools
import warnings

import foolbox
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_balls import distance_is_within, inputs
from torch import nn
from torch.nn import functional as F

from robustlib.attacks import fgsm, pgd

DTYPES = [torch.float32, torch.float64]
NORMS = ["inf", "2", "1"]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(seed: int, sizes=(6, 12, 12, 4), dtype=torch.float64, gain=3.0) -> nn.Sequential:
    """A fully connected ReLU network with random weights."""
    g = generator(seed)
    layers: list[nn.Module] = []
    for m, n in itertools.pairwise(sizes):
        layer = nn.Linear(m, n)
        layer.weight.data = gain * torch.randn(n, m, generator=g) / m**0.5
        layer.bias.data = torch.randn(n, generator=g)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1]).to(dtype).eval()


def convolutional(seed: int, dtype=torch.float64) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 5)
        )
    return model.to(dtype).eval()


def margin(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        logits = model(x)
    others = logits.masked_fill(F.one_hot(y, logits.shape[1]).bool(), -torch.inf)
    return logits.gather(1, y[:, None])[:, 0] - others.amax(1)


def predicted(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(x).argmax(1)


def last_input(model: nn.Module, attack) -> torch.Tensor:
    """The last point at which ``attack`` evaluates the model: its final iterate."""
    seen: list[torch.Tensor] = []
    handle = model.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone()))
    attack()
    handle.remove()
    return seen[-1]


# -- linear models: the worst case in closed form ----------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("norm", "dual"), [("inf", 1), ("2", 2), ("1", torch.inf)])
def test_linear_model_reaches_the_exact_worst_case(norm, dual, dtype):
    """Over the ball the margin w·x + b falls by exactly ε times the dual norm of w."""
    model = network(3, sizes=(50, 2), dtype=dtype)
    x = 0.3 + 0.4 * torch.rand(20, 50, dtype=dtype, generator=generator(0))
    y = predicted(model, x)
    w = model[0].weight[0] - model[0].weight[1]
    worst = margin(model, x, y) - 0.2 * w.detach().norm(dual)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-9
    options = {"eps": 0.2, "norm": norm}
    for found in (
        fgsm(model, x, y, **options),
        pgd(model, x, y, **options, step_size=0.2, generator=generator(1), early_stop=False),
        pgd(model, x, y, **options, loss="margin", random_start=False, early_stop=False),
        pgd(model, x, y, **options, decay=True, random_start=False, early_stop=False),
    ):
        assert torch.allclose(margin(model, found, y), worst, rtol=0, atol=tolerance)


# -- foolbox as an oracle ----------------------------------------------------------------------

ORACLES = {"inf": foolbox.attacks.LinfPGD, "2": foolbox.attacks.L2PGD}


@pytest.mark.parametrize("norm", ORACLES)
@pytest.mark.parametrize("steps", [1, 2, 10, 40])
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("kind", ["connected", "convolutional"])
def test_iterates_are_those_of_foolbox(norm, steps, targeted, kind):
    """Without a random start the last iterate is foolbox's, whatever was best on the way."""
    if kind == "connected":
        model, x = network(7), torch.rand(8, 6, dtype=torch.float64, generator=generator(2))
    else:
        model = convolutional(7)
        x = torch.rand(8, 1, 8, 8, dtype=torch.float64, generator=generator(2))
    y = predicted(model, x)
    targets = (y + 1) % 4 if targeted else None
    eps, step_size = (0.1, 0.01) if norm == "inf" else (0.5, 0.1)
    criterion = (
        foolbox.criteria.TargetedMisclassification(targets)
        if targeted
        else foolbox.criteria.Misclassification(y)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))
        oracle = ORACLES[norm](steps=steps, abs_stepsize=step_size, random_start=False)
        expected = oracle.run(wrapped, x, criterion, epsilon=eps)
    ours = last_input(
        model,
        lambda: pgd(model, x, y, eps=eps, norm=norm, steps=steps, step_size=step_size,
                    targets=targets, random_start=False, early_stop=False),
    )  # fmt: skip
    assert torch.allclose(ours, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", ORACLES)
def test_fgsm_is_that_of_foolbox(norm):
    model, x = network(5), torch.rand(16, 6, dtype=torch.float64, generator=generator(3))
    y = predicted(model, x)
    oracle = {
        "inf": foolbox.attacks.LinfFastGradientAttack,
        "2": foolbox.attacks.L2FastGradientAttack,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))
        expected = oracle[norm]().run(
            wrapped, x, foolbox.criteria.Misclassification(y), epsilon=0.1
        )
    assert torch.allclose(fgsm(model, x, y, eps=0.1, norm=norm), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_l1_attack_is_stronger_than_those_of_foolbox(seed):
    """Foolbox divides the gradient by its l1 norm, or keeps one percent of it; both then scale."""
    model = convolutional(seed)
    x = torch.rand(40, 1, 8, 8, dtype=torch.float64, generator=generator(seed))
    y = predicted(model, x)
    options = {"steps": 20, "random_start": False, "rel_stepsize": 0.125}
    oracles = [foolbox.attacks.L1PGD(**options), foolbox.attacks.SparseL1DescentAttack(**options)]
    for eps in (0.5, 1.5):
        ours = pgd(model, x, y, eps=eps, norm="1", steps=20, random_start=False)
        reached = int((predicted(model, ours) != y).sum())
        for oracle in oracles:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))
                theirs = oracle(wrapped, x, foolbox.criteria.Misclassification(y), epsilons=eps)[2]
            assert reached >= int(theirs.sum())


# -- what is promised of the result ------------------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", DTYPES)
@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 10**6),
    eps=st.sampled_from([0.0, 0.03, 0.1, 1 / 3, 2.0]),
    loss=st.sampled_from(["ce", "margin"]),
    early_stop=st.booleans(),
    random_start=st.booleans(),
    targeted=st.booleans(),
)
def test_result_is_a_member_and_never_worse_than_the_start(
    norm, dtype, seed, eps, loss, early_stop, random_start, targeted
):
    model, x = network(seed, dtype=dtype, sizes=(17, 8, 4)), inputs(seed, dtype)
    y = predicted(model, x)
    targets = (y + 1) % 4 if targeted else None
    options = {"loss": loss, "early_stop": early_stop, "random_start": random_start}
    found = pgd(
        model,
        x,
        y,
        eps=eps,
        norm=norm,
        steps=5,
        targets=targets,
        generator=generator(seed),
        **options,
    )
    for z in (found, fgsm(model, x, y, eps=eps, norm=norm)):
        assert z.dtype == dtype
        assert not z.requires_grad
        assert z.min() >= 0
        assert z.max() <= 1
        assert all(distance_is_within(a, b, eps, norm) for a, b in zip(z, x, strict=True))
    if targets is None:
        assert (margin(model, found, y) <= margin(model, x, y) + 1e-5).all()
    else:
        assert (margin(model, found, targets) >= margin(model, x, targets) - 1e-5).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("early_stop", [False, True])
@pytest.mark.parametrize("random_start", [False, True])
def test_an_image_does_not_know_its_batch(norm, early_stop, random_start):
    """The first images alone, and with a fixed start any part alone, give the same results."""
    model = convolutional(1)
    x = torch.rand(12, 1, 8, 8, dtype=torch.float64, generator=generator(4))
    y = predicted(model, x)
    y[::3] = (y[::3] + 1) % 5  # some are misclassified from the start

    def attack(part: slice) -> torch.Tensor:
        return pgd(model, x[part], y[part], eps=0.15, norm=norm, steps=8, generator=generator(9),
                   restarts=3 if random_start else 1, random_start=random_start,
                   early_stop=early_stop)  # fmt: skip

    whole = attack(slice(None))
    assert torch.allclose(attack(slice(0, 5)), whole[:5], rtol=0, atol=1e-9)
    if not random_start:
        assert torch.allclose(attack(slice(5, 12)), whole[5:], rtol=0, atol=1e-9)


def test_groups_on_the_cpu_change_nothing(monkeypatch):
    model, x = network(2), torch.rand(11, 6, dtype=torch.float64, generator=generator(5))
    y = predicted(model, x)
    whole = pgd(model, x, y, eps=0.1, generator=generator(1))
    monkeypatch.setattr("robustlib.attacks.batch.GROUP", 4)
    assert torch.allclose(pgd(model, x, y, eps=0.1, generator=generator(1)), whole)


def test_finished_images_are_dropped():
    """With early_stop a misclassified image is evaluated once and comes back as it was."""
    model, x = network(4), torch.rand(10, 6, dtype=torch.float64, generator=generator(6))
    y = predicted(model, x)
    y[0] = (y[0] + 1) % 4
    sizes: list[int] = []
    handle = model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    found = pgd(model, x, y, eps=0.05, steps=6, generator=generator(0))
    handle.remove()
    assert torch.equal(found[0], x[0])
    assert sizes[:3] == [1, 10, 9]  # shape check, clean margins, first step
    assert sizes[2:] == sorted(sizes[2:], reverse=True)


def test_more_restarts_never_hurt_and_the_best_counts():
    model, x = network(8), torch.rand(30, 6, dtype=torch.float64, generator=generator(7))
    y = predicted(model, x)
    margins = [
        margin(model, pgd(model, x, y, eps=0.2, steps=3, restarts=r, early_stop=False,
                          generator=generator(3)), y)
        for r in (1, 2, 5)
    ]  # fmt: skip
    assert (margins[1] <= margins[0] + 1e-12).all()
    assert (margins[2] <= margins[1] + 1e-12).all()
    assert margins[2].mean() < margins[0].mean()


def test_the_best_iterate_is_returned_not_the_last():
    """The points that the run sees have margins; the result has the lowest of them."""
    model, x = network(11), torch.rand(5, 6, dtype=torch.float64, generator=generator(8))
    y = predicted(model, x)
    seen: list[torch.Tensor] = []
    handle = model.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone()))
    found = pgd(model, x, y, eps=0.3, steps=15, step_size=0.2, early_stop=False,
                generator=generator(2))  # fmt: skip
    handle.remove()
    margins = torch.stack([margin(model, z, y) for z in seen[1:]])
    assert torch.allclose(margin(model, found, y), margins.amin(0), rtol=0, atol=1e-12)
    assert (margins[-1] > margins.amin(0) + 1e-6).any()


def test_targeted_attack_reaches_its_target():
    model, x = network(12), torch.rand(40, 6, dtype=torch.float64, generator=generator(9))
    y = predicted(model, x)
    targets = (y + 1) % 4
    found = pgd(model, x, y, eps=0.5, steps=40, targets=targets, restarts=3, generator=generator(0))
    reached = predicted(model, found) == targets
    assert reached.float().mean() > 0.5
    near = fgsm(model, x, targets, eps=0.5, targeted=True)
    assert margin(model, near, targets).mean() > margin(model, x, targets).mean()


def test_nothing_is_left_behind():
    """Neither the inputs, nor the model, nor the global random state differ after a call."""
    model, x = network(13), torch.rand(6, 6, dtype=torch.float64, generator=generator(10))
    model[0].weight.requires_grad_(False)
    y, before = predicted(model, x), copy.deepcopy(model)
    x_before, state = x.clone(), torch.random.get_rng_state()
    pgd(model, x, y, eps=0.1, generator=generator(0))
    pgd(model, x, y, eps=0.1, random_start=False)
    fgsm(model, x, y, eps=0.1)
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(x, x_before)
    assert not x.requires_grad
    for p, q in zip(model.parameters(), before.parameters(), strict=True):
        assert torch.equal(p, q)
        assert p.requires_grad == q.requires_grad
        assert p.grad is None


def test_works_inside_no_grad_and_on_inputs_that_require_gradients():
    model, x = network(14), torch.rand(4, 6, dtype=torch.float64, generator=generator(11))
    y = predicted(model, x)
    expected = pgd(model, x, y, eps=0.1, generator=generator(0))
    with torch.no_grad():
        assert torch.equal(pgd(model, x, y, eps=0.1, generator=generator(0)), expected)
    found = pgd(model, x.clone().requires_grad_(True), y, eps=0.1, generator=generator(0))
    assert torch.equal(found, expected)


def test_the_same_generator_state_gives_the_same_result():
    model, x = network(15), torch.rand(4, 6, dtype=torch.float64, generator=generator(12))
    y = predicted(model, x)
    a, b, c = (
        pgd(model, x, y, eps=0.1, steps=1, step_size=0.01, generator=generator(s))
        for s in (1, 1, 2)
    )
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_an_empty_batch_gives_an_empty_batch():
    model = network(0)
    x, y = torch.zeros(0, 6, dtype=torch.float64), torch.zeros(0, dtype=torch.long)
    assert pgd(model, x, y, eps=0.1).shape == (0, 6)
    assert fgsm(model, x, y, eps=0.1).shape == (0, 6)


# -- bad input ---------------------------------------------------------------------------------

X, Y = torch.full((2, 6), 0.5), torch.tensor([0, 1])


def nan_at(value: float) -> torch.Tensor:
    x = X.clone()
    x[1, 2] = value
    return x


REFUSED = [
    ({"x": nan_at(float("nan"))}, ValueError, "x holds 1 NaN or infinite"),
    ({"x": nan_at(float("inf"))}, ValueError, "x holds 1 NaN or infinite"),
    ({"x": X[:, :5]}, ValueError, r"x has shape \(2, 5\), which the model refuses"),
    ({"x": X[0]}, ValueError, r"x has shape \(6,\)"),
    ({"x": X.double()}, TypeError, "x has dtype torch.float64, the model's param.* torch.float32"),
    ({"x": X.half()}, TypeError, "x has dtype torch.float16"),
    ({"x": (X * 255).to(torch.uint8)}, TypeError, r"x has dtype torch.uint8.*x.float\(\) / 255"),
    ({"x": X * 255}, ValueError, r"x has values in \[127.5, 127.5\]; allowed is \[0, 1\]"),
    ({"x": X.numpy()}, TypeError, "x is a ndarray"),
    ({"y": torch.tensor([0, 4])}, ValueError, r"y has labels in \[0, 4\]; allowed is \[0, 3\]"),
    ({"y": torch.tensor([0])}, ValueError, r"y has shape \(1,\)"),
    ({"y": torch.tensor([0.0, 1.0])}, TypeError, "y has dtype torch.float32"),
    ({"eps": -0.1}, ValueError, "eps=-0.1 is out of range"),
    ({"eps": float("nan")}, ValueError, "eps=nan is out of range"),
    ({"eps": "big"}, TypeError, "eps='big' is not a number"),
    ({"norm": "inff"}, ValueError, "norm='inff' is not known. Did you mean 'inf'"),
    ({"bounds": (1.0, 0.0)}, ValueError, "bounds=.* is empty"),
    ({"bounds": (0.0, float("inf"))}, ValueError, r"bounds=inf .*: give a finite number\.$"),
    ({"bounds": (0.0,)}, TypeError, r"bounds=\(0.0,\) is not a pair of numbers"),
    ({"bounds": None}, TypeError, "bounds=None is not a pair of numbers"),
]  # fmt: skip
REFUSED_BY_PGD = [
    ({"steps": 0}, ValueError, "steps=0 is too small"),
    ({"steps": 2.5}, TypeError, "steps=2.5 is not a whole number"),
    ({"step_size": 0.0}, ValueError, "step_size=0.0 is out of range"),
    ({"restarts": 0}, ValueError, "restarts=0 is too small"),
    ({"restarts": 2, "random_start": False}, ValueError, "restarts=2 without random_start"),
    ({"loss": "margins"}, ValueError, "loss='margins' is not known. Did you mean 'margin'"),
    ({"targets": torch.tensor([1, 1])}, ValueError, "targets equals y for some images"),
    ({"targets": torch.tensor([9, 1])}, ValueError, "targets has labels"),
    ({"generator": 0}, TypeError, "generator=0 is not a torch.Generator"),
]


@pytest.mark.parametrize(("change", "error", "message"), REFUSED + REFUSED_BY_PGD)
def test_pgd_refuses_bad_input_by_name(change, error, message):
    with pytest.raises(error, match=message):
        pgd(network(0, dtype=torch.float32), **{"x": X, "y": Y, "eps": 0.1, **change})


@pytest.mark.parametrize(("change", "error", "message"), REFUSED)
def test_fgsm_refuses_bad_input_by_name(change, error, message):
    with pytest.raises(error, match=message):
        fgsm(network(0, dtype=torch.float32), **{"x": X, "y": Y, "eps": 0.1, **change})


def test_bad_models_are_refused_by_name():
    with pytest.raises(ValueError, match="model is in training mode"):
        pgd(network(0, dtype=torch.float32).train(), X, Y, eps=0.1)
    with pytest.raises(TypeError, match="model is a function"):
        pgd(lambda x: x, X, Y, eps=0.1)
    broken = network(0, dtype=torch.float32)
    broken[0].weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match="model gives NaN or infinite logits"):
        pgd(broken, X, Y, eps=0.1)
    with pytest.raises(ValueError, match=r"model gives shape \(1, 1\)"):
        fgsm(network(0, sizes=(6, 1), dtype=torch.float32), X, Y, eps=0.1)
