"""What every attack promises, one row an attack: a new attack adds a row."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from test_gradient import generator, predicted
from torch import nn

from robustlib import attacks

MASK = torch.zeros(6, 6, dtype=torch.bool)
MASK[1:4, 1:4] = True


def points(found) -> torch.Tensor:
    return found if isinstance(found, torch.Tensor) else found.points


def transferred(model, x, y, *, targets=None, bounds=(0.0, 1.0), generator=None):
    attack = partial(
        attacks.pgd, eps=0.1, steps=3, targets=targets, bounds=bounds, generator=generator
    )
    return attacks.transfer(
        model, {"itself": model}, x, y, attack=attack, targets=targets, bounds=bounds
    )


ATTACKS = {
    "fgsm": partial(attacks.fgsm, eps=0.1),
    "r_fgsm": partial(attacks.r_fgsm, eps=0.1),
    "pgd": partial(attacks.pgd, eps=0.1, steps=5, restarts=2),
    "apgd": partial(attacks.apgd, eps=0.1, steps=12, restarts=2),
    "apgd, dlr": partial(attacks.apgd, eps=0.4, norm="2", loss="dlr", steps=12),
    "apgd, l1": partial(attacks.apgd, eps=1.0, norm="1", steps=12),
    "penalty": partial(attacks.penalty, weight=0.05, steps=20),
    "carlini_wagner": partial(attacks.carlini_wagner, steps=40, searches=3),
    "one_pixel": partial(attacks.one_pixel, population=12, generations=4),
    "one_pixel, all": partial(
        attacks.one_pixel, pixels=2, population=12, generations=4, early_stop=False
    ),
    "spatial_grid": partial(attacks.spatial_grid, angles=3, shifts=3),
    "spatial_random": partial(attacks.spatial_random, tries=4),
    "sticker": partial(attacks.sticker, mask=MASK, samples=3, steps=4),
    "square": partial(attacks.square, eps=0.1, queries=15),
    "square, l2": partial(attacks.square, eps=0.5, norm="2", queries=15),
    "square, l1": partial(attacks.square, eps=1.5, norm="1", queries=15),
    "hop_skip_jump": partial(attacks.hop_skip_jump, queries=150),
    "transfer": transferred,
    "evaluate": partial(attacks.evaluate, eps=0.1, steps=6, queries=10),
}
TARGETED = [name for name in ATTACKS if name not in ("fgsm", "r_fgsm", "evaluate")]
FIXED = ("fgsm", "penalty", "carlini_wagner", "spatial_grid")  # nothing random in them
RADII = {
    "r_fgsm": (0.1, "inf"), "apgd": (0.1, "inf"), "apgd, dlr": (0.4, "2"), "apgd, l1": (1.0, "1"),
    "square": (0.1, "inf"), "square, l2": (0.5, "2"), "square, l1": (1.5, "1"),
    "evaluate": (0.1, "inf"),
}  # fmt: skip
every = pytest.mark.parametrize("name", ATTACKS)


def small_net(seed: int = 0, dtype=torch.float64) -> nn.Sequential:
    """Two channels of 6 × 6 pixels, five classes, batch normalization inside."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(2, 4, 3, stride=2),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16, 5),
        )
        model[4].weight.data *= 6
    return model.to(dtype).eval()


def problem(n: int = 6, dtype=torch.float64):
    model = small_net(dtype=dtype)
    x = torch.rand(n, 2, 6, 6, dtype=dtype, generator=generator(1))
    y = predicted(model, x)
    y[n - 1] = (y[n - 1] + 1) % 5  # one is misclassified from the start
    return model, x, y


def run(name: str, model, x, y, seed: int = 0, **options):
    if name not in FIXED:
        options["generator"] = generator(seed)
    return ATTACKS[name](model, x, y, **options)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_are_inputs(name, dtype):
    """Of the shape and type of x, inside the box, without a gradient; inside the ball exactly."""
    from test_balls import distance_is_within

    model, x, y = problem(dtype=dtype)
    found = points(run(name, model, x, y))
    assert (found.shape, found.dtype, found.requires_grad) == (x.shape, dtype, False)
    assert found.min() >= 0
    assert found.max() <= 1
    if name in RADII:
        assert all(distance_is_within(a, b, *RADII[name]) for a, b in zip(found, x, strict=True))


@every
def test_other_bounds_hold(name):
    """Inputs in [−1, 3] stay there, and do leave [0, 1]."""
    model, x, y = problem()
    found = points(run(name, model, 4 * x - 1, y, bounds=(-1.0, 3.0)))
    assert found.min() >= -1
    assert found.max() <= 3
    assert found.min() < 0
    assert found.max() > 1


@every
def test_an_image_does_not_know_its_batch(name):
    model, x, y = problem()
    whole, part = (points(run(name, model, x[:n], y[:n])) for n in (6, 3))
    assert torch.allclose(part, whole[:3], rtol=0, atol=1e-9)


@every
def test_nothing_is_left_behind(name):
    """Inputs, model and the global random state are as they were; gradients may be off or on."""
    model, x, y = problem()
    before, x_before, y_before = copy.deepcopy(model), x.clone(), y.clone()
    state = torch.random.get_rng_state()
    found = points(run(name, model, x, y))
    with torch.no_grad():
        again = points(run(name, model, x.clone().requires_grad_(True), y))
    assert torch.equal(found, again)
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(x, x_before)
    assert torch.equal(y, y_before)
    assert not model.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    for a, b in zip(model.state_dict().values(), before.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in FIXED])
def test_the_generator_decides(name):
    model, x, y = problem()
    a, b, c = (points(run(name, model, x, y, seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(a, b)
    if name not in ("transfer", "evaluate", "pgd", "apgd", "apgd, dlr", "apgd, l1"):
        assert not torch.equal(a, c)


@every
def test_an_empty_batch_gives_an_empty_batch(name):
    model, x, y = problem()
    assert points(run(name, model, x[:0], y[:0])).shape == (0, 2, 6, 6)


@every
def test_batch_norm_in_training_mode_is_refused(name):
    model, x, y = problem()
    model[1].train()
    with pytest.raises(ValueError, match=r"in training mode \(submodule '1'\).*call .*\.eval\(\)"):
        run(name, model, x, y)


@every
def test_bounds_the_wrong_way_round_are_refused(name):
    model, x, y = problem()
    with pytest.raises(ValueError, match=r"bounds=\(1.0, 0.0\) is empty"):
        run(name, model, x, y, bounds=(1.0, 0.0))


@pytest.mark.parametrize("name", TARGETED)
def test_a_target_that_is_the_true_label_is_refused(name):
    model, x, y = problem()
    with pytest.raises(ValueError, match="targets equals y for some images"):
        run(name, model, x, y, targets=y)


@pytest.mark.parametrize("name", TARGETED)
def test_success_means_the_target(name):
    """Where a result says that it succeeded, the model gives the target's label."""
    model, x, y = problem()
    targets = (y + 2) % 5
    found = run(name, model, x, y, targets=targets)
    reached = attacks.fooled(model, points(found), y, targets=targets)
    assert torch.equal(reached, predicted(model, points(found)) == targets)
    if hasattr(found, "success"):
        assert torch.equal(found.success, reached)


STOPPING = ("pgd", "apgd", "apgd, dlr", "apgd, l1", "carlini_wagner", "one_pixel", "square",
            "square, l2", "square, l1", "hop_skip_jump", "transfer", "evaluate")  # fmt: skip


@pytest.mark.parametrize("name", STOPPING)
def test_what_is_misclassified_is_left_alone(name):
    """The others go on to the lowest margin or objective."""
    model, x, y = problem()
    assert torch.equal(points(run(name, model, x, y))[5], x[5])


def test_fooled_counts_a_tie_as_a_failure():
    model = nn.Linear(2, 2, bias=False).eval()
    model.weight.data = torch.eye(2)
    x = torch.tensor([[0.5, 0.5], [0.4, 0.5], [0.5, 0.4]])
    y = torch.zeros(3, dtype=torch.long)
    assert attacks.fooled(model, x, y).tolist() == [False, True, False]
    assert attacks.fooled(model, x, y, targets=y + 1).tolist() == [False, True, False]
    with pytest.raises(ValueError, match="points has values in"):
        attacks.fooled(model, 3 * x, y)


REFUSED = [
    ("r_fgsm", {"start": 0.2}, "start=0.2 is out of range: give .* at most 0.1"),
    ("apgd", {"loss": "margin"}, "loss='margin' is not known"),
    ("apgd", {"steps": 0}, "steps=0 is too small"),
    ("penalty", {"weight": 0.0}, "weight=0.0 is out of range"),
    ("penalty", {"loss": "squared"}, "loss='squared' needs the labels to reach: give targets"),
    ("carlini_wagner", {"confidence": -1.0}, "confidence=-1.0 is out of range"),
    ("one_pixel", {"population": 2}, "population=2 is too small: give at least 3"),
    ("one_pixel", {"pixels": 0}, "pixels=0 is too small"),
    ("spatial_grid", {"degrees": 200}, "degrees=200 is out of range"),
    ("spatial_random", {"tries": 0}, "tries=0 is too small"),
    ("sticker", {"mask": MASK[:3]}, r"mask has shape \(3, 6\)"),
    ("sticker", {"samples": 0}, "samples=0 is too small"),
    ("square", {"queries": 0}, "queries=0 is too small: give at least 1"),
    ("square", {"share": 0.0}, "share=0.0 is out of range"),
    ("hop_skip_jump", {"queries": 0}, "queries=0 is too small: give at least 1"),
    ("hop_skip_jump", {"starts": torch.zeros(1, 2, 6, 6)}, "starts has shape"),
    ("evaluate", {"queries": 0}, "queries=0 is too small: give at least 1"),
]


@pytest.mark.parametrize(("name", "change", "message"), REFUSED)
def test_bad_options_are_refused_by_name(name, change, message):
    model, x, y = problem()
    with pytest.raises(ValueError, match=message):
        run(name, model, x, y, **change)


def test_bad_types_are_refused_by_name():
    model, x, y = problem()
    with pytest.raises(TypeError, match=r"mask is of torch\.int64"):
        attacks.sticker(model, x, y, mask=MASK.long())
    with pytest.raises(TypeError, match=r"views is a dict; give attacks.Views"):
        attacks.sticker(model, x, y, mask=MASK, views={"degrees": 3})
    with pytest.raises(ValueError, match=r"scale=1.5 is out of range"):
        attacks.Views(scale=1.5)
    with pytest.raises(TypeError, match="attack gives NoneType; it must return points"):
        attacks.transfer(model, {}, x, y, attack=lambda *_: None)
    with pytest.raises(ValueError, match=r"judges\['odd'\] gives shape \(6, 5, 1\)"):
        attacks.transfer(
            model, {"odd": lambda x: model(x)[..., None]}, x, y, attack=lambda net, x, y: x
        )
    flat = nn.Sequential(nn.Linear(3, 2)).double().eval()
    for attack in (attacks.one_pixel, attacks.spatial_grid, attacks.spatial_random):
        with pytest.raises(ValueError, match=r"x has shape \(1, 3\); this attack needs images"):
            attack(flat, x[:1, 0, 0, :3], y[:1] * 0)
