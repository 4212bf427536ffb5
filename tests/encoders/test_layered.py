"""C(x, ℓ) says what the network says, and its restriction is the linear region of x*."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.optimize import linprog
from torch import nn

from robustlib.encoders.layered import Constraints, Rows, layered_program
from robustlib.encoders.restriction import linear_region, nearest_program
from robustlib.network import Affine, MaxPool, Network, ReLU, from_torch
from robustlib.solvers import solve
from tests.encoders.test_restriction import MODULES


@pytest.fixture(params=MODULES)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Network, np.ndarray]:
    make, shape = MODULES[request.param]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = make().double().eval()
    network = from_torch(module, shape)
    return module, network, np.random.default_rng(0).random((10, network.input_size))


def test_a_forward_pass_satisfies_it_for_the_label_and_no_other(case: tuple) -> None:
    """Theorem 1 in one direction, the label by torch."""
    module, network, points = case
    constraints = Constraints(network)
    for point in points:
        values = constraints.values(point)
        x = torch.from_numpy(point).reshape(1, *network.input_shape)
        label = int(module(x).argmax())
        assert [j for j in range(network.classes) if constraints.hold(values, j)] == [label]


def test_no_other_values_satisfy_it(case: tuple) -> None:
    """Theorem 1 in the other: a value of any layer that is changed breaks a constraint."""
    _, network, points = case
    constraints = Constraints(network)
    values = constraints.values(points[0])
    label = int(network.forward(points[:1])[0].argmax())
    rng = np.random.default_rng(1)
    for place in range(network.input_size, constraints.variables):
        for change in rng.choice([-1.0, 1.0], 2) * [1e-3, 1.0]:
            wrong = values.copy()
            wrong[place] += change
            assert not constraints.hold(wrong, label)


def test_theorem_1_over_all_choices_of_disjuncts() -> None:
    """For a fixed x: some choice of disjuncts and values exists exactly for the network's label.

    scipy's linear programs try every choice, 2⁴ · 2, and know nothing of a forward pass.
    """
    rng = np.random.default_rng(0)
    pool = MaxPool(np.array([[0, 1], [2, -1]]))
    network = Network(
        (
            Affine(rng.standard_normal((4, 2)), rng.standard_normal(4)),
            ReLU(4),
            Affine(rng.standard_normal((3, 4)), rng.standard_normal(3)),
            pool,
            Affine(rng.standard_normal((2, 2)), rng.standard_normal(2)),
        ),
        (2,),
    )
    constraints = Constraints(network)
    for x in rng.standard_normal((8, 2)):
        satisfied = set()
        for choice in itertools.product([False, True], repeat=5):
            equal, less = _chosen(constraints, choice, x)
            for label in range(2):
                wins = constraints.wins(label)
                answer = linprog(
                    np.zeros(constraints.variables),
                    A_ub=np.vstack([less, wins.matrix.toarray()]),
                    b_ub=np.zeros(len(less) + 1),
                    A_eq=equal[:, :-1],
                    b_eq=equal[:, -1],
                    bounds=(None, None),
                )
                assert answer.status in (0, 2)
                satisfied |= {label} if answer.status == 0 else set()
        assert satisfied == {int(network.forward(x[None])[0].argmax())}


def _chosen(
    constraints: Constraints, choice: tuple[bool, ...], x: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Equalities (with their right side) and inequalities of one choice, written by hand."""
    m, s = constraints.variables, constraints.starts
    affine = constraints.affine
    equal = [*np.column_stack([affine.matrix.toarray(), affine.upper])]
    less = []

    def row(entries: dict[int, float]) -> np.ndarray:
        made = np.zeros(m)
        for place, value in entries.items():
            made[place] = value
        return made

    for i, value in enumerate(x):
        equal.append(np.append(row({i: 1.0}), value))
    for j, active in enumerate(choice[:4]):
        before, after = s[1] + j, s[2] + j
        equal.append(np.append(row({after: 1.0} | ({before: -1.0} if active else {})), 0.0))
        less.append(row({before: -1.0 if active else 1.0}))
    winner = int(choice[4])
    equal.append(np.append(row({s[4]: 1.0, s[3] + winner: -1.0}), 0.0))
    less.append(row({s[3] + 1 - winner: 1.0, s[3] + winner: -1.0}))
    equal.append(np.append(row({s[4] + 1: 1.0, s[3] + 2: -1.0}), 0.0))
    return np.array(equal), np.array(less)


def test_the_restriction_is_the_linear_region(case: tuple) -> None:
    """At points inside and outside: the inequalities have the slacks of the half-spaces."""
    _, network, points = case
    constraints = Constraints(network)
    region = linear_region(network, points[0])
    equal, less = constraints.restricted(constraints.values(points[0]))
    assert len(less) == len(region.bound)
    rank = np.linalg.matrix_rank(equal.matrix.toarray())
    assert rank == constraints.variables - network.input_size, "the inputs decide everything"
    for other in points:
        inner = np.linalg.lstsq(
            equal.matrix.toarray()[:, len(other) :],
            equal.upper - equal.matrix.toarray()[:, : len(other)] @ other,
        )[0]
        values = np.append(other, inner)
        slack = less.upper - less.matrix @ values
        np.testing.assert_allclose(slack, region.bound - region.matrix @ other, atol=1e-9)


def test_both_programs_have_the_same_optimum(case: tuple) -> None:
    _, network, points = case
    constraints = Constraints(network)
    for point in points[:4]:
        equal, less = constraints.restricted(constraints.values(point))
        for target in range(network.classes):
            reduced = solve(nearest_program(linear_region(network, point), target))
            wins = constraints.wins(target)
            matrix = sparse.csr_array(sparse.vstack([wins.matrix, less.matrix]))
            rows = Rows(matrix, np.append(wins.upper, less.upper))
            program = layered_program(rows, equal, point)
            layered = solve(program)
            assert layered.status == reduced.status
            if reduced.status == "optimal":
                assert layered.objective == pytest.approx(reduced.objective, abs=1e-7)
