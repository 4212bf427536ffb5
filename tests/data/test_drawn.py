"""The planted features of the drawn shapes are what the docstring says."""

from __future__ import annotations

import hashlib

import pytest
import torch

from robustlib import data
from robustlib.data import drawn

PATTERNS = torch.stack([drawn.pattern_of(label) for label in range(4)])


def scores(x: torch.Tensor) -> torch.Tensor:
    """⟨x, p⟩ / 768 for each of the four patterns, in gray levels."""
    return torch.einsum("nchw,khw->nk", x.double() * 255, PATTERNS.double()) / 768


def test_images_are_grey_levels_in_the_box_and_classes_are_balanced() -> None:
    for split, total in (("train", 4000), ("test", 1000)):
        x, y = data.shapes(split)
        assert x.shape == (total, 3, 16, 16)
        assert x.dtype == torch.float32
        assert y.bincount().tolist() == [total // 4] * 4
        levels = (x.double() * 255).round()
        assert torch.equal((levels / 255).float(), x)
        assert 0 <= float(x.min()) <= float(x.max()) <= 1


def test_the_patterns_are_orthogonal_signs_of_mean_zero() -> None:
    flat = PATTERNS.flatten(1)
    assert torch.equal(flat @ flat.T, 256 * torch.eye(4))
    assert torch.equal(flat.abs(), torch.ones(4, 256))
    assert not flat.sum(1).any()


def test_the_pattern_tells_the_label_and_moves_every_pixel_by_six_levels() -> None:
    for split in ("train", "test"):
        (x, y), (plain, _) = data.shapes(split), data.shapes(split, pattern="off")
        added = ((x.double() - plain.double()) * 255).round()
        assert torch.equal(added, 6.0 * PATTERNS[y][:, None].expand_as(added).double())
        s = scores(x)
        assert float((s.argmax(1) == y).double().mean()) >= 0.99
        for label in range(4):
            pair = torch.stack([s[:, label], (y == label).double()])
            assert float(torch.corrcoef(pair)[0, 1]) >= 0.98


def test_each_feature_follows_what_it_is_told() -> None:
    x, y = data.shapes("test", pattern="next")
    assert float((scores(x).argmax(1) == (y + 1) % 4).double().mean()) >= 0.99
    x, y = data.shapes("test", pattern="random")
    assert float((scores(x).argmax(1) == y).double().mean()) == pytest.approx(0.25, abs=0.05)
    x, y = data.shapes("test", pattern="off")
    assert float(scores(x).abs().max()) < 3
    here, _ = data.shapes("test", pattern="off")
    there, _ = data.shapes("test", pattern="off", shape="next")
    ground, _ = data.shapes("test", pattern="off", shape="off")
    drawn_here, drawn_there = (here - ground).abs() > 0.1, (there - ground).abs() > 0.1
    for label in range(4):  # the next class of one label is the class of the next
        area = drawn_there[y == label].double().mean(), drawn_here[y == (label + 1) % 4].double()
        assert float(area[0]) == pytest.approx(float(area[1].mean()), rel=0.1)
    assert not (drawn_here == drawn_there).all()


def test_the_shape_is_forty_levels_from_the_ground() -> None:
    here, _ = data.shapes("test", pattern="off")
    ground, _ = data.shapes("test", pattern="off", shape="off")
    gap = ((here - ground).abs() * 255).round()
    assert sorted(gap.unique().int().tolist()) == [0, *range(40, 80)]


def test_the_set_depends_on_the_seed_only() -> None:
    before = torch.get_rng_state()
    x, y = data.shapes("test", indices=[7, 3])
    assert torch.equal(torch.get_rng_state(), before)
    whole = data.shapes("test")
    assert torch.equal(x, whole[0][[7, 3]])
    assert torch.equal(y, whole[1][[7, 3]])
    assert not torch.equal(data.shapes("test", seed=1)[0], whole[0])
    content = (whole[0] * 255).round().to(torch.uint8).numpy().tobytes()
    assert hashlib.sha256(content).hexdigest()[:16] == "ac9757afb485e900"


@pytest.mark.parametrize(
    "arguments", [{"shape": "labels"}, {"pattern": "on"}, {"seed": -1}, {"split": "all"}]
)
def test_unknown_arguments(arguments: dict) -> None:
    (name,) = arguments
    with pytest.raises(ValueError, match=f"{name}="):
        data.shapes(**{"split": "test", **arguments})
    with pytest.raises(ValueError, match="label=4"):
        drawn.pattern_of(4)
