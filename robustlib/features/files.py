"""A data set on disk: uint8 images in parts, and ``about.json``, which says how it was made.

A part appears whole or not at all, and ``about.json`` says "complete" only after the last one, so
whatever a kill or a full disk leaves is continued by the same call and refused by :func:`load`.
"""

from __future__ import annotations

import hashlib
import json
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save
from torch import Tensor, nn

from robustlib.zoo.checkpoints import write_whole

ABOUT = "about.json"


class DatasetError(RuntimeError):
    """A data set that is missing, unfinished, damaged, or cannot be written."""


def load(path: str | PathLike[str]) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """A finished data set: images, labels, and how it was made.

    Parameters
    ----------
    path : path
        The folder that a builder such as :func:`robustlib.features.robust_dataset` wrote.

    Returns
    -------
    x : Tensor (n, …), float32
        Images in [0, 1], in steps of 1/255.
    y : Tensor (n,), int64
        The labels to train on.
    about : dict
        ``recipe``, ``settings``, ``report`` (means over all images of what the builder measured)
        and ``source`` (Tensor: the image that each one was started from).

    Raises
    ------
    DatasetError
        If there is no finished data set, or a part of it is damaged.

    Examples
    --------
    >>> from robustlib import features
    >>> x, y, about = features.load("sets/robust")  # doctest: +SKIP
    """
    folder = Path(path)
    about = read_about(folder)
    if not about.get("complete"):
        done = len(list(folder.glob("part-*.safetensors")))
        raise DatasetError(
            f"{folder} is half-written: {done} of {about['parts']} parts are there. Run the call "
            "that builds it again; it goes on where it stopped."
        )
    parts = [read_part(folder, k, about["sha256"][k]) for k in range(about["parts"])]
    whole = {key: torch.cat([part[key] for part in parts]) for key in ("x", "y", "source")}
    return whole["x"].float() / 255, whole["y"], {**about, "source": whole["source"]}


def read_about(folder: Path) -> dict[str, Any]:
    """What ``about.json`` in ``folder`` says."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except OSError as error:
        raise DatasetError(
            f"{folder} holds no data set: {ABOUT} cannot be read ({error.strerror})."
        ) from error
    except ValueError as error:
        raise DatasetError(f"{folder / ABOUT} is not valid JSON: {error}.") from error
    if not isinstance(about, dict) or "parts" not in about:
        raise DatasetError(f"{folder / ABOUT} does not describe a data set of this library.")
    return about


def write_about(folder: Path, about: dict[str, Any]) -> None:
    """Write ``about.json``, whole or not at all."""
    write(folder / ABOUT, (json.dumps(about, indent=2) + "\n").encode())


def part_path(folder: Path, k: int) -> Path:
    """The file of part ``k``."""
    return folder / f"part-{k:05d}.safetensors"


def write_part(folder: Path, k: int, tensors: dict[str, Tensor]) -> str:
    """Write part ``k`` and return its sha256."""
    content = save({key: value.contiguous() for key, value in tensors.items()})
    write(part_path(folder, k), content)
    return hashlib.sha256(content).hexdigest()


def read_part(folder: Path, k: int, sha256: str | None = None) -> dict[str, Tensor]:
    """The tensors of part ``k``; refused if its content is not what ``sha256`` says."""
    path = part_path(folder, k)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}).") from error
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise DatasetError(
            f"{path} is damaged: it is not what was written. Delete {path.parent} and build the "
            "data set again."
        )
    try:
        return load_tensors(content)
    except SafetensorError as error:
        raise DatasetError(f"{path} is not a safetensors file: {error}.") from error


def digest_of_file(folder: Path, k: int) -> str:
    """The sha256 of part ``k`` as it is on disk."""
    return hashlib.sha256(part_path(folder, k).read_bytes()).hexdigest()


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; a full disk is a :class:`DatasetError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    except OSError as error:
        for part in path.parent.glob(f".{path.name}.*"):
            part.unlink(missing_ok=True)
        raise DatasetError(
            f"{path} cannot be written ({error.strerror}). Make room, or give a folder that you "
            "may write to, and run the same call again: finished parts are kept."
        ) from error


def digest_of(*tensors: Tensor) -> str:
    """The sha256 of the values of some tensors."""
    result = hashlib.sha256()
    for tensor in tensors:
        result.update(str((tensor.dtype, tuple(tensor.shape))).encode())
        result.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return result.hexdigest()


def digest_of_network(net: nn.Module) -> str:
    """The sha256 of a network's parameters and buffers."""
    state = net.state_dict()
    names = hashlib.sha256("\n".join(state).encode()).hexdigest()
    return f"{names[:16]}-{digest_of(*state.values())}"


def check_folder(path: str | PathLike[str]) -> Path:
    """A path of a folder, or of nothing yet."""
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise DatasetError(f"path={str(path)!r} is a file; give a folder.")
    if folder.is_dir() and not (folder / ABOUT).exists() and any(folder.iterdir()):
        raise DatasetError(
            f"path={str(path)!r} holds other files and no {ABOUT}; give a new or an empty folder."
        )
    return folder
