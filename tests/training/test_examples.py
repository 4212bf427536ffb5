"""Examples join what is trained on, under the labels of their inputs, and nothing else changes."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch

from robustlib import training, zoo
from robustlib.training import RECIPES, Examples
from robustlib.training.fit import settings_of, start
from robustlib.training.loop import accuracy

NAME = "digits_mlp_standard"
EXAMPLES = Examples((NAME,), "cegar", alpha=1.0, images=150, limit=0.2, pixels=16)
RECIPE = dataclasses.replace(
    RECIPES[NAME], start=NAME, epochs=3, learning_rate=2e-3, held_out=297, examples=EXAMPLES
)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_they_are_adversarial_and_have_the_labels_of_their_inputs() -> None:
    net = zoo.load(NAME)
    plain, held_out = dataclasses.replace(RECIPE, examples=None).training_sets()
    (x, y), same = RECIPE.training_sets()
    n = len(plain[0])
    assert torch.equal(x[:n], plain[0])
    assert torch.equal(y[:n], plain[1])
    assert torch.equal(same[0], held_out[0])
    points, labels = x[n:], y[n:]
    assert 20 < len(points) <= 150
    assert torch.allclose(16 * points, (16 * points).round(), atol=1e-5)
    assert (net(points).argmax(1) != labels).all()
    away = (points[:, None] - plain[0][None]).flatten(2).abs().amax(2)
    for near, label in zip(away, labels, strict=True):
        assert label in plain[1][near <= 0.2]


def test_the_search_is_kept_and_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    (x, y), _ = dataclasses.replace(RECIPE, examples=None).training_sets()
    first = EXAMPLES.found(x, y, seed=3)

    def none(*_: object) -> None:
        raise AssertionError("searched again")

    monkeypatch.setattr("robustlib.pointwise.measurement.Measurement.search", none)
    again = EXAMPLES.found(x, y, seed=3)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])


def test_a_later_round_keeps_the_examples_of_the_earlier_ones() -> None:
    (x, y), _ = dataclasses.replace(RECIPE, examples=None).training_sets()
    one, _ = EXAMPLES.found(x, y, seed=0)
    both = dataclasses.replace(EXAMPLES, sources=(NAME, "digits_mlp")).found(x, y, seed=0)[0]
    assert torch.equal(both[: len(one)], one)
    assert len(both) > len(one)


def test_training_with_them_helps_against_them() -> None:
    tuned = training.fit(zoo.info(NAME).build, RECIPE).net
    plain = training.fit(zoo.info(NAME).build, dataclasses.replace(RECIPE, examples=None)).net
    (x, y), _ = RECIPE.training_sets()
    points, labels = x[1203 - 297 :], y[1203 - 297 :]
    assert accuracy(tuned, points, labels) > accuracy(plain, points, labels) + 0.1


def test_progress_and_the_log_say_how_many() -> None:
    heard: list[tuple[int, int, str]] = []
    log = training.fit(
        zoo.info(NAME).build,
        dataclasses.replace(RECIPE, epochs=1),
        progress=lambda *event: heard.append(event),
    ).log
    (x, _), _ = RECIPE.training_sets()
    assert log[0]["inputs"] == len(x)
    searched = [text for done, _, text in heard if done == 0]
    assert f"of {len(searched)} images searched on {NAME}" in searched[-1]
    assert heard[-1][:2] == (1, 1)


@pytest.mark.parametrize("name", [name for name in RECIPES if RECIPES[name].examples])
def test_the_record_of_a_recipe_holds_them(name: str) -> None:
    recipe = RECIPES[name]
    settings = settings_of(
        start(zoo.info(name).build, dataclasses.replace(recipe, start="")), recipe
    )
    assert settings == json.loads(json.dumps(settings))
    assert settings["examples"]["sources"][-1] == recipe.start
    assert recipe.examples is not None
    assert (recipe.examples.limit == math.inf) == ("limit" not in settings["examples"])


def test_bad_settings_are_named() -> None:
    with pytest.raises(ValueError, match="method='fgsm' is not known"):
        Examples((NAME,), "fgsm", alpha=0.0, images=5)
    with pytest.raises(ValueError, match="solver='scip' is not known"):
        Examples((NAME,), "cegar", alpha=0.0, images=5, solver="scip")
    with pytest.raises(ValueError, match="Did you mean 'lenet'"):
        Examples(("lenett",), "cegar", alpha=0.0, images=5)
    with pytest.raises(ValueError, match="images=2000 is too large: there are"):
        dataclasses.replace(
            RECIPE, examples=dataclasses.replace(EXAMPLES, images=2000)
        ).training_sets()
