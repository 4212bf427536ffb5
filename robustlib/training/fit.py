"""Training of any network by a recipe: the loop over epochs, its log and its state on disk."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from robustlib.attacks import pgd
from robustlib.training.loop import accuracy, certified, epoch
from robustlib.training.recipe import Recipe
from robustlib.training.state import Run
from robustlib.zoo import architectures, load
from robustlib.zoo.checkpoints import CheckpointError, write_whole

Progress = Callable[[int, int, str], None]
HELD_OUT_ATTACKED = 1000  # images, after each epoch
DEPEND_ON_MODE = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained network.

    Attributes
    ----------
    net : nn.Sequential in evaluation mode, its parameters frozen.
    log : one row an epoch: radius, loss and accuracy where the loss was taken, accuracies on the
        examples held out, CPU seconds.
    """

    net: nn.Sequential
    log: list[dict[str, float]]


def fit(
    build: Callable[[], nn.Sequential],
    recipe: Recipe,
    *,
    state: str | PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Fitted:
    """Train a new network by a recipe; equal seeds give equal parameters on one machine.

    Parameters
    ----------
    build : callable
        Makes the network, such as ``robustlib.zoo.architectures.cnn_a``. Its parameters are drawn
        anew by the recipe's seed, without a look at the global random state.
    recipe : Recipe
    state : path, optional
        A safetensors file that holds the whole state after every epoch, with the log as a table
        beside it (the same name with .csv). A run that was interrupted, or killed, goes on behind
        its last epoch when it is called again, to the same result; a finished one is read.
    progress : callable, optional
        Called as ``progress(done, total, text)`` after each epoch.

    Returns
    -------
    Fitted

    Raises
    ------
    ValueError
        If the network has layers that act otherwise in training than in evaluation (batch
        normalization, dropout): attacks and bounds would see another network than the one that
        learns.
    CheckpointError
        If ``state`` is damaged, or of another architecture or recipe; the message says what
        differs, and the file stays as it is.

    Examples
    --------
    >>> from robustlib import data, training
    >>> from robustlib.zoo import architectures
    >>> recipe = training.Recipe("small", data.digits, epochs=2, method="adversarial", eps=0.1)
    >>> fitted = training.fit(architectures.digits_cnn, recipe)
    >>> [row["eps"] for row in fitted.log]
    [0.1, 0.1]
    """
    run, path = start(build, recipe), None if state is None else Path(state)
    settings = settings_of(run, recipe)
    if path and path.exists() and not run.restore(path, settings):
        raise CheckpointError(_difference(path, settings))
    finish(run, recipe, path, settings, table=path and path.with_suffix(".csv"), progress=progress)
    return Fitted(run.net.requires_grad_(False), run.log)


def start(build: Callable[[], nn.Sequential], recipe: Recipe) -> Run:
    """The untrained network and its optimizer, drawn without the global random state."""
    generator = Generator().manual_seed(recipe.seed)
    with torch.device("meta"):
        net = build()
    for name, module in net.named_modules():
        if isinstance(module, DEPEND_ON_MODE):
            raise ValueError(
                f"build() has the layer {name!r}, {type(module).__name__}, which acts otherwise in "
                "training than in evaluation; fold it into the layer before, or leave it out."
            )
    net = net.to_empty(device="cpu").eval()
    architectures.initialize(net, generator, recipe.gain)
    if recipe.start:
        first = load(recipe.start)
        wanted, found = architectures.describe(net), architectures.describe(first)
        if wanted != found:
            raise ValueError(
                f"start={recipe.start!r} is {found}, but {recipe.name!r} is {wanted}; start from a "
                "network of the same architecture."
            )
        net.load_state_dict(first.state_dict())
    return Run(net, recipe.optimizer(net), generator, log=[])


def settings_of(run: Run, recipe: Recipe) -> dict[str, Any]:
    """The recipe with the architecture, as it is recorded."""
    return {**recipe.settings(), "architecture": architectures.describe(run.net)}


def finish(
    run: Run,
    recipe: Recipe,
    state: Path | None,
    settings: dict[str, Any],
    *,
    table: Path | None,
    progress: Progress | None,
) -> None:
    """Train for the epochs that are left; after each of them all is on disk."""
    if len(run.log) == recipe.epochs:
        return

    def searched(text: str) -> None:
        if progress:
            progress(len(run.log), recipe.epochs, f"{recipe.name}: {text}")

    train_set, held_out = recipe.training_sets(searched)
    for number in range(len(run.log) + 1, recipe.epochs + 1):
        began = time.process_time()
        row: dict[str, float] = {"epoch": number, "inputs": len(train_set[0])}
        row |= epoch(
            run.net,
            run.optimizer,
            *train_set,
            recipe=recipe,
            number=number,
            generator=run.generator,
        )
        row |= _held_out(run, recipe, *held_out)
        row["cpu_seconds"] = round(time.process_time() - began, 3)
        run.log.append(row)
        if state:
            run.save(state, settings)
        if table:
            write_whole(table, _csv(run.log))
        if progress:
            progress(number, recipe.epochs, f"{recipe.name}: loss {row['loss']:.4f}")


def _held_out(run: Run, recipe: Recipe, x: Tensor, y: Tensor) -> dict[str, float]:
    """The row of the log for examples that are not trained on: what settings are chosen by."""
    if not len(x):
        return {}
    row = {"held_out_accuracy": accuracy(run.net, x, y)}
    if recipe.method == "adversarial":
        few = slice(min(len(x), HELD_OUT_ATTACKED))
        attacked = pgd(run.net, x[few], y[few], eps=recipe.eps, steps=10, random_start=False)
        row["held_out_pgd_accuracy"] = accuracy(run.net, attacked, y[few])
    if recipe.method == "provable":
        proved = certified(run.net, x, y, eps=recipe.eps, crown=0)
        row["held_out_ibp_accuracy"] = float(proved.double().mean())
    return row


def _difference(path: Path, settings: dict[str, Any]) -> str:
    """Why a state cannot be gone on with."""
    found = Run.settings(path)
    if found is None:
        return f"state={str(path)!r} is no state of a training run, or damaged; remove it."
    keys = [k for k in {**found, **settings} if found.get(k) != settings.get(k)]
    rows = "; ".join(f"{k} is {found.get(k)!r} there, {settings.get(k)!r} here" for k in keys)
    return f"state={str(path)!r} is of another run: {rows}. Give another file, or remove it."


def _csv(log: list[dict[str, float]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(log[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(log)
    return text.getvalue().encode()
