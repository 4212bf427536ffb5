"""Tasks worked off here, in worker processes of this machine, or on a Dask cluster.

``run`` asks for a task whenever a worker is free, so that few tasks wait anywhere, memory does not
grow with their number, and a long task holds up no other. A worker gets the work's common part once
and one task at a time; if it dies, exactly its task is lost, and ``run`` says so.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from functools import lru_cache
from typing import Any, TypeVar

Shared = TypeVar("Shared")
Task = TypeVar("Task")
Result = TypeVar("Result")

LIBRARIES = ("OMP", "MKL", "OPENBLAS")  # they read how many threads to use when they are loaded
THREADS = {f"{library}_NUM_THREADS": "1" for library in LIBRARIES}
# Else a worker gives the memory of every large array back to the system, and asks for it again.
MEMORY = {"MALLOC_TRIM_THRESHOLD_": "2000000000", "MALLOC_MMAP_THRESHOLD_": "1000000000"}
ENVIRONMENT = THREADS | MEMORY
GROWTH = 1 << 30  # bytes: a worker that grew by more is replaced after its task
CONNECT = 30.0  # seconds to find the scheduler and one worker
PATIENCE = 60.0  # seconds to wait for a worker after the last one is gone
AGAIN = "what was decided is kept in the store, and the same call goes on there."
AHEAD = 2  # tasks on a cluster for each of its threads, so that none waits for the next


def run(
    function: Callable[[Shared, Task], Result],
    shared: Shared,
    next_task: Callable[[], Task | None],
    *,
    workers: int = 1,
    dask: str | None = None,
) -> Iterator[tuple[Task, Result | None]]:
    """Yield every task with ``function(shared, task)``, as they come.

    Parameters
    ----------
    function : importable by name where it runs.
    shared : what all tasks need; a worker gets it once.
    next_task : gives the next task, or None if there is none now. It is asked again after every
        result, so that results may lead to new tasks; the end is None while nothing runs.
    workers : processes of this machine; with 1 the work is done in this one.
    dask : address of a Dask scheduler, such as "tcp://127.0.0.1:8786": the work is done there.

    Yields
    ------
    The task and its result; None if the worker died with it.
    """
    if dask is not None:
        return _on_cluster(function, shared, next_task, dask)
    if workers > 1:
        return _in_processes(function, shared, next_task, workers)
    return _here(function, shared, next_task)


def _here(
    function: Callable[[Shared, Task], Result],
    shared: Shared,
    next_task: Callable[[], Task | None],
) -> Iterator[tuple[Task, Result]]:
    while (task := next_task()) is not None:
        yield task, function(shared, task)


def _in_processes(
    function: Callable[[Shared, Task], Result],
    shared: Shared,
    next_task: Callable[[], Task | None],
    workers: int,
) -> Iterator[tuple[Task, Result | None]]:
    """Executors of one process each: when one dies, no other loses its task."""
    from joblib.externals.loky.process_executor import BrokenProcessPool, ProcessPoolExecutor

    initial = (_dumps((function, shared)), os.getpid())
    alive: list[Any] = []
    idle: list[Any] = []
    running: dict[Future[bytes], tuple[Any, Task]] = {}

    def end(executor: Any) -> None:
        alive.remove(executor)
        executor.shutdown(wait=False, kill_workers=True)

    def submit(task: Task) -> None:
        while idle:
            executor = idle.pop()
            try:
                running[executor.submit(_work, pickle.dumps(task))] = executor, task
                return
            except BrokenProcessPool:  # it died between two tasks
                end(executor)
        executor = ProcessPoolExecutor(1, initializer=_start, initargs=initial, env=ENVIRONMENT)
        alive.append(executor)
        running[executor.submit(_work, pickle.dumps(task))] = executor, task

    def hand_out() -> None:
        while len(running) < workers and (task := next_task()) is not None:
            submit(task)

    try:
        hand_out()
        while running:
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                executor, task = running.pop(future)
                result = None
                try:
                    result = pickle.loads(future.result())
                    idle.append(executor)
                except BrokenProcessPool:
                    end(executor)
                hand_out()  # before the caller does its part
                yield task, result
            hand_out()
    finally:
        for executor in alive:
            executor.shutdown(wait=True, kill_workers=True)


_payload = b""  # in a worker process: the common part of the work


def _start(payload: bytes, parent: int) -> None:
    """Get the common part; leave Ctrl-C to the parent, and end when the parent is gone."""
    from joblib.externals.loky import process_executor

    global _payload
    process_executor._MAX_MEMORY_LEAK_SIZE = GROWTH
    _payload = payload
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _work(task: bytes) -> bytes:
    function, shared = _open(_payload)
    return pickle.dumps(function(shared, pickle.loads(task)))


@lru_cache(maxsize=1)
def _open(payload: bytes) -> tuple[Callable[[Any, Any], Any], Any]:
    """The function and the common part, in a process that works with one thread."""
    import torch

    torch.set_num_threads(1)
    return pickle.loads(payload)


def _dumps(value: Any) -> bytes:
    """Pickled for our own processes; what only ``__main__`` defines goes by value."""
    import cloudpickle

    return cloudpickle.dumps(value)


def _on_cluster(
    function: Callable[[Shared, Task], Result],
    shared: Shared,
    next_task: Callable[[], Task | None],
    address: str,
) -> Iterator[tuple[Task, Result | None]]:
    """Few tasks at a time, so that the scheduler holds little and results lead to new ones."""
    try:
        import distributed
    except ImportError as error:
        raise ImportError(
            f"dask={address!r} needs the package distributed, which cannot be imported ({error}); "
            "install it with: pip install 'robustlib[cluster]'"
        ) from error
    payload = _dumps((function, shared))
    client = _connect(distributed, address)
    # A task and not scattered data: where the worker that holds it dies, it is made again.
    name = f"robustlib-{hashlib.sha256(payload).hexdigest()}"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sending large graph")
        common = client.submit(bytes, payload, key=name)
    running: dict[Any, Task] = {}
    try:
        last_seen = time.monotonic()
        while True:
            threads = sum(client.nthreads().values())
            while len(running) < max(AHEAD * threads, 1) and (task := next_task()) is not None:
                future = client.submit(_work_there, common, pickle.dumps(task), pure=False)
                running[future] = task
            if not running:
                return
            last_seen = time.monotonic() if threads else last_seen
            if time.monotonic() - last_seen > PATIENCE:
                raise RuntimeError(f"the Dask cluster at {address} has no worker any more; {AGAIN}")
            try:
                with client.as_current():
                    done, _ = distributed.wait([*running], 1.0, "FIRST_COMPLETED")
            except TimeoutError:
                continue
            for future in done:
                yield running.pop(future), _result(distributed, future)
    except (CancelledError, distributed.comm.CommClosedError) as error:
        raise RuntimeError(f"the Dask scheduler at {address} is gone; {AGAIN}") from error
    finally:
        for future in running:
            future.cancel()
        client.close()


def _connect(distributed: Any, address: str) -> Any:
    try:
        client = distributed.Client(address, timeout=CONNECT, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise OSError(
            f"dask={address!r}: no scheduler answers there ({error}); start one with `dask "
            "scheduler` and give the address that it prints, such as tcp://127.0.0.1:8786."
        ) from error
    try:
        client.wait_for_workers(1, timeout=CONNECT)
    except TimeoutError as error:
        client.close()
        raise OSError(
            f"dask={address!r}: the cluster has no worker; start one with `dask worker {address}`."
        ) from error
    return client


def _work_there(common: bytes, task: bytes) -> bytes:
    function, shared = _open(common)
    return pickle.dumps(function(shared, pickle.loads(task)))


def _result(distributed: Any, future: Any) -> Any:
    """The result, or None where the cluster gave the task up because its workers died."""
    try:
        return pickle.loads(future.result())
    except distributed.scheduler.KilledWorker:
        return None
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"a worker of the Dask cluster misses a package ({error}); install the same version of "
            "robustlib wherever a worker runs."
        ) from error
