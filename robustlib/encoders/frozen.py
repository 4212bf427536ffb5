"""A network with every disjunction decided as at one input: a linear map, its rows on demand.

`linear_region` writes all half-spaces of a linear region down, which takes a matrix of their number
times the number of inputs. A search for the nearest adversarial example looks at few of them. Here
the network stays a chain of torch layers: one forward pass gives the slack of every half-space at a
point, one backward pass a row for each half-space that is asked for, since a row is a gradient. For
the first disjunctions it is read off the layers before them, if their matrix is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol, TypeAlias

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from robustlib.encoders.restriction import active_units, largest_inputs
from robustlib.layers import READERS
from robustlib.network import Residual, leaves, margin_rows
from robustlib.steps import Affine, MaxPool

OUTSIDE = 1e-9  # a slack below −this is a violation
AT_ONCE = 32  # gradients in one backward pass
Values = list[Tensor]  # what the disjunctions read, (batch, units) each
Terms: TypeAlias = list[tuple[Tensor, Tensor]]  # units and factors, (k,) each: their sum is k rows


class Frozen:
    """The linear region of ``center`` in the order of `linear_region`, but for residual blocks.

    Parameters
    ----------
    net : nn.Sequential of supported layers in float64, eval mode, its parameters frozen.
    center : Tensor of the input's shape, float64: x*.
    toward : Tensor like it, or None: decides on a border, as in `linear_region`.
    first : (units, n), of the layers before the first disjunctions (`first_matrix`), or None.

    Attributes
    ----------
    center : (n,) float64
    slack : (m,) float64, not negative but for rounding: how far x* is inside each half-space, in
        its own unit
    logits : (classes,) float64, the logits at x*

    Raises
    ------
    ValueError
        For a layer that is not supported, by name, and for an input that the network refuses.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)).double().eval()
    >>> _ = net.requires_grad_(False)
    >>> net[0].weight[:], net[0].bias[:] = torch.eye(2), torch.tensor([0.0, -0.5])
    >>> frozen = Frozen(net, torch.tensor([0.25, 0.25]).double())
    >>> frozen.slack, frozen.rows(np.array([1]))
    (array([0.25, 0.25]), (array([[0., 1.]]), array([0.5])))
    """

    def __init__(
        self,
        net: nn.Module,
        center: Tensor,
        toward: Tensor | None = None,
        first: sparse.csr_array | None = None,
    ) -> None:
        self._first = first
        self._shape = tuple(center.shape)
        self._decided: list[_Disjunctions] = []
        slope = None if toward is None else toward[None]
        with torch.no_grad():
            self._maps = self._freeze(net, "", center[None], slope)
        self._x = center[None].clone().requires_grad_(True)
        self._values: Values = []
        self._logits = self._run(self._x, self._values)  # with the graph that rows come from
        self.center = center.reshape(-1).numpy()
        self.logits = self._logits.detach()[0].numpy()
        self.slack = self._slacks(self._values)
        self._ends = np.cumsum([len(layer) for layer in self._decided])

    def __len__(self) -> int:
        """The number of half-spaces."""
        return len(self.slack)

    @property
    def layers(self) -> int:
        """The number of layers with half-spaces."""
        return len(self._decided)

    def slacks(self, point: np.ndarray) -> np.ndarray:
        """How far ``point`` (n,) is inside each half-space, (m,); negative where it is outside."""
        values: Values = []
        with torch.no_grad():
            self._run(torch.from_numpy(point).reshape(1, *self._shape), values)
        return self._slacks(values)

    def rows(self, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The half-spaces ``which`` (k,) as rows · x ≤ bounds: (k, n) and (k,)."""
        rows = np.zeros((len(which), len(self.center)))
        layer = np.searchsorted(self._ends, which, side="right")
        for d in np.unique(layer):
            here = np.flatnonzero(layer == d)
            first = self._ends[d] - len(self._decided[d])
            terms = self._decided[d].terms(torch.from_numpy(which[here] - first))
            if d == 0 and self._first is not None:
                rows[here] = _combined(self._first, terms)
                continue
            for part in np.array_split(np.arange(len(here)), -(-len(here) // AT_ONCE)):
                seeds = _seeds([(u[part], f[part]) for u, f in terms], self._values[d].shape[1])
                rows[here[part]] = self._gradients(self._values[d], seeds)
        return rows, rows @ self.center + self.slack[which]

    def most_violated(self, slack: np.ndarray, given: np.ndarray, each: int) -> np.ndarray:
        """Of every layer the ``each`` half-spaces of least slack, below 0 and not ``given``."""
        outside = np.flatnonzero((slack < -OUTSIDE) & ~given)
        layer = np.searchsorted(self._ends, outside, side="right")
        parts = [outside[layer == d] for d in range(len(self._ends))]
        chosen = [part[np.argsort(slack[part], kind="stable")[:each]] for part in parts]
        return np.concatenate([np.zeros(0, dtype=int), *chosen])

    def target_rows(self, target: int) -> tuple[np.ndarray, np.ndarray]:
        """logit[target] ≥ logit[l] for every other l, as rows · x ≤ bounds."""
        wins = margin_rows(target, len(self.logits))
        rows = self._gradients(self._logits, torch.from_numpy(-wins))
        return rows, rows @ self.center + wins @ self.logits

    def _gradients(self, values: Tensor, seeds: Tensor) -> np.ndarray:
        """The gradient of each seed · values with respect to x, (seeds, n)."""
        (found,) = torch.autograd.grad(
            values, self._x, seeds[:, None], is_grads_batched=True, retain_graph=True
        )
        return found.flatten(1).numpy()

    def _run(self, x: Tensor, values: Values) -> Tensor:
        for apply in self._maps:
            x = apply(x, values)
        return x

    def _slacks(self, values: Values) -> np.ndarray:
        parts = [
            layer.slacks(value.detach()[0])
            for layer, value in zip(self._decided, values, strict=True)
        ]
        return torch.cat([torch.zeros(0, dtype=torch.float64), *parts]).numpy()

    def _freeze(
        self, module: nn.Module, prefix: str, z: Tensor, slope: Tensor | None
    ) -> list[_Map]:
        """The maps that ``module`` is at ``z``, just beyond it along ``slope``."""
        maps: list[_Map] = []
        for name, layer in leaves(module, prefix):
            made: _Map
            try:
                if isinstance(layer, nn.ReLU):
                    made = self._decide(_ReLUs(z, slope))
                elif isinstance(layer, nn.MaxPool2d):
                    made = self._decide(_Maxima(name, layer, z, slope))
                elif isinstance(layer, Residual):
                    made = self._both(layer, name, z, slope)
                else:
                    made = _linear(name, layer)
                z = made(z, [])
                if slope is not None:
                    slope = made(slope, []) - made(torch.zeros_like(slope), [])
            except RuntimeError as error:
                raise ValueError(
                    f"layer {name} is {layer}, but its input has shape {tuple(z.shape[1:])}: "
                    f"{error}"
                ) from error
            maps.append(made)
        return maps

    def _decide(self, layer: _Disjunctions) -> _Map:
        self._decided.append(layer)
        return layer

    def _both(self, block: Residual, name: str, z: Tensor, slope: Tensor | None) -> _Map:
        body = self._freeze(block.body, f"{name}.body", z, slope)
        shortcut = self._freeze(block.shortcut, f"{name}.shortcut", z, slope)

        def apply(x: Tensor, values: Values) -> Tensor:
            inside, around = x, x
            for one in body:
                inside = one(inside, values)
            for one in shortcut:
                around = one(around, values)
            return inside + around

        return apply


_Map = Callable[[Tensor, Values], Tensor]


def first_matrix(net: nn.Module, input_shape: tuple[int, ...]) -> sparse.csr_array | None:
    """W of the linear layers W x + b before the first disjunctions; None if there is none.

    >>> first_matrix(nn.Sequential(nn.Linear(2, 1), nn.ReLU()), (2,)).shape
    (1, 2)
    """
    found, shape = None, input_shape
    for name, layer in leaves(net):
        if type(layer) not in READERS:
            if isinstance(layer, Residual):
                break
            if isinstance(layer, nn.Flatten):
                shape = (math.prod(shape),)
            continue
        step, shape = READERS[type(layer)](name, layer, shape)
        if not isinstance(step, Affine):
            break
        weight = sparse.csr_array(step.weight)
        found = weight if found is None else sparse.csr_array(weight @ found)
    return found


def _combined(matrix: sparse.csr_array, terms: Terms) -> np.ndarray:
    """The rows of ``matrix`` that ``terms`` name, times their factors, (k, n)."""
    parts = [factors.numpy()[:, None] * matrix[units.numpy()].toarray() for units, factors in terms]
    return np.sum(parts, axis=0)


def _seeds(terms: Terms, units: int) -> Tensor:
    """(k, units): what a backward pass starts from."""
    seeds = torch.zeros(len(terms[0][0]), units, dtype=torch.float64)
    for which, factors in terms:
        seeds.scatter_(1, which[:, None], factors[:, None])
    return seeds


def _linear(name: str, layer: nn.Module) -> _Map:
    if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) and layer.running_mean is None:
        raise ValueError(
            f"layer {name} is {layer} without running statistics: its output for one input depends "
            "on the rest of the batch; train it with track_running_stats=True."
        )
    return lambda x, values: layer(x)


class _Disjunctions(Protocol):
    """One layer of disjunctions, each decided; a map that also notes what it reads."""

    def __len__(self) -> int: ...

    def __call__(self, x: Tensor, values: Values) -> Tensor: ...

    def slacks(self, value: Tensor) -> Tensor:
        """Of the half-spaces where the layer reads ``value`` (units,)."""
        ...

    def terms(self, which: Tensor) -> Terms:
        """The row of half-space k is the gradient of the sum of factor[k] · value[unit[k]]."""
        ...


class _ReLUs:
    """z ≥ 0 where a unit is active, z ≤ 0 where it is not."""

    def __init__(self, z: Tensor, slope: Tensor | None) -> None:
        active = active_units(z.numpy(), None if slope is None else slope.numpy())
        self._active = torch.from_numpy(active).to(z.dtype)
        self._sign = (2 * self._active - 1).reshape(-1)

    def __len__(self) -> int:
        return len(self._sign)

    def __call__(self, x: Tensor, values: Values) -> Tensor:
        values.append(x.flatten(1))
        return x * self._active

    def slacks(self, value: Tensor) -> Tensor:
        return self._sign * value

    def terms(self, which: Tensor) -> Terms:
        return [(which, -self._sign[which])]


class _Maxima:
    """z_i ≤ z_k for every other i of a window, where k is the one of its largest that is kept."""

    def __init__(self, name: str, layer: nn.MaxPool2d, z: Tensor, slope: Tensor | None) -> None:
        step, self._shape = READERS[nn.MaxPool2d](name, layer, tuple(z.shape[1:]))
        assert isinstance(step, MaxPool)
        value = z.reshape(-1).numpy()
        winner = largest_inputs(step, value, None if slope is None else slope.reshape(-1).numpy())
        kept = step.windows[np.arange(step.size), winner]
        loses = (step.windows >= 0) & (np.arange(step.windows.shape[1]) != winner[:, None])
        self._kept = torch.from_numpy(kept)
        self._loser = torch.from_numpy(step.windows[loses])
        self._winner = torch.from_numpy(kept[np.nonzero(loses)[0]])

    def __len__(self) -> int:
        return len(self._loser)

    def __call__(self, x: Tensor, values: Values) -> Tensor:
        flat = x.flatten(1)
        values.append(flat)
        return flat[:, self._kept].reshape(len(x), *self._shape)

    def slacks(self, value: Tensor) -> Tensor:
        return value[self._winner] - value[self._loser]

    def terms(self, which: Tensor) -> Terms:
        one = torch.ones(len(which), dtype=torch.float64)
        return [(self._loser[which], one), (self._winner[which], -one)]
