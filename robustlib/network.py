"""A torch module as a flat list of steps, each affine or a maximum: what bounds and encoders read.

``from_torch`` accepts ``nn.Sequential`` of the layers in ``SUPPORTED`` and refuses everything else
by name, because a layer that is skipped or misread would make every later proof worthless.

Residual blocks need no step of their own. A skip starts behind a ReLU, so the values x that it
carries are never negative, and max(x, 0) = x: they pass the ReLUs of the block's body beside the
body's own units, as units that are always active. The body W₂ max(W₁ x + b₁, 0) + b₂ with the
shortcut V x becomes

    [W₁; I] x + [b₁; 0]  →  ReLU  →  [W₂, V] · + b₂.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import nn

from robustlib import checks
from robustlib.layers import READERS, Shape
from robustlib.steps import Affine, Matrix, MaxPool, ReLU, Step

__all__ = [
    "SUPPORTED",
    "Affine",
    "Matrix",
    "MaxPool",
    "Network",
    "ReLU",
    "Residual",
    "Step",
    "from_torch",
    "margin_rows",
]

DENSE = 0.15  # a larger share of entries that are not zero is stored as a dense matrix


@dataclass(frozen=True, eq=False)
class Network:
    """A piecewise-linear network: ``steps`` in turn, on a flattened input of ``input_shape``.

    What is proved of it holds in real arithmetic for the numbers in ``steps``. Those of Linear and
    Conv2d are the module's own, exactly: float32 values are float64 values. Coefficients that stem
    from batch norm and average pooling, also where they are folded into a layer beside them, and
    sums of a residual block's biases are computed in float64, so they are those of the module up to
    its rounding (relative 10⁻¹⁵ or so); a proof is one for the numbers as they stand here.
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


class Residual(nn.Module):
    """A residual block: x ↦ body(x) + shortcut(x) (He et al. 2016).

    Parameters
    ----------
    body : layers of the block, at least one ReLU among them as a rule.
    shortcut : what the input passes on its way around them; the identity if not given, else affine
        layers, such as a convolution of stride 2.

    Examples
    --------
    >>> block = Residual(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)))
    >>> block(torch.zeros(5, 2)).shape
    torch.Size([5, 2])
    """

    def __init__(self, body: nn.Sequential, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.body = body
        self.shortcut = nn.Identity() if shortcut is None else shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.body(x) + self.shortcut(x)
        return result


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
        Batch norm needs running statistics. A ``Residual`` with a ReLU in its body stands after a
        ReLU, or after max-pooling of one; its body holds no max-pooling and no other Residual, its
        shortcut affine layers only.
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
    read = _Reading(shape)
    read.module(module, "")
    if not read.steps or not isinstance(read.steps[-1], Affine) or len(read.shape) != 1:
        raise ValueError("the network must end in a Linear layer that gives the logits.")
    if read.shape[0] < 2:
        raise ValueError("the network has one output; a classifier needs a logit for each label.")
    network = Network(tuple(read.steps), shape)
    _compare(network, module)
    return network


class _Reading:
    """The steps that were read so far, and the shape of what they give."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.steps: list[Step] = []
        self._loose = False  # the last step stems from layers in _FOLDED alone

    def module(self, module: nn.Module, prefix: str) -> None:
        for name, layer in leaves(module, prefix):
            if isinstance(layer, nn.Flatten):
                if layer.start_dim != 1 or layer.end_dim != -1:
                    raise ValueError(f"layer {name} is {layer}; only Flatten(1, -1) is supported.")
                self.shape = (int(np.prod(self.shape)),)
            elif isinstance(layer, nn.Identity | nn.Dropout):
                continue
            elif isinstance(layer, Residual):
                steps, self.shape = _residual(name, layer, self.shape, _not_negative(self.steps))
                self.steps += steps
                self._loose = False
            else:
                step, self.shape = READERS[type(layer)](name, layer, self.shape)
                self._append(step, layer)

    def _append(self, step: Step, layer: nn.Module) -> None:
        """Add a step; batch norm and average pooling join the affine step beside them.

        They do so where the product is no larger than its factors, and before a Linear layer.
        """
        foldable = isinstance(layer, _FOLDED)
        last = self.steps[-1] if self.steps else None
        if isinstance(step, Affine) and isinstance(last, Affine) and (foldable or self._loose):
            product = _compose(last, step)
            smaller = product.weight.size <= last.weight.size + step.weight.size
            if isinstance(layer, nn.Linear) or smaller:
                self.steps[-1] = product
                self._loose = self._loose and foldable
                return
        self.steps.append(step)
        self._loose = foldable


_FOLDED = (nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.BatchNorm1d, nn.BatchNorm2d)
_OTHERS = (Residual, nn.Flatten, nn.Identity, nn.Dropout)
SUPPORTED = tuple(kind.__name__ for kind in (*READERS, *_OTHERS))


def leaves(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The layers of nested nn.Sequential in their order, each with its name.

    Raises
    ------
    ValueError
        For a layer that is none of ``SUPPORTED``, by name.
    """
    name = prefix or "model"
    if type(module).forward is nn.Sequential.forward:  # no subclass that does more
        for key, child in module._modules.items():  # named_children skips a layer used twice
            assert child is not None
            yield from leaves(child, f"{prefix}.{key}" if prefix else key)
    elif type(module) in (*READERS, *_OTHERS):
        yield name, module
    else:
        raise ValueError(
            f"layer {name} is {type(module).__name__}, which is not supported; a network may hold "
            f"{', '.join(SUPPORTED)} in nn.Sequential."
        )


def _not_negative(steps: list[Step]) -> bool:
    """Whether no output of the last step can be negative: a ReLU, or max-pooling behind one."""
    behind = [step for step in steps if not isinstance(step, MaxPool)]
    return bool(behind) and isinstance(behind[-1], ReLU)


def _residual(
    name: str, layer: Residual, shape: Shape, not_negative: bool
) -> tuple[list[Step], Shape]:
    """The steps of a block: what the shortcut reads goes along beside the body's own units."""
    body, shortcut = _Reading(shape), _Reading(shape)
    for part, read in (("body", body), ("shortcut", shortcut)):
        inside = getattr(layer, part)
        for path, child in leaves(inside, f"{name}.{part}"):
            if isinstance(child, Residual):
                raise ValueError(
                    f"layer {path} is a Residual inside a Residual, which is not supported; "
                    "put one block after the other, with a ReLU between them."
                )
            if isinstance(child, nn.MaxPool2d):
                raise ValueError(
                    f"layer {path} is max-pooling inside a Residual, which is not supported; "
                    "put it between two blocks, or use AvgPool2d or a convolution of stride 2."
                )
            if isinstance(child, nn.ReLU) and read is shortcut:
                raise ValueError(
                    f"layer {path} is a ReLU in the shortcut of a Residual; a shortcut may hold "
                    "affine layers only: put the ReLU before or behind the block."
                )
        read.module(inside, f"{name}.{part}")
    if body.shape != shortcut.shape:
        raise ValueError(
            f"layer {name} is a Residual whose body gives shape {body.shape} and whose shortcut "
            f"gives {shortcut.shape}; they must be equal: give as shortcut for example a 1×1 "
            "convolution with the body's channels and stride."
        )
    skip = _product(shortcut.steps, shape)
    if not any(isinstance(step, ReLU) for step in body.steps):
        straight = _product(body.steps, shape)
        both = _matrix([[straight.weight + skip.weight]])
        return [Affine(both, straight.bias + skip.bias)], body.shape
    if not not_negative:
        raise ValueError(
            f"layer {name} is a Residual whose input may be negative, which is not supported; its "
            "skip must start behind a ReLU (or max-pooling behind one): put a ReLU before it."
        )
    return _beside(body.steps, skip, shape), body.shape


def _beside(body: list[Step], skip: Affine, shape: Shape) -> list[Step]:
    """The steps of ``body`` with the inputs that ``skip`` reads carried along, and their sum."""
    if not isinstance(body[0], Affine):
        body = [_identity(int(np.prod(shape))), *body]
    if not isinstance(body[-1], Affine):
        body = [*body, _identity(body[-1].size)]
    columns = np.unique(sparse.coo_array(skip.weight).coords[1])
    select = _identity(skip.weight.shape[1]).weight[columns]
    carried = _identity(len(columns)).weight
    no_bias = np.zeros(len(columns))
    steps: list[Step] = []
    for k, step in enumerate(body):
        if not isinstance(step, Affine):
            steps.append(ReLU(step.size + len(columns)))
        elif k == 0:
            weight = _matrix([[step.weight], [select]])
            steps.append(Affine(weight, np.append(step.bias, no_bias)))
        elif k + 1 < len(body):
            weight = _matrix([[step.weight, None], [None, carried]])
            steps.append(Affine(weight, np.append(step.bias, no_bias)))
        else:
            weight = _matrix([[step.weight, skip.weight[:, columns]]])
            steps.append(Affine(weight, step.bias + skip.bias))
    return steps


def _identity(size: int) -> Affine:
    return Affine(sparse.eye_array(size, format="csr"), np.zeros(size))


def _compose(first: Affine, then: Affine) -> Affine:
    weight = then.weight @ first.weight
    if not isinstance(weight, np.ndarray):
        weight.sum_duplicates()  # entries in order
    return Affine(weight, then.weight @ first.bias + then.bias)


def _product(steps: list[Any], shape: Shape) -> Affine:
    """Affine steps in turn as one; the identity if there is none."""
    return reduce(_compose, steps) if steps else _identity(int(np.prod(shape)))


def _matrix(blocks: list[list[Matrix | None]]) -> Matrix:
    """The block matrix, sparse unless many of its entries are not zero."""
    parts = [[None if part is None else sparse.csr_array(part) for part in row] for row in blocks]
    matrix = sparse.csr_array(sparse.block_array(parts, format="csr"))
    matrix.sum_duplicates()
    rows, columns = matrix.shape
    return matrix.toarray() if matrix.nnz > DENSE * rows * columns else matrix


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
