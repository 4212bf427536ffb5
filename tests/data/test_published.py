"""MNIST and CIFAR-10 equal what torchvision reads from the same folder."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from miniature import cifar_batch, pin

from robustlib import data
from robustlib.data import fetch
from robustlib.data._torchvision import torchvision
from robustlib.data.published import _batch

real = pytest.mark.skipif(
    not os.environ.get("ROBUSTLIB_DATA"), reason="real data: set ROBUSTLIB_DATA to its folder"
)


def assert_equal_to_torchvision(x: torch.Tensor, y: torch.Tensor, oracle) -> None:
    """float32 = uint8 / 255, exactly, in the same order."""
    levels = torch.as_tensor(oracle.data)
    levels = levels[:, None] if levels.ndim == 3 else levels.permute(0, 3, 1, 2)
    assert x.dtype == torch.float32
    assert y.dtype == torch.int64
    assert torch.equal(x, levels.float() / 255)
    assert torch.equal((x.double() * 255).round().to(torch.uint8), levels)
    assert torch.equal(y, torch.as_tensor(oracle.targets))


@pytest.mark.parametrize("split", ["train", "test"])
def test_mnist_equals_torchvision(folder: Path, split: str) -> None:
    oracle = torchvision.datasets.MNIST(str(folder), train=split == "train", download=False)
    assert_equal_to_torchvision(*data.mnist(split), oracle)


def test_an_unchecked_legacy_cache_is_not_read(folder: Path) -> None:
    """torchvision prefers MNIST/processed; it is not the published content, so it is ignored."""
    before, _ = data.mnist("test")
    (folder / "MNIST/processed").mkdir()
    for name in ("training.pt", "test.pt"):
        fake = torch.zeros(2, 28, 28, dtype=torch.uint8), torch.zeros(2)
        torch.save(fake, folder / "MNIST/processed" / name)
    assert torch.equal(data.mnist("test")[0], before)


def test_cifar10_is_decoded_batch_by_batch(tmp_path: Path, monkeypatch) -> None:
    rng = np.random.default_rng(0)
    names = [f"data_batch_{i}" for i in range(1, 6)]
    content = {f"cifar-10-batches-py/{name}": cifar_batch(rng) for name in names}
    (tmp_path / "cifar-10-batches-py").mkdir()
    for path, value in content.items():
        (tmp_path / path).write_bytes(value)
    monkeypatch.setenv("ROBUSTLIB_DATA", str(tmp_path))
    monkeypatch.setitem(fetch.FILE_SETS, "cifar10", pin("cifar10", content))
    x, y = data.cifar10("train", n=15)
    raw = [pickle.loads(value)["data"].reshape(-1, 3, 32, 32) for value in content.values()]
    assert torch.equal(x, torch.from_numpy(np.concatenate(raw)).float() / 255)
    assert y.tolist() == [0, 1, 2] * 5


class Harmful:
    """A pickle that runs a command when it is opened."""

    def __reduce__(self) -> tuple:
        return (os.system, ("touch harmed",))


def test_a_pickle_that_calls_anything_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pickle.UnpicklingError, match="not allowed"):
        _batch(pickle.dumps({"data": Harmful(), "labels": []}))
    assert not (tmp_path / "harmed").exists()


def test_n_takes_the_first_and_indices_any(folder: Path) -> None:
    x, y = data.mnist("train")
    first = data.mnist("train", n=2)
    assert torch.equal(first[0], x[:2])
    assert torch.equal(first[1], y[:2])
    some = data.load("mnist", "train", indices=[4, 0, 0])
    assert torch.equal(some[0], x[[4, 0, 0]])
    assert torch.equal(some[1], y[[4, 0, 0]])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"split": "validation"}, ValueError, "split='validation'"),
        ({"n": 0}, ValueError, "n=0"),
        ({"n": 6}, ValueError, "n=6 is too large: the train split has 5"),
        ({"n": 1.5}, TypeError, "n=1.5"),
        ({"indices": [5]}, ValueError, "indices has 5"),
        ({"indices": [-1]}, ValueError, "indices has -1"),
        ({"indices": [0.0]}, TypeError, "indices="),
        ({"indices": []}, TypeError, "indices="),
        ({"indices": 3}, TypeError, "indices="),
        ({"indices": [[1], [2, 3]]}, TypeError, "indices="),
        ({"indices": [True]}, TypeError, "indices="),
        ({"n": 1, "indices": [0]}, ValueError, "both"),
    ],
)
def test_a_request_for_what_is_not_there(folder: Path, arguments, error, message) -> None:
    with pytest.raises(error, match=message):
        data.mnist(**{"split": "train", **arguments})


@real
def test_real_mnist_equals_torchvision() -> None:
    oracle = torchvision.datasets.MNIST(str(data.home()), train=False, download=False)
    assert_equal_to_torchvision(*data.mnist("test"), oracle)
    x, y = data.mnist("train", n=3)
    assert x.shape == (3, 1, 28, 28)
    assert y.tolist() == [5, 0, 4]


@real
def test_real_cifar10_equals_torchvision() -> None:
    oracle = torchvision.datasets.CIFAR10(str(data.home()), train=False, download=False)
    assert_equal_to_torchvision(*data.cifar10("test"), oracle)


@real
def test_the_pinned_files_are_those_that_torchvision_accepts() -> None:
    assert {row["name"]: row["checksum"] for row in data.status()} == {
        "mnist": "ok",
        "cifar10": "ok",
        "wk17a": "ok",
        "rsl18a": "ok",
        "digits": "ok",
        "shapes": "ok",
    }
