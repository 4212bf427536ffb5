"""The command line: help that helps, one-line errors, exit codes that mean something."""

from __future__ import annotations

import csv
import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import robustlib as rl
from robustlib.reproduce.cli import main, parser

COMMANDS = (
    *("reproduce", "check", "book", "serve"),
    *("verify", "distortion", "measure", "data", "train"),
    *("build", "course"),
)
DIGITS = ("verify", "--network", "digits_mlp", "--dataset", "digits", "--eps", "0.05")


def exit_code(*arguments: str) -> int:
    try:
        return main(arguments)
    except SystemExit as exit:
        return int(exit.code or 0)


def test_help_lists_every_command_and_the_exit_codes(capsys):
    assert exit_code("--help") == 0
    text = capsys.readouterr().out
    assert all(f"  {command} " in text or f"  {command}\n" in text for command in COMMANDS)
    assert "Exit codes: 0" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_has_an_example(command, capsys):
    assert exit_code(command, "--help") == 0
    assert f"example:\n  robustlib {command}" in capsys.readouterr().out


def test_help_is_fast_because_it_imports_nothing_heavy():
    code = (
        "import sys\nfrom robustlib.reproduce.cli import main\n"
        "try: main(['verify', '--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'papermill', 'jupytext', 'yaml'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    before = cpu_of_children()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert cpu_of_children() - before < 0.5


def cpu_of_children() -> float:
    times = os.times()
    return times.children_user + times.children_system


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("verfy",),
        ("reproduce", "--jobs", "0"),
        ("serve", "--port", "65536"),
        ("serve", "--port", "-1"),
        ("verify", "--network", "toy"),
        (*DIGITS, "--indices", "5:2"),
        (*DIGITS, "--indices", "a"),
        (*DIGITS, "--workers", "0"),
        ("data", "remove"),
        ("course",),
        ("course", "grade", "submissions"),
        ("course", "grade", "submissions", "--assignment", "big_m", "--time-limit", "0"),
    ],
)
def test_bad_usage_is_2_with_the_usage(arguments, capsys):
    assert exit_code(*arguments) == 2
    assert capsys.readouterr().err.startswith("usage: robustlib")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--network", "digits_mpl"),
            "network='digits_mpl' is not known. Did you mean 'digits",
        ),
        (("--dataset", "digit"), "dataset='digit' is not known. Did you mean 'digits'"),
        (("--dataset", "shapes"), "shape (3, 16, 16), but network='digits_mlp' reads (1, 8, 8)"),
        (("--norm", "infty"), "inf"),
        (("--solver", "hihgs"), "highs"),
        (("--split", "tset"), "test"),
        (("--eps", "-1"), "eps=-1"),
        (("--eps", "nan"), "eps=nan"),
        (("--indices", "499:501"), "500"),
        (("--time-limit", "-3"), "time_limit=-3"),
        (("--eps", "8"), "eps=8 is larger than the box"),
        (("--method", "milp"), "method='milp' is not known. Did you mean 'mip'"),
        (("--workers", "2", "--dask", "tcp://127.0.0.1:1"), "exclude each other"),
        (("--out", "verdicts.sqlite"), "out='verdicts.sqlite' is the place of the store"),
    ],
)
def test_bad_input_is_2_with_one_line_that_names_the_remedy(
    arguments, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert exit_code(*DIGITS, *arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("robustlib: error: ")
    assert message in lines[0]


def test_a_radius_may_be_a_quotient(capsys):
    assert parser().parse_args([*DIGITS, "--eps", "8/255"]).eps == 8 / 255
    assert exit_code(*DIGITS, "--eps", "8/0") == 2
    assert "'8/0' is not a number; write 0.1 or 8/255" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["reproduce", "check", "book"])
def test_an_unknown_profile_is_2_with_the_nearest(command, capsys):
    assert exit_code(command, "--profile", "quik") == 2
    assert "profile='quik' is not known. Did you mean 'quick'" in capsys.readouterr().err


def test_debug_shows_the_traceback(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert exit_code(*DIGITS, "--eps", "-1", "--debug") == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["file/verdicts.csv", "folder"])
def test_an_unwritable_output_is_refused_before_any_work(place, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    monkeypatch.setitem(sys.modules, "robustlib.zoo", None)  # an import of it would fail
    assert exit_code(*DIGITS, "--out", str(tmp_path / place)) == 2
    assert f"out='{tmp_path / place}' " in capsys.readouterr().err
    assert exit_code(*DIGITS, "--store", str(tmp_path / place)) == 2
    assert f"store='{tmp_path / place}' " in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_verify_writes_one_row_an_image_and_its_store_makes_the_second_call_free(tmp_path, capsys):
    out = tmp_path / "new" / "verdicts.csv"
    command = (*DIGITS, "--indices", "0:6", "--out", str(out), "--json")
    code = exit_code(*command)
    printed = capsys.readouterr()
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    header = "index,label,verdict,stage,lower,upper,distance,seconds"
    assert list(rows[0]) == header.split(",")
    assert [row["index"] for row in rows] == ["0", "1", "2", "3", "4", "5"]
    assert code == int(any(row["verdict"] == "undecided" for row in rows))
    for row in rows:
        if row["verdict"] == "adversarial":
            assert 0 < float(row["distance"]) <= 0.05
            assert float(row["upper"]) < 0
        if row["verdict"] == "robust":
            assert float(row["lower"]) > 0
            assert row["distance"] == ""
        if row["verdict"] == "misclassified":
            assert float(row["distance"]) == 0
    assert [row["verdict"] for row in json.loads(printed.out)] == [row["verdict"] for row in rows]
    assert "6/6 images" in printed.err
    assert "; left: " not in printed.err.splitlines()[-3]
    assert re.search(r"adversarial error \d+\.\d\d %, exact", printed.err)
    assert re.search(r"s for the images; \d+\.\d CPU s now; .*verdicts\.csv", printed.err)
    assert out.with_suffix(".sqlite").exists()

    before = out.read_text()
    assert exit_code(*command) == code
    assert out.read_text() == before


def test_picked_images_come_in_the_order_asked_for(tmp_path):
    out = tmp_path / "verdicts.csv"
    exit_code(*DIGITS, "--indices", "7,3", "--out", str(out))
    with out.open(newline="") as file:
        assert [row["index"] for row in csv.DictReader(file)] == ["7", "3"]


def test_ctrl_c_is_130_with_one_line(monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("robustlib.training.train", interrupted)
    assert exit_code("train", "toy") == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_data_status_says_what_is_missing_and_what_is_damaged(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ROBUSTLIB_DATA", str(tmp_path))
    assert exit_code("data", "status") == 0
    text = capsys.readouterr().out
    assert "digits     there" in text
    assert "mnist      missing" in text
    assert "`robustlib data download mnist` fetches them" in text
    assert "t10k-labels-idx1-ubyte is missing" not in text, "one line is enough for a whole set"
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").write_bytes(b"short")
    assert exit_code("data", "status", "--json") == 1
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert "truncated" in rows["mnist"]["checksum"]
    assert exit_code("data", "status") == 1
    assert "truncated" in capsys.readouterr().out


def test_data_status_of_one_set(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ROBUSTLIB_DATA", str(tmp_path))
    assert exit_code("data", "status", "mnist", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["name"] == "mnist"
    assert exit_code("data", "status", "mnits") == 2
    assert "Did you mean 'mnist'" in capsys.readouterr().err


def test_missing_data_is_1_with_the_command_that_helps(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ROBUSTLIB_DATA", str(tmp_path))
    command = ("verify", "--network", "digits_mlp", "--dataset", "mnist", "--eps", "0.1")
    assert exit_code(*command, "--out", str(tmp_path / "out.csv")) == 1
    assert "robustlib data download mnist" in capsys.readouterr().err


def test_download_needs_a_known_name(capsys):
    assert exit_code("data", "download") == 2
    assert exit_code("data", "download", "mnits") == 2
    assert "'mnist'" in capsys.readouterr().err
    assert exit_code("data", "download", "digits") == 0


def test_train_lists_its_recipes_and_trains_by_name(tmp_path, capsys):
    assert exit_code("train", "--list") == 0
    assert "digits_mlp" in capsys.readouterr().out.split()
    assert exit_code("train", "--list", "--json") == 0
    assert {"name", "epochs", "seed"} <= set(json.loads(capsys.readouterr().out)[0])
    assert exit_code("train") == 2
    assert exit_code("train", "toyy", "--out", str(tmp_path)) == 2
    assert "'toy'" in capsys.readouterr().err
    assert exit_code("train", "toy", "--out", str(tmp_path)) == 0
    printed = capsys.readouterr()
    assert Path(printed.out.strip()) == tmp_path / "toy.safetensors"
    assert "epochs" in printed.err


@pytest.mark.parametrize("command", ["reproduce", "check", "book", "serve"])
def test_outside_the_repository_the_book_commands_say_where_to_go(
    command, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert exit_code(command) == 2
    assert "change into your clone" in capsys.readouterr().err


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_verify_that_was_killed_goes_on_where_it_stopped(workers, tmp_path):
    out = tmp_path / "verdicts.csv"
    command = (*DIGITS, "--indices", "0:400", "--out", str(out), "--workers", workers)
    store = out.with_suffix(".sqlite")
    process = subprocess.Popen(
        [sys.executable, "-m", "robustlib.reproduce.cli", *command], stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + 300
    while process.poll() is None and not stored(store) and time.monotonic() < end:
        time.sleep(0.01)
    process.kill()
    process.wait()
    with sqlite3.connect(store) as connection:  # mark what is kept: it has to come back as it is
        kept = connection.execute("UPDATE verdicts SET seconds = 123").rowcount
    assert 0 < kept < 400
    assert exit_code(*command) in (0, 1)
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["index"]) for row in rows] == list(range(400))
    assert [float(row["seconds"]) for row in rows].count(123.0) == kept
    assert stored(store) == 400


def test_a_store_of_another_setting_is_refused_in_one_line(tmp_path, capsys):
    out = ("--out", str(tmp_path / "verdicts.csv"), "--indices", "0:2")
    exit_code(*DIGITS, *out)
    before = (tmp_path / "verdicts.csv").read_text()
    capsys.readouterr()
    assert exit_code(*DIGITS, *out, "--eps", "0.1") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "verdicts.sqlite' holds answers for eps 0.05, not 0.1" in line
    assert "give another path" in line
    assert (tmp_path / "verdicts.csv").read_text() == before


def test_a_cluster_needs_its_package_and_a_scheduler(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "distributed", None)
        assert exit_code(*DIGITS, "--dask", "tcp://127.0.0.1:1") == 1
    assert "pip install 'robustlib[cluster]'" in capsys.readouterr().err
    monkeypatch.setattr("robustlib.verification.parallel.CONNECT", 0.5)
    assert exit_code(*DIGITS, "--dask", "tcp://127.0.0.1:1") == 2
    assert "start one with `dask scheduler`" in capsys.readouterr().err


def test_distortion_writes_distances_and_its_store_makes_the_second_call_free(tmp_path, capsys):
    out = tmp_path / "distances.csv"
    command = ("distortion", "--network", "digits_mlp", "--dataset", "digits", "--norm", "inf")
    command += ("--indices", "1,2", "--out", str(out))
    assert exit_code(*command) == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    header = "index,label,nearest,distance,lower,finished,nodes,seconds"
    assert list(rows[0]) == header.split(",")
    assert float(rows[0]["distance"]) == 0, "image 1 is misclassified"
    assert 0 < float(rows[1]["lower"]) <= float(rows[1]["distance"]) < 1
    assert "2 finished, 0 open" in capsys.readouterr().err
    before = out.read_text()
    assert exit_code(*command) == 0
    assert out.read_text() == before
    assert exit_code(*command, "--norm", "1") == 2
    assert "holds answers for norm inf, not 1" in capsys.readouterr().err


MEASURE = ("measure", "--network", "digits_mlp_standard", "--dataset", "digits")


def test_measure_writes_distances_and_says_what_they_mean_at_a_radius(tmp_path, capsys):
    out = tmp_path / "rho.csv"
    command = (*MEASURE, "--n", "12", "--out", str(out), "--eps", "0.2")
    assert exit_code(*command) == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    header = "index,label,predicted,target,status,rho,distance,survives,iterations,used,constraints"
    assert list(rows[0]) == [*header.split(","), "seconds"]
    assert [int(row["index"]) for row in rows] == list(range(12))
    found = [row for row in rows if row["status"] == "found"]
    assert found
    for row in rows:
        assert row["constraints"] == "69", "60 ReLUs and 9 other labels"
        assert int(row["used"]) <= 69
        assert row["status"] in ("found", "none")
        assert (row["rho"] == "") == (row["status"] == "none")
        assert row["status"] == "none" or float(row["rho"]) <= float(row["distance"])
        assert row["target"] != row["predicted"]
    near = sum(float(row["rho"]) <= 0.2 for row in found)
    printed = capsys.readouterr().err
    assert f"of the 12 decided, adversarial frequency {100 * near / 12:.2f} %" in printed
    before = out.read_text()
    assert exit_code(*command) == 0
    assert out.read_text() == before
    assert exit_code(*command, "--alpha", "0.5") == 2
    assert "holds answers for alpha 0.0, not 0.5" in capsys.readouterr().err


@pytest.mark.parametrize("limit", [(), ("--limit", "0")])
def test_measure_at_radius_zero_counts_no_image_off_the_boundaries(limit, tmp_path, capsys):
    out = tmp_path / "rho.csv"
    assert exit_code(*MEASURE, "--n", "3", "--eps", "0", *limit, "--out", str(out)) == 0
    with out.open(newline="") as file:
        found = {row["status"] == "found" for row in csv.DictReader(file)}
    assert found == ({False} if limit else {True})
    printed = capsys.readouterr().err
    assert "of the 3 decided, adversarial frequency 0.00 % (0.00 to" in printed
    assert "severity nan (nan to nan) at eps 0.0000" in printed


def test_measure_counts_from_the_predicted_label_of_a_misclassified_image(tmp_path):
    """From the true label rho would be 0. In one linear region a step of rho gains rho · ‖g‖₁."""
    net, (x, y) = rl.zoo.load("digits_mlp_standard"), rl.data.digits("test")
    wrong = int((net(x).argmax(1) != y).nonzero()[0])
    out = tmp_path / "rho.csv"
    assert exit_code(*MEASURE, "--indices", str(wrong), "--out", str(out)) == 0
    with out.open(newline="") as file:
        (row,) = csv.DictReader(file)
    image = x[wrong : wrong + 1].double().requires_grad_()
    logits = net.double()(image)[0]
    assert int(row["label"]) == int(y[wrong]) != int(row["predicted"]) == int(logits.argmax())
    lead = logits[int(row["predicted"])] - logits[int(row["target"])]
    (gradient,) = torch.autograd.grad(lead, image)
    assert float(row["rho"]) >= (1 - 1e-6) * float(lead.detach() / gradient.abs().sum()) > 0


def test_measure_by_the_baseline(tmp_path, capsys):
    out = tmp_path / "rho.csv"
    assert exit_code(*MEASURE, "--n", "3", "--method", "lbfgs", "--out", str(out)) == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert any(row["status"] == "found" for row in rows)
    assert all(row["constraints"] == "0" for row in rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--targets", "frist"), "targets='frist' is not known"),
        (("--method", "lbgfs"), "method='lbgfs' is not known. Did you mean 'lbfgs'"),
        (("--form", "layred"), "form='layred' is not known. Did you mean 'layered'"),
        (("--alpha", "-1"), "alpha=-1"),
        (("--limit", "-1"), "limit=-1 is below eps"),
        (("--limit", "0.1", "--eps", "0.2"), "limit=0.1 is below eps=0.2"),
        (("--pixels", "255"), "x holds values that are no whole numbers over 255"),
        (("--indices", "0:3", "--n", "3"), "not allowed with argument"),
        (("--n", "501"), "500"),
    ],
)
def test_measure_refuses_bad_input_in_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert exit_code(*MEASURE, *arguments) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_measurement_that_was_killed_goes_on_where_it_stopped(workers, tmp_path):
    out = tmp_path / "rho.csv"
    command = (*MEASURE, "--n", "400", "--out", str(out), "--workers", workers)
    store = out.with_suffix(".sqlite")
    process = subprocess.Popen(
        [sys.executable, "-m", "robustlib.reproduce.cli", *command], stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + 300
    while process.poll() is None and not stored(store) and time.monotonic() < end:
        time.sleep(0.01)
    process.kill()
    process.wait()
    with sqlite3.connect(store) as connection:
        kept = connection.execute("UPDATE verdicts SET seconds = 123").rowcount
    assert 0 < kept < 400
    assert exit_code(*command) == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["index"]) for row in rows] == list(range(400))
    assert [float(row["seconds"]) for row in rows].count(123.0) == kept


def stored(path: Path) -> int:
    """How many verdicts a store holds; a store that is only being made holds none."""
    if not path.exists():
        return 0
    with sqlite3.connect(path) as connection:
        try:
            return connection.execute("SELECT count(*) FROM verdicts").fetchone()[0]
        except sqlite3.OperationalError:
            return 0
