"""Solutions of exercises run as tests: after the chapter, each alone, and without a trace."""

from __future__ import annotations

import json

import pytest

from robustlib.reproduce.notebooks import chapters, load_source, read, run_key
from robustlib.reproduce.runner import reproduce
from robustlib.reproduce.solutions import Solution, solutions

EXERCISES = """
```{exercise} The sum once more
:label: ex-sum-formula

Give a formula.
```

````{solution} ex-sum-formula
:class: dropdown

There is one,

```python
def formula(m):
    return m * (m - 1) / 2


n += 1
assert [formula(n), m_of(n)] == [6, 4]
```

and it holds for the next number too:

```python
assert formula(n + 1) == 10
```
````

```{solution} ex-sum-prose
:class: dropdown

An argument, `formula(n)`, and no code.
```

````{solution} ex-sum-other
```python
assert n == 3 and "formula" not in globals()
```
````

```python
raise SystemExit("code outside a solution is only shown")
```
"""
CELL = """
```{code-cell} ipython3
def m_of(m):
    return m
```
"""


@pytest.fixture
def exercised(finished):
    """The chapter of the tiny book that ends with exercises; it needs a new run."""
    one = chapters(finished, ["toys/sum"])[0]
    one.source.write_text(one.source.read_text() + CELL + EXERCISES)
    return one


def test_the_code_of_a_solution_is_found_with_its_exercise(exercised):
    first, other = solutions(load_source(exercised))
    assert first.exercise == "ex-sum-formula"
    assert first.code.count("assert") == 2
    assert "There is one" not in first.code
    assert other == Solution("ex-sum-other", 'assert n == 3 and "formula" not in globals()\n')


def test_solutions_run_after_the_chapter_each_alone_and_leave_no_trace(exercised):
    (outcome,) = reproduce([exercised], "quick")
    assert (outcome.status, outcome.error) == ("ran", "")
    text = exercised.executed("quick").read_text()
    assert "solution-" not in json.dumps([cell["id"] for cell in json.loads(text)["cells"]])
    assert len(read(exercised.executed("quick")).cells) == len(load_source(exercised).cells)


def test_a_wrong_solution_fails_the_quick_run_by_name(exercised, edit):
    edit(exercised.source, "formula(n + 1) == 10", "formula(n + 1) == 11")
    (outcome,) = reproduce([exercised], "quick")
    assert outcome.status == "failed"
    assert "toys/sum failed in the solution of ex-sum-formula: AssertionError" in outcome.error
    assert "def formula(m):" in outcome.error


def test_a_recorded_run_knows_nothing_of_solutions(exercised, edit):
    before = run_key(load_source(exercised), "reference")
    edit(exercised.source, "formula(n + 1) == 10", "formula(n + 1) == 11")
    assert run_key(load_source(exercised), "reference") == before
    (outcome,) = reproduce([exercised], "reference", record=True)
    assert outcome.status == "ran"
    assert len(read(exercised.recorded).cells) == len(load_source(exercised).cells)


def test_a_changed_solution_asks_for_a_new_quick_run_and_its_prose_does_not(exercised, edit):
    before = run_key(load_source(exercised), "quick")
    edit(exercised.source, "There is one,", "There is exactly one,")
    assert run_key(load_source(exercised), "quick") == before
    edit(exercised.source, "formula(n + 1) == 10", "10 == formula(n + 1)")
    assert run_key(load_source(exercised), "quick") != before
