"""The bounds that are trained are those of robustlib.bounds, but for the margin for rounding."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn

from robustlib import network
from robustlib.bounds.box import Box
from robustlib.bounds.crown import rows_lower_bound
from robustlib.bounds.interval import interval_step
from robustlib.network import Residual, margin_rows
from robustlib.training.loop import certified
from robustlib.training.provable import margin_bounds, robust_cross_entropy


def dense() -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(48, 9), nn.ReLU(), nn.Linear(9, 7), nn.ReLU(), nn.Linear(7, 4)
    )


def convolutional() -> nn.Sequential:
    """Strides and paddings with which a convolution does not use every input."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Sequential(nn.Conv2d(4, 3, 2, bias=False), nn.ReLU()),
        nn.Flatten(),
        nn.Linear(3, 4),
    )


def residual() -> nn.Sequential:
    """One block with a convolution around it, and one with the identity."""
    down = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 1))
    flat = nn.Sequential(nn.Conv2d(4, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 4, 3, padding=1))
    return nn.Sequential(
        nn.Conv2d(3, 3, 1),
        nn.ReLU(),
        Residual(down, nn.Conv2d(3, 4, 1, stride=2)),
        nn.ReLU(),
        Residual(flat),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, 4),
    )


KINDS = [dense, convolutional, residual]


def example(build: Callable[[], nn.Sequential], seed: int) -> tuple[nn.Sequential, Tensor, Tensor]:
    generator = Generator().manual_seed(seed)
    net = build().double().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.uniform_(-0.5, 0.5, generator=generator)
    x = torch.rand(3, 3, 4, 4, generator=generator, dtype=torch.float64)
    return net, x, torch.randint(4, (3,), generator=generator)


def oracle(net: nn.Sequential, x: Tensor, label: int, eps: float, crown: bool) -> np.ndarray:
    """The same bound of one image, in numpy, by the steps that proofs use."""
    flat = network.from_torch(net, tuple(x.shape))
    point = x.flatten().numpy()
    box = Box(np.maximum(point - eps, 0.0), np.minimum(point + eps, 1.0))
    boxes = [box]
    for step in flat.steps:
        boxes.append(interval_step(step, boxes[-1]))
    rows = margin_rows(label, flat.classes)
    if crown:
        return rows_lower_bound(flat, boxes[1:], box, rows)
    last = network.Affine(rows @ flat.steps[-1].weight, rows @ flat.steps[-1].bias)
    return interval_step(last, boxes[-2]).lower


@pytest.mark.parametrize("build", KINDS)
@pytest.mark.parametrize("crown", [0.0, 1.0])
def test_the_bounds_are_those_of_the_proofs(build, crown: float) -> None:
    for seed in range(5):
        for eps in (0.01, 0.1, 0.4):
            net, x, y = example(build, seed)
            found = margin_bounds(net, x, y, eps=eps, crown=crown).detach().numpy()
            for image, label, row in zip(x, y.tolist(), found, strict=True):
                expected = oracle(net, image, label, eps, crown=crown == 1)
                np.testing.assert_allclose(row, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("build", KINDS)
def test_no_point_of_the_ball_has_a_lower_margin(build) -> None:
    generator = Generator().manual_seed(1)
    net, x, y = example(build, 0)
    for crown in (0.0, 0.3, 1.0):
        lower = margin_bounds(net, x, y, eps=0.2, crown=crown)
        for _ in range(200):
            noise = torch.rand(x.shape, generator=generator, dtype=x.dtype).mul(2).sub(1).sign()
            logits = net((x + 0.2 * noise).clamp(0, 1))
            for logit, label, row in zip(logits, y.tolist(), lower, strict=True):
                others = [j for j in range(4) if j != label]
                assert (logit[label] - logit[others] >= row - 1e-12).all()


@pytest.mark.parametrize("build", KINDS)
def test_gradients_agree_with_finite_differences(build) -> None:
    """In the parameters and the input, at a point where no unit is at a kink."""
    net, x, y = example(build, 2)
    names, values = zip(*net.named_parameters(), strict=True)

    def loss(x: Tensor, *parameters: Tensor) -> Tensor:
        with_these = nn.utils.stateless._reparametrize_module(
            net, dict(zip(names, parameters, strict=True))
        )
        with with_these:
            return robust_cross_entropy(margin_bounds(net, x, y, eps=0.05, crown=0.6))

    inputs = [x.clamp(0.1, 0.9).requires_grad_(), *(v.detach().requires_grad_() for v in values)]
    assert torch.autograd.gradcheck(loss, inputs, eps=1e-7, atol=1e-5, fast_mode=True)


def test_float32_agrees_too() -> None:
    net, x, y = example(residual, 3)
    wide = margin_bounds(net, x, y, eps=0.1)
    narrow = margin_bounds(net.float(), x.float(), y, eps=0.1)
    assert torch.allclose(wide.float(), narrow, atol=1e-5)


def test_crown_for_some_labels_only() -> None:
    """The labels of lowest IBP margin have CROWN's share, all others IBP's bound."""
    net, x, y = example(convolutional, 4)
    bounds = {c: margin_bounds(net, x, y, eps=0.1, crown=c) for c in (0.0, 0.5)}
    some = margin_bounds(net, x, y, eps=0.1, crown=0.5, crown_targets=1)
    first = bounds[0.0].argmin(1, keepdim=True)
    expected = bounds[0.0].scatter(1, first, bounds[0.5].gather(1, first))
    assert torch.allclose(some, expected, atol=1e-12)


def test_the_bound_of_the_loss_is_the_cross_entropy_of_the_worst_logits() -> None:
    margins = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    expected = torch.nn.functional.cross_entropy(
        torch.tensor([[0.0, -1.0, 2.0], [0.0, -0.5, -3.0]]), torch.tensor([0, 0])
    )
    assert torch.isclose(robust_cross_entropy(margins), expected)


def test_certified_are_the_images_whose_margins_are_all_positive() -> None:
    net = nn.Sequential(nn.Linear(1, 2, bias=False))
    net[0].weight.data = torch.tensor([[1.0], [-1.0]])
    x, y = torch.tensor([[0.2], [0.4], [0.9]]), torch.tensor([0, 0, 1])
    for crown in (0.0, 1.0):
        assert certified(net, x, y, eps=0.3, crown=crown).tolist() == [False, True, False]
    assert certified(net, x[:0], y[:0], eps=0.3, crown=1.0).shape == (0,)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([nn.Linear(2, 2), nn.Sigmoid(), nn.Linear(2, 2)], "layer Sigmoid has no bounds"),
        ([nn.Linear(2, 2), nn.ReLU()], "must end in a Linear"),
        ([nn.Conv2d(2, 2, 1, groups=2), nn.Flatten(), nn.Linear(2, 2)], "groups=1"),
    ],
)
def test_networks_without_bounds_are_refused(layers: list[nn.Module], message: str) -> None:
    x = torch.zeros((1, 2, 1, 1) if isinstance(layers[0], nn.Conv2d) else (1, 2))
    with pytest.raises(ValueError, match=message):
        margin_bounds(nn.Sequential(*layers), x, torch.tensor([0]), eps=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eps": 0.0}, "eps=0.0 is out of range"),
        ({"eps": -1.0}, "eps=-1.0"),
        ({"eps": float("nan")}, "eps=nan"),
        ({"eps": 0.1, "crown": 1.5}, r"crown=1\.5"),
        ({"eps": 0.1, "bounds": (1.0, 0.0)}, "bounds="),
    ],
)
def test_bad_numbers(arguments: dict, message: str) -> None:
    net, x, y = example(dense, 0)
    with pytest.raises(ValueError, match=message):
        margin_bounds(net, x, y, **arguments)
