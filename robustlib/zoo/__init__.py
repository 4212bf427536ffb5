"""Networks by name: ``zoo.list()``, ``zoo.info(name)``, ``zoo.load(name)``."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import torch
from torch import nn

from robustlib.zoo import architectures, checkpoints
from robustlib.zoo.authors import STATES
from robustlib.zoo.checkpoints import CheckpointError
from robustlib.zoo.registry import Info, info
from robustlib.zoo.registry import names as list

__all__ = ["CheckpointError", "Info", "architectures", "checkpoints", "info", "list", "load"]


def load(name: str, *, folder: str | PathLike[str] | None = None) -> nn.Sequential:
    """A trained network: float32, on the CPU, in evaluation mode, its parameters frozen.

    Parameters
    ----------
    name : str
        One of ``zoo.list()``.
    folder : path, optional
        Where ``robustlib train`` wrote the checkpoint; default is the package's own. Networks of
        other authors always come from :func:`robustlib.data.home`.

    Returns
    -------
    torch.nn.Sequential
        For inputs of shape (n, ``*zoo.info(name).input_shape``) in [0, 1]; returns logits
        (n, classes).

    Raises
    ------
    ValueError
        If there is no network of this name (with the nearest names), or ``folder`` is given for a
        network of other authors.
    robustlib.data.DataError
        If a file of other authors is missing and cannot be downloaded, or is not the published one.
    CheckpointError
        If a checkpoint is missing or damaged, or belongs to another architecture.

    Examples
    --------
    >>> from robustlib import data, zoo
    >>> net = zoo.load("digits_mlp")
    >>> x, y = data.digits("test", n=3)
    >>> net(x).shape
    torch.Size([3, 10])
    """
    row = info(name)
    with torch.device("meta"):  # no memory, and no draw from the global random state
        net = row.build()
    if name in STATES:
        if folder is not None:
            raise ValueError(
                f"folder={str(folder)!r} has no effect on {name!r}, which is read from data.home()."
            )
        state = STATES[name]()
    else:
        place = checkpoints.PACKAGED if folder is None else Path(folder)
        state = checkpoints.read(place, name, net)
    net.load_state_dict(state, assign=True)
    return net.eval().requires_grad_(False)
