"""A recipe: all that decides the outcome of a training run."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robustlib import checks, zoo
from robustlib.training.examples import Examples
from robustlib.zoo import architectures

METHODS = ("standard", "adversarial", "provable")
ATTACKS = ("pgd", "fgsm", "r_fgsm")
SCHEDULES = ("linear", "cosine", "one_cycle")
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Recipe:
    """All that decides the outcome of a training run, but for the architecture.

    Attributes
    ----------
    name : str
        The network's name; for :func:`robustlib.training.train` the one of the zoo, whose row holds
        the architecture.
    data : callable
        Maps "train" and "test" to ``(x, y)``.
    method : {"standard", "adversarial", "provable"}
        Loss at the inputs themselves, at those of an attack (Goodfellow et al. 2015, Madry et al.
        2018), or at the worst logits that IBP or CROWN-IBP allows (Zhang et al. 2020).
    start : str
        The network of the zoo whose parameters are the initial ones; default: drawn at random.
    epochs, batch : int
        Passes over the training split, and examples a step.
    learning_rate : float
        The highest one.
    schedule : {"linear", "cosine", "one_cycle"}
        How the rate falls to zero after ``warm_up``: on a straight line or half a cosine. One cycle
        (Smith and Topin 2019): up from 1/25 of the rate in the first 30 % of all steps, then down
        to almost nothing, along cosines, whatever ``warm_up`` is.
    momentum : float
        Of stochastic gradient descent, with ``weight_decay`` as a penalty λ/2 ‖W‖₂² in the loss,
        as in Caffe; 0 stands for AdamW.
    gain : float
        Factor of the initial parameters U(±1/√fan-in); √6 is He's (2015) for deep ReLU networks.
    warm_up : int
        Epochs at the start in which the rate rises from zero and the inputs stay clean.
    eps : float
        Radius of the l-inf ball, 0 for the standard method only.
    ramp : int
        Epochs after ``warm_up`` over which the radius grows from 0 to ``eps``: once an epoch with
        PGD, at every step with bounds.
    recorded_eps : float
        Radius at which the finished network is judged, where it was trained for a larger one; 0
        stands for ``eps``. It decides nothing in the training.
    attack : {"pgd", "fgsm", "r_fgsm"}
        Of the adversarial method: :func:`robustlib.attacks.pgd` from a random start, ``fgsm`` from
        the input, or ``r_fgsm``, a random step and then a gradient step (Tramèr et al. 2018).
    attack_steps : int
        PGD steps for each training step; 1 is one step of 2.5 ``eps`` from a random start.
    clean : float
        Share of the loss at the clean inputs in the loss of the adversarial method: 0 trains on
        the attacked ones alone, as Madry et al. do, ½ is Goodfellow's and Tramèr's.
    sources : tuple of networks, or of names of the zoo
        Ensemble adversarial training (Tramèr et al. 2018): each batch is attacked through the
        trained network or one of these, drawn with equal probability; they stay as they are.
    kappa : (float, float)
        κ, the share of the clean loss in the loss of the provable method, before and after the
        ramp; linear in between.
    beta : (float, float)
        β, the share of CROWN in the bounds, likewise: (0, 0) is IBP, the usual (1, 0) begins with
        CROWN-IBP, whose bounds are tight early, and ends with IBP.
    crown_targets : int
        CROWN bounds the margins to so many labels an image, those of the lowest IBP margins, as one
        more costs as much as a clean step; IBP alone bounds the others.
    noise : float
        Standard deviation of Gaussian noise, drawn anew at each step and added to the inputs of the
        standard method, without a cut to [0, 1].
    mirror : bool
        Turn every image left to right with probability ½.
    examples : Examples, optional
        Adversarial examples of earlier networks that join the training set (Bastani et al. 2016).
    shift : int
        Move every image by up to so many pixels down or up and right or left, zeros coming in.
    l1, weight_decay : float
        Factors of the sum of absolute weights in the loss, and of AdamW's decay. Small weights keep
        the bounds of a proof tight.
    held_out : int
        The last examples of the training split are not trained on; the log's accuracies are theirs.
    precision : {"float32", "bfloat16"}
        Of the products inside the network while it trains (autocast); the parameters are float32.
    seed : int
        Decides initial parameters, order of the examples and every random number of the method.

    Raises
    ------
    ValueError
        For a value that is not as described; the message names it and what is allowed.
    """

    name: str
    data: Callable[[str], tuple[Tensor, Tensor]]
    epochs: int
    method: str = "standard"
    start: str = ""
    batch: int = 64
    learning_rate: float = 0.005
    schedule: str = "linear"
    momentum: float = 0.0
    gain: float = 1.0
    warm_up: int = 0
    eps: float = 0.0
    ramp: int = 0
    recorded_eps: float = 0.0
    attack: str = "pgd"
    attack_steps: int = 7
    clean: float = 0.0
    sources: tuple[str | nn.Module, ...] = ()
    examples: Examples | None = None
    kappa: tuple[float, float] = (1.0, 0.5)
    beta: tuple[float, float] = (1.0, 0.0)
    crown_targets: int = 9
    noise: float = 0.0
    mirror: bool = False
    shift: int = 0
    l1: float = 0.0
    weight_decay: float = 0.0
    held_out: int = 0
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        checks.choice("method", self.method, METHODS)
        checks.choice("attack", self.attack, ATTACKS)
        checks.choice("schedule", self.schedule, SCHEDULES)
        checks.choice("precision", self.precision, PRECISIONS)
        for argument in ("epochs", "batch", "attack_steps", "crown_targets"):
            checks.count(argument, getattr(self, argument))
        for argument in ("warm_up", "ramp", "held_out", "shift"):
            checks.count(argument, getattr(self, argument), low=0)
        for argument in ("kappa", "beta"):
            for share in getattr(self, argument):
                checks.number(argument, share, low=0.0, high=1.0)
        checks.number("learning_rate", self.learning_rate, low=0.0, strict=True)
        checks.number("momentum", self.momentum, low=0.0, high=1.0)
        checks.number("gain", self.gain, low=0.0, strict=True)
        checks.number("noise", self.noise, low=0.0)
        checks.number("recorded_eps", self.recorded_eps, low=0.0)
        checks.number("clean", self.clean, low=0.0, high=1.0)
        for source in self.sources:
            if isinstance(source, str):
                zoo.info(source)
            else:
                checks.eval_mode(source, "sources")
        if self.method != "standard":
            checks.number("eps", self.eps, low=0.0, strict=True)
        for argument, methods in MEANT_FOR.items():
            value, usual = getattr(self, argument), USUAL[argument]
            if value != usual and self.method not in methods:
                raise ValueError(
                    f"{argument}={value!r} has no meaning with method={self.method!r}; "
                    f"give {usual!r}."
                )

    def optimizer(self, net: nn.Module) -> torch.optim.Optimizer:
        """AdamW on the parameters of ``net``, or stochastic gradient descent with momentum."""
        if self.momentum:
            return torch.optim.SGD(
                net.parameters(),
                lr=self.learning_rate,
                momentum=self.momentum,
                weight_decay=self.weight_decay,
            )
        return torch.optim.AdamW(
            net.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay
        )

    def models(self) -> tuple[nn.Module, ...]:
        """The networks of ``sources``."""
        return tuple(zoo.load(s) if isinstance(s, str) else s for s in self.sources)

    def training_sets(
        self, progress: Callable[[str], None] | None = None
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """What is trained on, with the examples that join it, and what is held out.

        ``progress`` hears how far the search for examples is.
        """
        x, y = self.data("train")
        if self.held_out >= len(x):
            raise ValueError(
                f"held_out={self.held_out} leaves none of the {len(x)} examples to train on."
            )
        cut = len(x) - self.held_out
        inputs, labels = x[:cut], y[:cut]
        if self.examples:
            points, theirs = self.examples.found(inputs, labels, self.seed, progress)
            inputs, labels = torch.cat([inputs, points]), torch.cat([labels, theirs])
        return (inputs, labels), (x[cut:], y[cut:])

    def settings(self) -> dict[str, Any]:
        """What decides the outcome, as it is recorded beside the checkpoint.

        The numbers of a method stand only in the record of a run that follows the method.
        """
        unused = {"data", "recorded_eps"} if self.start else {"data", "recorded_eps", "start"}
        unused |= {name for name, value in USUAL.items() if getattr(self, name) == value}
        if self.method == "standard":
            unused |= {"eps", "ramp"}
        if self.method != "adversarial" or self.attack != "pgd":
            unused |= {"attack_steps"}
        if self.method != "provable":
            unused |= {"kappa", "beta", "crown_targets"}
        rows = {row.name: getattr(self, row.name) for row in dataclasses.fields(self)}
        rows["examples"] = self.examples and self.examples.settings()
        rows["sources"] = tuple(s if isinstance(s, str) else _marks(s) for s in self.sources)
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in rows.items()
            if name not in unused
        }


USUAL: dict[str, Any] = {  # recorded only where they differ, so that old records stay valid
    "momentum": 0.0,
    "gain": 1.0,
    "eps": 0.0,
    "schedule": "linear",
    "attack": "pgd",
    "clean": 0.0,
    "sources": (),
    "examples": None,
    "noise": 0.0,
    "shift": 0,
    "precision": "float32",
}
MEANT_FOR = {
    "eps": ("adversarial", "provable"),
    "attack": ("adversarial",),
    "clean": ("adversarial",),
    "sources": ("adversarial",),
    "noise": ("standard",),
}


def _marks(net: nn.Module) -> str:
    """What tells a network from others: its layers and a digest of its parameters."""
    digest = hashlib.sha256()
    for value in net.state_dict().values():
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    layers = architectures.describe(net) if isinstance(net, nn.Sequential) else type(net).__name__
    return f"{layers}, sha256 {digest.hexdigest()[:16]}"
