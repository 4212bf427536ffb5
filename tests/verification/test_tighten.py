"""Bounds where an attack would succeed: no successful attack lies outside of them."""

import time

import numpy as np
import pytest

from robustlib.bounds.alpha import BranchBounds
from robustlib.verification.branch import branch
from robustlib.verification.tighten import CUT, tighten, tightened
from tests.brute_force import smallest_margins
from tests.verification.test_branch import NORMS, all_rows, question, samples


@pytest.mark.parametrize("norm", NORMS)
def test_no_successful_attack_violates_the_bounds(norm):
    """Of the sampled points, those with margin ≤ 0 lie within the tightened boxes of every step."""
    successes, shrunk = 0, 0
    for seed in range(30):
        q = question(seed, norm)
        x = samples(q, 3000, seed)
        outputs = list(q.network.outputs(x))
        for row in all_rows(q):
            succeed = outputs[-1] @ row <= CUT
            boxes = tightened(q.network, q.region, q.boxes, row[None], time.perf_counter() + 20)
            if boxes is None:
                assert not succeed.any(), seed
                continue
            successes += int(succeed.sum())
            shrunk += boxes is not q.boxes
            for box, values in zip(boxes[:-1], outputs[:-1], strict=True):
                assert (values[succeed] >= box.lower).all(), seed
                assert (values[succeed] <= box.upper).all(), seed
    assert successes > 1000
    assert shrunk > 2


def test_an_empty_part_is_a_proof():
    """Where one round leaves nothing, brute force finds no margin at or below 0."""
    empty = 0
    for seed in range(40):
        q = question(seed)
        truth = smallest_margins(q.network, q.label, q.box.lower, q.box.upper)
        for row, margin in zip(all_rows(q), truth, strict=True):
            bounds = BranchBounds(q.network, q.region, q.boxes, row[None])
            if bounds.units and tighten(bounds) is None:
                empty += 1
                assert margin > 0, seed
    assert empty > 5


def test_the_tree_is_right_with_tightened_bounds(monkeypatch):
    """All trees but the first few branches grow on tightened bounds, and agree with brute force."""
    monkeypatch.setattr("robustlib.verification.branch.EARLY", 0)
    for seed in range(30):
        q = question(seed)
        truth = smallest_margins(q.network, q.label, q.box.lower, q.box.upper)
        found = branch(q, all_rows(q), time_limit=20)
        assert (found.lower <= np.maximum(truth, CUT) + 1e-9).all(), seed
        if truth.min() > 1e-5:
            assert found.lower.min() > 0, seed
        elif truth.min() < -1e-5:
            assert found.witness is not None, seed
            assert not found.lower.min() > 0, seed
