"""Any network can be trained by a recipe, and each way of training does what it is for."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor, nn

from robustlib import attacks, data, training, zoo
from robustlib.training import Recipe, fit
from robustlib.training.inputs import shifted
from robustlib.training.loop import accuracy
from robustlib.zoo import architectures
from robustlib.zoo.checkpoints import CheckpointError
from tests.interruption import Stop, stop_at

EPS = 0.1
PLAIN = Recipe("plain", data.digits, epochs=6, batch=32)
PGD = dataclasses.replace(PLAIN, method="adversarial", eps=EPS, attack_steps=3, ramp=3)


def build() -> nn.Sequential:
    return architectures.mlp([24], inputs=64)


def trained(recipe: Recipe) -> nn.Sequential:
    return fit(build, recipe).net


def same(one: nn.Module, two: nn.Module) -> bool:
    return all(map(torch.equal, one.parameters(), two.parameters()))


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    return data.digits("test", n=300)


@pytest.fixture(scope="module")
def plain() -> nn.Sequential:
    return trained(PLAIN)


def robust(net: nn.Module, x: Tensor, y: Tensor) -> float:
    points = attacks.pgd(net, x, y, eps=EPS, steps=10, generator=Generator().manual_seed(0))
    return accuracy(net, points, y)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"attack": "fgsm"},
        {"attack": "r_fgsm"},
        {"attack": "fgsm", "clean": 0.5, "sources": ("digits_mlp_standard",)},
        {"precision": "bfloat16", "schedule": "one_cycle"},
    ],
    ids=["pgd", "fgsm", "r_fgsm", "ensemble", "bfloat16"],
)
def test_adversarial_training_buys_robustness(changes, plain, digits) -> None:
    net = trained(dataclasses.replace(PGD, **changes))
    assert accuracy(net, *digits) > 0.85
    assert robust(net, *digits) > robust(plain, *digits) + 0.1


def test_an_ensemble_withstands_what_is_made_on_its_source(plain, digits) -> None:
    x, y = digits
    made = attacks.fgsm(zoo.load("digits_mlp_standard"), x, y, eps=EPS)
    recipe = dataclasses.replace(
        PGD, attack="fgsm", sources=("digits_mlp_standard",), ramp=0, epochs=12
    )
    assert accuracy(trained(recipe), made, y) > accuracy(plain, made, y) + 0.05


def test_training_with_noise_helps_against_noise(plain, digits) -> None:
    x, y = digits
    noisy = x + 0.4 * torch.randn(x.shape, generator=Generator().manual_seed(0))
    net = trained(dataclasses.replace(PLAIN, noise=0.4, epochs=18))
    assert accuracy(net, noisy, y) > accuracy(plain, noisy, y) + 0.03


def test_training_with_shifts_helps_against_shifts(plain, digits) -> None:
    x, y = digits
    moved = shifted(x, torch.randint(-1, 2, (len(x), 2), generator=Generator().manual_seed(0)))
    net = trained(dataclasses.replace(PLAIN, shift=1, epochs=12))
    assert accuracy(net, moved, y) > accuracy(plain, moved, y) + 0.1


def test_equal_seeds_give_equal_parameters(plain) -> None:
    before = torch.get_rng_state()
    assert same(plain, trained(PLAIN))
    assert torch.equal(torch.get_rng_state(), before), "no draw from the global random state"
    assert not same(plain, trained(dataclasses.replace(PLAIN, seed=1)))


def test_fit_and_train_are_the_same_training(tmp_path: Path, monkeypatch) -> None:
    name = "digits_mlp"
    short = dataclasses.replace(training.RECIPES[name], epochs=2)
    monkeypatch.setitem(training.RECIPES, name, short)
    training.train(name, out=tmp_path)
    assert same(zoo.load(name, folder=tmp_path), fit(zoo.info(name).build, short).net)


@pytest.mark.parametrize(
    "recipe",
    [
        dataclasses.replace(PLAIN, epochs=3, noise=0.2, shift=1),
        dataclasses.replace(
            PGD, epochs=3, attack="r_fgsm", clean=0.3, sources=("digits_mlp", "digits_mlp_standard")
        ),
    ],
)
def test_an_interrupted_run_goes_on_to_the_same_result(recipe: Recipe, tmp_path: Path) -> None:
    whole = fit(build, recipe, state=tmp_path / "whole.safetensors")
    path = tmp_path / "parts.safetensors"
    with pytest.raises(Stop):
        fit(build, recipe, state=path, progress=stop_at(2))
    seen: list[int] = []
    parts = fit(build, recipe, state=path, progress=lambda done, total, text: seen.append(done))
    assert seen == [3], "no finished epoch is repeated"
    assert same(whole.net, parts.net)
    with (tmp_path / "parts.csv").open(newline="") as file:
        rows = [float(row["loss"]) for row in csv.DictReader(file)]
    assert rows == [row["loss"] for row in whole.log]
    read = fit(build, recipe, state=path, progress=stop_at(3))
    assert same(read.net, whole.net), "a finished run is read"


def test_a_state_of_another_run_is_refused(tmp_path: Path, plain) -> None:
    path = tmp_path / "net.safetensors"
    recipe = dataclasses.replace(PGD, epochs=1, sources=(plain,))
    fit(build, recipe, state=path)
    content = path.read_bytes()
    with pytest.raises(CheckpointError, match=r"architecture is 'Flat.*24.*there, 'Conv2d.*here"):
        fit(architectures.digits_cnn, recipe, state=path)
    with pytest.raises(CheckpointError, match=r"eps is 0\.1 there, 0\.2 here"):
        fit(build, dataclasses.replace(recipe, eps=0.2), state=path)
    other = build().eval()
    with pytest.raises(CheckpointError, match=r"sources is .*sha256"):
        fit(build, dataclasses.replace(recipe, sources=(other,)), state=path)
    assert path.read_bytes() == content
    path.write_bytes(content[:100])
    with pytest.raises(CheckpointError, match="damaged"):
        fit(build, recipe, state=path)


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(1), nn.Dropout(0.5)])
def test_layers_that_depend_on_the_mode_are_refused(layer: nn.Module) -> None:
    with pytest.raises(ValueError, match=rf"'0', {type(layer).__name__}, which acts otherwise"):
        fit(lambda: nn.Sequential(layer, nn.Flatten(), nn.Linear(64, 10)), PLAIN)
