"""Running notebooks: resumable, honest about failures, and quiet about what did not change."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import pytest

from robustlib.reproduce import notebooks, runner
from robustlib.reproduce.notebooks import BookError, chapters, load_source, read, run_key
from robustlib.reproduce.reference import record_run, renew_prose, stale
from robustlib.reproduce.runner import reproduce

ORIGINAL_HASH = notebooks.library_hash


def chapter(root, name):
    return chapters(root, [name])[0]


def test_the_profile_reaches_the_notebook(finished):
    for profile, n in (("quick", "3"), ("reference", "4")):
        executed = read(chapter(finished, "toys/sum").executed(profile))
        assert executed.cells[-1].outputs[0].data["text/plain"] == n
        assert executed.metadata.robustlib.profile == profile


def test_nothing_runs_again_while_nothing_changed(finished, monkeypatch):
    monkeypatch.setattr(runner, "run_one", lambda *_: pytest.fail("it ran"))
    assert [o.status for o in reproduce(chapters(finished), "quick")] == ["kept", "kept"]


def test_a_new_sentence_keeps_the_run_and_new_code_does_not(finished, edit):
    one = chapter(finished, "toys/sum")
    before = run_key(load_source(one), "quick")
    edit(one.source, "Text between", "Better text between")
    assert run_key(load_source(one), "quick") == before
    edit(one.source, 'record("sum.small", 1)', 'record("sum.small", 2)')
    assert run_key(load_source(one), "quick") != before
    assert run_key(load_source(one), "reference") != run_key(load_source(one), "quick")


def test_a_changed_library_or_version_asks_for_a_new_run(finished, monkeypatch):
    source = load_source(chapter(finished, "toys/sum"))
    keys = {run_key(source, "quick")}
    monkeypatch.setattr("robustlib.reproduce.notebooks.library_hash", lambda: "other")
    keys.add(run_key(source, "quick"))
    monkeypatch.setattr("robustlib.reproduce.notebooks.versions", lambda: {"torch": "0"})
    keys.add(run_key(source, "quick"))
    assert len(keys) == 3


def test_the_library_counts_with_its_checkpoints_and_without_what_notebooks_do_not_see(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(notebooks, "LIBRARY", tmp_path)
    seen = set()
    for place, text in (
        ("metrics.py", "a"),
        ("metrics.py", "b"),
        ("checkpoints/toy.json", "{}"),
        ("reproduce/recording.py", "a"),
    ):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text(text)
        seen.add(ORIGINAL_HASH())
    assert len(seen) == 4
    for unseen in ("reproduce/cli.py", "__pycache__/metrics.pyc"):
        (tmp_path / unseen).parent.mkdir(exist_ok=True)
        (tmp_path / unseen).write_text("a")
    assert ORIGINAL_HASH() in seen


def test_a_failing_notebook_is_named_with_its_cell_and_the_others_still_run(finished, capsys, edit):
    one = chapter(finished, "toys/sum")
    edit(one.source, "n\n```", "n / 0\n```")
    before = one.executed("quick").read_bytes()
    edit(chapter(finished, "toys/product").source, ", 6)", ", 7)")
    good, bad = reproduce(chapters(finished), "quick", jobs=2)
    assert (good.status, bad.status) == ("ran", "failed")
    assert "toys/sum failed in cell 3 of 3: ZeroDivisionError" in bad.error
    assert "n / 0" in bad.error
    partial = one.executed("quick").with_suffix(".partial.ipynb")
    assert str(partial) in bad.error
    assert nbformat.read(partial, 4).cells
    assert one.executed("quick").read_bytes() == before
    assert "toys/sum: FAILED" in capsys.readouterr().out


def test_the_recorded_run_has_no_stamps_and_depends_on_the_text_alone(finished):
    one = chapter(finished, "toys/sum")
    text = one.recorded.read_text()
    about = json.loads(text)["metadata"]["robustlib"]
    assert {"profile", "seconds", "quick_seconds", "seed", "source_hash", "date"} <= set(about)
    assert about["profile"] == "reference"
    assert not any(word in text for word in ("start_time", '"execution":', "injected-parameters"))
    record_run(one, "reference")
    assert one.recorded.read_text() == text


def test_prose_is_renewed_without_a_run_and_code_is_not(finished, edit):
    one = chapter(finished, "toys/sum")
    edit(one.source, "Text between", "Better text between")
    assert stale(one) is None
    assert renew_prose(one)
    assert not renew_prose(one)
    assert "Better text between" in one.recorded.read_text()
    edit(one.source, "range(n)", "range(n + 0)")
    with pytest.raises(BookError, match="toys/sum: the recorded run is stale"):
        renew_prose(one)


def test_renewed_prose_takes_the_time_of_the_last_quick_run_here(finished):
    one = chapter(finished, "toys/sum")
    before = read(one.recorded)
    renew_prose(one)
    executed = read(one.executed("quick"))
    executed.metadata["robustlib"]["seconds"] = 12.5
    notebooks.write_notebook(one.executed("quick"), executed)
    assert renew_prose(one)
    after = read(one.recorded)
    assert after.metadata["robustlib"].pop("quick_seconds") == 12.5
    before.metadata["robustlib"].pop("quick_seconds")
    assert after == before


def test_a_source_without_the_parameters_is_refused_by_name(sources, edit):
    edit(sources / "notebooks" / "toys" / "sum.md", "seed = 0", "other = 0")
    with pytest.raises(BookError, match="toys/sum: no parameter seed"):
        reproduce(chapters(sources), "quick")


def test_an_unknown_notebook_is_refused_with_the_nearest_names(sources):
    with pytest.raises(BookError, match="Did you mean toys/sum"):
        chapters(sources, ["toys/sums"])


def test_a_kernel_of_another_environment_is_refused(sources, monkeypatch, tmp_path):
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager

    other = KernelSpec(argv=[str(tmp_path / "python")])
    monkeypatch.setattr(KernelSpecManager, "get_kernel_spec", lambda *_: other)
    with pytest.raises(BookError, match="another environment"):
        reproduce(chapters(sources), "quick")


SLOW = """
```{code-cell} ipython3
import os, pathlib, time
pathlib.Path("pid").write_text(str(os.getpid()))
while not pathlib.Path("go").exists():
    time.sleep(0.05)
```
"""
DRIVER = """
from robustlib.reproduce import cli, notebooks
notebooks.library_hash = lambda: "steady"
raise SystemExit(cli.main(["reproduce", "--jobs", "2"]))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_after_a_kill_only_the_notebook_in_flight_runs_again(finished, how):
    product, total = (chapter(finished, f"toys/{name}") for name in ("product", "sum"))
    for one in (product, total) if how == signal.SIGKILL else (total,):
        one.executed("quick").unlink()
    total.source.write_text(total.source.read_text() + SLOW)
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER],
        cwd=finished,
        stdout=subprocess.PIPE,
        preexec_fn=hears_ctrl_c,
    )
    wait_for(lambda: (finished / "pid").exists() and product.executed("quick").exists())
    process.send_signal(how)
    code = process.wait(timeout=60)
    process.stdout.close()
    assert code == (130 if how == signal.SIGINT else -signal.SIGKILL)
    kernel = int((finished / "pid").read_text())
    wait_for(lambda: not alive(kernel))
    assert not total.executed("quick").exists()
    (finished / "go").touch()
    assert [o.status for o in reproduce(chapters(finished), "quick")] == ["kept", "ran"]


def hears_ctrl_c():
    """A shell's background job ignores Ctrl-C, and so would every process below it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0] != "Z"
