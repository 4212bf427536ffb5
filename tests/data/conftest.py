"""Folders and servers with a miniature of the data: no test needs real data or a network."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from miniature import miniature, pin

from robustlib.data import fetch


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The miniature, pinned in place of the real files, but stored nowhere yet."""
    content = miniature()
    mnist = {path: value for path, value in content.items() if path.startswith("MNIST")}
    monkeypatch.setitem(fetch.FILE_SETS, "mnist", pin("mnist", mnist, torchvision="MNIST"))
    return content


@pytest.fixture
def folder(tmp_path: Path, published: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Path:
    """ROBUSTLIB_DATA, holding the miniature."""
    root = tmp_path / "named"
    for path, value in published.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(value)
    monkeypatch.setenv("ROBUSTLIB_DATA", str(root))
    return root


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache, empty."""
    monkeypatch.delenv("ROBUSTLIB_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "robustlib"


@pytest.fixture
def server(
    tmp_path: Path, published: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A web server on this machine that publishes the miniature; yields the folder it serves."""
    from robustlib.data._torchvision import torchvision

    root = tmp_path / "server"
    root.mkdir()
    resources = []
    for path, value in published.items():
        if path.startswith("MNIST"):
            packed = gzip.compress(value, mtime=0)
            file = root / f"{Path(path).name}.gz"
            file.write_bytes(packed)
            resources.append((file.name, hashlib.md5(packed, usedforsecurity=False).hexdigest()))
    (root / "networks/tiny").mkdir(parents=True)
    (root / "networks/tiny/tiny.npy").write_bytes(published["networks/tiny/tiny.npy"])

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    handler = partial(Quiet, directory=str(root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        thread = threading.Thread(target=web.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{web.server_port}"
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [f"{url}/"])
        monkeypatch.setattr(torchvision.datasets.MNIST, "resources", resources)
        network = {"networks/tiny/tiny.npy": published["networks/tiny/tiny.npy"]}
        monkeypatch.setitem(fetch.FILE_SETS, "tiny", pin("tiny", network, url=url))
        yield root
        web.shutdown()
        thread.join()


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every address is one where nobody answers."""
    from robustlib.data._torchvision import torchvision

    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    monkeypatch.setitem(
        fetch.FILE_SETS, "tiny", pin("tiny", {"networks/t.npy": b"t"}, url="http://127.0.0.1:9")
    )
