"""Training is repeatable, an interrupted run goes on to the same result, and it learns."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from robustlib import data
from robustlib.features import moves, networks
from robustlib.features.training import Schedule, accuracy, fit

SHORT = Schedule(epochs=3, batch=32, eps=0.1, reach=1)


class Stop(Exception):
    pass


def tiny() -> nn.Module:
    return networks.slim_resnet((8, 16), classes=4)


def run(state: Path | None = None, stop: int = 0, schedule: Schedule = SHORT):
    def progress(done: int, total: int, text: str) -> None:
        if done == stop:
            raise Stop

    x, y = data.shapes("train", n=128)
    return fit(tiny, x, y, schedule, seed=3, state=state, watch={"same": (x, y)}, progress=progress)


def equal(one: nn.Module, two: nn.Module) -> bool:
    a, b = one.state_dict(), two.state_dict()
    return all(torch.equal(a[key], b[key]) for key in a)


def test_equal_seeds_give_equal_networks_whatever_the_global_state() -> None:
    torch.manual_seed(1)
    one, log = run()
    torch.manual_seed(2)
    before = torch.get_rng_state()
    two, _ = run()
    assert equal(one, two)
    assert torch.equal(torch.get_rng_state(), before)
    assert [row["epoch"] for row in log] == [1, 2, 3]
    assert not one.training


AVERAGED = Schedule(epochs=3, batch=32, blur=0.5, average=0.6)


@pytest.mark.parametrize("schedule", [SHORT, AVERAGED])
@pytest.mark.parametrize("stop", [1, 2])
def test_an_interrupted_run_goes_on_to_the_same_network(
    tmp_path: Path, stop: int, schedule: Schedule
) -> None:
    with pytest.raises(Stop):
        run(tmp_path / "state", stop, schedule)
    resumed, log = run(tmp_path / "state", schedule=schedule)
    assert len(log) == 3
    assert equal(resumed, run(schedule=schedule)[0])


def test_the_average_is_the_mean_over_the_last_steps() -> None:
    last, _ = run(schedule=dataclasses.replace(AVERAGED, average=0.0))
    mean, _ = run(schedule=AVERAGED)
    one_step, _ = run(schedule=dataclasses.replace(AVERAGED, average=1 / 12))
    assert not equal(last, mean)
    assert equal(last, one_step), "the mean over one step is that step's network"


def test_what_a_schedule_does_not_use_is_not_recorded() -> None:
    assert "blur" not in SHORT.settings()
    assert "average" not in SHORT.settings()
    used = AVERAGED.settings()
    assert (used["blur"], used["average"]) == (0.5, 0.6)


def test_blur_weighs_one_two_one_and_keeps_constant_images() -> None:
    x = torch.rand(2, 3, 5, 7)
    wide = nn.functional.pad(x, (1, 1, 1, 1), mode="replicate")
    row = torch.tensor([0.25, 0.5, 0.25])
    kernel = (row[:, None] * row).expand(3, 1, 3, 3)
    smooth = nn.functional.conv2d(wide, kernel, groups=3)
    for amount in (0.0, 0.3, 1.0):
        wanted = (1 - amount) * x + amount * smooth
        assert torch.allclose(moves.blur(x, torch.full((2,), amount)), wanted, atol=1e-6)
    same = torch.full((1, 1, 4, 4), 0.3)
    assert torch.allclose(moves.blur(same, torch.ones(1)), same)


def test_the_share_of_blurred_images_is_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    amounts: list[torch.Tensor] = []

    def remember(x: torch.Tensor, amount: torch.Tensor) -> torch.Tensor:
        amounts.append(amount)
        return x

    monkeypatch.setattr(moves, "blur", remember)
    run(schedule=AVERAGED)
    drawn = torch.cat(amounts)
    assert len(drawn) == 3 * 128
    assert 0.4 < (drawn > 0).float().mean() < 0.6
    assert 0.4 < drawn[drawn > 0].mean() < 0.6


@pytest.mark.parametrize(
    "change", [{"norm": "inf", "eps": 4 / 255}, {"attack_steps": 2}, {"eps": 0.0, "reach": None}]
)
def test_every_kind_of_training_lowers_the_loss(change: dict[str, object]) -> None:
    schedule = Schedule(**{"epochs": 6, "batch": 16, "eps": 0.1, "reach": 0, **change})
    log = run(schedule=schedule)[1]
    assert log[-1]["loss"] < log[0]["loss"] - 0.1


@pytest.mark.parametrize(
    "bad",
    [
        {"epochs": 0},
        {"batch": 1},
        {"rate": 0.0},
        {"eps": -1.0},
        {"norm": "1"},
        {"blur": 1.1},
        {"average": -0.1},
    ],
)
def test_bad_schedules_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Schedule(**{"epochs": 1, **bad})


def test_folding_batch_normalization_keeps_the_function() -> None:
    net, _ = run()
    x, _ = data.shapes("test", n=20)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    folded = networks.folded(net)
    assert torch.allclose(folded(x), net(x), atol=1e-4)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert all(p.requires_grad for p in net.parameters())


def test_bfloat16_agrees_on_most_labels() -> None:
    net, _ = run()
    x, y = data.shapes("test", n=200)
    exact, fast = accuracy(net, x, y), accuracy(net, x, y, torch.bfloat16)
    assert abs(exact - fast) < 0.05


def test_the_adjoint_of_a_move_is_its_transpose() -> None:
    """⟨move(x), g⟩ = ⟨x, adjoint(g)⟩ for every x and g."""
    generator = torch.Generator().manual_seed(0)
    x, g = torch.randn(2, 50, 3, 6, 5, generator=generator, dtype=torch.float64)
    drawn = moves.draw(50, 4, generator)
    left = (moves.move(x, drawn) * g).flatten(1).sum(1)
    right = (x * moves.adjoint(g, drawn)).flatten(1).sum(1)
    assert torch.allclose(left, right)
    assert torch.equal(moves.move(x, torch.zeros(50, 3, dtype=int)), x)
