"""D̂_R and D̂_NR: images that a network represents as it does the original (Ilyas et al., 3.1)."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import torch
from torch import Tensor, nn

from robustlib import checks
from robustlib.features.builder import Progress, Task, build, random_numbers, rounded
from robustlib.features.descent import Representation, Steps, descend
from robustlib.features.networks import folded

STARTS = ("other", "noise")


def robust_dataset(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    path: str | PathLike[str],
    *,
    layer: str = "features",
    start: str = "other",
    steps: int = 1000,
    step_size: float = 0.1,
    decay: bool = False,
    seed: int = 0,
    precision: str = "float32",
    batch: int = 128,
    part: int = 1024,
    progress: Progress | None = None,
) -> Path:
    """Build D̂_R: keep of each image only what an adversarially trained network represents.

    For each (x, y) the pair (x_r, y) is stored with

        x_r = argmin over z in [0, 1]^d of ‖g(z) − g(x)‖₂,

    g the penultimate layer of ``net``, by normalized gradient descent from an image that was drawn
    without regard to y (Ilyas et al. 2019, section 3.1 and figure 5). Features of y that ``net``
    does not use stay as in the start, so they do not predict y.

    Each image depends on its place in ``x`` and on ``seed``, not on ``part`` or on interruptions.

    Parameters
    ----------
    net : nn.Module
        A trained network in evaluation mode; for D̂_R an adversarially trained one.
    x : Tensor (n, …) in [0, 1]
    y : Tensor (n,), integers
    path : path
        Folder to write to; read it with :func:`robustlib.features.load`. A call that was
        interrupted, or killed, goes on where it stopped; a finished data set is left as it is.
    layer : str
        Name of the submodule whose output is g.
    start : {"other", "noise"}
        Begin at another image of ``x``, drawn at random, or at uniform noise.
    steps, step_size : int, float
        How many steps of which l2 length. Their sum has to cover the way: ``relative_distance`` in
        the report says whether it did.
    decay : bool
        Let the step length fall linearly to zero.
    seed : int
        Decides the starts.
    precision : {"float32", "bfloat16"}
    batch, part : int
        Images computed and stored together.
    progress : callable, optional
        Called as ``progress(done, n, recipe)`` after each part.

    Returns
    -------
    Path
        The folder. The report in ``about.json`` holds means over all images as stored:
        ``relative_distance`` ‖g(x_r) − g(x)‖₂ / ‖g(x)‖₂, ``start_distance`` (the same before the
        first step) and ``agreement`` (the share that ``net`` labels as the original image).

    Raises
    ------
    TypeError, ValueError
        For arguments that are not as described; the message names them and the remedy.
    DatasetError
        If ``path`` holds another data set or cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from robustlib import data, features, zoo
    >>> net, (x, y) = zoo.load("digits_mlp"), data.digits("train", n=4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = robust_dataset(net, x, y, folder, layer="4", steps=20)
    ...     z, labels, about = features.load(path)
    >>> z.shape, torch.equal(labels, y)
    (torch.Size([4, 1, 8, 8]), True)
    """
    task = Task(net, x, y, path, seed, precision, batch, part, progress)
    return _inverted("robust", task, layer, start, Steps(steps, step_size, decay))


def nonrobust_dataset(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    path: str | PathLike[str],
    *,
    layer: str = "features",
    start: str = "other",
    steps: int = 1000,
    step_size: float = 0.1,
    decay: bool = False,
    seed: int = 0,
    precision: str = "float32",
    batch: int = 128,
    part: int = 1024,
    progress: Progress | None = None,
) -> Path:
    """Build D̂_NR: the recipe of :func:`robust_dataset` with a network of standard training.

    The images look like their starts and carry the features that a standard network uses, most of
    them not robust (Ilyas et al. 2019, section 3.1). Arguments and result are those of
    :func:`robust_dataset`.
    """
    task = Task(net, x, y, path, seed, precision, batch, part, progress)
    return _inverted("nonrobust", task, layer, start, Steps(steps, step_size, decay))


def _inverted(recipe: str, task: Task, layer: str, start: str, steps: Steps) -> Path:
    checks.choice("start", start, STARTS)
    x, y = task.x, task.y
    g = Representation(folded(task.net), layer, task.dtype)

    def make(rows: Tensor) -> dict[str, Tensor]:
        draws = [random_numbers(task.seed, i) for i in rows.tolist()]
        source = torch.tensor([int(draw.integers(len(x))) for draw in draws])
        z = x[source]
        if start == "noise":
            source = torch.full_like(rows, -1)
            z = torch.stack([torch.from_numpy(d.random(x.shape[1:])).to(x.dtype) for d in draws])
        with torch.no_grad():
            wanted = g(x[rows])

        def distance(point: Tensor) -> Tensor:
            return (g(point) - wanted).norm(dim=1) / wanted.norm(dim=1).clamp_min(1e-12)

        with torch.no_grad():
            before = distance(z)
        z = descend(lambda p, _: distance(p), z, steps, lambda p: p.clamp_(0, 1))
        stored = rounded(z)
        with torch.no_grad():
            after = stored.to(x.dtype) / 255
            agreement = g.net(after).argmax(1) == g.net(x[rows]).argmax(1)
            return {
                "x": stored,
                "y": y[rows].long(),
                "source": source,
                "start_distance": before,
                "relative_distance": distance(after),
                "agreement": agreement,
            }

    settings = {"layer": layer, "start": start, "steps": steps.number, "step_size": steps.size}
    return build(task, recipe, make, {**settings, "decay": steps.decay})
