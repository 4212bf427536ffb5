"""The images that the chapters show, as 8-bit arrays: samples of the data sets, and gradients."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustlib.features import files, measure
from robustlib.features.builder import rounded
from robustlib.features.experiments import Experiment, Place, network
from robustlib.features.studies import TEACHERS, input_gradients

Table = dict[str, Experiment]
INVERTED = ("robust_dataset", "nonrobust_dataset")
NOISE = ("robust_dataset_noise", "nonrobust_dataset_noise")
MISLABELED = ("mislabeled_random", "mislabeled_deterministic")


def samples(
    place: Place, seed: int, table: Table, *, sets: Sequence[str], images: int = 6
) -> dict[str, Any]:
    """Figures 2a, 7 and 9: an image of each of some classes, and what each data set has for it.

    Returns
    -------
    dict
        ``images`` and, for each data set of ``sets``, an array (images, H, W, C) of uint8;
        ``start``, the images that those of ``nonrobust_dataset`` were started from; ``labels``
        (the true ones) and ``given``, the labels of each data set.
    """
    x, y = place.train
    chosen = [int((y == c).nonzero()[0]) for c in range(min(images, place.classes))]
    found: dict[str, Any] = {"images": levels(x[chosen]), "labels": y[chosen].tolist()}
    found["given"] = {}
    for name in sets:
        built, labels, about = files.load(place.work / f"{name}-{seed}")
        found[name] = levels(built[chosen])
        found["given"][name] = labels[chosen].tolist()
        if name == "nonrobust_dataset":
            found["start"] = levels(x[about["source"][chosen]])
    return found


def alignment(
    place: Place,
    seed: int,
    table: Table,
    *,
    images: int = 5,
    eps: float = 6.0,
    steps: int = 60,
) -> dict[str, Any]:
    """What a person sees in a standard and in a robust network: gradients and large steps.

    For each network the input gradients of some test images, cut to three standard deviations and
    scaled to [0, 1], and the images that l2 PGD with radius ``eps`` leads to toward another class.

    Returns
    -------
    dict
        ``images``, ``NETWORK_gradient`` and ``NETWORK_target``: arrays (images, H, W, C) of uint8;
        ``labels``, ``targets`` (classes) and ``reached`` (of each network, which images get the
        class that they were led to).
    """
    x, y = place.test
    chosen = [int((y == c).nonzero()[0]) for c in range(min(images, place.classes))]
    x, y = x[chosen], y[chosen]
    targets = (y + place.classes // 2) % place.classes
    found: dict[str, Any] = {"images": levels(x), "labels": y.tolist(), "eps": eps}
    found["targets"], found["reached"] = targets.tolist(), {}
    for name in TEACHERS:
        net = network(place, table[name], seed)
        g = input_gradients(net, x, y)
        spread = g.flatten(1).std(dim=1).view(-1, 1, 1, 1).clamp_min(1e-30)
        found[f"{name}_gradient"] = levels(0.5 + (g / spread).clamp(-3, 3) / 6)
        moved = measure.adversarial(
            net, x, y, eps=eps, steps=steps, targets=targets, early_stop=False, seed=seed
        )
        with torch.no_grad():
            found["reached"][name] = (net(moved).argmax(1) == targets).tolist()
        found[f"{name}_target"] = levels(moved)
    return found


def levels(x: Tensor) -> np.ndarray:
    """Images (n, C, H, W) in [0, 1] as an array (n, H, W, C) of 8-bit levels."""
    return np.ascontiguousarray(rounded(x).permute(0, 2, 3, 1).numpy())


PICTURES: dict[str, tuple[Callable[..., dict[str, Any]], Sequence[str]]] = {
    **{
        name: (functools.partial(samples, sets=sets), sets)
        for name, sets in {"inverted": INVERTED, "noise": NOISE, "mislabeled": MISLABELED}.items()
    },
    "alignment": (alignment, TEACHERS),
}
