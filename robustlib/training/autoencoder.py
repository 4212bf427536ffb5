"""The sigmoid layer of an autoencoder: features that are learned without labels."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn

from robustlib import checks


def encoder(
    x: Tensor,
    *,
    hidden: int,
    epochs: int,
    seed: int,
    sparsity: float = 1e-3,
    batch: int = 128,
    rate: float = 2e-3,
) -> nn.Sequential:
    """Train x ↦ V s(W x + b) + a to give back ``x``, and return s(W x + b).

    s is the sigmoid. The loss is the squared distance to ``x`` plus ``sparsity`` times the sum of
    the hidden values, as in AE400-10 of Szegedy et al. (2014), Table 1, where a linear layer over
    400 of them is trained with labels. Equal seeds give equal parameters on one machine.

    Parameters
    ----------
    x : Tensor (n, …) in [0, 1]
    hidden, epochs, batch : int
    seed : int
        Of the initial parameters and the order of the examples.
    sparsity : float
        At least 0.
    rate : float
        Adam's step length; it falls linearly to 0.

    Returns
    -------
    nn.Sequential
        Flatten, Linear, Sigmoid; in evaluation mode, its parameters frozen.

    Raises
    ------
    TypeError, ValueError
        For an argument that is not as described; the message names it and what is allowed.

    Examples
    --------
    >>> encoder(torch.rand(64, 1, 4, 4), hidden=8, epochs=1, seed=0)(torch.rand(2, 1, 4, 4)).shape
    torch.Size([2, 8])
    """
    flat = checks.images(x).flatten(1)
    hidden, epochs = checks.count("hidden", hidden), checks.count("epochs", epochs)
    sparsity = checks.number("sparsity", sparsity, low=0.0)
    batch = checks.count("batch", batch)
    rate = checks.number("rate", rate, low=0.0, strict=True)
    generator = Generator().manual_seed(checks.count("seed", seed, low=0))
    inward = nn.utils.skip_init(nn.Linear, flat.shape[1], hidden, dtype=x.dtype)
    outward = nn.utils.skip_init(nn.Linear, hidden, flat.shape[1], dtype=x.dtype)
    for layer in (inward, outward):
        side = 1 / math.sqrt(layer.in_features)
        for parameter in layer.parameters():
            nn.init.uniform_(parameter, -side, side, generator=generator)
    optimizer = torch.optim.Adam([*inward.parameters(), *outward.parameters()], lr=rate)
    steps = epochs * math.ceil(len(flat) / batch)
    slope = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(flat), generator=generator).split(batch):
            values = inward(flat[rows]).sigmoid()
            error = (outward(values) - flat[rows]).square().sum(1)
            loss = (error + sparsity * values.sum(1)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            slope.step()
    return nn.Sequential(nn.Flatten(), inward, nn.Sigmoid()).eval().requires_grad_(False)
