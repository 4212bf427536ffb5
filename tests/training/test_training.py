"""Training is repeatable, and an interrupted run goes on to the same result."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from robustlib import data, training, zoo
from robustlib.training import RECIPES
from tests.interruption import Stop, stop_at

NAME = "digits_mlp"
SHORT = {"epochs": 5, "ramp": 2, "attack_steps": 2}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe of digits_mlp, shortened to a fraction of a second."""
    monkeypatch.setitem(RECIPES, NAME, dataclasses.replace(RECIPES[NAME], **SHORT))


def log(folder: Path) -> list[dict[str, str]]:
    """The rows of the log without the time, which no seed repeats."""
    with (folder / f"{NAME}.csv").open(newline="") as file:
        return [
            {k: v for k, v in row.items() if k != "cpu_seconds"} for row in csv.DictReader(file)
        ]


def assert_same_result(a: Path, b: Path) -> None:
    one, two = (load_file(folder / f"{NAME}.safetensors") for folder in (a, b))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert log(a) == log(b)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one run without interruption."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPES, NAME, dataclasses.replace(RECIPES[NAME], **SHORT))
        training.train(NAME, out=folder)
    return folder


def test_equal_seeds_give_equal_parameters(whole: Path, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    training.train(NAME, out=tmp_path)
    assert torch.equal(torch.get_rng_state(), before), "no draw from the global random state"
    assert_same_result(whole, tmp_path)


def test_another_seed_gives_other_parameters(whole: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(RECIPES, NAME, dataclasses.replace(RECIPES[NAME], seed=1))
    training.train(NAME, out=tmp_path)
    with pytest.raises(AssertionError):
        assert_same_result(whole, tmp_path)


@pytest.mark.parametrize("epoch", [1, 4, 5])
def test_an_interrupted_run_goes_on_to_the_same_result(
    whole: Path, tmp_path: Path, epoch: int
) -> None:
    with pytest.raises(Stop):
        training.train(NAME, out=tmp_path, progress=stop_at(epoch))
    assert len(log(tmp_path)) == epoch, "finished epochs are on disk"
    assert not (tmp_path / f"{NAME}.json").exists()
    seen: list[int] = []
    training.train(NAME, out=tmp_path, progress=lambda done, total, text: seen.append(done))
    assert seen == list(range(epoch + 1, 6)), "no finished epoch is repeated"
    assert_same_result(whole, tmp_path)
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".csv", ".json", ".safetensors"]


def test_kill_9_loses_no_finished_epoch(whole: Path, tmp_path: Path) -> None:
    code = f"""
import dataclasses, os, signal
from robustlib import training
R = training.RECIPES
R[{NAME!r}] = dataclasses.replace(R[{NAME!r}], **{SHORT!r})
def kill(done, total, text):
    if done == 3:
        os.kill(os.getpid(), signal.SIGKILL)
training.train({NAME!r}, out={str(tmp_path)!r}, progress=kill)
"""
    ended = subprocess.run([sys.executable, "-c", code], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert len(log(tmp_path)) == 3
    training.train(NAME, out=tmp_path)
    assert_same_result(whole, tmp_path)


def test_a_state_that_cannot_be_used_starts_again(whole: Path, tmp_path: Path, monkeypatch) -> None:
    """A damaged state, or one of another recipe, is not mixed into the result."""
    with pytest.raises(Stop):
        training.train(NAME, out=tmp_path, progress=stop_at(2))
    state = tmp_path / f"{NAME}.unfinished.safetensors"
    content = state.read_bytes()
    state.write_bytes(content[: len(content) // 2])
    training.train(NAME, out=tmp_path)
    assert_same_result(whole, tmp_path)

    other = tmp_path / "other"
    with monkeypatch.context() as patch:
        patch.setitem(RECIPES, NAME, dataclasses.replace(RECIPES[NAME], l1=0.5))
        with pytest.raises(Stop):
            training.train(NAME, out=other, progress=stop_at(2))
    training.train(NAME, out=other)
    assert_same_result(whole, other)


def test_a_finished_run_is_returned_at_once(whole: Path) -> None:
    def fail(done: int, total: int, text: str) -> None:
        raise AssertionError("nothing is left to train")

    first = (whole / f"{NAME}.json").read_bytes()
    done = training.train(NAME, out=whole, progress=fail)
    assert done.record == json.loads(first)
    assert done.path == whole / f"{NAME}.safetensors"


def test_a_new_start_that_is_interrupted_goes_on_too(whole: Path, tmp_path: Path) -> None:
    for file in whole.iterdir():
        shutil.copy(file, tmp_path)
    with pytest.raises(Stop):
        training.train(NAME, out=tmp_path, progress=stop_at(2), resume=False)
    assert zoo.load(NAME, folder=tmp_path), "the old checkpoint stands until the new one is there"
    seen: list[int] = []
    training.train(NAME, out=tmp_path, progress=lambda done, total, text: seen.append(done))
    assert seen == [3, 4, 5]
    assert_same_result(whole, tmp_path)


def test_the_record_says_how_the_network_was_made(whole: Path) -> None:
    record = zoo.checkpoints.read_record(whole, NAME)
    recipe = RECIPES[NAME]
    assert record["recipe"] == {
        **recipe.settings(),
        "architecture": zoo.info(NAME).architecture,
    }
    x, y = data.digits("test")
    net = zoo.load(NAME, folder=whole)
    assert record["clean_accuracy"] == float((net(x).argmax(1) == y).double().mean())
    assert record["pgd_accuracy"] <= record["clean_accuracy"]
    assert record["test_images"] == 500
    assert [row["epoch"] for row in record["log"]] == [1, 3, 5]
    assert record["torch"] == torch.__version__
    assert [row["eps"] for row in log(whole)] == ["0.05", "0.1", "0.1", "0.1", "0.1"]


def test_judged_at_another_radius_than_trained_for(
    whole: Path, tmp_path: Path, monkeypatch
) -> None:
    """The parameters are the same; fewer images stand at a larger radius, more at a smaller one."""
    found = {0.1: zoo.checkpoints.read_record(whole, NAME)}
    for eps in (0.02, 0.2):
        recipe = dataclasses.replace(RECIPES[NAME], recorded_eps=eps)
        monkeypatch.setitem(RECIPES, NAME, recipe)
        found[eps] = training.train(NAME, out=tmp_path / str(eps)).record
    assert {record["recorded_eps"] for record in found.values()} == found.keys()
    assert len({record["sha256"] for record in found.values()}) == 1
    standing = [found[eps]["pgd_accuracy"] for eps in sorted(found)]
    assert standing[0] > standing[1] > standing[2]


@pytest.mark.parametrize("name", ["digits_cnn_ibp", "digits_mlp"])
def test_a_run_with_examples_held_out(name: str, tmp_path: Path, monkeypatch) -> None:
    """They are judged after every epoch and never trained on; an interruption changes nothing."""
    recipe = dataclasses.replace(
        RECIPES[name], epochs=4, warm_up=1, ramp=2, held_out=97, attack_steps=2
    )
    monkeypatch.setitem(RECIPES, name, recipe)
    record = training.train(name, out=tmp_path / "whole").record
    with pytest.raises(Stop):
        training.train(name, out=tmp_path / "parts", progress=stop_at(2))
    training.train(name, out=tmp_path / "parts")
    one, two = (load_file(tmp_path / part / f"{name}.safetensors") for part in ("whole", "parts"))
    assert all(torch.equal(one[key], two[key]) for key in one)

    x, y = data.digits("train", indices=range(1200, 1297))
    right = zoo.load(name, folder=tmp_path / "whole")(x).argmax(1) == y
    assert record["log"][-1]["held_out_accuracy"] == float(right.double().mean())
    expected = {"digits_cnn_ibp": "held_out_ibp_accuracy", "digits_mlp": "held_out_pgd_accuracy"}
    assert record["log"][-1][expected[name]] <= record["log"][-1]["held_out_accuracy"]
    if recipe.method == "provable":
        shares = [record[f"{bound}_certified_accuracy"] for bound in ("ibp", "crown_ibp")]
        assert max(shares) <= record["pgd_accuracy"] <= record["clean_accuracy"]

    def other_held_out(split: str) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = data.digits(split)
        if split == "train":
            x[1200:] = 0
        return x, y

    monkeypatch.setitem(RECIPES, name, dataclasses.replace(recipe, data=other_held_out))
    training.train(name, out=tmp_path / "other")
    three = load_file(tmp_path / "other" / f"{name}.safetensors")
    assert all(torch.equal(one[key], three[key]) for key in one)


def test_a_run_that_starts_from_another_network(tmp_path: Path, monkeypatch) -> None:
    recipe = dataclasses.replace(RECIPES[NAME], start="digits_mlp_standard", learning_rate=1e-9)
    monkeypatch.setitem(RECIPES, NAME, recipe)
    training.train(NAME, out=tmp_path)
    start = zoo.load("digits_mlp_standard").parameters()
    for a, b in zip(start, zoo.load(NAME, folder=tmp_path).parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)

    monkeypatch.setitem(RECIPES, NAME, dataclasses.replace(recipe, start="digits_cnn"))
    with pytest.raises(ValueError, match=r"start='digits_cnn' is Conv2d.*'digits_mlp' is Fl"):
        training.train(NAME, out=tmp_path / "other")


def test_the_shipped_checkpoints_follow_the_recipes(monkeypatch) -> None:
    monkeypatch.undo()
    for name, recipe in RECIPES.items():
        record = zoo.checkpoints.read_record(zoo.checkpoints.PACKAGED, name)
        expected = {**recipe.settings(), "architecture": zoo.info(name).architecture}
        assert record["recipe"] == expected, f"run `robustlib train {name}` and ship the result"


def test_adversarial_training_buys_robustness(monkeypatch) -> None:
    """On the shipped networks: at eps 0.1 PGD fools the standard one far more often."""
    from robustlib.attacks import pgd

    x, y = data.digits("test", n=200)
    right = {}
    for name in ("digits_mlp", "digits_mlp_standard"):
        net = zoo.load(name)
        attacked = pgd(net, x, y, eps=0.1, steps=20, generator=torch.Generator().manual_seed(0))
        right[name] = float((net(attacked).argmax(1) == y).double().mean())
    assert right["digits_mlp"] > right["digits_mlp_standard"] + 0.2


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"name='digits_mpl'.*'digits_mlp'"):
        training.train("digits_mpl")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"out=.*cannot be written to"):
        training.train(NAME, out=tmp_path / "file")
    with pytest.raises(OSError, match=r"out=.*cannot be written to"):
        training.train(NAME, out=tmp_path / "file" / "below")
