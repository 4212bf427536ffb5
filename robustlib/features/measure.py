"""What is measured on a trained network: accuracy, robust accuracy, transfer; with intervals."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlib import checks
from robustlib.attacks import carlini_wagner, pgd
from robustlib.features.descent import Representation, logits
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


def nearest_accuracy(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    radii: Sequence[float],
    steps: int,
    searches: int,
    weight: float = 1.0,
) -> list[Estimate]:
    """Robust accuracy at each of ``radii`` by :func:`robustlib.attacks.carlini_wagner` in l2.

    This attack has no radius: it looks for the nearest adversarial example of each image, and an
    image stands at every radius that is smaller. An upper bound again, in float32.
    """
    judged = _Reduced(folded(net), torch.float32)
    points = carlini_wagner(judged, x, y, steps=steps, searches=searches, weight=weight)
    away = (points - x).flatten(1).norm(dim=1)
    fooled = predictions(judged, points) != y  # a wrong label at x itself is at distance 0
    return [proportion(int((~fooled | (away > eps)).sum()), len(x)) for eps in radii]


def transfer_rate(
    source: nn.Module,
    target: nn.Module,
    x: Tensor,
    attacked: Tensor,
    y: Tensor,
    *,
    targets: Tensor | None = None,
) -> Estimate:
    """The share of adversarial examples of ``source`` that fool ``target`` too.

    Counted are the images ``x`` that both networks label ``y`` and whose ``attacked`` version
    fools ``source``; with ``targets`` to fool means to get that label (Ilyas et al. 2019, section
    3.2, figure 3, and appendix D.9).
    """
    source, target = folded(source), folded(target)

    def fooled(net: nn.Module) -> Tensor:
        found = predictions(net, attacked)
        return found != y if targets is None else found == targets

    counted = (predictions(source, x) == y) & (predictions(target, x) == y) & fooled(source)
    return proportion(int((fooled(target) & counted).sum()), int(counted.sum()))


def leakage(
    net: nn.Module,
    built: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    *,
    layer: str = "features",
    steps: int = 200,
    decay: float = 1e-3,
) -> Estimate:
    """How well the features of a robust network, fitted to ``built``, label ``test``: Goh's test.

    A linear classifier on the (standardized) features of the layer ``layer`` is fitted to a data
    set such as D̂_rand. Where it does better than chance on the original images, robust features
    tell the wrong labels too: the accuracy of a student is not all due to non-robust ones (Goh,
    response 2 in the discussion of Ilyas et al. 2019).

    Parameters
    ----------
    net : nn.Module
        An adversarially trained network.
    built, test : (x, y)
        What the classifier is fitted to, and what it is judged on.
    steps, decay : int, float
        Steps of L-BFGS on the cross-entropy, and the factor of ‖W‖² in it.
    """
    g = Representation(folded(net), layer)
    with torch.no_grad():
        fit_on, judge_on = (
            torch.cat([g(part) for part in x.split(256)]) for x in (built[0], test[0])
        )
    mean, spread = fit_on.mean(0), fit_on.std(0).clamp_min(1e-6)
    fit_on, judge_on = (fit_on - mean) / spread, (judge_on - mean) / spread
    classes = int(max(built[1].max(), test[1].max())) + 1
    weight = torch.zeros(fit_on.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=steps, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(fit_on @ weight + bias, built[1]) + decay * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        right = (judge_on @ weight + bias).argmax(1) == test[1]
    return proportion(int(right.sum()), len(right))
