"""The commands that make the book: what they print and how they exit."""

from __future__ import annotations

import io
import json

import pytest

from robustlib.reproduce.cli import main
from robustlib.reproduce.progress import Progress


@pytest.fixture
def inside(finished, monkeypatch):
    """The current folder lies inside the finished tiny book."""
    monkeypatch.chdir(finished / "notebooks")
    return finished


def test_check_is_0_when_all_holds(inside, capsys):
    assert main(["check"]) == 0
    out = capsys.readouterr().out
    assert "reference run: 3 reproduced" in out
    assert "quick run here: 2 reproduced, 0 not reproduced, 1 not run" in out


def test_check_is_1_when_a_number_changed_and_names_the_claim(inside, edit, capsys):
    edit(inside / "book" / "claims.yml", "claimed: 6\n", "claimed: 6.1\n")
    assert main(["check"]) == 1
    assert "product: not reproduced (quick: product.value is 6, wanted = 6.1)" in (
        capsys.readouterr().err
    )


def test_check_is_2_when_the_ledger_is_wrong(inside, edit, capsys):
    edit(inside / "book" / "claims.yml", "id: product", "id: total")
    assert main(["check"]) == 2
    assert "robustlib: error: claim 'total' is there twice" in capsys.readouterr().err


def test_the_json_of_check_is_a_list_and_nothing_else(inside, capsys):
    assert main(["check", "--json", "--profile", "reference"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["verdict"] for row in rows] == ["reproduced"] * 3


def test_reproduce_says_what_it_kept(inside, capsys):
    assert main(["reproduce"]) == 0
    assert "notebooks at profile quick: 0 ran, 2 kept, 0 failed" in capsys.readouterr().out


def test_reproduce_takes_a_path_as_a_name(inside, capsys):
    assert main(["reproduce", "--only", "notebooks/toys/sum.md"]) == 0
    assert "0 ran, 1 kept" in capsys.readouterr().out


def test_reproduce_of_prose_runs_nothing(inside, edit, capsys):
    edit(inside / "notebooks" / "toys" / "sum.md", "Text between", "Better text between")
    assert main(["reproduce", "--prose"]) == 0
    assert capsys.readouterr().out == "toys/product: unchanged\ntoys/sum: renewed\n"


def test_reproduce_of_an_unknown_notebook_is_2(inside, capsys):
    assert main(["reproduce", "--only", "toys/summ"]) == 2
    assert "Did you mean toys/sum" in capsys.readouterr().err


def test_reproduce_into_a_folder_that_is_a_file_is_2(sources, monkeypatch, capsys):
    (sources / "_build").touch()
    monkeypatch.chdir(sources)
    assert main(["reproduce"]) == 2
    assert "_build" in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self):
        return True


def play(out):
    """Two notebooks on one worker, the first known to take 60 s, at 10 s a step."""
    times = iter(range(0, 1000, 10))
    progress = Progress({"a": 60.0, "b": None}, jobs=1, out=out, now=lambda: next(times))
    progress.started("a", 3)
    progress.cell("a", 2)
    progress.finished("a", "done")
    return progress


def test_plain_progress_is_whole_lines_with_the_time_left():
    out = io.StringIO()
    play(out)
    lines = out.getvalue().splitlines()
    assert lines[0] == "[1/2] a: 3 cells"
    assert lines[1].startswith("      a: cell 2 of 3; ")
    assert all("about" in line and "left" in line for line in lines[1:])
    assert "\r" not in out.getvalue()


def test_a_terminal_gets_one_live_line():
    out = Terminal()
    play(out)
    assert "\r\x1b[K0/2 done; a 2/3; " in out.getvalue()


def test_the_time_left_is_unknown_until_a_duration_is_known():
    progress = Progress({"a": None, "b": None}, jobs=2, out=io.StringIO(), now=lambda: 0.0)
    assert progress.left() is None
    progress.took["a"] = 30.0
    assert progress.left() == 30.0
    assert Progress({"a": 40.0, "b": 20.0}, jobs=2, now=lambda: 0.0).left() == 30.0
