"""What the four recipes share: check, cut into parts, make what is missing, measure, finish."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustlib import checks
from robustlib.features import files
from robustlib.features.training import PRECISIONS

Progress = Callable[[int, int, str], None]
Make = Callable[[Tensor], dict[str, Tensor]]
"""From indices of images to ``x`` in [0, 1], ``y``, ``source``, and one measure each per image."""


@dataclass(frozen=True)
class Task:
    """What all recipes are given: network, data, where to, and how it is computed.

    Raises
    ------
    TypeError, ValueError
        For a network, images, labels, a seed or a precision that are not as the recipes say.
    """

    net: nn.Module
    x: Tensor
    y: Tensor
    path: str | PathLike[str]
    seed: int
    precision: str
    batch: int
    part: int
    progress: Progress | None

    def __post_init__(self) -> None:
        check(self.net, self.x, self.y)
        checks.count("seed", self.seed, low=0)
        checks.choice("precision", self.precision, PRECISIONS)

    @property
    def dtype(self) -> torch.dtype:
        return PRECISIONS[self.precision]

    def settings(self) -> dict[str, Any]:
        """What the images depend on, beside the settings of the recipe."""
        return {
            "net": files.digest_of_network(self.net),
            "data": files.digest_of(self.x, self.y),
            "seed": int(self.seed),
            "precision": self.precision,
            "batch": self.batch,
        }


def check(net: nn.Module, x: Tensor, y: Tensor) -> int:
    """Refuse what cannot be a trained classifier and its data set; return the number of classes."""
    checks.eval_mode(net, "net")
    checks.same_dtype(checks.images(x), net)
    if not len(x):
        raise ValueError("x holds no images; give at least one.")
    with torch.no_grad():
        try:
            out = net(x[:1])
        except RuntimeError as error:
            raise ValueError(f"x has shape {tuple(x.shape)}, which net refuses: {error}") from error
    if out.ndim != 2 or out.shape[1] < 2:
        raise ValueError(
            f"net gives shape {tuple(out.shape)} for one image; expected logits (1, classes)."
        )
    checks.labels(y, len(x), out.shape[1])
    return int(out.shape[1])


def random_numbers(seed: int, index: int) -> np.random.Generator:
    """The source of all that is random about image ``index``, whatever is built beside it."""
    return np.random.Generator(np.random.Philox(key=[seed, index]))


def build(task: Task, recipe: str, make: Make, settings: dict[str, Any]) -> Path:
    """Make the parts of the data set that are not there yet, then its report.

    Images are computed in batches that start at multiples of ``batch``, so the result does not
    depend on where parts begin or where a run was interrupted.
    """
    folder = files.check_folder(task.path)
    n, batch = len(task.x), checks.count("batch", task.batch)
    part = -(-checks.count("part", task.part) // batch) * batch
    starts = range(0, n, part)
    about = {
        "recipe": recipe,
        "images": n,
        "part": part,
        "parts": len(starts),
        "settings": {**task.settings(), **settings},
    }
    if (folder / files.ABOUT).exists():
        found = files.read_about(folder)
        other = [key for key in about if found.get(key) != about[key]]
        if other:
            raise files.DatasetError(
                f"{folder} holds another data set: {_differences(found, about, other)}. Give "
                "another path, or delete that folder."
            )
        if found.get("complete"):
            return folder
    else:
        files.write_about(folder, {**about, "complete": False})
    measured: dict[str, list[Tensor]] = {}
    sums = []
    for k, start in enumerate(starts):
        if files.part_path(folder, k).exists():
            sums.append(files.digest_of_file(folder, k))
        else:
            rows = torch.arange(start, min(n, start + part))
            made = [make(some) for some in rows.split(batch)]
            whole = {key: torch.cat([one[key] for one in made]) for key in made[0]}
            sums.append(files.write_part(folder, k, whole))
        for key, value in files.read_part(folder, k, sums[-1]).items():
            if key not in ("x", "y", "source"):
                measured.setdefault(key, []).append(value)
        if task.progress:
            task.progress(min(n, start + part), n, recipe)
    report = {key: float(torch.cat(measured[key]).double().mean()) for key in sorted(measured)}
    files.write_about(folder, {**about, "report": report, "sha256": sums, "complete": True})
    return folder


def rounded(x: Tensor) -> Tensor:
    """Images in [0, 1] as the 8-bit levels that are stored."""
    return (x * 255).round().clamp(0, 255).to(torch.uint8).contiguous()


def _differences(found: dict[str, Any], wanted: dict[str, Any], keys: list[str]) -> str:
    shown = []
    for key in keys:
        old, new = found.get(key), wanted[key]
        if isinstance(old, dict) and isinstance(new, dict):
            inner = [k for k in new if old.get(k) != new[k]]
            shown += [f"{k} is {old.get(k)!r}, not {new[k]!r}" for k in inner]
        else:
            shown.append(f"{key} is {old!r}, not {new!r}")
    return "; ".join(shown)
