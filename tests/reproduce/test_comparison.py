"""`check` holds for an honest book, and names whatever was changed in a dishonest one."""

from __future__ import annotations

import json

import pytest

from robustlib.reproduce.comparison import compare

RECORDED = '"application/papermill.record/text/plain":'


def by_id(comparison):
    return {row.claim.id: row.to_dict() for row in comparison.rows}


def test_an_honest_book_holds_at_both_profiles(finished):
    for profile in ("quick", "reference"):
        comparison = compare(finished, profile)
        assert comparison.ok, comparison.problems + comparison.failing()


def test_a_claim_that_is_not_required_here_is_not_run_and_its_reference_is_shown(finished):
    total = by_id(compare(finished, "quick"))["total"]
    assert (total["run"], total["interval"], total["verdict"]) == (None, None, "not run")
    assert (total["reference"], total["reference_interval"]) == (6.5, (2.0, 8.0))
    assert total["reference_verdict"] == "reproduced"
    assert by_id(compare(finished, "reference"))["total"]["run"] == 6.5


def test_the_json_of_a_row_has_the_promised_fields(finished):
    row = by_id(compare(finished, "quick"))["product"]
    promised = "id paper item quantity claimed status relation reference run interval verdict"
    assert set(promised.split()) <= set(row)
    assert json.loads(json.dumps(row)) == row
    assert row["seconds"] > 0


@pytest.mark.parametrize(
    ("place", "profile", "line"),
    [
        ("_build/run/quick/toys/product.ipynb", "quick", "product: not reproduced (quick:"),
        ("notebooks/toys/product.ipynb", "quick", "product: not reproduced (record:"),
    ],
)
def test_a_changed_number_makes_it_fail(finished, place, profile, line, edit):
    edit(finished / place, f'{RECORDED} "6"', f'{RECORDED} "7"')
    comparison = compare(finished, profile)
    assert not comparison.ok
    assert any(text.startswith(line) for text in comparison.failing())
    assert any("product.value is 7, wanted = 6" in text for text in comparison.failing())


def test_a_changed_claim_makes_it_fail(finished, edit):
    edit(finished / "book" / "claims.yml", "claimed: 6.5", "claimed: 6.6")
    comparison = compare(finished, "quick")
    assert [line.split(":")[0] for line in comparison.failing()] == ["total"]


def test_a_claim_whose_key_nobody_records_is_named(finished, edit):
    edit(finished / "book" / "claims.yml", "key: product.value", "key: product.valu")
    comparison = compare(finished, "quick")
    assert any("'product'" in p and "'product.valu'" in p for p in comparison.problems)


def test_a_key_without_a_value_is_named(finished, edit):
    edit(
        finished / "notebooks" / "toys" / "product.ipynb",
        f'{RECORDED} "6"',
        f'{RECORDED} "<object>"',
    )
    comparison = compare(finished, "quick")
    assert any("'product.value' without a value" in problem for problem in comparison.problems)
    assert not comparison.ok


def test_a_stale_recorded_notebook_is_named(finished, edit):
    path = finished / "notebooks" / "toys" / "product.ipynb"
    edit(path, '\\"product.value\\", 6', '\\"product.value\\", 3 + 3')
    comparison = compare(finished, "quick")
    assert comparison.problems == [
        "toys/product: the recorded run is stale, its code differs; renew it: `robustlib reproduce "
        "--profile reference --record --only toys/product`"
    ]


def test_a_missing_record_and_a_record_at_another_profile_are_named(finished, edit):
    (finished / "notebooks" / "toys" / "product.ipynb").unlink()
    path = finished / "notebooks" / "toys" / "sum.ipynb"
    edit(path, '"profile": "reference"', '"profile": "quick"')
    problems = compare(finished, "quick").problems
    names = [problem.split(" ")[0].rstrip(":") for problem in problems]
    assert names == ["toys/product", "toys/sum"]
    assert "no recorded run" in problems[0]
    assert "not a reference run" in problems[1]


def test_a_run_of_older_code_does_not_count_as_up_to_date(finished, edit):
    edit(finished / "notebooks" / "toys" / "product.md", ", 6)", ", 6 + 0)")
    problems = compare(finished, "quick").problems
    assert any("toys/product: its quick run is older" in problem for problem in problems)


def test_what_was_not_run_does_not_hold(finished):
    (finished / "_build" / "run" / "quick" / "toys" / "product.ipynb").unlink()
    assert compare(finished, "quick").failing() == ["product: not run (quick)"]


def test_a_known_failure_is_shown_with_its_reason_and_does_not_fail_the_check(finished, edit):
    edit(
        finished / "book" / "claims.yml",
        "claimed: 6\n",
        'claimed: 9\n  because: "fewer epochs"\n',
    )
    comparison = compare(finished, "quick")
    row = by_id(comparison)["product"]
    assert comparison.ok
    assert (row["verdict"], row["because"]) == ("not reproduced", "fewer epochs")
