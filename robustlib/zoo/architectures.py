"""Architectures under the names that the papers give them.

Each function returns a fresh, randomly initialized ``torch.nn.Sequential`` of Conv2d, Linear, ReLU,
pooling, Flatten and ``Residual``, for inputs of shape (n, C, H, W) in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Generator, nn

from robustlib import checks
from robustlib.network import Residual


def cnn_a(in_channels: int = 1, size: int = 28) -> nn.Sequential:
    """CNN_A of Tjeng et al., Table 2: two convolutions of stride 2, one hidden layer of 100.

    Parameters
    ----------
    in_channels : int
        1 for MNIST, 3 for CIFAR-10.
    size : int
        Height and width of the image, divisible by 4: 28 for MNIST (4804 ReLUs), 32 for CIFAR-10
        (6244 ReLUs).

    Examples
    --------
    >>> from robustlib.zoo import architectures
    >>> sum(p.numel() for p in architectures.cnn_a().parameters())
    166406
    """
    size = _divisible_by_four(size)
    return nn.Sequential(
        nn.Conv2d(checks.count("in_channels", in_channels), 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * (size // 4) ** 2, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


def cnn_b(in_channels: int = 1, size: int = 28) -> nn.Sequential:
    """CNN_B of Tjeng et al. (``mnist_model_large`` of Wong and Kolter): 48 064 ReLUs on MNIST.

    Parameters
    ----------
    in_channels : int
        1 for MNIST, 3 for CIFAR-10.
    size : int
        Height and width of the image, divisible by 4.
    """
    size = _divisible_by_four(size)
    return nn.Sequential(
        nn.Conv2d(checks.count("in_channels", in_channels), 32, 3, stride=1, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=1, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 64, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * (size // 4) ** 2, 512),
        nn.ReLU(),
        nn.Linear(512, 512),
        nn.ReLU(),
        nn.Linear(512, 10),
    )


def strided_cnn(width: int = 8, size: int = 28) -> nn.Sequential:
    """Madry et al.'s (2018) network for MNIST, smaller, with strides in place of max-pooling.

    Theirs has convolutions of 32 and 64 channels and a hidden layer of 1024. The first layer here
    looks at every pixel, so that it can learn theirs' filters, which cut a pixel off at a
    threshold; two convolutions of stride 2 follow.

    Parameters
    ----------
    width : int
        Channels of the first convolution; the next have 4 and 8 times as many, the hidden layer 16
        times as many units.
    size : int
        Height and width of the image, divisible by 4: 28 for MNIST, 8 for the digits.

    Examples
    --------
    >>> from robustlib.zoo import architectures
    >>> sum(p.numel() for p in architectures.strided_cnn().parameters())
    439866
    """
    width, size = checks.count("width", width), _divisible_by_four(size)
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, 4 * width, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(4 * width, 8 * width, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * width * (size // 4) ** 2, 16 * width),
        nn.ReLU(),
        nn.Linear(16 * width, 10),
    )


def mlp(hidden: Sequence[int], inputs: int = 784, classes: int = 10) -> nn.Sequential:
    """MLP-m×[n] of Tjeng et al.: fully connected, ``hidden`` ReLUs a layer.

    MLP_A is ``mlp([500])``, MLP_B is ``mlp([200, 200])``.

    Examples
    --------
    >>> from robustlib.zoo import architectures
    >>> architectures.describe(architectures.mlp([20, 20]))
    'Flatten, Linear(784, 20), ReLU, Linear(20, 20), ReLU, Linear(20, 10)'
    """
    widths = [checks.count("inputs", inputs), *(checks.count("hidden", width) for width in hidden)]
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], checks.count("classes", classes)))


def cifar_resnet(width: int = 8) -> nn.Sequential:
    """A small residual network for CIFAR-10, (3, 32, 32), after the one of Wong et al. (2018).

    Theirs has four blocks, two wide hidden layers and 107 496 ReLUs; this one has a convolution of
    stride 2, two residual blocks that halve the image again, and one hidden layer of 100: 5220
    ReLUs at ``width`` 8, the channels of the first convolution.
    """
    width = checks.count("width", width)
    return nn.Sequential(
        nn.Conv2d(3, width, 4, stride=2, padding=1),
        nn.ReLU(),
        _halving_block(width, 2 * width),
        nn.ReLU(),
        _halving_block(2 * width, 4 * width),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * width * 4 * 4, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


def _halving_block(before: int, after: int) -> Residual:
    body = nn.Sequential(
        nn.Conv2d(before, after, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(after, after, 3, padding=1),
    )
    return Residual(body, nn.Conv2d(before, after, 1, stride=2))


def lenet() -> nn.Sequential:
    """Caffe's LeNet for MNIST, the network of Bastani et al.

    Unlike in most re-implementations there is no ReLU behind the convolutions: the only nonlinear
    steps are the two max-poolings and one layer of 500 ReLUs.
    """
    return nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 500),
        nn.ReLU(),
        nn.Linear(500, 10),
    )


def nin(width: int = 96) -> nn.Sequential:
    """The Network-in-Network of nine layers for CIFAR-10, (3, 32, 32), of Bastani et al.

    Lin, Chen and Yan (2014), as in Caffe's model zoo: convolutions, each followed by two layers of
    1×1 convolutions; the last one has a channel for each label, and the logits are its means.

    Parameters
    ----------
    width : int
        Channels before the first pooling: 96 in the paper (966 986 parameters); the other layers
        grow and shrink with it.

    Notes
    -----
    Caffe lets the last windows of a pooling hang over the edge; here the first ones do. Caffe's
    dropout acts in training only and is left out, and so is the ReLU on the logits' maps.
    """
    width = checks.count("width", width)
    wide, middle = 2 * width, max(1, 5 * width // 3)

    def block(*channels: int, kernel: int) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for k, (before, after) in enumerate(pairwise(channels)):
            size = kernel if k == 0 else 1
            layers += [nn.Conv2d(before, after, size, padding=size // 2), nn.ReLU()]
        return layers

    return nn.Sequential(
        *block(3, wide, middle, width, kernel=5),
        nn.MaxPool2d(3, stride=2, padding=1),
        *block(width, wide, wide, wide, kernel=5),
        nn.AvgPool2d(3, stride=2, padding=1),
        *block(wide, wide, wide, 10, kernel=3)[:-1],
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def digits_cnn() -> nn.Sequential:
    """CNN_A shrunk to 8×8 images: 8 and 16 filters, one hidden layer of 32; 224 ReLUs."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )


def toy_net() -> nn.Sequential:
    """The network of Bastani et al., Figure 1: points (n, 2), one hidden layer of 8 ReLUs."""
    return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2))


def describe(net: nn.Sequential) -> str:
    """The layers with their sizes on one line; equal for networks of the same architecture.

    >>> from robustlib.zoo import architectures
    >>> architectures.describe(architectures.toy_net())
    'Linear(2, 8), ReLU, Linear(8, 2)'
    """
    return ", ".join(map(_layer, net))


def _layer(module: nn.Module) -> str:
    name = type(module).__name__
    if isinstance(module, Residual):
        return f"{name}({describe(module.body)} + {_layer(module.shortcut)})"
    if isinstance(module, nn.Linear):
        return f"{name}({module.in_features}, {module.out_features})"
    if isinstance(module, nn.Conv2d):
        size, stride, padding = module.kernel_size[0], module.stride[0], module.padding[0]
        sizes = f"{module.in_channels}, {module.out_channels}, {size}×{size}"
        return f"{name}({sizes}, stride {stride}, padding {padding})"
    if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
        usual = module.stride == module.kernel_size and module.padding == 0
        more = "" if usual else f", stride {module.stride}, padding {module.padding}"
        return f"{name}({module.kernel_size}{more})"
    return name


def initialize(net: nn.Sequential, generator: Generator, gain: float = 1.0) -> None:
    """Draw the parameters from U(±gain/√fan-in), as torch does by default with gain 1."""
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            bound = gain / math.sqrt(module.weight[0].numel())
            with torch.no_grad():
                module.weight.uniform_(-bound, bound, generator=generator)
                assert module.bias is not None
                module.bias.uniform_(-bound, bound, generator=generator)


def _divisible_by_four(size: int) -> int:
    size = checks.count("size", size, low=4)
    if size % 4:
        raise ValueError(f"size={size} is not divisible by 4; two layers halve it, without rest.")
    return size
