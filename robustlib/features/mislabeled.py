"""D̂_rand and D̂_det: images with wrong labels and the features of these (Ilyas et al., 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlib import checks
from robustlib.features import files, moves
from robustlib.features.builder import Progress, Task, build, check, random_numbers, rounded
from robustlib.features.descent import NORMS, Steps, ball, descend, logits
from robustlib.features.networks import folded


def mislabeled_random(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    path: str | PathLike[str],
    *,
    eps: float = 0.5,
    norm: str = "2",
    steps: int = 100,
    step_size: float = 0.1,
    decay: bool = False,
    copies: int = 0,
    reach: int = 0,
    keep: Sequence[nn.Module] = (),
    seed: int = 0,
    precision: str = "float32",
    batch: int = 128,
    part: int = 1024,
    progress: Progress | None = None,
) -> Path:
    """Build D̂_rand: each image with a small perturbation toward a random class t, labeled t.

    For each (x, y) the pair (x_adv, t) is stored with

        x_adv = argmin over ‖z − x‖ ≤ eps, z in [0, 1]^d, of L(z, t),

    L the cross-entropy of ``net`` and t uniform over all classes, y included, by projected
    normalized gradient descent from x (Ilyas et al. 2019, section 3.2). Robust features say
    nothing of t, so whatever a network learns from these pairs is not robust.

    Each image depends on its place in ``x`` and on ``seed``, not on ``part`` or on interruptions.

    Parameters
    ----------
    net : nn.Module
        A trained network in evaluation mode.
    x : Tensor (n, C, H, W) in [0, 1]
    y : Tensor (n,), integers
    path : path
        Folder to write to; read it with :func:`robustlib.features.load`. A call that was
        interrupted, or killed, goes on where it stopped; a finished data set is left as it is.
    eps : float
        Radius, in the unit of ``x``. What is stored is rounded to levels of 1/255, which moves an
        image of 32×32 pixels by up to 0.06 more in l2.
    norm : {"2", "inf"}
    steps, step_size : int, float
        How many steps of which length.
    decay : bool
        Let the step length fall linearly to zero.
    copies, reach : int
        Average each gradient over so many copies of the image, moved by up to ``reach`` pixels and
        flipped at random, freshly drawn at every step. With 0 (the paper) a perturbation of a
        network with strides does not survive a shift by one pixel, so it is lost on a student that
        is trained with augmentation.
    keep : sequence of nn.Module
        Networks that should go on seeing y: their cross-entropy toward y is added to the loss.
        What then moves ``net`` is a bug of that network alone, not a feature (Nakkiran, response
        5 in the discussion of the paper).
    seed : int
        Decides targets and copies.
    precision : {"float32", "bfloat16"}
    batch, part : int
        Images computed and stored together.
    progress : callable, optional
        Called as ``progress(done, n, recipe)`` after each part.

    Returns
    -------
    Path
        The folder. The report in ``about.json`` holds means over all images as stored:
        ``success`` (the share that ``net`` labels t), ``success_moved`` (the same for one copy of
        each, moved at random by up to ``reach`` pixels, at least one, and flipped), ``changed``
        (the share with t ≠ y) and ``distance`` (‖x_adv − x‖₂).

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
    >>> net, (x, y) = zoo.load("digits_mlp_standard"), data.digits("train", n=8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = mislabeled_random(net, x, y, folder, eps=2.0, steps=20)
    ...     z, t, about = features.load(path)
    >>> (net(z).argmax(1) == t).float().mean() > 0.8
    tensor(True)
    """
    task = Task(net, x, y, path, seed, precision, batch, part, progress)
    schedule = Steps(steps, step_size, decay, copies, reach)
    return _mislabeled("random", _any_class, task, schedule, eps, norm, keep)


def mislabeled_deterministic(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    path: str | PathLike[str],
    *,
    eps: float = 0.5,
    norm: str = "2",
    steps: int = 100,
    step_size: float = 0.1,
    decay: bool = False,
    copies: int = 0,
    reach: int = 0,
    keep: Sequence[nn.Module] = (),
    seed: int = 0,
    precision: str = "float32",
    batch: int = 128,
    part: int = 1024,
    progress: Progress | None = None,
) -> Path:
    """Build D̂_det: the recipe of :func:`mislabeled_random` with t = (y + 1) mod classes.

    Robust features now say y + 1: they mislead a network that is judged on the original labels
    (Ilyas et al. 2019, section 3.2). Arguments and result are those of :func:`mislabeled_random`.
    """
    task = Task(net, x, y, path, seed, precision, batch, part, progress)
    schedule = Steps(steps, step_size, decay, copies, reach)
    return _mislabeled("deterministic", _next_class, task, schedule, eps, norm, keep)


def _any_class(y: int, classes: int, draw: np.random.Generator) -> int:
    return int(draw.integers(classes))


def _next_class(y: int, classes: int, draw: np.random.Generator) -> int:
    return (y + 1) % classes


def _mislabeled(
    recipe: str,
    target: Callable[[int, int, np.random.Generator], int],
    task: Task,
    steps: Steps,
    eps: float,
    norm: str,
    keep: Sequence[nn.Module],
) -> Path:
    x, y, copies, reach = task.x, task.y, steps.copies, steps.reach
    classes = check(task.net, x, y)
    eps = checks.number("eps", eps, low=0.0, strict=True)
    checks.choice("norm", norm, NORMS)
    if copies and x.ndim != 4:
        raise ValueError(f"copies={copies} needs images (n, C, H, W); x has {tuple(x.shape)}.")
    for other in keep:
        check(other, x, y)
    frozen, kept, kind = folded(task.net), [folded(other) for other in keep], task.dtype

    def make(rows: Tensor) -> dict[str, Tensor]:
        draws = [random_numbers(task.seed, i) for i in rows.tolist()]
        pairs = zip(y[rows].tolist(), draws, strict=True)
        t = torch.tensor([target(label, classes, draw) for label, draw in pairs])
        shape = (steps.number, copies, 3)
        copied = torch.stack([_moves(draw, shape, reach) for draw in draws]) if copies else None

        def loss(z: Tensor, _: Tensor | None) -> Tensor:
            toward = F.cross_entropy(logits(frozen, z, kind), t, reduction="none")
            for other in kept:
                toward = toward + F.cross_entropy(logits(other, z, kind), y[rows], reduction="none")
            return toward

        start = x[rows]
        stored = rounded(descend(loss, start, steps, ball(start, eps, norm), copied, norm))
        after = stored.to(x.dtype) / 255
        measures = {"changed": t != y[rows], "distance": (after - start).flatten(1).norm(dim=1)}
        with torch.no_grad():
            measures["success"] = frozen(after).argmax(1) == t
            if x.ndim == 4:
                once = torch.stack([_moves(draw, (3,), max(reach, 1)) for draw in draws])
                measures["success_moved"] = frozen(moves.move(after, once)).argmax(1) == t
        return {"x": stored, "y": t, "source": rows, **measures}

    settings = {
        "eps": eps,
        "norm": norm,
        "steps": steps.number,
        "step_size": steps.size,
        "decay": steps.decay,
        "copies": copies,
        "reach": reach,
        "keep": [files.digest_of_network(other) for other in keep],
    }
    return build(task, recipe, make, settings)


def _moves(draw: np.random.Generator, shape: tuple[int, ...], reach: int) -> Tensor:
    """Moves of this shape, the last dimension (down, right, flip)."""
    high = np.array([reach + 1, reach + 1, 2])
    return torch.from_numpy(draw.integers(np.array([-reach, -reach, 0]), high, size=shape))
