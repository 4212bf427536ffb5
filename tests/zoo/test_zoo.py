"""A network has the parameters that were published under its name, or none at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from robustlib import data, zoo
from robustlib.data import fetch
from robustlib.network import Residual
from robustlib.training.loop import certified
from robustlib.zoo.registry import NETWORKS

OWN = [name for name in zoo.list() if zoo.info(name).origin == "robustlib"]
AUTHORS = [name for name in zoo.list() if zoo.info(name).origin == "authors"]

real = pytest.mark.skipif(
    not os.environ.get("ROBUSTLIB_DATA"), reason="real data: set ROBUSTLIB_DATA to its folder"
)


def assert_ready(net: nn.Sequential, name: str) -> None:
    """Frozen, in evaluation mode, float32, on the CPU, of the layers that a proof can read."""
    row = zoo.info(name)
    assert not any(module.training for module in net.modules())
    for parameter in net.parameters():
        assert not parameter.requires_grad
        assert parameter.dtype == torch.float32
        assert parameter.device.type == "cpu"
        assert parameter.is_contiguous()
    pools = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
    layers = (nn.Linear, nn.Conv2d, nn.ReLU, *pools, nn.Flatten, Residual)
    assert all(isinstance(module, layers) for module in net)
    assert net(torch.rand(2, *row.input_shape)).shape == (2, row.classes)
    assert zoo.architectures.describe(net) == row.architecture


@pytest.mark.parametrize("name", OWN)
def test_own_checkpoints_load_ready_to_use(name: str) -> None:
    before = torch.get_rng_state()
    net = zoo.load(name)
    assert torch.equal(torch.get_rng_state(), before), "loading draws no random number"
    assert_ready(net, name)
    again = zoo.load(name)
    for a, b in zip(net.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.data_ptr() != b.data_ptr(), "two loads share no memory"


@pytest.mark.parametrize("name", [name for name in OWN if name.startswith("digits")])
def test_the_recorded_accuracy_is_the_networks(name: str) -> None:
    record = zoo.checkpoints.read_record(zoo.checkpoints.PACKAGED, name)
    x, y = data.digits("test")
    found = float((zoo.load(name)(x).argmax(1) == y).double().mean())
    assert record["test_images"] == 500
    assert found == pytest.approx(record["clean_accuracy"], abs=0.002)  # one image in a tie
    assert found >= 0.93


@real
@pytest.mark.parametrize("name", [n for n in OWN if zoo.info(n).data in ("mnist", "cifar10")])
def test_the_recorded_accuracies_on_the_first_test_images(name: str) -> None:
    """Within four standard errors of the recorded ones on all 10 000."""
    record = zoo.checkpoints.read_record(zoo.checkpoints.PACKAGED, name)
    assert record["test_images"] == 10_000
    x, y = data.load(zoo.info(name).data, "test", n=500)
    net = zoo.load(name)
    results = {"clean_accuracy": net(x).argmax(1) == y}
    if "crown_ibp_certified_accuracy" in record:
        eps, few = record["recipe"]["eps"], slice(100)
        proved = certified(net, x[few], y[few], eps=eps, crown=1.0)
        results["crown_ibp_certified_accuracy"] = proved
    for key, hit in results.items():
        error = 4 * (record[key] * (1 - record[key]) / len(hit)) ** 0.5
        assert abs(float(hit.double().mean()) - record[key]) <= error, key


def test_checkpoints_are_small() -> None:
    """A clone is quick; the two networks of a million parameters each take 4 MB."""
    assert sum(f.stat().st_size for f in zoo.checkpoints.PACKAGED.iterdir()) <= 25e6


@real
@pytest.mark.parametrize(("name", "wrong"), [("wk17a", 8), ("rsl18a", 20)])
def test_the_authors_networks_on_the_first_500_test_images(name: str, wrong: int) -> None:
    """On all 10 000 images they err on 1.89 % and 4.18 %, as Tjeng et al. report."""
    net = zoo.load(name)
    assert_ready(net, name)
    x, y = data.mnist("test", n=500)
    assert int((net(x).argmax(1) != y).sum()) == wrong


@pytest.mark.parametrize("name", AUTHORS)
def test_authors_files_with_another_sha256_are_refused(
    name: str, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("ROBUSTLIB_DATA", str(tmp_path))
    for file in fetch.FILE_SETS[name].files:
        (tmp_path / file.path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file.path).write_bytes(bytes(file.size))
    with pytest.raises(data.DataError, match=f"expected sha256 .*data download {name}"):
        zoo.load(name)


@pytest.mark.parametrize("name", AUTHORS)
def test_authors_files_that_are_missing(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ROBUSTLIB_DATA", str(tmp_path))
    with pytest.raises(data.DataError, match=f"{name} is not in ROBUSTLIB_DATA"):
        zoo.load(name)


@pytest.mark.parametrize("call", [zoo.load, zoo.info])
def test_unknown_names_say_the_nearest(call) -> None:
    with pytest.raises(ValueError, match=r"name='digit_mlp'.*Did you mean 'digits_mlp'"):
        call("digit_mlp")


def test_a_folder_makes_no_sense_for_the_authors_networks(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="folder="):
        zoo.load("wk17a", folder=tmp_path)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with the checkpoint digits_mlp, as ``robustlib train`` leaves it."""
    for end in ("safetensors", "json"):
        shutil.copy(zoo.checkpoints.PACKAGED / f"digits_mlp.{end}", tmp_path)
    return tmp_path


def test_a_folder_of_checkpoints(copy: Path) -> None:
    x, _ = data.digits("test", n=5)
    assert torch.equal(zoo.load("digits_mlp", folder=copy)(x), zoo.load("digits_mlp")(x))


def test_a_checkpoint_of_another_architecture_names_both(copy: Path) -> None:
    for end in ("safetensors", "json"):
        (copy / f"digits_mlp.{end}").rename(copy / f"digits_cnn.{end}")
    with pytest.raises(zoo.CheckpointError) as error:
        zoo.load("digits_cnn", folder=copy)
    for name in ("digits_mlp", "digits_cnn"):
        assert f"'{name}'" in str(error.value)
        assert zoo.info(name).architecture in str(error.value)


def test_a_checkpoint_with_another_sha256_is_refused(copy: Path) -> None:
    path = copy / "digits_mlp.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(zoo.CheckpointError, match=r"sha256.*robustlib train digits_mlp"):
        zoo.load("digits_mlp", folder=copy)


def test_a_checkpoint_that_is_no_safetensors_file(copy: Path) -> None:
    record = json.loads((copy / "digits_mlp.json").read_text())
    (copy / "digits_mlp.safetensors").write_bytes(b"pickle")
    record["sha256"] = hashlib.sha256(b"pickle").hexdigest()
    (copy / "digits_mlp.json").write_text(json.dumps(record))
    with pytest.raises(zoo.CheckpointError, match="not a safetensors file"):
        zoo.load("digits_mlp", folder=copy)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_a_damaged_record(copy: Path, content: str) -> None:
    (copy / "digits_mlp.json").write_text(content)
    with pytest.raises(zoo.CheckpointError, match="robustlib train digits_mlp"):
        zoo.load("digits_mlp", folder=copy)


@pytest.mark.parametrize("end", ["safetensors", "json"])
def test_a_missing_half(copy: Path, end: str) -> None:
    (copy / f"digits_mlp.{end}").unlink()
    with pytest.raises(zoo.CheckpointError, match=r"cannot be read.*robustlib train digits_mlp"):
        zoo.load("digits_mlp", folder=copy)


def test_a_network_that_is_not_there_says_how_to_train_it(tmp_path: Path) -> None:
    with pytest.raises(zoo.CheckpointError, match="`robustlib train nin` makes it again"):
        zoo.load("nin", folder=tmp_path)


def test_every_row_of_the_table_builds() -> None:
    for name, row in NETWORKS.items():
        assert row.name == name
        assert row.origin in ("authors", "robustlib")
        assert row.build()(torch.zeros(1, *row.input_shape)).shape == (1, row.classes)
