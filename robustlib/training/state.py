"""The state of an unfinished run: one safetensors file, replaced whole after every epoch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Generator, Tensor, nn
from torch.optim.swa_utils import AveragedModel

from robustlib.zoo.checkpoints import write_whole


@dataclass
class Run:
    """What changes from epoch to epoch; ``log`` has one row for each finished epoch.

    ``average`` is the mean of the network over the last steps, where one is taken.
    """

    net: nn.Sequential
    optimizer: torch.optim.Optimizer
    generator: Generator
    log: list[dict[str, float]]
    average: AveragedModel | None = None

    @property
    def result(self) -> nn.Module:
        """What has been learned so far: the average once it has begun, else the network."""
        if self.average is not None and int(self.average.n_averaged):
            return self.average.module
        return self.net

    def save(self, path: Path, settings: dict[str, Any]) -> None:
        """Write the state; ``settings`` say to which recipe it belongs."""
        tensors = {f"net.{key}": value for key, value in self.net.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors.update({f"optimizer.{index}.{key}": m for key, m in moments.items()})
        if self.average is not None:
            averaged = self.average.state_dict().items()
            tensors.update({f"average.{key}": value for key, value in averaged})
        tensors["generator"] = self.generator.get_state()
        metadata = {"settings": json.dumps(settings), "log": json.dumps(self.log)}
        write_whole(path, save({k: t.contiguous() for k, t in tensors.items()}, metadata))

    @staticmethod
    def settings(path: Path) -> dict[str, Any] | None:
        """The settings of the run whose state is at ``path``; None if there is none to read."""
        try:
            with safe_open(path, framework="pt") as file:
                found: dict[str, Any] = json.loads((file.metadata() or {})["settings"])
        except (OSError, SafetensorError, KeyError, ValueError):
            return None
        return found

    def restore(self, path: Path, settings: dict[str, Any]) -> bool:
        """Continue from ``path`` if it holds a state of the same recipe; return whether it did."""
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError):
            return False
        if metadata.get("settings") != json.dumps(settings):
            return False
        moments: dict[int, dict[str, Any]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, index, name = key.split(".")
                moments.setdefault(int(index), {})[name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.net.load_state_dict(_below("net.", tensors))
        if self.average is not None:
            self.average.load_state_dict(_below("average.", tensors))
        self.generator.set_state(tensors["generator"])
        self.log[:] = json.loads(metadata["log"])
        return True


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin so, without that beginning."""
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
