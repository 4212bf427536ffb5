"""The architectures have the sizes that the papers state."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, nn

from robustlib.zoo import architectures


def relus(net: nn.Sequential, shape: tuple[int, ...]) -> int:
    """Number of ReLUs, counted on one forward pass."""
    sizes: list[int] = []
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(lambda _, __, output: sizes.append(output.numel()))
    assert net(torch.zeros(1, *shape)).shape[1] in (2, 10)
    return sum(sizes)


@pytest.mark.parametrize(
    ("net", "shape", "expected"),
    [
        (architectures.cnn_a(), (1, 28, 28), 4804),
        (architectures.cnn_a(3, 32), (3, 32, 32), 6244),
        (architectures.cnn_b(), (1, 28, 28), 48064),
        (architectures.mlp([500]), (1, 28, 28), 500),
        (architectures.mlp([200, 200]), (1, 28, 28), 400),
        (architectures.mlp([20, 20]), (1, 28, 28), 40),
        (architectures.mlp([20, 20, 20]), (1, 28, 28), 60),
        (architectures.cifar_resnet(), (3, 32, 32), 5220),
        (architectures.cifar_resnet(16), (3, 32, 32), 10340),
        (architectures.mlp([30, 30], inputs=64), (1, 8, 8), 60),
        (architectures.lenet(), (1, 28, 28), 500),
        (architectures.nin(), (3, 32, 32), 32**2 * 448 + 16**2 * 576 + 8**2 * 384),
        (architectures.nin(6), (3, 32, 32), 32**2 * 28 + 16**2 * 36 + 8**2 * 24),
        (architectures.digits_cnn(), (1, 8, 8), 224),
        (architectures.toy_net(), (2,), 8),
    ],
)
def test_number_of_relus(net: nn.Sequential, shape: tuple[int, ...], expected: int) -> None:
    assert relus(net, shape) == expected


def test_caffes_lenet_has_no_relu_behind_its_convolutions() -> None:
    assert architectures.describe(architectures.lenet()) == (
        "Conv2d(1, 20, 5×5, stride 1, padding 0), MaxPool2d(2), "
        "Conv2d(20, 50, 5×5, stride 1, padding 0), MaxPool2d(2), "
        "Flatten, Linear(800, 500), ReLU, Linear(500, 10)"
    )


def test_the_network_in_network_has_nine_layers() -> None:
    net = architectures.nin()
    assert sum(isinstance(layer, nn.Conv2d) for layer in net) == 9
    assert sum(p.numel() for p in net.parameters()) == 966_986


def test_descriptions_tell_architectures_apart() -> None:
    nets = [architectures.mlp([30, 30]), architectures.mlp([30, 31]), architectures.cnn_a(3, 28)]
    nets += [architectures.cifar_resnet(width) for width in (8, 16)]
    assert len({architectures.describe(net) for net in [*nets, architectures.cnn_a()]}) == 6


def test_the_parts_of_a_residual_block_are_described_and_initialized() -> None:
    net = architectures.cifar_resnet(4)
    assert "Residual(Conv2d(4, 8, 3×3, stride 2, padding 1), ReLU" in architectures.describe(net)
    assert "+ Conv2d(4, 8, 1×1, stride 2, padding 0))" in architectures.describe(net)
    for parameter in net.parameters():
        parameter.data.fill_(9.0)
    architectures.initialize(net, Generator().manual_seed(0))
    assert all(float(parameter.detach().abs().max()) < 1 for parameter in net.parameters())


def test_initial_parameters_come_from_the_generator_and_fit_torchs_range() -> None:
    before = torch.get_rng_state()
    with torch.device("meta"):
        nets = [architectures.cnn_a() for _ in range(2)]
    nets = [net.to_empty(device="cpu") for net in nets]
    for net in nets:
        architectures.initialize(net, Generator().manual_seed(3))
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(a, b)
    bound = 1568**-0.5
    weight = nets[0][5].weight.detach()
    assert 0.99 * bound < float(weight.max()) <= bound
    assert float(nets[0][5].bias.detach().abs().max()) <= bound


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: architectures.cnn_a(size=30), "size=30 is not divisible by 4"),
        (lambda: architectures.cnn_b(in_channels=0), "in_channels=0"),
        (lambda: architectures.mlp([0]), "hidden=0"),
        (lambda: architectures.cifar_resnet(0), "width=0"),
        (lambda: architectures.mlp([5], classes=0), "classes=0"),
    ],
)
def test_sizes_that_make_no_network(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
