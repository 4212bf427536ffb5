"""The paper's method: brute force's verdicts whatever is switched off, and no engine believed."""

import itertools
import math
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from robustlib.network import from_torch
from robustlib.solvers import SOLVERS, Solution, SolverError
from robustlib.verification import paper
from robustlib.verification.paper import (
    OBJECTIVES,
    STAGES,
    PaperSettings,
    decide_by_mip,
    domain_bounds,
)
from robustlib.verification.question import Question
from robustlib.verification.result import NEAR_TIE, OVERFLOW, TIME_LIMIT
from tests.brute_force import random_network, smallest_distortion, smallest_margins

ON_OFF = (True, False)
SWITCHES = list(itertools.product(STAGES, ON_OFF, ON_OFF, ON_OFF, ON_OFF, OBJECTIVES))  # 144
CHUNKS = 6


def question(seed, **changes):
    module, shape = random_network(seed)
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.random(shape).astype(np.float32))
    label = int(module(x[None]).argmax())
    eps = float(rng.uniform(0.02, 0.4))
    return replace(
        Question(module, from_torch(module, shape), x, label, eps, (0.0, 1.0)), **changes
    )


def smallest_margin(q):
    return smallest_margins(q.network, q.label, q.box.lower, q.box.upper).min()


def check_details(q, verdict):
    """The parts of the report fit together."""
    details = verdict.details
    units = sum(step.size for step in q.network.steps if type(step).__name__ == "ReLU")
    assert details["active"] + details["inactive"] + details["unstable"] == units
    assert 0 <= details["labels_eliminated"] <= len(q.targets)
    assert verdict.nodes >= 0
    spent = verdict.build_seconds + verdict.solve_seconds + details["confirm_seconds"]
    assert spent <= verdict.seconds


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_verdicts_equal_brute_force_whatever_is_switched_off(chunk):
    """144 networks, each with one combination of the switches, the engines in turn."""
    for number in range(chunk, len(SWITCHES), CHUNKS):
        tightening, progressive, restricted, asymmetric, elimination, objective = SWITCHES[number]
        settings = PaperSettings(
            tightening=tightening, progressive=progressive, restricted_domain=restricted,
            asymmetric=asymmetric, label_elimination=elimination, objective=objective,
        )  # fmt: skip
        q = question(3000 + number)
        solver = list(SOLVERS)[number % 3]
        verdict = decide_by_mip(q, time_limit=20.0, solver=solver, settings=settings)
        truth = smallest_margin(q)
        case = (number, solver, settings, truth, verdict)
        if abs(truth) > 2e-5:
            assert verdict.verdict == ("robust" if truth > 0 else "adversarial"), case
        assert verdict.lower <= truth + 1e-9, case
        check_details(q, verdict)
        if verdict.verdict != "adversarial":
            continue
        found = q.check(verdict.witness.double().reshape(-1).numpy())
        assert found is not None, case
        assert found.distance == verdict.distance <= q.eps, case
        assert found.margin == verdict.upper < 0, case
        if objective == "worst":
            assert verdict.upper == pytest.approx(truth, abs=1e-4), case
        if objective == "closest":
            nearest = smallest_distortion(q.network, q.center, q.label, "inf", (0.0, 1.0))
            assert nearest - 1e-9 <= verdict.distance <= nearest + 1e-3, case


@pytest.mark.parametrize("norm", ["1", "2"])
def test_other_norms_agree_with_brute_force_and_with_each_objective(norm):
    for seed in range(9000, 9012):
        q = question(seed, norm=norm)
        q = replace(q, eps=2 * q.eps)
        answers = [
            decide_by_mip(q, time_limit=20.0, settings=PaperSettings(objective=objective))
            for objective in OBJECTIVES
        ]
        assert len({a.verdict for a in answers}) == 1, (seed, answers)
        if norm == "1":
            nearest = smallest_distortion(q.network, q.center, q.label, "1", (0.0, 1.0))
            assert answers[0].verdict == ("adversarial" if nearest <= q.eps else "robust"), seed


@pytest.mark.parametrize("switch", ["asymmetric", "label_elimination", "progressive"])
def test_a_switch_never_changes_a_verdict(switch):
    for seed in range(3500, 3512):
        q = question(seed)
        if abs(smallest_margin(q)) < 1e-4:
            continue
        with_it = decide_by_mip(q, time_limit=20.0)
        without = decide_by_mip(q, time_limit=20.0, settings=PaperSettings(**{switch: False}))
        assert with_it.verdict == without.verdict, seed
        if switch == "label_elimination":
            assert without.details["labels_eliminated"] == 0
        if switch == "asymmetric":
            assert without.details["unstable"] >= with_it.details["unstable"]
            assert without.details["binaries"] >= with_it.details["binaries"]


def test_bounds_of_the_whole_domain_serve_every_image():
    """One build, then no program is solved for bounds; wider bounds leave more units open."""
    for seed in range(3600, 3604):
        q = question(seed)
        settings = PaperSettings(restricted_domain=False)
        shared = domain_bounds(q.network, settings=settings)
        rng = np.random.default_rng(seed)
        for _ in range(2):
            x = torch.from_numpy(rng.random(q.x.shape).astype(np.float32))
            here = replace(q, x=x, label=int(q.module(x[None]).argmax()))
            verdict = decide_by_mip(here, time_limit=20.0, settings=settings, shared=shared)
            control = decide_by_mip(here, time_limit=20.0)
            if abs(smallest_margin(here)) > 1e-4:
                assert verdict.verdict == control.verdict, seed
            assert verdict.details["unstable"] >= control.details["unstable"]
            assert verdict.details["labels_eliminated"] <= control.details["labels_eliminated"]


def test_misclassified_is_said_before_anything_is_built():
    q = question(3000)
    wrong = replace(q, label=(q.label + 1) % q.network.classes)
    verdict = decide_by_mip(wrong, time_limit=20.0)
    assert (verdict.verdict, verdict.stage, verdict.distance) == ("misclassified", "clean", 0.0)
    assert verdict.build_seconds == 0.0


def line(slope, offset=0.0):
    """A question at x = 0: logits (slope · relu(x + 2) + offset − 2 slope, 0), eps 0.5."""
    module = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2)).eval()
    module[0].weight.data, module[0].bias.data = torch.ones(1, 1), torch.tensor([2.0])
    module[2].weight.data = torch.tensor([[slope], [0.0]])
    module[2].bias.data = torch.tensor([offset - 2 * slope, 0.0])
    return Question(module, from_torch(module, (1,)), torch.zeros(1), 0, 0.5, (-1.0, 1.0))


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_tie_is_undecided(solver, objective):
    """The smallest margin over the ball is 0: no strict witness, no positive bound."""
    settings = PaperSettings(objective=objective)
    verdict = decide_by_mip(line(1.0, 0.5), time_limit=20.0, solver=solver, settings=settings)
    assert (verdict.verdict, verdict.note) == ("undecided", NEAR_TIE)


def test_no_time_is_undecided_and_solves_nothing(monkeypatch):
    monkeypatch.setattr(paper, "tighten", lambda *_, **__: pytest.fail("built"))
    verdict = decide_by_mip(line(1.0, 1.0), time_limit=0.0)
    assert (verdict.verdict, verdict.note) == ("undecided", TIME_LIMIT)


def test_bounds_that_time_did_not_reach_decide_nothing(monkeypatch):
    q = question(3004)
    unfinished = replace(paper.tighten(q.network, q.region), finished=False)
    monkeypatch.setattr(paper, "tighten", lambda *_, **__: unfinished)
    verdict = decide_by_mip(q, time_limit=20.0)
    assert (verdict.verdict, verdict.note) == ("undecided", TIME_LIMIT)


def open_adversarial():
    """A question with an adversarial example, whose program is not decided by bounds alone."""
    for seed in range(3700, 3800):
        q = question(seed)
        if smallest_margin(q) < -1e-3:
            return q
    raise AssertionError


@pytest.mark.parametrize("lie", ["infeasible", "limit", "optimal"])
def test_an_engine_that_says_infeasible_proves_nothing(monkeypatch, lie):
    """Whatever it says: while there is time, the tree finds the counterexample."""
    q = open_adversarial()
    false = Solution(lie, None, None, math.inf, None, 0, 0.0)
    monkeypatch.setattr(paper, "solve", lambda *_, **__: false)
    for objective in OBJECTIVES:
        verdict = decide_by_mip(q, time_limit=20.0, settings=PaperSettings(objective=objective))
        assert verdict.verdict == "adversarial"
        assert verdict.lower <= smallest_margin(q)


def test_an_engine_that_used_up_the_time_leaves_no_verdict(monkeypatch):
    def slow(program, *, time_limit, **_):
        time.sleep(time_limit)
        return Solution("limit", None, None, -math.inf, None, 0, time_limit)

    monkeypatch.setattr(paper, "solve", slow)
    verdict = decide_by_mip(open_adversarial(), time_limit=2.0)
    assert (verdict.verdict, verdict.note, verdict.details["engine"]) == (
        "undecided",
        TIME_LIMIT,
        "limit",
    )


def test_an_engine_that_returns_a_wrong_point_proves_nothing(monkeypatch):
    """A point that is no witness, where there is none: the proof decides."""
    q = line(1.0, 1.0)  # the margin is at least 0.5

    def wrong(program, **_):
        return Solution("optimal", program.upper.copy(), 0.0, 0.0, None, 3, 0.0)

    monkeypatch.setattr(paper, "solve", wrong)
    for objective in OBJECTIVES:
        verdict = decide_by_mip(q, time_limit=20.0, settings=PaperSettings(objective=objective))
        assert verdict.verdict == "robust"
        assert verdict.lower <= 0.5


@pytest.mark.parametrize("message", ["solver='scip' needs the package pyscipopt", "out of tune"])
def test_a_missing_or_failing_engine_leaves_the_question_open(monkeypatch, message):
    def fails(*_, **__):
        raise SolverError(message)

    monkeypatch.setattr(paper, "solve", fails)
    verdict = decide_by_mip(open_adversarial(), time_limit=20.0, solver="scip")
    assert (verdict.verdict, verdict.note) == ("undecided", message)


def test_overflowing_bounds_are_undecided():
    module = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2)).double().eval()
    module[0].weight.data = torch.full((1, 1), 1e200, dtype=torch.float64)
    module[2].weight.data = torch.full((2, 1), 1e200, dtype=torch.float64)
    module[0].bias.data.zero_()
    module[2].bias.data = torch.tensor([1.0, 0.0], dtype=torch.float64)
    x = torch.zeros(1, dtype=torch.float64)
    q = Question(module, from_torch(module, (1,)), x, 0, 0.5, (-1.0, 1.0))
    assert decide_by_mip(q, time_limit=20.0).note == OVERFLOW


@pytest.mark.parametrize("changes", [{"tightening": "LP"}, {"objective": "nearest"}])
def test_unknown_settings_are_refused_by_name(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        PaperSettings(**changes)
