"""Nothing but the published bytes is ever decoded; what is missing says how to get it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from robustlib import data
from robustlib.data import fetch

TRAIN = "MNIST/raw/train-images-idx3-ubyte"


def test_home_is_the_named_folder_else_the_cache(folder: Path, monkeypatch) -> None:
    assert data.home() == folder
    monkeypatch.setenv("ROBUSTLIB_DATA", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert data.home() == Path("/somewhere/robustlib")


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda content: content[:-7], "truncated"),
        (lambda content: content + b"\0", "too long"),
        (lambda content: content[:-1] + bytes([content[-1] ^ 1]), "corrupted or another file"),
        (lambda content: bytes(len(content)), "corrupted or another file"),
        (lambda content: b"", "truncated"),
    ],
    ids=["truncated", "longer", "one bit", "foreign", "empty"],
)
def test_a_damaged_file_is_an_error_with_expected_found_and_remedy(
    folder: Path, damage, word: str
) -> None:
    path = folder / TRAIN
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(data.DataError) as error:
        data.mnist("train")
    for part in (str(path), word, "expected", "found", "robustlib data download mnist"):
        assert part in str(error.value)
    assert "ROBUSTLIB_DATA" in str(error.value)


def test_a_folder_in_place_of_a_file_is_an_error(folder: Path) -> None:
    (folder / TRAIN).unlink()
    (folder / TRAIN).mkdir()
    with pytest.raises(data.DataError, match="cannot be read"):
        data.mnist("train")


def test_a_named_folder_is_never_filled_silently(folder: Path, server: Path) -> None:
    (folder / TRAIN).unlink()
    with pytest.raises(data.DataError, match=r"not in ROBUSTLIB_DATA=.*download mnist"):
        data.mnist("train")
    assert not (folder / TRAIN).exists()
    data.mnist("test")  # the other split needs other files


def test_a_named_folder_that_does_not_exist(published, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ROBUSTLIB_DATA", str(tmp_path / "nowhere"))
    for call in (lambda: data.mnist("test"), lambda: data.download("mnist")):
        with pytest.raises(data.DataError, match=r"ROBUSTLIB_DATA=.*nowhere does not exist"):
            call()
    assert not (tmp_path / "nowhere").exists()
    assert "does not exist" in data.status()[0]["checksum"]


def test_the_cache_is_filled_on_first_use_and_silently(cache: Path, server: Path, capfd) -> None:
    x, _ = data.mnist("train")
    assert len(x) == 5
    assert capfd.readouterr() == ("", "")
    assert sorted(p.name for p in cache.iterdir()) == ["MNIST"], "no temporary folder is left"
    for file in server.glob("*.gz"):
        file.unlink()
    data.mnist("test")  # from the cache


def test_progress_is_shown_when_asked(cache: Path, server: Path, capfd) -> None:
    data.download("mnist", progress=True)
    assert "%" in capfd.readouterr().err


def test_download_repairs_what_is_damaged(cache: Path, server: Path) -> None:
    data.download("mnist")
    (cache / TRAIN).write_bytes(b"half")
    with pytest.raises(data.DataError, match="truncated"):
        data.mnist("train")
    data.download("mnist")
    assert len(data.mnist("train")[0]) == 5


def test_download_goes_to_the_named_folder_when_asked(folder: Path, server: Path) -> None:
    (folder / TRAIN).unlink()
    assert data.download("mnist") == folder
    assert len(data.mnist("train")[0]) == 5


def test_wrong_content_from_the_network_is_refused(cache: Path, server: Path) -> None:
    (server / "networks/tiny/tiny.npy").write_bytes(b"another")
    with pytest.raises(data.DataError, match="could not be downloaded"):
        fetch.read("tiny", "tiny.npy")
    assert list(cache.rglob("*.npy")) == []


def test_a_network_arrives_by_url_and_sha256(cache: Path, server: Path, capfd) -> None:
    assert fetch.read("tiny", "tiny.npy") == b"a network"
    assert (cache / "networks/tiny/tiny.npy").read_bytes() == b"a network"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["mnist", "tiny"])
def test_without_a_network_there_is_one_clear_error(
    name: str, published, no_network: None, cache: Path
) -> None:
    with pytest.raises(data.DataError) as error:
        data.download(name)
    for part in (f"{name} is not in", "could not be downloaded", "ROBUSTLIB_DATA", "data download"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    assert list(cache.rglob("*")) == []


def test_a_cache_that_cannot_be_written(published, server: Path, tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.delenv("ROBUSTLIB_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(data.DataError, match="ROBUSTLIB_DATA"):
        data.mnist("test")
    if os.geteuid():
        (tmp_path / "closed").mkdir(mode=0o500)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "closed"))
        with pytest.raises(data.DataError, match="not writable"):
            data.mnist("test")


def test_unknown_names_say_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"name='minst'.*'mnist'"):
        data.download("minst")
    with pytest.raises(ValueError, match=r"name='cifar-10'.*'cifar10'"):
        data.load("cifar-10")


def test_status_says_what_is_there_how_large_and_what_is_wrong(folder: Path) -> None:
    def row(name: str) -> dict:
        (found,) = (row for row in data.status() if row["name"] == name)
        return found

    whole = sum(file.stat().st_size for file in (folder / "MNIST/raw").iterdir())
    assert row("mnist") == {
        "name": "mnist",
        "title": "mnist",
        "place": str(folder / "MNIST/raw"),
        "present": True,
        "files": 4,
        "expected": 4,
        "bytes": whole,
        "checksum": "ok",
    }
    assert row("digits")["present"]
    assert row("digits")["checksum"] == "ok"
    (folder / TRAIN).write_bytes(b"half")
    assert row("mnist")["present"]
    assert "truncated" in row("mnist")["checksum"]
    (folder / TRAIN).unlink()
    assert not row("mnist")["present"]
    assert row("mnist")["files"] == 3
    assert row("mnist")["checksum"] == f"{TRAIN} is missing"
    assert row("wk17a")["files"] == 0
