"""The adapter asks Marabou the same question as the rest of the library: brute force agrees."""

from __future__ import annotations

import os
import sys
import time

import numpy as np
import pytest
import torch
from torch import nn

from robustlib.bounds import Box
from robustlib.network import from_torch, margin_rows
from robustlib.verification.marabou import ask_marabou, marabou_distortion
from tests.brute_force import random_network, smallest_distortion, smallest_margins

SEEDS = [s for s in range(24) if s % 4 < 2]  # the kinds without max-pooling


@pytest.mark.parametrize("seed", SEEDS)
def test_marabou_finds_a_point_exactly_where_brute_force_says_there_is_one(seed):
    pytest.importorskip("maraboupy")
    module, shape = random_network(seed)
    network = from_torch(module, shape)
    x = np.full(network.input_size, 0.5)
    box = Box(x - 0.3, x + 0.3)
    smallest = smallest_margins(network, 0, box.lower, box.upper)
    for row, margin in zip(margin_rows(0, network.classes), smallest, strict=True):
        if abs(margin) < 1e-4:
            continue
        answer = ask_marabou(network, box, row[None], time_limit=20.0)
        assert answer.status == ("sat" if margin < 0 else "unsat")
        if answer.point is not None:
            assert network.forward(answer.point[None])[0] @ row <= 1e-5


def test_bisection_encloses_the_smallest_distortion():
    pytest.importorskip("maraboupy")
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    generator = torch.Generator().manual_seed(3)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    x = torch.tensor([0.4, 0.5, 0.6])
    y = int(module(x).argmax())
    network = from_torch(module, (3,))
    exact = smallest_distortion(network, x.double().numpy(), y, "inf", (0.0, 1.0))
    found = marabou_distortion(module, x, y, target=1 - y, upper=1.0, tolerance=1e-3)
    assert found.finished
    if exact <= 1:
        assert found.lower - 1e-6 <= exact <= found.upper + 1e-6
        assert found.upper - found.lower <= 1e-3


def test_the_target_has_to_beat_every_other_label():
    """Logits (0, x, 1): label 1 beats label 0 from x = 0 on, and is the largest from x = 1 on."""
    pytest.importorskip("maraboupy")
    module = nn.Sequential(nn.Linear(1, 3)).eval()
    module[0].weight.data = torch.tensor([[0.0], [1.0], [0.0]])
    module[0].bias.data = torch.tensor([0.0, 0.0, 1.0])
    x = torch.tensor([0.25])
    found = marabou_distortion(module, x, 2, target=1, upper=2.0, bounds=(-2.0, 2.0))
    assert found.lower - 1e-6 <= 0.75 <= found.upper + 1e-6


def test_max_pooling_the_own_label_and_a_missing_package_are_refused(monkeypatch):
    module = nn.Sequential(nn.Linear(2, 2)).eval()
    with pytest.raises(ValueError, match="target=0 must be a label"):
        marabou_distortion(module, torch.zeros(2), 0, target=0, upper=0.5)
    monkeypatch.setitem(sys.modules, "maraboupy", None)
    with pytest.raises(ModuleNotFoundError, match="pip install maraboupy"):
        marabou_distortion(module, torch.zeros(2), 0, target=1, upper=0.5)


def test_a_network_with_max_pooling_is_refused():
    pytest.importorskip("maraboupy")
    module, shape = random_network(2)
    network = from_torch(module, shape)
    box = Box(np.zeros(network.input_size), np.ones(network.input_size))
    with pytest.raises(ValueError, match="without max-pooling"):
        ask_marabou(network, box, margin_rows(0, network.classes)[:1], time_limit=1.0)


def test_a_question_that_takes_too_long_is_a_timeout_and_a_crash_an_error(monkeypatch):
    pytest.importorskip("maraboupy")
    module, shape = random_network(0)
    network = from_torch(module, shape)
    box = Box(np.zeros(network.input_size), np.ones(network.input_size))
    row = margin_rows(0, network.classes)[:1]
    monkeypatch.setattr("robustlib.verification.marabou._solve", lambda *_: time.sleep(60))
    assert ask_marabou(network, box, row, time_limit=0.1).status == "timeout"
    monkeypatch.setattr("robustlib.verification.marabou._solve", lambda *_: os._exit(1))
    assert ask_marabou(network, box, row, time_limit=5.0).status == "error"
    found = marabou_distortion(module, torch.full((3,), 0.5), 0, target=1, upper=0.5)
    assert (found.lower, found.upper, found.finished) == (0.0, 0.5, False)
