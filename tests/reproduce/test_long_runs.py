"""Long computations are done once, kept with how they were made, and never mixed up."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from robustlib.reproduce import long_runs, notebooks
from robustlib.reproduce.long_runs import KEEP, RECORDING, RENEW, long_run, used_runs, work_folder
from robustlib.reproduce.notebooks import BookError


@pytest.fixture
def book(sources, monkeypatch):
    monkeypatch.chdir(sources)
    monkeypatch.setattr(long_runs, "_used", [])
    monkeypatch.delenv(RECORDING, raising=False)
    return sources


def counted():
    calls = []

    def compute():
        calls.append(1)
        return {"n": len(calls)}

    return compute


def test_a_computation_is_done_once_while_settings_and_library_stay(book, monkeypatch):
    compute = counted()
    assert long_run("sum.a", {"n": 3}, compute) == {"n": 1}
    assert used_runs() == []
    assert long_run("sum.a", {"n": 3}, compute) == {"n": 1}
    assert len(used_runs()) == 1
    assert used_runs()[0].startswith("`sum.a`: 20")
    assert long_run("sum.a", {"n": 4}, compute) == {"n": 2}
    monkeypatch.setattr(notebooks, "library_hash", lambda: "other")
    assert long_run("sum.a", {"n": 4}, compute) == {"n": 3}


def test_the_books_own_results_are_used_only_while_it_is_recorded(book, monkeypatch):
    compute = counted()
    monkeypatch.setenv(RECORDING, KEEP)
    long_run("sum.a", {}, compute)
    kept = book / "notebooks" / "runs" / "sum.a.json"
    assert json.loads(kept.read_text())["result"] == {"n": 1}
    monkeypatch.setattr(notebooks, "library_hash", lambda: "other")
    assert long_run("sum.a", {}, compute) == {"n": 1}  # kept, whatever the library is by now
    monkeypatch.setenv(RECORDING, "")
    assert long_run("sum.a", {}, compute) == {"n": 2}  # a reader computes anew
    assert json.loads(kept.read_text())["result"] == {"n": 1}
    monkeypatch.setenv(RECORDING, RENEW)
    assert long_run("sum.a", {}, compute) == {"n": 3}
    assert json.loads(kept.read_text())["result"] == {"n": 3}


def test_who_needs_a_result_that_is_being_made_waits_for_it(book):
    calls = []

    def compute():
        calls.append(1)
        time.sleep(0.3)
        return {"n": len(calls)}

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: long_run("sum.a", {"n": 3}, compute), range(2)))
    assert found == [{"n": 1}, {"n": 1}]


def test_arrays_and_scalars_come_back_as_they_were_fresh_or_kept(book):
    def compute():
        return {
            "image": np.arange(6, dtype=np.uint8).reshape(2, 3),
            "rows": [{"lower": np.float64(0.1), "verdict": "robust"}],
            "open": float("nan"),
        }

    for result in (long_run("sum.a", {}, compute), long_run("sum.a", {}, compute)):
        np.testing.assert_array_equal(result["image"], np.arange(6).reshape(2, 3))
        assert result["image"].dtype == np.uint8
        assert result["rows"] == [{"lower": 0.1, "verdict": "robust"}]
        assert np.isnan(result["open"])


def test_a_failed_computation_leaves_nothing_behind(book):
    with pytest.raises(ZeroDivisionError):
        long_run("sum.a", {}, lambda: 1 // 0)
    assert long_run("sum.a", {}, lambda: 5) == 5


def test_a_damaged_record_is_named_and_other_types_are_refused(book):
    with pytest.raises(TypeError, match="returned a set"):
        long_run("sum.a", {}, lambda: {"a": {1}})
    long_run("sum.a", {}, lambda: 5)
    path = book / "_build" / "runs" / "sum.a.json"
    path.write_text(path.read_text()[:20])
    with pytest.raises(BookError, match=r"sum\.a\.json is not a record of a long run"):
        long_run("sum.a", {}, lambda: 5)


def test_the_work_folder_is_the_machines_own(book):
    assert work_folder("sum.a") == book / "_build" / "runs" / "sum.a"
    assert work_folder("sum.a").is_dir()
