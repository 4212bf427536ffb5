"""L-BFGS finds points that are nearly the nearest, and says nothing that its points do not show."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn
from torch.nn import functional as F

from robustlib import data, zoo
from robustlib.attacks import lbfgs
from robustlib.attacks.lbfgs import _side_by_side
from robustlib.pointwise.baseline import TOLERANCE


def plane(seed: int) -> nn.Sequential:
    """A small network on points in the unit square; its labels are about equally common."""
    generator = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 3)).double().eval()
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator).double()
    corners = torch.rand((16, 2), generator=generator).double()
    net[0].bias.data = -(net[0].weight.data * corners).sum(1)
    points = torch.rand((1000, 2), generator=generator).double()
    net[2].bias.data -= net(points).detach().mean(0)
    return net.requires_grad_(False)


@pytest.mark.parametrize("seed", range(4))
def test_nearly_as_near_as_the_nearest_point_of_a_grid(seed: int) -> None:
    """In the plane every point can be tried. No distance is below that, and most are not far above.

    The objective is l2, so the l∞ distance may be larger by √2 where the search ends in the global
    optimum; it may also end elsewhere.
    """
    net = plane(seed)
    axis = torch.linspace(0, 1, 401).double()
    grid = torch.cartesian_prod(axis, axis)
    labels = net(grid).argmax(1)
    x = torch.rand((15, 2), generator=torch.Generator().manual_seed(seed)).double()
    order = net(x).argsort(1, descending=True)
    found = lbfgs(net, x, search=10)
    ratios = []
    for i in range(len(x)):
        near = (grid[labels == order[i, 1]] - x[i]).abs().amax(1)
        if int(net(found[i]).argmax()) == order[i, 1]:
            away = float((found[i] - x[i]).abs().max())
            assert away >= float(near.min()) - 1 / 400
            ratios.append(away / max(float(near.min()), 1 / 400))
        else:
            assert torch.equal(found[i], x[i])
    assert len(ratios) >= 5
    assert np.median(ratios) < 1.6


def test_on_a_linear_model_it_is_the_nearest_point_in_l2() -> None:
    """The half-space w · r ≥ b: the nearest point is b w / ‖w‖²."""
    net = nn.Linear(3, 2).double().eval()
    net.weight.data = torch.tensor([[1.0, 2.0, -1.0], [0.0, 0.0, 0.0]]).double()
    net.bias.data = torch.tensor([0.3, 0.0]).double()
    x = torch.tensor([[0.5, 0.4, 0.6]]).double()
    w = net.weight.data[1] - net.weight.data[0]
    lead = float((net(x)[0, 0] - net(x)[0, 1]).detach())
    nearest = lead * w / (w @ w)
    found = lbfgs(net, x, search=30)
    assert net(found).argmax(1).tolist() == [1]
    assert float((found - x).norm() / nearest.norm()) == pytest.approx(1.0, abs=0.01)


def test_the_norm_decides_between_successes_and_nothing_else() -> None:
    """The same points are seen, so in its own norm each choice is the nearer one."""
    net = zoo.load("digits_mlp_standard")
    x, _ = data.digits("test", n=20)
    change = {norm: (lbfgs(net, x, norm=norm) - x).flatten(1) for norm in ("inf", "2")}
    assert (change["2"].norm(dim=1) <= change["inf"].norm(dim=1)).all()
    assert (change["inf"].abs().amax(1) <= change["2"].abs().amax(1)).all()
    assert not torch.equal(change["2"], change["inf"])
    with pytest.raises(ValueError, match="norm"):
        lbfgs(net, x[:1], norm="1")


def test_one_constant_is_one_run_of_scipy() -> None:
    """Side by side or alone, L-BFGS-B takes the same steps."""
    net = plane(0)
    x = torch.rand((5, 2), generator=torch.Generator().manual_seed(1)).double()
    targets = net(x).argsort(1, descending=True)[:, 1]
    found = lbfgs(net, x, targets=targets, constant=0.05, search=1)
    moved = 0
    for i in range(len(x)):

        def value(point: np.ndarray, i: int = i) -> tuple[float, np.ndarray]:
            z = torch.from_numpy(point.copy()).requires_grad_(True)
            loss = F.cross_entropy(net(z)[None], targets[i : i + 1])
            loss = loss + 0.05 * (z - x[i]).square().sum()
            (gradient,) = torch.autograd.grad(loss, z)
            return float(loss.detach()), gradient.numpy()

        box = [(0.0, 1.0)] * 2
        end = minimize(
            value, x[i].numpy(), jac=True, method="L-BFGS-B", bounds=box,
            options={"maxiter": 100, "maxfun": 200},
        ).x  # fmt: skip
        if int(net(torch.from_numpy(end)).argmax()) == targets[i]:
            moved += 1
            np.testing.assert_allclose(found[i].numpy(), end, atol=1e-9)
        else:
            assert torch.equal(found[i], x[i])
    assert moved


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_what_is_returned_is_in_the_box_and_reaches_the_target(margin: float) -> None:
    net = zoo.load("digits_mlp_standard")
    x, _ = data.digits("test", n=12)
    with torch.no_grad():
        order = net(x).argsort(1, descending=True)
        found = lbfgs(net, x, margin=margin, search=4)
        logits = net(found)
    assert found.dtype == x.dtype
    assert ((found >= 0) & (found <= 1)).all()
    own = logits.gather(1, order[:, 1:2])[:, 0]
    lead = own - logits.scatter(1, order[:, 1:2], -torch.inf).amax(1)
    same = (found == x).flatten(1).all(1)
    assert ((lead >= margin) & (lead > 0) | same).all()
    assert int((~same).sum()) >= 9


def test_a_margin_costs_distance() -> None:
    net = plane(2)
    x = torch.rand((20, 2), generator=torch.Generator().manual_seed(3)).double()
    near, far = lbfgs(net, x, search=8), lbfgs(net, x, margin=0.5, search=8)
    both = ((near != x).any(1) & (far != x).any(1)).nonzero()[:, 0]
    assert len(both) >= 5
    away = [(p[both] - x[both]).abs().amax(1) for p in (near, far)]
    assert float((away[1] > away[0]).double().mean()) > 0.8


def test_the_tolerance_of_the_baseline_costs_no_distance_and_saves_evaluations() -> None:
    """What the measurement of ρ gives up by ending earlier: nothing that can be seen here."""
    net, evaluations = zoo.load("digits_mlp_standard"), []
    net.register_forward_pre_hook(lambda _, inputs: evaluations.append(len(inputs[0])))
    x, _ = data.digits("test", n=40)
    away, cost = [], []
    for tolerance in (2.2e-9, TOLERANCE):
        evaluations.clear()
        found = lbfgs(net, x, tolerance=tolerance)
        away.append((found - x).flatten(1).abs().amax(1).numpy())
        cost.append(sum(evaluations))
    assert ((away[0] > 0) == (away[1] > 0)).all()
    assert np.median(away[1] / np.maximum(away[0], 1e-9)) < 1.01
    assert cost[1] < 0.7 * cost[0]


def test_an_image_does_not_depend_on_its_batch() -> None:
    net = plane(2)
    x = torch.rand((6, 2), generator=torch.Generator().manual_seed(0)).double()
    whole = lbfgs(net, x, search=5)
    alone = torch.cat([lbfgs(net, one[None], search=5) for one in x])
    torch.testing.assert_close(whole, alone, atol=1e-7, rtol=0)


def test_the_model_is_left_as_found_and_no_random_number_is_drawn() -> None:
    net = zoo.load("digits_mlp_standard").requires_grad_(True)
    x, _ = data.digits("test", n=2)
    before = torch.get_rng_state()
    lbfgs(net, x, search=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert not x.requires_grad


def test_empty_batch() -> None:
    assert lbfgs(plane(0), torch.zeros((0, 2)).double()).shape == (0, 2)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"targets": torch.tensor([0, 1])}, ValueError, "targets has shape"),
        ({"targets": torch.tensor([3])}, ValueError, r"targets has labels in \[3, 3\]"),
        ({"margin": -1.0}, ValueError, "margin=-1.0"),
        ({"constant": 0.0}, ValueError, r"constant=0\.0"),
        ({"search": 0}, ValueError, "search=0"),
        ({"steps": 0}, ValueError, "steps=0"),
        ({"tolerance": -1.0}, ValueError, "tolerance=-1.0"),
        ({"bounds": (1.0, 0.0)}, ValueError, "bounds="),
        ({"x": torch.tensor([[2.0, 0.0]]).double()}, ValueError, "x has values"),
        ({"x": torch.tensor([[0.5, 0.5]])}, TypeError, "x has dtype torch.float32"),
    ],
)
def test_bad_arguments_are_named(change: dict, error: type, message: str) -> None:
    arguments = {"x": torch.tensor([[0.5, 0.5]]).double()} | change
    with pytest.raises(error, match=message):
        lbfgs(plane(0), arguments.pop("x"), **arguments)


def test_the_models_own_label_is_no_target() -> None:
    net, x = plane(0), torch.tensor([[0.5, 0.5]]).double()
    with pytest.raises(ValueError, match="own label for some inputs"):
        lbfgs(net, x, targets=net(x).argmax(1))


@pytest.mark.parametrize("where", ["values", "run"])
def test_an_error_of_a_run_or_of_the_model_reaches_the_caller(where: str) -> None:
    def run(i: int, evaluate: object) -> None:
        evaluate(np.zeros(1))
        if where == "run" and i == 1:
            raise KeyError("here")
        evaluate(np.ones(1))

    def values(rows: np.ndarray, points: np.ndarray) -> list:
        if where == "values":
            raise KeyError("here")
        return [(0.0, np.zeros(1)) for _ in rows]

    with pytest.raises(KeyError, match="here"):
        _side_by_side(3, run, values)
