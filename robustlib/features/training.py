"""Standard and adversarial training of the networks that make and judge the data sets."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from robustlib import checks
from robustlib.features import moves
from robustlib.features.descent import NORMS, Steps, ball, descend, logits, unit
from robustlib.features.networks import build, folded
from robustlib.features.whitening import Whitening
from robustlib.training.state import Run

Watch = Mapping[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Schedule:
    """How a network is trained: Nesterov SGD with a rate that rises, then falls linearly to zero.

    Attributes
    ----------
    epochs, batch : int
    rate : float
        The highest learning rate, reached after ``warm`` of all steps.
    warm : float
    decay : float
        Weight decay.
    reach : int or None
        Augment by shifts of up to so many pixels and by flips; None: no augmentation.
    eps : float
        Radius of adversarial training; 0 trains on the images as they are.
    norm : {"2", "inf"}
        Of the ball.
    ramp : float
        Share of all steps over which the radius grows linearly from 0.
    attack_steps : int
        With 1 the "fast" attack: one step of 1.25 ``eps`` from a random point of the ball; with
        more, PGD from the image with steps of 1.5 ``eps`` / ``attack_steps``.
    whiten : bool
        Learn the first convolution in the coordinates in which patches of ``x`` are white
        (:class:`robustlib.features.whitening.Whitening`): fine patterns, which vary little, are
        then learned as fast as coarse ones.
    blur : float
        Blur each image with this probability, by a random amount
        (:func:`robustlib.features.moves.blur`). A student of D̂_rand meets perturbed images only,
        and a perturbation of large radius is stronger than what an ordinary image has of the same
        features. Blurred, it is weaker, and its label still holds.
    average : float
        The network that is returned is the mean of those after each of the last steps, of this
        share of all (:class:`torch.optim.swa_utils.AveragedModel`); 0 returns the last one.
    precision : {"float32", "bfloat16"}
    """

    epochs: int
    batch: int = 128
    rate: float = 0.1
    warm: float = 0.2
    decay: float = 5e-4
    reach: int | None = 4
    eps: float = 0.0
    norm: str = "2"
    ramp: float = 0.0
    attack_steps: int = 1
    whiten: bool = False
    blur: float = 0.0
    average: float = 0.0
    precision: str = "float32"

    def __post_init__(self) -> None:
        checks.count("epochs", self.epochs)
        checks.count("batch", self.batch, low=2)
        checks.number("rate", self.rate, low=0.0, strict=True)
        checks.number("blur", self.blur, low=0.0, high=1.0)
        checks.number("average", self.average, low=0.0, high=1.0)
        checks.eps(self.eps)
        checks.count("attack_steps", self.attack_steps)
        checks.choice("norm", self.norm, NORMS)
        checks.choice("precision", self.precision, PRECISIONS)

    def rate_at(self, done: float) -> float:
        """The learning rate when the share ``done`` of all steps is done."""
        return self.rate * min(done / self.warm if self.warm else 1.0, (1 - done) / (1 - self.warm))

    def eps_at(self, done: float) -> float:
        """The radius when the share ``done`` of all steps is done."""
        return self.eps * min(1.0, done / self.ramp if self.ramp else 1.0)

    def settings(self) -> dict[str, Any]:
        """As it is recorded; what joined later only where it is used, so that old records hold."""
        unused = [name for name in ("blur", "average") if not getattr(self, name)]
        return {name: value for name, value in asdict(self).items() if name not in unused}


PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def fit(
    make: Callable[[], nn.Module],
    x: Tensor,
    y: Tensor,
    schedule: Schedule,
    *,
    seed: int,
    state: Path | None = None,
    watch: Watch | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> tuple[nn.Module, list[dict[str, float]]]:
    """Train a fresh network on (x, y); equal seeds give equal parameters on one machine.

    Parameters
    ----------
    make : callable
        Builds the network, such as :func:`robustlib.features.networks.slim_resnet`.
    x : Tensor (n, C, H, W) in [0, 1]
    y : Tensor (n,)
    schedule : Schedule
    seed : int
        Decides the initial parameters, the order of the examples and every random move.
    state : path, optional
        File that holds the whole state after each epoch: an interrupted run goes on behind it.
    watch : dict of (x, y), optional
        Sets on which the accuracy is logged after each epoch.
    progress : callable, optional
        Called as ``progress(epoch, epochs, text)``.

    Returns
    -------
    net : nn.Module
        In evaluation mode.
    log : list of dict
        One row an epoch: loss, accuracy on what it was trained on, on the watched sets, seconds.
    """
    checks.images(x)
    net = build(make, seed).train()
    white = Whitening(net, x) if schedule.whiten else None
    if white:
        white.start()
    optimizer = torch.optim.SGD(
        net.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=schedule.decay
    )
    run = Run(net, optimizer, Generator().manual_seed(seed + 1), log=[])  # type: ignore[arg-type]
    if schedule.average:
        run.average = AveragedModel(net, use_buffers=True)
    settings: dict[str, Any] = {**schedule.settings(), "seed": seed, "images": len(x)}
    if state is not None:
        run.restore(state, settings)
    for epoch in range(len(run.log), schedule.epochs):
        began = time.process_time()
        row: dict[str, float] = {"epoch": epoch + 1, **_epoch(run, x, y, schedule, epoch, white)}
        net.eval()
        frozen = folded(run.result)
        for name, (inputs, labels) in (watch or {}).items():
            row[name] = accuracy(frozen, inputs, labels, PRECISIONS[schedule.precision])
        net.train()
        row["cpu_seconds"] = round(time.process_time() - began, 2)
        run.log.append(row)
        if state is not None:
            run.save(state, settings)
        if progress:
            progress(epoch + 1, schedule.epochs, f"loss {row['loss']:.3f}")
    return run.result.eval(), run.log


def _epoch(
    run: Run, x: Tensor, y: Tensor, schedule: Schedule, epoch: int, white: Whitening | None
) -> dict[str, float]:
    net: nn.Module = run.net
    precision = PRECISIONS[schedule.precision]
    order = torch.randperm(len(x), generator=run.generator)
    parts = [rows for rows in order.split(schedule.batch) if len(rows) > 1]
    loss_sum = correct = seen = 0.0
    for step, rows in enumerate(parts):
        done = (epoch + (step + 0.5) / len(parts)) / schedule.epochs
        for group in run.optimizer.param_groups:
            group["lr"] = schedule.rate_at(done)
        inputs, labels = x[rows].contiguous(memory_format=torch.channels_last), y[rows]
        if schedule.reach is not None:
            inputs = moves.move(inputs, moves.draw(len(rows), schedule.reach, run.generator))
        if schedule.blur:
            chosen = torch.rand(len(rows), generator=run.generator) < schedule.blur
            amount = torch.rand(len(rows), generator=run.generator)
            inputs = moves.blur(inputs, amount * chosen)
        if schedule.eps:
            eps = schedule.eps_at(done)
            inputs = _worst(net, inputs, labels, eps, schedule, run.generator)
        out = logits(net, inputs, precision)
        loss = F.cross_entropy(out, labels)
        run.optimizer.zero_grad()
        loss.backward()
        if white:
            white.gradient()
        run.optimizer.step()
        if run.average and done > 1 - schedule.average:
            run.average.update_parameters(net)
        loss_sum += float(loss.detach()) * len(rows)
        correct += int((out.argmax(1) == labels).sum())
        seen += len(rows)
    return {"loss": loss_sum / seen, "train": correct / seen}


def _worst(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    schedule: Schedule,
    generator: Generator,
) -> Tensor:
    """A point of the ball of high loss; its gradient is that of the folded network."""
    net.eval()
    frozen, precision = folded(net), PRECISIONS[schedule.precision]
    net.train()

    def loss(z: Tensor, _: Tensor | None) -> Tensor:
        return -F.cross_entropy(logits(frozen, z, precision), y, reduction="none")

    start, steps = x, Steps(schedule.attack_steps, 1.5 * eps / schedule.attack_steps)
    if schedule.attack_steps == 1:
        start, steps = _random_start(x, eps, schedule.norm, generator), Steps(1, 1.25 * eps)
    project = ball(x, eps, schedule.norm)
    return descend(loss, start, steps, project, norm=schedule.norm).detach()


def _random_start(x: Tensor, eps: float, norm: str, generator: Generator) -> Tensor:
    """A random point of the ball: uniform in l∞; of uniform direction and length in l2."""
    if norm == "inf":
        noise = 2 * torch.rand(x.shape, generator=generator) - 1
        return (x + eps * noise.to(memory_format=torch.channels_last)).clamp(0, 1)
    noise = torch.randn(x.shape, generator=generator).to(memory_format=torch.channels_last)
    radius = eps * torch.rand((len(x), 1, 1, 1), generator=generator)
    return (x + radius * unit(noise)).clamp(0, 1)


def accuracy(net: nn.Module, x: Tensor, y: Tensor, precision: torch.dtype = torch.float32) -> float:
    """The share of ``x`` that ``net`` labels as ``y``."""
    return float((predictions(net, x, precision) == y).double().mean())


def predictions(net: nn.Module, x: Tensor, precision: torch.dtype = torch.float32) -> Tensor:
    """The labels (n,) that ``net`` gives."""
    with torch.no_grad():
        parts = [
            logits(net, part.contiguous(memory_format=torch.channels_last), precision).argmax(1)
            for part in x.split(256)
        ]
    return torch.cat(parts)
