"""Blurred images: verdicts against every activation pattern, kernels that sum to 1 exactly."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from robustlib import zoo
from robustlib.bounds import Simplex, network_bounds, rows_lower_bound
from robustlib.network import Affine, from_torch, margin_rows
from robustlib.verification.blur import (
    BlurQuestion,
    blur,
    nearest_kernel,
    split_kernels,
    verify_blur,
)
from tests.brute_force import folded_network, random_network, smallest_blur_margins


def tiny(seed: int) -> tuple[nn.Sequential, tuple[int, ...]]:
    """A network on images (1, 3, 3) of at most 32 patterns."""
    if seed % 2:
        return random_network(4 * (seed // 2) + 1 + seed // 2 % 2)
    return folded_network(12 * (seed // 2) + (1, 2, 3, 9, 11)[seed // 2 % 5])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_blur_is_the_filter_of_its_formula(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, 4, 5, generator=generator, dtype=dtype)
    kernels = torch.rand(2, 3, 3, generator=generator, dtype=dtype)
    expected = torch.zeros_like(x)
    for n, c, i, j, u, v in np.ndindex(2, 3, 4, 5, 3, 3):
        a, b = i + u - 1, j + v - 1
        if 0 <= a < 4 and 0 <= b < 5:
            expected[n, c, i, j] += kernels[n, u, v] * x[n, c, a, b]
    assert torch.allclose(blur(x, kernels), expected, atol=1e-6)
    assert torch.allclose(blur(x, kernels[1])[1], expected[1], atol=1e-6)


def test_the_step_in_front_holds_the_pixels_as_they_are() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(18, 2)).eval()
    image = torch.rand(2, 3, 3, generator=torch.Generator().manual_seed(1))
    question = BlurQuestion.ask(module, from_torch(module, (2, 3, 3)), image, 0, 3)
    front = question.network.steps[0]
    assert isinstance(front, Affine)
    matrix = front.weight.toarray()
    assert set(matrix.ravel()) <= {0.0, *image.double().ravel().tolist()}
    kernels = torch.eye(9).reshape(9, 3, 3)
    images = blur(image.expand(9, -1, -1, -1), kernels)
    assert (images.reshape(9, -1).double().numpy() == matrix.T).all()


@pytest.mark.parametrize("seed", range(20))
def test_witness_kernels_sum_to_1_in_fractions(seed: int) -> None:
    random = np.random.default_rng(seed)
    n = [9, 25, 49][seed % 3]
    values = random.dirichlet(np.full(n, 10.0 ** random.integers(-3, 2)))
    values += 1e-9 * random.normal(size=n)
    kernel = nearest_kernel(values)
    assert sum(map(Fraction, kernel.tolist())) == 1
    assert (kernel >= 0).all()
    assert (kernel.astype(np.float32) == kernel).all()
    assert np.abs(kernel - values).max() < 1e-5


def test_values_that_are_no_kernel_become_one() -> None:
    for values in (np.zeros(9), np.full(9, np.nan), -np.ones(9), np.full(9, 1e30)):
        assert nearest_kernel(values).sum() == 1.0


@pytest.mark.parametrize("seed", range(20))
def test_verdicts_are_those_of_every_activation_pattern(seed: int) -> None:
    """The last bias is moved so that the smallest margin is just above or just below 0."""
    module, shape = tiny(seed)
    image = np.random.default_rng(seed).random(shape)
    label = int(module.double()(torch.from_numpy(image)[None])[0].argmax())
    smallest = smallest_blur_margins(module, image, label, 3).min()
    goal = 0.01 if seed % 4 < 2 else -0.01
    module[-1].bias[label] += goal - smallest
    x = torch.from_numpy(image)[None]
    result = verify_blur(module, x, torch.tensor([label]), size=3).results[0]
    assert result.lower <= goal + 1e-9
    if goal > 0:
        assert result.verdict == "robust"
    else:
        assert result.verdict in ("adversarial", "misclassified")
    if result.witness is not None:
        assert sum(map(Fraction, result.witness.ravel().tolist())) == 1
        assert int(module(blur(x, result.witness))[0].argmax()) != label


@pytest.mark.parametrize("seed", range(10))
def test_halving_the_simplex_alone_decides(seed: int) -> None:
    """The smallest margin is put where CROWN's bound of it on the whole simplex is below 0."""
    module, shape = tiny(seed)
    image = np.random.default_rng(seed).random(shape)
    x = torch.from_numpy(image)
    label = int(module.double()(x[None])[0].argmax())
    exact = smallest_blur_margins(module, image, label, 3)

    def ask() -> BlurQuestion:
        return BlurQuestion.ask(module, from_torch(module, shape), x, label, 3)

    gap = max(0.02, exact.min() - ask().crown_margins().min())
    goal = -0.1 if seed % 3 == 0 else 0.75 * gap
    exact += goal - exact.min()
    module[-1].bias[label] += goal - smallest_blur_margins(module, image, label, 3).min()
    question = ask()
    found = split_kernels(question, question.crown_margins(), time_limit=60.0)
    assert (found.lower <= exact + 1e-9).all()
    assert (found.witness is None) == (goal > 0)
    assert (found.lower.min() > 0) == (goal > 0)
    late = split_kernels(question, question.crown_margins(), time_limit=0.0)
    assert (late.lower <= exact + 1e-9).all()


def test_a_part_has_the_bounds_of_its_corners() -> None:
    """Over an edge of the simplex a linear network is lowest at one of its two ends."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(9, 2)).double().eval()
    image = torch.rand(1, 3, 3, generator=torch.Generator().manual_seed(0)).double()
    question = BlurQuestion.ask(module, from_torch(module, (1, 3, 3)), image, 0, 3)
    corners = np.random.default_rng(0).integers(0, 8, (9, 9)) / 64
    margins = question.network.forward(corners.T) @ [1.0, -1.0]
    bound = question.bounds_of_part(corners, np.array([0]))
    assert bound == pytest.approx(margins.min(), abs=1e-12)
    assert bound <= margins.min()


@pytest.mark.parametrize("seed", range(6))
def test_bounds_hold_for_random_kernels_and_shifts(seed: int) -> None:
    net = zoo.load(("digits_mlp", "digits_cnn")[seed % 2])
    random = np.random.default_rng(seed)
    image = torch.from_numpy(random.random((1, 8, 8))).float()
    question = BlurQuestion.ask(net, from_torch(net, (1, 8, 8)), image, seed, 3)
    kernels = np.vstack([np.eye(9), random.dirichlet(np.full(9, 0.3), 500)])
    rows = margin_rows(seed, 10)
    network, simplex = question.network, Simplex(9)
    boxes = network_bounds(network, simplex)
    lower = rows_lower_bound(network, boxes, simplex, rows)
    assert (lower <= (network.forward(kernels) @ rows.T).min(axis=0) + 1e-9).all()
    for output, box in zip(network.outputs(kernels), boxes, strict=True):
        assert (box.lower <= output + 1e-12).all()
        assert (output <= box.upper + 1e-12).all()


def test_what_is_no_question_is_refused() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(9, 2)).eval()
    x, y = torch.zeros(1, 1, 3, 3), torch.zeros(1, dtype=torch.long)
    for change, message in [
        ({"size": 4}, "size=4 is even"),
        ({"size": 0}, "size=0 is too small"),
        ({"solver": "cplex"}, "solver='cplex'"),
        ({"x": torch.zeros(1, 9)}, r"x has shape \(1, 9\); give images"),
        ({"x": torch.full((1, 1, 3, 3), 2.0)}, "x has values in"),
        ({"y": torch.tensor([2])}, "y has labels"),
        ({"net": nn.Sequential(nn.Flatten(), nn.Linear(9, 2))}, "training mode"),
    ]:
        with pytest.raises(ValueError, match=message):
            verify_blur(**{"net": net, "x": x, "y": y, **change})
    for kernel in (torch.zeros(2, 2), torch.zeros(3, 5), torch.zeros(9)):
        with pytest.raises(ValueError, match=r"kernel has shape .*odd k"):
            blur(x, kernel)
    with pytest.raises(ValueError, match="give images"):
        blur(x[0], torch.zeros(3, 3))


def test_nothing_of_the_network_or_torch_is_changed() -> None:
    net = zoo.load("digits_cnn")
    state = torch.get_rng_state()
    before = [p.clone() for p in net.parameters()]
    x = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    first, second = (verify_blur(net, x, torch.tensor([3]), size=3, time_limit=0) for _ in "12")
    assert first.verdict == second.verdict
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    assert not any(m.training for m in net.modules())
