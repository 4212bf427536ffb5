"""Sparse networks: the smallest weights of every kernel set to zero, the others trained again.

A sparse kernel makes more units stable and every bound cheaper, for some accuracy: the trade of
Tjeng et al. (2019), appendix H.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Generator, Tensor, nn

from robustlib import checks
from robustlib.training.loop import epoch
from robustlib.training.recipe import Recipe


def prune(net: nn.Sequential, fraction: float) -> nn.Sequential:
    """A copy of ``net`` in which the ``fraction`` of smallest weights of each kernel are zero.

    Parameters
    ----------
    net : nn.Sequential
        Unchanged. Biases are no part of a kernel.
    fraction : float
        In [0, 1]; of n weights ⌊``fraction`` · n⌋ become zero, the first ones where equal.

    Returns
    -------
    nn.Sequential
        In the same mode as ``net``.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(4, 1, bias=False))
    >>> net[0].weight.data = torch.tensor([[3.0, -1.0, 0.5, -2.0]])
    >>> prune(net, 0.5)[0].weight.data
    tensor([[ 3.,  0.,  0., -2.]])
    """
    fraction = checks.number("fraction", fraction, low=0.0, high=1.0)
    net = copy.deepcopy(net)
    with torch.no_grad():
        for kernel in _kernels(net):
            weights = kernel.view(-1)
            smallest = weights.abs().argsort(stable=True)[: int(fraction * len(weights))]
            weights[smallest] = 0
    return net


def sparsify(net: nn.Sequential, fraction: float, *, recipe: Recipe) -> nn.Sequential:
    """Prune ``net``, then train the weights that are left by ``recipe``; the zeros stay.

    Parameters
    ----------
    net : nn.Sequential
        Unchanged; in evaluation mode.
    fraction : float
        Of the weights of each kernel that become zero, in [0, 1].
    recipe : Recipe
        How to train on: as a rule the network's own with few epochs, no ``ramp`` and a lower rate,
        ``dataclasses.replace(RECIPES[name], epochs=…, ramp=0, learning_rate=…)``.

    Returns
    -------
    nn.Sequential
        In evaluation mode, its parameters frozen.

    Examples
    --------
    >>> import dataclasses
    >>> from robustlib import training, zoo
    >>> recipe = dataclasses.replace(training.RECIPES["toy"], epochs=2)
    >>> net = training.sparsify(zoo.load("toy"), 0.5, recipe=recipe)
    >>> float((net[0].weight == 0).float().mean())
    0.5
    """
    checks.eval_mode(net, "net")
    net = prune(net, fraction).requires_grad_(True)
    train_set, _ = recipe.training_sets()
    optimizer = recipe.optimizer(net)
    generator = Generator().manual_seed(recipe.seed)
    with _zeros_kept(net):
        for number in range(1, recipe.epochs + 1):
            epoch(net, optimizer, *train_set, recipe=recipe, number=number, generator=generator)
    return net.requires_grad_(False)


def _kernels(net: nn.Sequential) -> Iterator[Tensor]:
    return (m.weight for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d))


@contextmanager
def _zeros_kept(net: nn.Sequential) -> Iterator[None]:
    """Weights that are zero get no gradient, so that Adam, from zero moments, never moves them."""
    hooks = []
    for kernel in _kernels(net):
        mask = (kernel.detach() != 0).to(kernel.dtype)
        hooks.append(kernel.register_hook(mask.mul))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
