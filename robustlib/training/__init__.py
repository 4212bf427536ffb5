"""Training: ``fit`` trains any network by a recipe, ``train(name)`` one of the zoo by its own.

========================= =================================================================
standard                  ``Recipe(...)``; Gaussian noise with ``noise=``, augmentation with
                          ``mirror=`` and ``shift=``
adversarial               ``method="adversarial"``, ``attack="pgd"``, ``"fgsm"`` or
                          ``"r_fgsm"``; with a share ``clean=`` of the clean loss
ensemble adversarial      the same with ``sources=``, networks that are attacked in its place
provable                  ``method="provable"``: IBP and CROWN-IBP
on from a network         ``start=``; with adversarial examples of earlier networks
                          ``examples=``, of any attack in rounds `fine_tune`; `sparsify` after
                          pruning
========================= =================================================================
"""

from __future__ import annotations

import copy
import platform
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robustlib import checks
from robustlib.attacks import pgd
from robustlib.training.examples import Examples
from robustlib.training.fine_tuning import FineTuned, fine_tune
from robustlib.training.fit import Fitted, Progress, finish, fit, settings_of, start
from robustlib.training.loop import accuracy, certified
from robustlib.training.provable import margin_bounds, robust_cross_entropy
from robustlib.training.recipe import Recipe
from robustlib.training.recipes import RECIPES
from robustlib.training.sparse import prune, sparsify
from robustlib.training.state import Run
from robustlib.zoo import checkpoints
from robustlib.zoo import info as zoo_info

__all__ = [
    "RECIPES",
    "Examples",
    "FineTuned",
    "Fitted",
    "Progress",
    "Recipe",
    "Training",
    "fine_tune",
    "fit",
    "margin_bounds",
    "prune",
    "robust_cross_entropy",
    "sparsify",
    "train",
]

FOLDER = "_build/checkpoints"
PGD_STEPS = 40  # of the attack that the record reports


@dataclass(frozen=True)
class Training:
    """A finished run.

    Attributes
    ----------
    path : Path
        The checkpoint, for ``zoo.load(name, folder=path.parent)``.
    record : dict
        What NAME.json beside it holds: recipe, three epochs of the log, device, seconds, and
        accuracy on the test set: clean, attacked by PGD, and certified where that was trained; the
        radius of both is ``recorded_eps``.
    """

    path: Path
    record: dict[str, Any]


def train(
    name: str,
    *,
    out: str | PathLike[str] | None = None,
    progress: Progress | None = None,
    resume: bool = True,
) -> Training:
    """Train the network ``name`` by its recipe; equal seeds give equal parameters on one machine.

    After every epoch the whole state is on disk: a run that was interrupted, or killed, goes on
    behind its last epoch when it is called again, to the same result. A finished one is returned.

    Parameters
    ----------
    name : str
        One of ``RECIPES``.
    out : path, optional
        Folder for NAME.safetensors, NAME.json and the log NAME.csv (one row an epoch); default
        ``_build/checkpoints``.
    progress : callable, optional
        Called as ``progress(done, total, text)`` after each epoch.
    resume : bool
        False starts from the beginning whatever ``out`` holds.

    Returns
    -------
    Training

    Raises
    ------
    ValueError
        If there is no such recipe; the message holds the nearest names.
    OSError
        If ``out`` cannot be written to.

    Examples
    --------
    >>> from robustlib import training, zoo
    >>> done = training.train("digits_mlp_standard", out="nets")  # doctest: +SKIP
    >>> net = zoo.load("digits_mlp_standard", folder="nets")  # doctest: +SKIP
    """
    recipe = RECIPES[checks.choice("name", name, RECIPES)]
    folder = _writable(Path(FOLDER if out is None else out))
    run = start(zoo_info(name).build, recipe)
    settings = settings_of(run, recipe)
    state = folder / f"{name}.unfinished.safetensors"
    under_way = resume and run.restore(state, settings)
    if resume and not under_way and (done := _finished(folder, name, run.net, settings)):
        return done
    finish(run, recipe, state, settings, table=folder / f"{name}.csv", progress=progress)
    record = _record(run, recipe, settings)
    path = checkpoints.write(folder, name, run.net, record)
    state.unlink(missing_ok=True)
    return Training(path, checkpoints.read_record(folder, name))


def _finished(
    folder: Path, name: str, net: nn.Sequential, settings: dict[str, Any]
) -> Training | None:
    try:
        checkpoints.read(folder, name, net)
        record = checkpoints.read_record(folder, name)
    except checkpoints.CheckpointError:
        return None
    if record.get("recipe") != settings:
        return None
    return Training(folder / f"{name}.safetensors", record)


def _record(run: Run, recipe: Recipe, settings: dict[str, Any]) -> dict[str, Any]:
    x, y = recipe.data("test")
    results: dict[str, Any] = {"clean_accuracy": accuracy(run.net, x, y), "test_images": len(x)}
    open_ = torch.ones(len(x), dtype=torch.bool)
    eps = recipe.recorded_eps or recipe.eps
    if recipe.method == "provable":
        double = copy.deepcopy(run.net).double()
        for bound, crown in (("ibp", 0.0), ("crown_ibp", 1.0)):
            proved = certified(double, x[open_].double(), y[open_], eps=eps, crown=crown)
            open_[open_.clone()] = ~proved
            results[f"{bound}_certified_accuracy"] = 1 - float(open_.double().mean())
        results["certified"] = "float64 bounds without rounding outward; verify() gives proofs"
    if eps:
        attacked = x.clone()
        attacked[open_] = pgd(
            run.net, x[open_], y[open_], eps=eps, steps=PGD_STEPS, generator=run.generator
        )
        results["pgd_accuracy"] = accuracy(run.net, attacked, y)
        results |= {"pgd_steps": PGD_STEPS, "recorded_eps": eps}
    return {
        "recipe": settings,
        **results,
        "log": [run.log[0], run.log[len(run.log) // 2], run.log[-1]],
        "cpu_seconds": round(sum(row["cpu_seconds"] for row in run.log), 1),
        "device": f"cpu ({platform.machine()}), {torch.get_num_threads()} thread(s)",
        "torch": torch.__version__,
    }


def _writable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        checkpoints.write_whole(folder / ".writable", b"")
        (folder / ".writable").unlink()
    except OSError as error:
        raise OSError(
            f"out={str(folder)!r} cannot be written to ({error.strerror}); give a folder that you "
            "may write to."
        ) from error
    return folder
