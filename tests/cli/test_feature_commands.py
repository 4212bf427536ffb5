"""Data sets of features by command line: built, resumed, refused; a row of the table trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from robustlib import data, features
from robustlib.features import catalog, experiments, known_truth
from robustlib.features.experiments import Experiment, Place
from robustlib.features.training import Schedule
from robustlib.reproduce.cli import main

DIGITS = ("--network", "digits_mlp_standard", "--dataset", "digits", "--n", "12")
SHORT = Schedule(epochs=1, batch=32, reach=None)


def exit_code(*arguments: str) -> int:
    try:
        return main(arguments)
    except SystemExit as exit:
        return int(exit.code or 0)


def build(out: Path, *more: str, recipe: str = "random") -> int:
    return exit_code("build", recipe, *DIGITS, "--steps", "3", "--out", str(out), *more)


def test_build_makes_the_set_that_the_function_makes(tmp_path, capsys):
    assert build(tmp_path / "set", "--eps", "8/255", "--norm", "inf", "--seed", "3", "--json") == 0
    printed = capsys.readouterr()
    assert "12/12 images" in printed.err
    x, y, about = features.load(json.loads(printed.out)["path"])
    assert json.loads(printed.out)["report"] == about["report"]
    net, (images, labels) = known_network(), data.digits("train", n=12)
    wanted = features.mislabeled_random(
        net, images, labels, tmp_path / "other", eps=8 / 255, norm="inf", steps=3, seed=3
    )
    assert torch.equal(x, features.load(wanted)[0])
    assert torch.equal(y, features.load(wanted)[1])


def known_network() -> torch.nn.Module:
    from robustlib import zoo

    return zoo.load("digits_mlp_standard")


def test_inversion_by_command_line_needs_the_name_of_the_layer(tmp_path, capsys):
    assert build(tmp_path / "set", recipe="robust") == 2
    assert "layer='features' is not known" in capsys.readouterr().err
    assert build(tmp_path / "set", "--layer", "4", "--start", "noise", recipe="robust") == 0
    assert Path(capsys.readouterr().out.strip()) == tmp_path / "set"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--eps", "0"), "eps=0.0"),
        (("--eps", "-0.5"), "eps=-0.5"),
        (("--steps", "0"), "steps=0"),
        (("--step-size", "0"), "step_size=0.0"),
        (("--norm", "1"), "norm='1'"),
        (("--start", "noise"), "start='noise' has no meaning with the recipe 'random'"),
        (("--network", "digits_mlpp"), "Did you mean 'digits_mlp'"),
        (("--network", "standard"), "`robustlib train standard --seed 0` makes it"),
        (("--dataset", "shapes"), "refuses"),
        (("--precision", "float16"), "precision='float16'"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(tmp_path, capsys, more, said):
    runs = ("--runs", str(tmp_path / "runs"))
    assert build(tmp_path / "set", *runs, *more) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "set").exists()


def test_another_set_in_the_folder_is_refused(tmp_path, capsys):
    assert build(tmp_path / "set") == 0
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "set").iterdir()}
    assert build(tmp_path / "set") == 0, "a finished set is left as it is"
    assert build(tmp_path / "set", "--seed", "1") == 1
    assert "holds another data set: seed is 0, not 1" in capsys.readouterr().err
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "set").iterdir()} == before


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table and CIFAR-10 replaced by two rows and a few drawn images."""
    table = {
        "standard": Experiment("standard", SHORT, attack=False, architecture="narrow"),
        "student": Experiment(
            "student", SHORT, 32, "random", "standard", {"steps": 1}, architecture="narrow"
        ),
    }
    train, test = data.shapes("train", n=64), data.shapes("test", n=50)

    def place(work: Path, records: Path) -> Place:
        attack = {"steps": 2, "restarts": 1, "images": 10}
        return Place(work, records, train, test, test, known_truth.ARCHITECTURES, attack)

    monkeypatch.setattr(catalog, "EXPERIMENTS", table)
    monkeypatch.setattr(experiments.Place, "cifar10", place)


@pytest.mark.usefixtures("small")
def test_train_makes_what_a_row_needs_and_then_the_row(tmp_path, capsys):
    assert exit_code("train", "student", "--seed", "1", "--out", str(tmp_path)) == 0
    printed = capsys.readouterr()
    path = tmp_path / "work" / "student-1.safetensors"
    assert Path(printed.out.strip()) == path
    assert "standard: epoch 1/1" in printed.err
    assert "test: " in printed.err
    assert {path.name for path in (tmp_path / "records").iterdir()} == {
        "standard-1.json",
        "student-1.json",
    }
    written = path.stat().st_mtime_ns
    assert exit_code("train", "student", "--seed", "1", "--out", str(tmp_path)) == 0
    assert path.stat().st_mtime_ns == written, "a trained row is kept"
    assert "epoch" not in capsys.readouterr().err


def test_a_seed_for_a_network_of_the_zoo_is_refused(tmp_path, capsys):
    assert exit_code("train", "toy", "--seed", "1", "--out", str(tmp_path)) == 2
    assert "seed=1 has no meaning for 'toy'" in capsys.readouterr().err
    assert exit_code("train", "robust", "--seed", "-1") == 2


def test_the_list_has_the_networks_of_both_tables(capsys):
    assert exit_code("train", "--list", "--json") == 0
    names = [row["name"] for row in json.loads(capsys.readouterr().out)]
    assert {"digits_mlp", *catalog.EXPERIMENTS} <= set(names)
    assert len(names) == len(set(names))
