"""The ablation's table: the same verdicts in every case, and the costs that the paper reports."""

import numpy as np
import pytest

import robustlib as rl
from robustlib.verification.ablation import ABLATION, measure, summarize


@pytest.fixture(scope="module")
def table():
    x, y = rl.data.digits("test", n=4)
    return measure(rl.zoo.load("digits_mlp"), x, y, eps=0.03, time_limit=60.0)


def test_every_case_decides_every_image_alike(table):
    assert table.groupby("case").size().to_dict() == dict.fromkeys(ABLATION, 4)
    assert (table.groupby("image").verdict.nunique() == 1).all()
    assert not (table.verdict == "undecided").any()
    assert not table.timed_out.any()


def test_what_is_removed_shows_in_the_summary(table):
    rows = summarize(table)
    assert rows.index.tolist() == list(ABLATION)
    control = rows.loc["(Control)"]
    assert control.total_seconds == pytest.approx(control.build_seconds + control.solve_seconds)
    assert (rows.unstable + rows.active + rows.inactive).tolist() == [60.0] * 4
    assert rows.loc["Asymmetric bounds"].unstable == 60.0  # none is stable
    assert rows.loc["Restricted input domain"].unstable > control.unstable
    assert np.isfinite(rows.domain_seconds).tolist() == [False, False, True, False]
    assert (rows.error_lower == rows.error_upper).all()
    by_case = table.groupby("case")
    assert by_case.by_interval.sum()["(Control)"] > by_case.by_interval.sum().iloc[-1] >= 0
    assert by_case.programs.sum()["Progressive tightening"] > by_case.programs.sum()["(Control)"]


def test_no_time_is_counted_as_timed_out():
    x, y = rl.data.digits("test", n=4)
    late = measure(
        rl.zoo.load("digits_mlp"),
        x,
        y,
        eps=0.03,
        time_limit=0.0,
        cases={"late": ABLATION["(Control)"]},
    )
    assert (late.timed_out == (late.verdict == "undecided")).all()
    summary = summarize(late).loc["late"]
    assert summary.timed_out == 1.0
    assert summary.error_upper == 1.0 > summary.error_lower
