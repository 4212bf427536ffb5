"""The recipes against closed forms: linear networks, for which the best point is known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from robustlib import features
from robustlib.features import files


def linear(weight: Tensor, head: Tensor) -> nn.Sequential:
    """x ↦ head · (weight · x): the first layer is the representation, named "1"."""
    net = nn.Sequential(
        nn.Flatten(),
        nn.Linear(weight.shape[1], weight.shape[0], bias=False),
        nn.Linear(head.shape[1], head.shape[0], bias=False),
    )
    net[1].weight.data, net[2].weight.data = weight, head
    return net.eval()


@pytest.fixture
def net() -> nn.Sequential:
    """Twelve inputs, four features with orthonormal weights, three classes."""
    generator = torch.Generator().manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(12, 12, generator=generator))
    return linear(basis[:, :4].T.contiguous(), torch.randn(3, 4, generator=generator))


@pytest.fixture
def images(net: nn.Sequential) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = 0.4 + 0.2 * torch.rand(40, 3, 2, 2, generator=generator)
    return x, torch.randint(3, (40,), generator=generator)


def test_inversion_reaches_the_nearest_point_with_the_same_representation(
    net: nn.Sequential, images: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    """With orthonormal weights W each step stays in the row space: z* = x' + Wᵀ(Wx − Wx')."""
    x, y = images
    path = features.robust_dataset(
        net, x, y, tmp_path / "set", layer="1", steps=300, step_size=0.05, decay=True
    )
    z, labels, about = features.load(path)
    start = x[about["source"]]
    weight = net[1].weight.detach()
    wanted = start.flatten(1) + ((x - start).flatten(1) @ weight.T) @ weight
    assert torch.equal(labels, y)
    assert (z.flatten(1) - wanted).abs().max() <= 0.5 / 255 + 2e-3
    assert about["report"]["relative_distance"] < 0.01 < about["report"]["start_distance"]
    assert len(about["source"].unique()) > 10, "starts are other images, drawn at random"


def test_both_inversions_are_the_same_recipe(
    net: nn.Sequential, images: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    one = features.robust_dataset(net, *images, tmp_path / "a", layer="1", steps=3)
    two = features.nonrobust_dataset(net, *images, tmp_path / "b", layer="1", steps=3)
    assert torch.equal(features.load(one)[0], features.load(two)[0])
    assert features.load(two)[2]["recipe"] == "nonrobust"


def test_inversion_from_noise_does_not_know_the_other_images(
    net: nn.Sequential, images: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    x, y = images
    noise = {"layer": "1", "start": "noise", "steps": 2}
    few = features.load(features.robust_dataset(net, x[:5], y[:5], tmp_path / "few", **noise))
    all_ = features.load(features.robust_dataset(net, x, y, tmp_path / "all", **noise))
    assert torch.equal(few[0], all_[0][:5])
    assert bool((few[2]["source"] == -1).all())


def test_targeted_steps_reach_the_best_point_of_the_ball(tmp_path: Path) -> None:
    """Two classes, logits ±wᵀx: the best point toward t is x ± eps w/‖w‖."""
    w = torch.randn(12, generator=torch.Generator().manual_seed(2))
    net = linear(torch.eye(12), torch.stack([w, -w]))
    x, y = torch.full((6, 3, 2, 2), 0.5), torch.tensor([0, 1, 0, 1, 0, 1])
    path = features.mislabeled_deterministic(net, x, y, tmp_path / "set", eps=0.3, steps=10)
    z, t, about = features.load(path)
    assert torch.equal(t, 1 - y)
    sign = torch.where(t == 0, 1.0, -1.0)[:, None]
    wanted = 0.5 + 0.3 * sign * w / w.norm()
    assert (z.flatten(1) - wanted).abs().max() <= 0.5 / 255 + 1e-5
    assert about["report"]["success"] == about["report"]["changed"] == 1.0
    assert about["report"]["distance"] == pytest.approx(0.3, abs=0.01)


def test_networks_to_keep_go_on_seeing_the_label(tmp_path: Path) -> None:
    """One network reads the first half of the pixels, the other the second: the first is moved."""
    sign = torch.tensor([1.0, -1.0]).repeat(3)
    half = torch.zeros(2, 12)
    half[0, :6], half[1, :6] = sign, -sign
    net, other = (linear(torch.eye(12), weight) for weight in (half, half.flip(1)))
    x, y = torch.full((4, 3, 2, 2), 0.5), torch.zeros(4, dtype=torch.long)
    path = features.mislabeled_deterministic(net, x, y, tmp_path / "set", steps=20, keep=[other])
    z, t, _ = features.load(path)
    with torch.no_grad():
        assert torch.equal(net(z).argmax(1), t)
        assert torch.equal(other(z).argmax(1), y)


def test_the_l_inf_variant_moves_every_pixel_by_eps(tmp_path: Path) -> None:
    w = torch.randn(12, generator=torch.Generator().manual_seed(2))
    net = linear(torch.eye(12), torch.stack([w, -w]))
    x, y = torch.full((2, 3, 2, 2), 128 / 255), torch.tensor([1, 1])
    path = features.mislabeled_deterministic(
        net, x, y, tmp_path / "set", eps=8 / 255, norm="inf", steps=5, step_size=4 / 255
    )
    z, _, _ = features.load(path)
    assert torch.allclose(z.flatten(1), 128 / 255 + 8 / 255 * w.sign(), atol=1e-6)


def test_random_targets_are_uniform_and_keep_some_labels(
    net: nn.Sequential, tmp_path: Path
) -> None:
    x, y = torch.full((600, 3, 2, 2), 0.5), torch.zeros(600, dtype=torch.long)
    path = features.mislabeled_random(net, x, y, tmp_path / "set", steps=1)
    _, t, about = features.load(path)
    assert t.bincount(minlength=3).min() > 150
    assert about["report"]["changed"] == pytest.approx(2 / 3, abs=0.08)


def test_a_copy_that_does_not_move_changes_nothing(tmp_path: Path) -> None:
    """Averaging over flips of images and weights that are symmetric is the plain gradient."""
    half = torch.randn(3, 3, 2, 1, generator=torch.Generator().manual_seed(3))
    weight = torch.cat([half, half], dim=3).flatten(1)
    net = linear(weight, torch.eye(3))
    x, y = torch.full((8, 3, 2, 2), 0.5), torch.arange(8) % 3
    kinds = {"eps": 0.2, "steps": 4}
    plain = features.mislabeled_deterministic(net, x, y, tmp_path / "a", **kinds)
    moved = features.mislabeled_deterministic(net, x, y, tmp_path / "b", copies=2, **kinds)
    a, b = features.load(plain)[0], features.load(moved)[0]
    assert (a - b).abs().max() <= 1.01 / 255


def test_an_image_does_not_depend_on_parts_or_on_its_neighbors(
    net: nn.Sequential, images: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    x, y = images
    kinds = {"steps": 3, "copies": 1, "reach": 1, "seed": 5}
    whole = features.load(features.mislabeled_random(net, x, y, tmp_path / "a", **kinds))
    parts = features.load(
        features.mislabeled_random(net, x, y, tmp_path / "b", batch=8, part=16, **kinds)
    )
    some = features.load(features.mislabeled_random(net, x[:9], y[:9], tmp_path / "c", **kinds))
    assert torch.equal(whole[0], parts[0])
    assert torch.equal(whole[1], parts[1])
    assert torch.equal(whole[0][:9], some[0])
    other = features.load(
        features.mislabeled_random(net, x, y, tmp_path / "d", **{**kinds, "seed": 6})
    )
    assert not torch.equal(whole[1], other[1])


def test_nothing_is_drawn_from_the_global_random_state(
    net: nn.Sequential, images: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    before = torch.get_rng_state()
    features.mislabeled_random(net, *images, tmp_path / "a", steps=1, copies=1, reach=1)
    features.robust_dataset(net, *images, tmp_path / "b", layer="1", steps=1, start="noise")
    assert torch.equal(torch.get_rng_state(), before)
    assert not net.training
    assert all(p.requires_grad for p in net.parameters()), "the network is left as it was"


BAD: list[tuple[str, dict[str, object], type[Exception]]] = [
    ("labels", {"y": torch.tensor([0, 1, 3])}, ValueError),
    ("dtype", {"y": torch.tensor([0.0, 1.0, 2.0])}, TypeError),
    ("one label per input", {"y": torch.tensor([0, 1])}, ValueError),
    (r"\[0, 1\]", {"x": torch.full((3, 3, 2, 2), 1.5)}, ValueError),
    ("NaN", {"x": torch.full((3, 3, 2, 2), torch.nan)}, ValueError),
    ("float", {"x": torch.zeros(3, 3, 2, 2, dtype=torch.uint8)}, TypeError),
    ("refuses", {"x": torch.zeros(3, 5)}, ValueError),
    ("no images", {"x": torch.zeros(0, 3, 2, 2), "y": torch.zeros(0, dtype=int)}, ValueError),
    ("steps=0", {"steps": 0}, ValueError),
    ("step_size", {"step_size": 0.0}, ValueError),
    ("seed", {"seed": -1}, ValueError),
    ("precision", {"precision": "float16"}, ValueError),
    ("batch", {"batch": 0}, ValueError),
]


@pytest.mark.parametrize(("message", "bad", "kind"), BAD)
@pytest.mark.parametrize("build", [features.robust_dataset, features.mislabeled_random])
def test_bad_input_is_refused_by_name(
    net: nn.Sequential, tmp_path: Path, build, message: str, bad: dict, kind: type[Exception]
) -> None:
    good = {"x": torch.full((3, 3, 2, 2), 0.5), "y": torch.tensor([0, 1, 2])}
    kinds = {"layer": "1"} if build is features.robust_dataset else {}
    with pytest.raises(kind, match=message):
        build(net=net, path=tmp_path / "set", **{**good, **kinds, **bad})
    assert not (tmp_path / "set").exists(), "nothing is written before the input is checked"


@pytest.mark.parametrize("eps", [0.0, -1.0, float("nan"), "a"])
def test_a_radius_that_is_none_is_refused(net: nn.Sequential, tmp_path: Path, eps: object) -> None:
    x, y = torch.full((3, 3, 2, 2), 0.5), torch.tensor([0, 1, 2])
    with pytest.raises((TypeError, ValueError), match="eps"):
        features.mislabeled_random(net, x, y, tmp_path / "set", eps=eps)


def test_a_network_without_the_named_layer_is_refused(net: nn.Sequential, tmp_path: Path) -> None:
    x, y = torch.full((3, 3, 2, 2), 0.5), torch.tensor([0, 1, 2])
    with pytest.raises(ValueError, match=r"layer='features' is not known.*Allowed: 0, 1, 2"):
        features.robust_dataset(net, x, y, tmp_path / "set")


def test_a_network_in_training_mode_is_refused(net: nn.Sequential, tmp_path: Path) -> None:
    x, y = torch.full((3, 3, 2, 2), 0.5), torch.tensor([0, 1, 2])
    with pytest.raises(ValueError, match="training mode"):
        features.mislabeled_random(net.train(), x, y, tmp_path / "set")


def test_the_digest_of_a_network_knows_every_number(net: nn.Sequential) -> None:
    before = files.digest_of_network(net)
    net[2].weight.data[0, 0] += 1e-6
    assert files.digest_of_network(net) != before
