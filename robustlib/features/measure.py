"""What is measured on a trained network: accuracy, robust accuracy, transfer; with intervals."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustlib import checks
from robustlib.attacks import pgd
from robustlib.features.descent import logits
from robustlib.features.networks import folded
from robustlib.features.training import predictions
from robustlib.metrics import Estimate, proportion


class _Reduced(nn.Module):
    """A network that computes under autocast, for attacks that hand it float32."""

    def __init__(self, net: nn.Module, precision: torch.dtype) -> None:
        super().__init__()
        self.net, self.precision = net, precision
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
        return logits(self.net, x, self.precision)


def accuracy(net: nn.Module, x: Tensor, y: Tensor) -> Estimate:
    """The share of ``x`` that ``net`` labels ``y``, in float32, with its Wilson interval."""
    return proportion(int((predictions(folded(net), x) == y).sum()), len(x))


def adversarial(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    norm: str = "2",
    steps: int = 20,
    restarts: int = 1,
    targets: Tensor | None = None,
    precision: torch.dtype = torch.float32,
    early_stop: bool = True,
    seed: int = 0,
) -> Tensor:
    """Adversarial examples by :func:`robustlib.attacks.pgd` on the network with BN folded in.

    Gradients are computed in ``precision``; judge what is returned in float32.
    """
    return pgd(
        _Reduced(folded(net), precision),
        x,
        y,
        eps=eps,
        norm=norm,
        steps=steps,
        restarts=restarts,
        targets=targets,
        early_stop=early_stop,
        generator=torch.Generator().manual_seed(checks.count("seed", seed, low=0)),
    )


def robust_accuracy(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    norm: str = "2",
    steps: int = 20,
    restarts: int = 1,
    precision: torch.dtype = torch.float32,
    seed: int = 0,
) -> Estimate:
    """The share of ``x`` that is labeled ``y`` before and after an attack (an upper bound).

    Both are judged in float32, whatever ``precision`` the attack's gradients have.
    """
    net = folded(net)
    attacked = adversarial(
        net,
        x,
        y,
        eps=eps,
        norm=norm,
        steps=steps,
        restarts=restarts,
        precision=precision,
        seed=seed,
    )
    right = (predictions(net, x) == y) & (predictions(net, attacked) == y)
    return proportion(int(right.sum()), len(x))
