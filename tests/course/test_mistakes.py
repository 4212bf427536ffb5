"""The tests of the assignments: who understood gets the points, who made a typical mistake loses
exactly those that stand for it."""

from __future__ import annotations

import json
import subprocess
import sys

import nbformat
import pytest

from robustlib.course import release
from robustlib.course.feedback import points
from robustlib.course.sandbox import judge
from tests.course.helpers import NAMES, edited

# assignment, what is there, what a student writes instead, and the points that this loses
MISTAKES = [
    (
        "linear_models",
        "direction = w / length if length > 0",  # l2: not normalized
        "direction = w if length > 0",
        {"q1": 3},
    ),
    (
        "linear_models",
        "dual = {np.inf: 1, 2: 2, 1: np.inf}[norm]\n    return y *",  # not the dual
        "dual = norm\n    return y *",
        {"q2": 3, "q7": 1},
    ),
    (
        "linear_models",
        "eps, norm) > 0))",  # the boundary counts as right
        "eps, norm) >= 0))",
        {"q3": 1},
    ),
    (
        "linear_regions",
        "V, c = V * active[:, None], c * active\n    return np.concatenate",  # bias of dead units
        "V, c = V * active[:, None], c\n    return np.concatenate",
        {"q2": 2, "q4": 1, "q5": 2, "q7": 1},  # all that is built on it
    ),
    (
        "linear_regions",
        "scores[target] >= scores,\n",  # beats its own class only
        "scores[target] >= scores[int(np.argmax(V @ x + c))],\n",
        {"q4": 1},
    ),
    (
        "linear_regions",
        "near = np.asarray(rho)[np.asarray(rho) <= eps]",  # mean over all
        "near = np.asarray(rho)",
        {"q6": 2},
    ),
    (
        "big_m",
        "low, high = np.maximum(lower, 0), np.maximum(upper, 0)\n    return found",  # no ReLU
        "low, high = lower, upper\n    return found",
        {"q1": 2, "q7": 2},
    ),
    (
        "big_m",
        "    if lower >= 0:\n        return z\n",  # a binary for a ReLU that is always active
        "",
        {"q2": 1},
    ),
    (
        "big_m",
        "low, high = np.maximum(x - eps, 0), np.minimum(x + eps, 1)\n"  # no box
        "    bounds = interval_bounds(layers, low, high)\n    for other",
        "low, high = x - eps, x + eps\n"
        "    bounds = interval_bounds(layers, low, high)\n    for other",
        {"q4": 1},
    ),
    (
        "honest_evaluation",
        "best[new] = point[new]",  # what the last restart leaves
        "best = point",
        {"q1": 1},
    ),
    (
        "honest_evaluation",
        "(before & after).double()",  # a lucky attack makes an image right
        "after.double()",
        {"q2": 1},
    ),
    (
        "honest_evaluation",
        "np.mean(np.all(right, axis=0))",  # the smallest accuracy
        "np.min(np.mean(right, axis=1))",
        {"q3": 3},
    ),
    (
        "planted_features",
        "x_robust = rebuilt(robust, x,",  # from the representation that sees the pattern
        "x_robust = rebuilt(standard, x,",
        {"q3": 3, "q5": 2},
    ),
    (
        "planted_features",
        "t = (y + 1) % classes",  # the number of classes at hand, in place of the argument
        "t = (y + 1) % 4",
        {"q4": 3},
    ),
]


@pytest.mark.parametrize("name", NAMES)
def test_every_assignment_has_two_mistakes_or_more_and_each_question_stays_whole_in_one(
    name, releases
):
    """So the runs with mistakes also show that another seed takes no points from any question."""
    losses = [set(mistake[3]) for mistake in MISTAKES if mistake[0] == name]
    assert len(losses) >= 2
    assert {q.name for q in releases(name).manifest.questions} & set.intersection(*losses) == set()


@pytest.mark.parametrize("name", NAMES)
def test_the_solution_earns_all_points_and_the_blank_none(name, releases):
    made = releases(name)
    assert release.problems(made) == []
    assert made.manifest.points() == 20
    assert made.manifest.points(hidden=True) >= 10


@pytest.mark.parametrize(("name", "old", "new", "loses"), MISTAKES)
def test_a_mistake_loses_exactly_its_points(name, old, new, loses, releases):
    """With another seed than the release is checked with: neither the grader's nor the student's
    decides what an answer earns."""
    made = releases(name)
    solution = nbformat.read(str(made.solution), as_version=4)
    manifest = made.manifest
    outcome = judge(
        nbformat.writes(edited(solution, old, new)),
        made.tests(),
        name=name,
        seed=7,
        time_limit=120,
        memory=4,
    )
    assert outcome.end == "done"
    earned = points(manifest, outcome)
    lost = {q.name: q.points() - earned[q.name] for q in manifest.questions}
    assert {name: points for name, points in lost.items() if points} == loses


@pytest.mark.slow
def test_otter_run_gives_the_same_points(releases, tmp_path):
    """Otter's own way, with a Jupyter kernel, as an oracle of ours."""
    name, old, new, loses = MISTAKES[0]
    made = releases(name)
    solution = nbformat.read(str(made.solution), as_version=4)
    nbformat.write(edited(solution, old, new), str(tmp_path / f"{name}.ipynb"))
    command = [sys.executable, "-m", "otter", "run", f"{name}.ipynb", "--no-logo"]
    done = subprocess.run(
        [*command, "--autograder", str(made.autograder)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    tests = json.loads((tmp_path / "results.json").read_text())["tests"]
    lost = {
        test["name"]: test["max_score"] - test["score"]
        for test in tests
        if test.get("max_score", 0) > test.get("score", 0)
    }
    assert lost == loses
