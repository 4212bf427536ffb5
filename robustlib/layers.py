"""One torch layer as one step: a table of readers, one for each layer that is supported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import nn

from robustlib.steps import Affine, MaxPool, ReLU, Step

Shape = tuple[int, ...]


def _numbers(name: str, layer: nn.Linear | nn.Conv2d) -> tuple[np.ndarray, np.ndarray]:
    weight = _float64(layer.weight)
    bias = np.zeros(weight.shape[0]) if layer.bias is None else _float64(layer.bias)
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise ValueError(f"layer {name} ({type(layer).__name__}) has NaN or infinite weights.")
    return weight, bias


def _float64(values: torch.Tensor) -> np.ndarray:
    """A copy, which holds the same numbers: float32 values are float64 values."""
    return values.detach().to(device="cpu", dtype=torch.float64).numpy().copy()


def _linear(name: str, layer: nn.Linear, shape: Shape) -> tuple[Step, Shape]:
    if shape != (layer.in_features,):
        raise ValueError(
            f"layer {name} is {layer}, but its input has shape {shape}; "
            "put Flatten() before it or correct input_shape."
        )
    weight, bias = _numbers(name, layer)
    return Affine(weight, bias), (layer.out_features,)


def _relu(name: str, layer: nn.ReLU, shape: Shape) -> tuple[Step, Shape]:
    return ReLU(int(np.prod(shape))), shape


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def _patches(
    name: str,
    shape: Shape,
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


def _conv2d(name: str, layer: nn.Conv2d, shape: Shape) -> tuple[Step, Shape]:
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


def _max_pool(name: str, layer: nn.MaxPool2d, shape: Shape) -> tuple[Step, Shape]:
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


def _avg_pool(name: str, layer: nn.AvgPool2d, shape: Shape) -> tuple[Step, Shape]:
    if layer.ceil_mode:
        raise ValueError(f"layer {name}: ceil_mode is not supported.")
    kernel = _pair(layer.kernel_size)
    places, (height, width) = _patches(
        name, shape, kernel, _pair(layer.stride), _pair(layer.padding), (1, 1)
    )
    counted: int | np.ndarray = kernel[0] * kernel[1]
    if not layer.count_include_pad:
        counted = (places >= 0).sum(axis=1, keepdims=True)
    return _average(places, layer.divisor_override or counted, shape), (shape[0], height, width)


def _global_avg_pool(name: str, layer: nn.AdaptiveAvgPool2d, shape: Shape) -> tuple[Step, Shape]:
    if layer.output_size not in (1, (1, 1)):
        raise ValueError(
            f"layer {name} is {layer}; only AdaptiveAvgPool2d(1) is supported; "
            "for larger outputs use AvgPool2d."
        )
    if len(shape) != 3:
        raise ValueError(f"layer {name} needs inputs (channels, height, width), got {shape}.")
    places = np.arange(int(np.prod(shape))).reshape(shape[0], -1, 1)
    return _average(places, places.shape[1], shape), (shape[0], 1, 1)


def _average(places: np.ndarray, divisor: int | np.ndarray, shape: Shape) -> Affine:
    """The sum over each window of ``places`` (channels, window, positions), over ``divisor``."""
    channels, _, positions = places.shape
    outputs = np.arange(channels * positions).reshape(channels, 1, positions)
    inside = places >= 0
    values = np.broadcast_to(1.0 / np.asarray(divisor, dtype=float), places.shape)
    matrix = sparse.csr_array(
        (values[inside], (np.broadcast_to(outputs, places.shape)[inside], places[inside])),
        shape=(channels * positions, int(np.prod(shape))),
    )
    return Affine(matrix, np.zeros(channels * positions))


def _batch_norm(
    name: str, layer: nn.BatchNorm1d | nn.BatchNorm2d, shape: Shape
) -> tuple[Step, Shape]:
    dimensions = 1 if isinstance(layer, nn.BatchNorm1d) else 3
    if len(shape) != dimensions or shape[0] != layer.num_features:
        raise ValueError(f"layer {name} is {layer}, but its input has shape {shape}.")
    if layer.running_mean is None or layer.running_var is None:
        raise ValueError(
            f"layer {name} is {layer} without running statistics: its output for one input depends "
            "on the rest of the batch; train it with track_running_stats=True."
        )
    mean, variance = _float64(layer.running_mean), _float64(layer.running_var)
    scale = np.ones(shape[0]) if layer.weight is None else _float64(layer.weight)
    offset = np.zeros(shape[0]) if layer.bias is None else _float64(layer.bias)
    with np.errstate(all="ignore"):
        scale = scale / np.sqrt(variance + layer.eps)
        offset = offset - mean * scale
    if not (np.isfinite(scale).all() and np.isfinite(offset).all()):
        raise ValueError(
            f"layer {name} ({type(layer).__name__}) has weights or running statistics that are NaN "
            "or infinite, or a variance that is not positive."
        )
    each = int(np.prod(shape[1:]))
    diagonal = sparse.csr_array(sparse.diags_array(np.repeat(scale, each)))
    return Affine(diagonal, np.repeat(offset, each)), shape


READERS: dict[type[nn.Module], Callable[[str, Any, Shape], tuple[Step, Shape]]] = {
    nn.Linear: _linear,
    nn.Conv2d: _conv2d,
    nn.ReLU: _relu,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _avg_pool,
    nn.AdaptiveAvgPool2d: _global_avg_pool,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
}
