"""A torch module as a flat list of steps, each affine or a maximum: what bounds and encoders read.

``from_torch`` accepts ``nn.Sequential`` of the layers in ``SUPPORTED`` and refuses everything else
by name, because a layer that is skipped or misread would make every later proof worthless.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import torch
from scipy import sparse
from torch import nn

from robustlib import checks

Matrix: TypeAlias = Any  # np.ndarray or scipy.sparse.csr_array: both know @, abs and shape


@dataclass(frozen=True, eq=False)
class Affine:
    """z = W x + b, with W of shape (m, n) dense or sparse (CSR) and b of shape (m,), float64."""

    weight: Matrix
    bias: np.ndarray

    @property
    def size(self) -> int:
        return len(self.bias)

    @cached_property
    def absolute(self) -> Matrix:
        """|W|, entry by entry."""
        return abs(self.weight)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return (self.weight @ x.T).T + self.bias


@dataclass(frozen=True, eq=False)
class ReLU:
    """y = max(z, 0), unit by unit."""

    size: int

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return np.maximum(x, 0.0)


@dataclass(frozen=True, eq=False)
class MaxPool:
    """y_j = max of x over ``windows[j]``; windows is (m, k), −1 marks a padded place."""

    windows: np.ndarray

    @property
    def size(self) -> int:
        return len(self.windows)

    def gather(self, x: np.ndarray, empty: float) -> np.ndarray:
        """x (…, n) laid out as (…, m, k), with ``empty`` in the padded places."""
        padded = np.concatenate([x, np.full((*x.shape[:-1], 1), empty)], axis=-1)
        return padded[..., self.windows]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self.gather(x, -np.inf).max(axis=-1)


Step = Affine | ReLU | MaxPool


@dataclass(frozen=True, eq=False)
class Network:
    """A piecewise-linear network: ``steps`` in turn, on a flattened input of ``input_shape``.

    Weights are the module's own, exactly: float32 values are float64 values.
    """

    steps: tuple[Step, ...]
    input_shape: tuple[int, ...]

    @property
    def input_size(self) -> int:
        return int(np.prod(self.input_shape))

    @property
    def classes(self) -> int:
        return self.steps[-1].size

    def outputs(self, x: np.ndarray) -> Iterator[np.ndarray]:
        """The output of every step in turn, for x of shape (batch, input_size), float64."""
        for step in self.steps:
            x = step(x)
            yield x

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Logits (batch, classes) in float64 for x of shape (batch, input_size)."""
        *_, logits = self.outputs(np.asarray(x, dtype=np.float64))
        return logits


def margin_rows(label: int, classes: int, targets: list[int] | None = None) -> np.ndarray:
    """The matrix C with (C · logits)_j = logit[label] − logit[target_j], shape (targets, classes).

    >>> margin_rows(0, 3)
    array([[ 1., -1.,  0.],
           [ 1.,  0., -1.]])
    """
    targets = [j for j in range(classes) if j != label] if targets is None else targets
    rows = np.zeros((len(targets), classes))
    rows[:, label] = 1.0
    rows[np.arange(len(targets)), targets] -= 1.0
    return rows


def from_torch(module: nn.Module, input_shape: tuple[int, ...]) -> Network:
    """Read ``module`` as a list of affine, ReLU and max-pooling steps.

    Parameters
    ----------
    module : nn.Sequential (nested ones are flattened) of the layers in ``SUPPORTED``, eval mode.
    input_shape : shape of one input without the batch, such as (1, 28, 28).

    Raises
    ------
    ValueError
        For a layer or an option that is not supported (named), a non-finite weight, or a shape
        that does not fit; also when the result differs from the module on random inputs.

    Examples
    --------
    >>> net = from_torch(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)).eval(), (2,))
    >>> [type(step).__name__ for step in net.steps]
    ['Affine', 'ReLU', 'Affine']
    """
    checks.eval_mode(module, "net")
    shape = tuple(int(n) for n in input_shape)
    steps: list[Step] = []
    for name, layer in _layers(module, ""):
        if isinstance(layer, nn.Flatten):
            if layer.start_dim != 1 or layer.end_dim != -1:
                raise ValueError(f"layer {name} is {layer}; only Flatten(1, -1) is supported.")
            shape = (int(np.prod(shape)),)
        elif isinstance(layer, nn.Identity | nn.Dropout):
            continue
        else:
            step, shape = _READERS[type(layer)](name, layer, shape)
            steps.append(step)
    if not steps or not isinstance(steps[-1], Affine) or len(shape) != 1:
        raise ValueError("the network must end in a Linear layer that gives the logits.")
    if shape[0] < 2:
        raise ValueError("the network has one output; a classifier needs a logit for each label.")
    network = Network(tuple(steps), tuple(int(n) for n in input_shape))
    _compare(network, module)
    return network


def _layers(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    name = prefix or "model"
    if type(module).forward is nn.Sequential.forward:  # no subclass that does more
        for key, child in module._modules.items():  # named_children skips a layer used twice
            assert child is not None
            yield from _layers(child, f"{prefix}.{key}" if prefix else key)
    elif type(module) in {*_READERS, nn.Flatten, nn.Identity, nn.Dropout}:
        yield name, module
    else:
        raise ValueError(
            f"layer {name} is {type(module).__name__}, which is not supported; a network may hold "
            f"{', '.join(SUPPORTED)} in nn.Sequential."
        )


def _numbers(name: str, layer: nn.Linear | nn.Conv2d) -> tuple[np.ndarray, np.ndarray]:
    weight = layer.weight.detach().to(device="cpu", dtype=torch.float64).numpy()
    bias = (
        np.zeros(weight.shape[0])
        if layer.bias is None
        else layer.bias.detach().to(device="cpu", dtype=torch.float64).numpy()
    )
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise ValueError(f"layer {name} ({type(layer).__name__}) has NaN or infinite weights.")
    return weight.copy(), bias.copy()


def _linear(name: str, layer: nn.Linear, shape: tuple[int, ...]) -> tuple[Step, tuple[int, ...]]:
    if shape != (layer.in_features,):
        raise ValueError(
            f"layer {name} is {layer}, but its input has shape {shape}; "
            "put Flatten() before it or correct input_shape."
        )
    weight, bias = _numbers(name, layer)
    return Affine(weight, bias), (layer.out_features,)


def _relu(name: str, layer: nn.ReLU, shape: tuple[int, ...]) -> tuple[Step, tuple[int, ...]]:
    return ReLU(int(np.prod(shape))), shape


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def _patches(
    name: str,
    shape: tuple[int, ...],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> tuple[np.ndarray, tuple[int, int]]:
    """Input index of every place of every window, (channels, kh·kw, positions), −1 for padding."""
    if len(shape) != 3:
        raise ValueError(f"layer {name} needs inputs (channels, height, width), got {shape}.")
    out = tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(shape[1:], kernel, stride, padding, dilation, strict=True)
    )
    if min(out) < 1:
        raise ValueError(f"layer {name} has a window larger than its input of shape {shape}.")
    index = torch.arange(1, int(np.prod(shape)) + 1, dtype=torch.float64).reshape(1, *shape)
    columns = nn.functional.unfold(index, kernel, dilation, padding, stride)
    places = columns.reshape(shape[0], kernel[0] * kernel[1], -1).long().numpy() - 1
    return places, (out[0], out[1])


def _conv2d(name: str, layer: nn.Conv2d, shape: tuple[int, ...]) -> tuple[Step, tuple[int, ...]]:
    if layer.groups != 1 or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise ValueError(
            f"layer {name} is {layer}; only groups=1, padding_mode='zeros' and numeric padding "
            "are supported."
        )
    if shape[0] != layer.in_channels:
        raise ValueError(f"layer {name} is {layer}, but its input has shape {shape}.")
    places, (height, width) = _patches(
        name,
        shape,
        _pair(layer.kernel_size),
        _pair(layer.stride),
        _pair(layer.padding),
        _pair(layer.dilation),
    )
    weight, bias = _numbers(name, layer)
    channels, positions = layer.out_channels, height * width
    columns = places.reshape(-1, positions)  # (in·kh·kw, positions)
    kernel = weight.reshape(channels, -1)
    data = np.broadcast_to(kernel[:, None, :], (channels, positions, kernel.shape[1]))
    cols = np.broadcast_to(columns.T[None], data.shape)
    rows = np.broadcast_to(
        np.arange(channels * positions).reshape(channels, positions, 1), data.shape
    )
    inside = cols >= 0
    matrix = sparse.csr_array(
        (data[inside], (rows[inside], cols[inside])),
        shape=(channels * positions, int(np.prod(shape))),
    )
    return Affine(matrix, np.repeat(bias, positions)), (channels, height, width)


def _max_pool(
    name: str, layer: nn.MaxPool2d, shape: tuple[int, ...]
) -> tuple[Step, tuple[int, ...]]:
    if layer.ceil_mode or layer.return_indices:
        raise ValueError(f"layer {name}: ceil_mode and return_indices are not supported.")
    kernel = _pair(layer.kernel_size)
    stride = kernel if layer.stride is None else _pair(layer.stride)
    places, (height, width) = _patches(
        name, shape, kernel, stride, _pair(layer.padding), _pair(layer.dilation)
    )
    windows = places.transpose(0, 2, 1).reshape(-1, kernel[0] * kernel[1])
    if (windows < 0).all(axis=1).any():
        raise ValueError(f"layer {name} is {layer}, with a window that holds only padding.")
    return MaxPool(windows), (shape[0], height, width)


_Reader = Callable[[str, Any, tuple[int, ...]], tuple[Step, tuple[int, ...]]]
_READERS: dict[type[nn.Module], _Reader] = {
    nn.Linear: _linear,
    nn.Conv2d: _conv2d,
    nn.ReLU: _relu,
    nn.MaxPool2d: _max_pool,
}
SUPPORTED = ("Linear", "Conv2d", "ReLU", "MaxPool2d", "Flatten", "Identity", "Dropout")


def _compare(network: Network, module: nn.Module) -> None:
    """Both must agree on random inputs: a misread layer is found here, not in a wrong proof."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((4, *network.input_shape), generator=generator, dtype=torch.float64)
    with torch.no_grad():
        expected = copy.deepcopy(module).to(device="cpu", dtype=torch.float64)(x).numpy()
    got = network.forward(x.reshape(4, -1).numpy())
    if not np.allclose(got, expected, rtol=1e-9, atol=1e-9 * (1.0 + np.abs(expected).max())):
        raise ValueError(
            "the network that was read differs from the module by "
            f"{np.abs(got - expected).max():.2g} on random inputs; please report this."
        )
