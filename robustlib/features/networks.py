"""Small networks for CIFAR-10: a processor core trains one in three minutes."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from robustlib import checks

LAYER = "features"  # the submodule whose output is the representation


class Residual(nn.Module):
    """x ↦ x + body(x)."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def _convolution(before: int, after: int, stride: int = 1, size: int = 3) -> list[nn.Module]:
    return [
        nn.Conv2d(before, after, size, stride, padding=size // 2, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
    ]


def _named(features: Sequence[nn.Module], width: int, classes: int) -> nn.Sequential:
    """``features`` and a linear ``head``: the penultimate layer has a name."""
    parts = [(LAYER, nn.Sequential(*features)), ("head", nn.Linear(width, classes))]
    return nn.Sequential(OrderedDict(parts))


def slim_resnet(
    widths: Sequence[int] = (32, 64, 128), in_channels: int = 3, classes: int = 10
) -> nn.Sequential:
    """A residual network of 289 k parameters: each stage halves the image, then refines it once.

    A stage is a 3×3 convolution of stride 2 and a residual 3×3 convolution, both with batch
    normalization and ReLU; after the last stage the average over all places is the representation,
    the output of the submodule ``features``.

    Examples
    --------
    >>> net = slim_resnet()
    >>> sum(p.numel() for p in net.parameters())
    288746
    >>> net.features(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 128])
    """
    layers: list[nn.Module] = []
    for before, after in pairwise([checks.count("in_channels", in_channels), *widths]):
        layers += _convolution(before, checks.count("widths", after), stride=2)
        layers.append(Residual(*_convolution(after, after)))
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return _named(layers, widths[-1], checks.count("classes", classes))


def pooled_resnet(
    widths: Sequence[int] = (16, 32, 64, 128), in_channels: int = 3, classes: int = 10
) -> nn.Sequential:
    """The slim residual network with no strides: it starts at full size and halves by averages.

    A stage is an average over 2×2 places (none in the first), a 3×3 convolution and a residual
    3×3 convolution. Averages do not alias, so what this network sees survives a shift by one pixel
    much more often than with strides; an image costs half as much again.

    Examples
    --------
    >>> net = pooled_resnet()
    >>> sum(p.numel() for p in net.parameters())
    295290
    >>> net.features(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 128])
    """
    layers: list[nn.Module] = []
    for before, after in pairwise([checks.count("in_channels", in_channels), *widths]):
        layers += [nn.AvgPool2d(2)] if layers else []
        layers += _convolution(before, checks.count("widths", after))
        layers.append(Residual(*_convolution(after, after)))
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return _named(layers, widths[-1], checks.count("classes", classes))


class Dense(nn.Module):
    """x ↦ x and body(x), side by side."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], dim=1)


def _averaged(layers: Sequence[nn.Module], width: int) -> nn.Sequential:
    return _named([*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()], width, 10)


def slim_vgg() -> nn.Sequential:
    """VGG in small: pairs of plain convolutions, the first of stride 2, then max-pooling."""
    layers: list[nn.Module] = []
    for before, after in pairwise((3, 32, 64, 128)):
        layers += _convolution(before, after, stride=2 if before == 3 else 1)
        layers += [*_convolution(after, after), nn.MaxPool2d(2)]
    return _averaged(layers, 128)


def slim_plain() -> nn.Sequential:
    """The slim residual network without its shortcuts."""
    layers: list[nn.Module] = []
    for before, after in pairwise((3, 32, 64, 128)):
        layers += [*_convolution(before, after, stride=2), *_convolution(after, after)]
    return _averaged(layers, 128)


def slim_dense() -> nn.Sequential:
    """DenseNet in small: each convolution sees all outputs of its stage before it."""
    layers: list[nn.Module] = []
    for before, after in pairwise((3, 32, 64, 128)):
        half = after // 2
        layers += [*_convolution(before, half, stride=2), Dense(*_convolution(half, half))]
        layers += _convolution(after, after, size=1)
    return _averaged(layers, 128)


def slim_patches() -> nn.Sequential:
    """Patches of 4×4 pixels, cut without overlap, then residual convolutions of one width."""
    layers: list[nn.Module] = [nn.Conv2d(3, 96, 4, 4, bias=False), nn.BatchNorm2d(96), nn.ReLU()]
    layers += [Residual(*_convolution(96, 96)) for _ in range(2)]
    return _averaged([*layers, nn.MaxPool2d(2), Residual(*_convolution(96, 96))], 96)


def slim_shallow() -> nn.Sequential:
    """Two wide stages only: 5×5, then 3×3 convolutions of stride 2."""
    layers = [*_convolution(3, 48, stride=2, size=5), *_convolution(48, 128, stride=2)]
    return _averaged([*layers, nn.MaxPool2d(2)], 128)


ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {
    "slim_resnet": slim_resnet,
    "pooled_resnet": pooled_resnet,
    "slim_vgg": slim_vgg,
    "slim_plain": slim_plain,
    "slim_dense": slim_dense,
    "slim_patches": slim_patches,
    "slim_shallow": slim_shallow,
}


def initialize(net: nn.Module, generator: Generator) -> None:
    """Draw all weights from ``generator`` only: He for convolutions, torch's own for the rest."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            gain = math.sqrt(6.0) if isinstance(module, nn.Conv2d) else 1.0
            bound = gain / math.sqrt(fan_in)
            with torch.no_grad():
                module.weight.uniform_(-bound, bound, generator=generator)
                if module.bias is not None:
                    module.bias.uniform_(-bound, bound, generator=generator)


def build(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A fresh network in channels-last layout; nothing is drawn from the global random state."""
    with torch.device("meta"):
        net = make()
    net = net.to_empty(device="cpu")
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
    initialize(net, torch.Generator().manual_seed(seed))
    return channels_last(net)


def folded(net: nn.Module) -> nn.Module:
    """A frozen copy in evaluation mode, batch normalization folded into the convolution before it.

    It computes the same function up to rounding, in about two thirds of the time; names of
    submodules stay.
    """
    net = copy.deepcopy(net).eval().requires_grad_(False)
    for module in list(net.modules()):
        if isinstance(module, nn.Sequential):
            for (_, first), (name, second) in pairwise(list(module.named_children())):
                if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                    fused = fuse_conv_bn_eval(first, second)
                    first.weight, first.bias = fused.weight, fused.bias
                    setattr(module, name, nn.Identity())
    return channels_last(net.eval().requires_grad_(False))


def channels_last(net: Any) -> nn.Module:
    """``net`` with its convolutions in channels-last layout, in which a processor is fastest."""
    return net.to(memory_format=torch.channels_last)
