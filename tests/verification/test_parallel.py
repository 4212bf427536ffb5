"""Workers: the verdicts of one process, each once, whoever dies."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time

import psutil
import pytest

import robustlib as rl
from robustlib.verification import batch, parallel
from robustlib.verification.result import WORKER_DIED

EPS = 0.08


@pytest.fixture(scope="module")
def digits():
    """A trained network, images that all stages are needed for, and the verdicts of one process."""
    net = rl.zoo.load("digits_mlp")
    x, y = rl.data.digits("test", n=40)
    return net, x, y, rl.verify(net, x, y, eps=EPS)


def same(found, expected):
    """Everything but the seconds is the same, witnesses too."""
    times = ["seconds", "build_seconds", "solve_seconds"]
    first, second = (r.to_frame().drop(columns=times) for r in (found, expected))
    assert first.equals(second)
    for a, b in zip(found.witness, expected.witness, strict=True):
        assert (a is None and b is None) or a.equal(b)


def rows(store):
    with contextlib.closing(sqlite3.connect(store)) as connection:
        return connection.execute("SELECT count(*), count(DISTINCT key) FROM verdicts").fetchone()


def workers_of(pid):
    """The worker processes of joblib below this one."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "popen_loky_posix" in " ".join(child.cmdline()):
                found.append(child)
    return found


def test_two_workers_give_the_verdicts_of_one_although_one_is_killed(digits, tmp_path):
    net, x, y, expected = digits
    store = tmp_path / "verdicts.sqlite"
    events, killed = [], []

    def progress(event):
        events.append(event)
        if event["done"] == 3:
            killed.append(workers_of(os.getpid())[0])
            killed[0].kill()

    found = rl.verify(net, x, y, eps=EPS, workers=2, store=store, progress=progress)
    same(found, expected)
    assert [event["done"] for event in events] == list(range(1, 41))
    assert rows(store) == (40, 40)
    assert not killed[0].is_running()
    assert not workers_of(os.getpid()), "workers end with the call"


def deadly(job, task):
    """The work of a task, in a process that image 5 kills."""
    if 5 in [image.index for image in task.images]:
        os.kill(os.getpid(), signal.SIGKILL)
    return batch.work(job, task)


def failing(job, task):
    raise ArithmeticError("a defect in a worker")


def test_an_image_that_kills_its_workers_is_undecided_and_tried_again_by_the_next_call(
    digits, tmp_path, monkeypatch
):
    net, x, y, expected = digits
    store = tmp_path / "verdicts.sqlite"
    real = batch.run
    with monkeypatch.context() as patch:
        patch.setattr(batch, "run", lambda _, *a, **k: real(deadly, *a, **k))
        found = rl.verify(net, x[:12], y[:12], eps=EPS, workers=2, store=store)
    assert [i for i, v in enumerate(found.verdict) if v == "undecided"] == [5]
    assert found.results[5].note == WORKER_DIED
    others = [i for i in range(12) if i != 5]
    assert [found.verdict[i] for i in others] == [expected.verdict[i] for i in others]
    again = rl.verify(net, x[:12], y[:12], eps=EPS, store=store)
    assert again.verdict == expected.verdict[:12]


def test_an_error_in_a_worker_reaches_the_caller(digits, monkeypatch):
    net, x, y, _ = digits
    real = batch.run
    monkeypatch.setattr(batch, "run", lambda _, *a, **k: real(failing, *a, **k))
    with pytest.raises(ArithmeticError, match="a defect in a worker"):
        rl.verify(net, x[:2], y[:2], eps=EPS, workers=2)
    assert not workers_of(os.getpid())


def test_workers_end_when_their_parent_is_killed(digits):
    script = (
        "import robustlib as rl\nnet = rl.zoo.load('digits_mlp')\nx, y = rl.data.digits('test')\n"
        "rl.verify(net, x, y, eps=0.08, workers=2, progress=lambda e: print(e, flush=True))"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline()
    children = workers_of(parent.pid)
    assert len(children) == 2
    parent.kill()
    parent.wait()
    assert not psutil.wait_procs(children, timeout=20)[1]


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"workers": 0}, ValueError, "workers=0 is too small"),
        ({"workers": 2.5}, TypeError, "workers=2.5"),
        ({"workers": 2, "dask": "tcp://127.0.0.1:1"}, ValueError, "exclude each other"),
        ({"dask": "nowhere"}, OSError, "dask='nowhere': no scheduler.*`dask scheduler`"),
        ({"dask": "tcp://127.0.0.1:1"}, OSError, "no scheduler answers.*tcp://127.0.0.1:8786"),
    ],
)
def test_bad_input_is_named(digits, arguments, kind, message, monkeypatch):
    monkeypatch.setattr(parallel, "CONNECT", 1.0)
    net, x, y, _ = digits
    with pytest.raises(kind, match=message):
        rl.verify(net, x[:2], y[:2], eps=EPS, **arguments)


def test_a_missing_package_is_named_with_the_command_that_installs_it(digits, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    net, x, y, _ = digits
    with pytest.raises(ImportError, match=r"distributed.*pip install 'robustlib\[cluster\]'"):
        rl.verify(net, x[:2], y[:2], eps=EPS, dask="tcp://127.0.0.1:8786")


class Cluster:
    """A scheduler and its workers, as processes of their own on this machine."""

    def __init__(self, folder):
        self.file, self.folder = folder / "scheduler.json", folder
        self.processes = []
        self.start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")

    def start(self, role, *options):
        command = [sys.executable, "-m", f"distributed.cli.dask_{role}", *options]
        command += ["--scheduler-file", str(self.file)]
        with (self.folder / f"{role}{len(self.processes)}.log").open("w") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log,
                env={**os.environ, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"},
            )  # fmt: skip
        self.processes.append(process)
        return process

    def worker(self):
        return self.start("worker", "--no-nanny", "--nthreads", "1", "--no-dashboard")

    def address(self):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with contextlib.suppress(OSError, ValueError):
                return json.loads(self.file.read_text())["address"]
            time.sleep(0.05)
        raise AssertionError("no scheduler")


@pytest.fixture
def cluster(tmp_path):
    pytest.importorskip("distributed")
    made = Cluster(tmp_path)
    yield made
    for process in made.processes:
        process.kill()
        process.wait()


def test_a_cluster_gives_the_verdicts_of_one_process_although_a_worker_is_killed(
    cluster, digits, tmp_path, monkeypatch
):
    net, x, y, expected = digits
    address = cluster.address()
    with monkeypatch.context() as patch:
        patch.setattr(parallel, "CONNECT", 1.0)
        with pytest.raises(OSError, match=f"`dask worker {address}`"):
            rl.verify(net, x, y, eps=EPS, dask=address)
    victim, _ = cluster.worker(), cluster.worker()
    from distributed import Client

    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=120)
    store = tmp_path / "verdicts.sqlite"
    events = []

    def progress(event):
        events.append(event)
        if event["done"] == 3:
            victim.kill()

    found = rl.verify(net, x, y, eps=EPS, dask=address, store=store, progress=progress)
    assert victim.poll() is not None
    same(found, expected)
    assert [event["done"] for event in events] == list(range(1, 41))
    assert rows(store) == (40, 40)
