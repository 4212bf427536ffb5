"""A half-written data set is continued or refused, never read; a damaged one is noticed."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from robustlib import data, features, zoo
from robustlib.features import files

SETTINGS = {"steps": 3, "copies": 0, "batch": 8, "part": 8}


class Stop(Exception):
    pass


def build(path: Path, **changes: object) -> Path:
    net, (x, y) = zoo.load("digits_mlp"), data.digits("train", n=40)
    return features.mislabeled_random(net, x, y, path, **{**SETTINGS, **changes})


def stop_after(part: int):
    def progress(done: int, total: int, recipe: str) -> None:
        if done == 8 * part:
            raise Stop

    return progress


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("sets") / "whole")


def content(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_equal_settings_give_equal_files(whole: Path, tmp_path: Path) -> None:
    assert content(build(tmp_path / "set")) == content(whole)


def test_a_finished_set_is_left_as_it_is(whole: Path) -> None:
    def fail(done: int, total: int, recipe: str) -> None:
        raise AssertionError("nothing is left to do")

    before = {file.name: file.stat().st_mtime_ns for file in whole.iterdir()}
    assert build(whole, progress=fail) == whole
    assert {file.name: file.stat().st_mtime_ns for file in whole.iterdir()} == before


def test_what_is_read_is_what_was_built(whole: Path) -> None:
    x, _, about = features.load(whole)
    assert x.shape == (40, 1, 8, 8)
    assert x.dtype == torch.float32
    assert torch.equal(x, (x * 255).round() / 255)
    assert about["recipe"] == "random"
    assert about["settings"]["steps"] == 3
    assert torch.equal(about["source"], torch.arange(40))
    assert 0 <= about["report"]["success"] <= 1


@pytest.mark.parametrize("part", [1, 4])
def test_a_half_written_set_is_refused_then_resumed(whole: Path, tmp_path: Path, part: int) -> None:
    with pytest.raises(Stop):
        build(tmp_path / "set", progress=stop_after(part))
    with pytest.raises(features.DatasetError, match=rf"half-written: {part} of 5 .*again"):
        features.load(tmp_path / "set")
    first = (tmp_path / "set" / "part-00000.safetensors").stat().st_mtime_ns
    assert content(build(tmp_path / "set")) == content(whole)
    assert (tmp_path / "set" / "part-00000.safetensors").stat().st_mtime_ns == first


def test_kill_9_loses_only_the_part_under_way(whole: Path, tmp_path: Path) -> None:
    code = f"""
import os, signal
from robustlib import data, features, zoo
def kill(done, total, recipe):
    if done == 24:
        os.kill(os.getpid(), signal.SIGKILL)
net, (x, y) = zoo.load("digits_mlp"), data.digits("train", n=40)
features.mislabeled_random(net, x, y, {str(tmp_path / "set")!r}, progress=kill, **{SETTINGS!r})
"""
    ended = subprocess.run([sys.executable, "-c", code], check=False)
    assert ended.returncode == -signal.SIGKILL
    with pytest.raises(features.DatasetError, match="half-written: 3 of 5"):
        features.load(tmp_path / "set")
    assert content(build(tmp_path / "set")) == content(whole)


@pytest.mark.parametrize(
    ("changes", "said"), [({"eps": 0.25}, "eps is 0.5, not 0.25"), ({"seed": 1}, "seed is 0")]
)
def test_other_settings_are_not_mixed_in(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(Stop):
        build(tmp_path / "set", progress=stop_after(2))
    with pytest.raises(features.DatasetError, match=f"another data set: {said}"):
        build(tmp_path / "set", **changes)


def test_another_network_or_other_images_are_noticed(whole: Path) -> None:
    net, (x, y) = zoo.load("digits_mlp"), data.digits("train", n=40)
    other = zoo.load("digits_mlp_standard")
    with pytest.raises(features.DatasetError, match="net is"):
        features.mislabeled_random(other, x, y, whole, **SETTINGS)
    with pytest.raises(features.DatasetError, match="data is"):
        features.mislabeled_random(net, x.flip(0), y.flip(0), whole, **SETTINGS)


def test_a_damaged_part_is_noticed(whole: Path, tmp_path: Path) -> None:
    for name, held in content(whole).items():
        (tmp_path / name).write_bytes(held)
    part = tmp_path / "part-00002.safetensors"
    part.write_bytes(part.read_bytes()[:-1] + b"\xff")
    with pytest.raises(features.DatasetError, match=r"part-00002.* damaged"):
        features.load(tmp_path)
    part.unlink()
    with pytest.raises(features.DatasetError, match="cannot be read"):
        features.load(tmp_path)


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(features.DatasetError, match="holds no data set"):
        features.load(tmp_path / "nothing")
    (tmp_path / "about.json").write_text("[]")
    with pytest.raises(features.DatasetError, match="does not describe"):
        features.load(tmp_path)
    (tmp_path / "about.json").write_text("{")
    with pytest.raises(features.DatasetError, match="not valid JSON"):
        features.load(tmp_path)
    (tmp_path / "about.json").rename(tmp_path / "other.txt")
    with pytest.raises(features.DatasetError, match="other files"):
        build(tmp_path)
    with pytest.raises(features.DatasetError, match="is a file"):
        build(tmp_path / "other.txt")


def test_a_full_disk_keeps_the_finished_parts(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = files.write_whole

    def full(path: Path, held: bytes) -> None:
        if path.name == "part-00003.safetensors":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, held)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_whole", full)
        with pytest.raises(features.DatasetError, match=r"No space left.*Make room"):
            build(tmp_path / "set")
    assert not json.loads((tmp_path / "set" / "about.json").read_text())["complete"]
    assert content(build(tmp_path / "set")) == content(whole)
