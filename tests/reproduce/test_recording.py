"""What a notebook records comes back unchanged; what has no finite value is refused."""

from __future__ import annotations

import math

import nbformat
import numpy as np
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook, new_output

from robustlib.reproduce import record
from robustlib.reproduce.notebooks import chapters, read
from robustlib.reproduce.recording import check_key, plain, recorded


def scrap(name: str, text: str | None) -> nbformat.NotebookNode:
    data = {} if text is None else {"application/papermill.record/text/plain": text}
    prefix = {"name": name, "mime_prefix": "application/papermill.record/"}
    return new_output("display_data", data=data, metadata={"scrapbook": prefix})


def notebook(*outputs: nbformat.NotebookNode) -> nbformat.NotebookNode:
    return new_notebook(cells=[new_code_cell("1", outputs=list(outputs))])


def test_an_executed_notebook_gives_back_what_it_recorded(finished):
    values = recorded(read(next(c for c in chapters(finished) if c.name == "toys/sum").recorded))
    assert values == {
        "sum.total": 6.5,
        "sum.total.low": 2.0,
        "sum.total.high": 8.0,
        "sum.small": 1,
        "sum.positive": True,
    }


@pytest.mark.parametrize("value", [0.1, -3, True, False, "a 'quoted' \n text", 1e300, 5e-324])
def test_every_plain_value_survives_the_text_of_a_notebook(value):
    back = recorded(notebook(scrap("a.b", repr(value))))["a.b"]
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(0.25), 0.25),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7),
        (np.bool_(True), True),
        (np.array(1.5), 1.5),
        (torch.tensor(2), 2),
        (np.str_("x"), "x"),
    ],
)
def test_scalars_of_other_libraries_become_python_scalars(value, expected):
    assert plain("a.b", value) == expected
    assert type(plain("a.b", value)) is type(expected)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_numbers_that_are_not_finite_are_refused(value):
    with pytest.raises(ValueError, match=r"'a\.b' is .*finite"):
        record("a.b", value)


@pytest.mark.parametrize("value", [None, [1], np.zeros(2), 1j, np.complex64(1j), torch.ones(1)])
def test_what_is_no_scalar_is_refused(value):
    with pytest.raises(TypeError, match=r"'a\.b'"):
        record("a.b", value)


@pytest.mark.parametrize("key", ["accuracy", "A.b", "a.", "a b.c", "a.b.low", "a.high", 3, "a.b-c"])
def test_keys_follow_one_pattern(key):
    with pytest.raises(ValueError, match="key="):
        check_key(key)


@pytest.mark.parametrize(
    ("interval", "error"),
    [((2, 1), ValueError), ((0, math.nan), ValueError), ((1, 2, 3), TypeError), (5, TypeError)],
)
def test_an_interval_is_two_finite_numbers_in_order(interval, error):
    with pytest.raises(error, match=r"'a\.b"):
        record("a.b", 1.0, interval=interval)


@pytest.mark.parametrize(
    "text",
    [None, "", "<a object>", "__import__('os').getpid()", "nan", "inf", "[1]", "1e999"],
)
def test_an_output_without_a_plain_value_reads_as_none(text):
    assert recorded(notebook(scrap("a.b", text))) == {"a.b": None}


def test_a_key_recorded_twice_is_an_error():
    with pytest.raises(ValueError, match=r"'a\.b' is recorded twice"):
        recorded(notebook(scrap("a.b", "1"), scrap("a.b", "1")))
