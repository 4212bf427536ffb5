"""robustlib's own checkpoints: NAME.safetensors beside NAME.json, which says how it was made."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from robustlib.zoo.architectures import describe

PACKAGED = Path(__file__).parent.parent / "checkpoints"


class CheckpointError(RuntimeError):
    """A checkpoint that is missing, damaged, or of another network."""


def write(folder: Path, name: str, net: nn.Sequential, record: dict[str, Any]) -> Path:
    """Store the parameters of ``net`` and its ``record``; each file appears whole or not at all.

    Returns the path of the safetensors file.
    """
    content = save({key: value.contiguous() for key, value in net.state_dict().items()})
    record = {
        "name": name,
        "architecture": describe(net),
        "sha256": hashlib.sha256(content).hexdigest(),
        **record,
    }
    path = folder / f"{name}.safetensors"
    write_whole(path, content)
    write_whole(folder / f"{name}.json", (json.dumps(record, indent=2) + "\n").encode())
    return path


def read(folder: Path, name: str, net: nn.Sequential) -> dict[str, Tensor]:
    """The parameters stored under ``name``, if they were stored for the architecture of ``net``.

    Raises
    ------
    CheckpointError
        If a file is missing or damaged, the two files do not belong together, or the checkpoint is
        of another architecture.
    """
    path = folder / f"{name}.safetensors"
    record = read_record(folder, name)
    if record.get("architecture") != describe(net):
        raise CheckpointError(
            f"{path} is a checkpoint of {record.get('name')!r}: {record.get('architecture')}. "
            f"{name!r} is {describe(net)}."
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(_missing(path, name, error)) from error
    found = hashlib.sha256(content).hexdigest()
    if found != record["sha256"]:
        raise CheckpointError(
            f"{path} has sha256 {found}, but {name}.json beside it states "
            f"{record['sha256']}; nothing was loaded. {_remake(name)}"
        )
    try:
        return load(content)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a safetensors file: {error}.") from error


def read_record(folder: Path, name: str) -> dict[str, Any]:
    """The JSON beside a checkpoint: recipe, seed, log, device, seconds, accuracy."""
    path = folder / f"{name}.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(_missing(path, name, error)) from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}. {_remake(name)}") from error
    if not isinstance(record, dict) or not isinstance(record.get("sha256"), str):
        raise CheckpointError(f"{path} does not state the sha256 of a checkpoint. {_remake(name)}")
    return record


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a kill, sees the old content or the new, never a part."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def _missing(path: Path, name: str, error: OSError) -> str:
    return f"{path} cannot be read ({error.strerror or error}). {_remake(name)}"


def _remake(name: str) -> str:
    return f"`robustlib train {name}` makes it again."
