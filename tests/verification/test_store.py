"""The store: verdicts are found again, never mixed, and survive kills and full disks."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

import robustlib as rl
from robustlib.network import from_torch
from robustlib.solvers import SolverError
from robustlib.verification import search, store
from robustlib.verification.result import Verdict
from robustlib.verification.store import Store, input_key, network_hash
from tests.verification.test_verify import X, Y, hard, line

POINTS = torch.tensor([[0.75], [0.9], [0.2]])
LABELS = torch.tensor([0, 0, 0])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "verdicts.sqlite"


def count(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT count(*) FROM verdicts").fetchone()[0]


def test_the_same_call_finds_its_verdicts_again(path):
    net = line(1.0, -0.5)
    first = rl.verify(net, POINTS, LABELS, eps=0.3, store=path)
    assert first.verdict == ["adversarial", "robust", "misclassified"]
    second = rl.verify(net, POINTS, LABELS, eps=0.3, store=path)
    assert second.to_frame().equals(first.to_frame())  # the recorded seconds too
    assert second.witness[0].equal(first.witness[0])
    more = rl.verify(net, torch.cat([POINTS, torch.tensor([[0.95]])]), torch.zeros(4).long(),
                     eps=0.3, store=path)  # fmt: skip
    assert more.to_frame()[:3].equals(first.to_frame())
    assert count(path) == 4


def test_every_field_of_a_verdict_comes_back(path):
    full = Verdict(
        "adversarial", "mip", -np.inf, np.float64(-0.25), torch.tensor([[0.5, 0.25]]), 1.5, "note",
        0.125, 17, 0.5, 0.75, {"binaries": 3, "stages": ["lp", "mip"]},
    )  # fmt: skip
    bare = Verdict("undecided", "pgd", 0.0, np.nan, None, 0.0)
    with Store(path, Verdict, {"eps": 0.1}) as made:
        made.put("a", full, 60.0)
        made.put("b", bare, 0.0)
    with Store(path, Verdict, {"eps": 0.1}) as again:
        found, had = again.get("a", full.witness)
        assert had == 60.0
        assert found.witness.equal(full.witness)
        for name in vars(full):
            assert name == "witness" or getattr(found, name) == getattr(full, name)
        found, _ = again.get("b", full.witness)
        assert np.isnan(found.upper)
        assert np.isnan(found.distance)
        assert found.witness is found.details is None
        assert again.get("c", full.witness) is None


SETTINGS = {
    "eps": ({"eps": 0.2}, r"eps 0\.3, not 0\.2"),
    "network": ({"net": line(1.0, -0.8)}, "network [0-9a-f]{12}…, not [0-9a-f]{12}…"),
    "bounds": ({"bounds": (0.0, 2.0)}, r"bounds \(0\.0, 1\.0\), not \(0\.0, 2\.0\)"),
    "solver": ({"solver": "scip"}, "solver highs, not scip"),
    "seed": ({"seed": 1}, "seed 0, not 1"),
    "method": ({"method": "mip"}, "method cascade, not mip"),
    "dtype": ({"net": line(1.0, -0.5).double(), "x": POINTS.double()}, "not torch.float64"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_store_of_another_network_or_setting_is_refused_with_both_named(name, path):
    rl.verify(line(1.0, -0.5), POINTS, LABELS, eps=0.3, store=path)
    before = path.read_bytes()
    change, message = SETTINGS[name]
    arguments = {"net": line(1.0, -0.5), "x": POINTS, "eps": 0.3, **change}
    net, x = arguments.pop("net"), arguments.pop("x")
    with pytest.raises(ValueError, match=rf"verdicts\.sqlite.*{message}.*give another path"):
        rl.verify(net, x, LABELS, store=path, **arguments)
    assert path.read_bytes() == before
    assert count(path) == 3


def test_a_store_of_another_version_is_refused(path, monkeypatch):
    rl.verify(line(), X, Y, eps=0.1, store=path)
    monkeypatch.setattr(store, "METHOD", "another method")
    with pytest.raises(ValueError, match=r"method version .*, not another method"):
        rl.verify(line(), X, Y, eps=0.1, store=path)


def test_a_file_that_is_no_store_is_refused(tmp_path):
    photo = tmp_path / "photo.sqlite"
    photo.write_bytes(b"\x89PNG" * 100)
    with pytest.raises(ValueError, match=r"photo\.sqlite.*cannot be used"):
        rl.verify(line(), X, Y, eps=0.1, store=photo)
    foreign = tmp_path / "foreign.sqlite"
    with contextlib.closing(sqlite3.connect(foreign)) as connection:
        connection.execute("CREATE TABLE verdicts (a INTEGER)")
        connection.commit()
    with pytest.raises(ValueError, match=r"foreign\.sqlite.*no file of this version"):
        rl.verify(line(), X, Y, eps=0.1, store=foreign)


def test_the_time_limit_may_grow(path):
    module, x, y, eps = hard()
    assert rl.verify(module, x, y, eps=eps, time_limit=0, store=path).verdict == ["undecided"]
    assert rl.verify(module, x, y, eps=eps, time_limit=30, store=path).verdict != ["undecided"]
    assert rl.verify(module, x, y, eps=eps, time_limit=0, store=path).verdict != ["undecided"]
    assert count(path) == 1


def test_an_error_of_the_engine_is_not_remembered(path, monkeypatch):
    module, x, y, eps = hard()

    def fail(*args, **kwargs):
        raise SolverError("no license")

    with monkeypatch.context() as patch:
        patch.setattr(search, "branch", fail)
        patch.setattr(search, "prove_at_least", fail)
        found = rl.verify(module, x, y, eps=eps, store=path).results[0]
        assert (found.verdict, found.note) == ("undecided", "no license")
    assert rl.verify(module, x, y, eps=eps, store=path).verdict != ["undecided"]


def test_the_key_tells_inputs_and_labels_apart():
    x = torch.rand(3, 2, 2, generator=torch.Generator().manual_seed(0))
    keys = {input_key(point, label) for point in x for label in range(3)}
    assert len(keys) == 9
    strided = x.transpose(1, 2).contiguous().transpose(1, 2)
    assert input_key(strided[0], 0) == input_key(x[0], 0)


def test_the_hash_differs_with_every_number_of_a_network():
    def build():
        torch_state = torch.Generator().manual_seed(0)
        net = torch.nn.Sequential(
            torch.nn.Conv2d(1, 2, 2), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8, 2)
        ).eval()
        for p in net.parameters():
            p.data = torch.rand(p.shape, generator=torch_state)
        return net

    def digest(net):
        return network_hash(from_torch(net, (1, 3, 3)))

    first = digest(build())
    assert digest(build()) == first
    for place in (0, 3):
        for name in ("weight", "bias"):
            net = build()
            values = getattr(net[place], name)
            values.data.view(-1)[-1] = torch.nextafter(values.data.view(-1)[-1], torch.tensor(9.0))
            assert digest(net) != first


KILLED = """
    import os, signal, sys, torch, robustlib as rl
    from tests.verification.test_verify import line
    x = torch.linspace(0.55, 0.95, 8)[:, None]
    def progress(event):
        if event["done"] == 3:
            os.kill(os.getpid(), signal.SIGKILL)
    rl.verify(line(1.0, -0.5), x, torch.zeros(8, dtype=torch.long), eps=0.2,
              store=sys.argv[1], progress=progress)
"""


def test_a_kill_loses_only_what_was_in_flight(path):
    """The process is killed with SIGKILL after its third verdict; the next call goes on."""
    script = textwrap.dedent(KILLED)
    process = subprocess.run([sys.executable, "-c", script, str(path)], cwd=os.getcwd())
    assert process.returncode == -signal.SIGKILL
    assert count(path) == 3
    events = []
    x = torch.linspace(0.55, 0.95, 8)[:, None]
    result = rl.verify(
        line(1.0, -0.5), x, torch.zeros(8, dtype=torch.long), eps=0.2, store=path,
        progress=events.append,
    )  # fmt: skip
    assert result.verdict == ["adversarial"] * 3 + ["robust"] * 5
    assert [e["done"] for e in events] == list(range(1, 9))
    assert count(path) == 8


def test_a_full_disk_keeps_what_was_decided_and_the_call_goes_on_when_there_is_room(
    path, monkeypatch
):
    """The file may have nine pages: too few for 200 verdicts."""
    x = torch.linspace(0.55, 0.95, 200)[:, None]
    arguments = {"eps": 0.1, "store": path}
    connect = sqlite3.connect

    def small(*args, **kwargs):
        connection = connect(*args, **kwargs)
        connection.execute("PRAGMA max_page_count = 9")
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(store.sqlite3, "connect", small)
        with pytest.raises(OSError, match=r"disk is full.*make room.*the \d+ answers in it are"):
            rl.verify(line(1.0, -0.5), x, torch.zeros(200).long(), **arguments)
    kept = count(path)
    assert 0 < kept < 200
    again = rl.verify(line(1.0, -0.5), x, torch.zeros(200).long(), **arguments)
    assert again.verdict == rl.verify(line(1.0, -0.5), x, torch.zeros(200).long(), eps=0.1).verdict
    assert count(path) == 200


def test_a_damaged_file_is_named(path):
    rl.verify(line(), X, Y, eps=0.1, store=path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE verdicts")
        connection.commit()
    with pytest.raises(ValueError, match=r"verdicts\.sqlite.*cannot be read.*damaged"):
        rl.verify(line(), X, Y, eps=0.1, store=path)
