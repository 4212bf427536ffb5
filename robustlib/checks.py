"""Checks of arguments: every message names the argument, the value and what is allowed."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def choice(argument: str, value: Any, allowed: Iterable[str]) -> str:
    """Return ``value`` if it is in ``allowed``; else raise ``ValueError`` with the nearest names.

    >>> choice("norm", "inf", ["inf", "1", "2"])
    'inf'
    """
    names = list(allowed)
    if isinstance(value, str) and value in names:
        return value
    by_lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(str(value).lower(), by_lower, n=3, cutoff=0.4)
    hint = f" Did you mean {' or '.join(repr(by_lower[n]) for n in near)}?" if near else ""
    raise ValueError(f"{argument}={value!r} is not known.{hint} Allowed: {', '.join(names)}.")


def number(
    argument: str,
    value: Any,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    strict: bool = False,
) -> float:
    """Return ``value`` as a float if it is finite and in [low, high] (``strict``: above low)."""
    if isinstance(value, bool):
        raise TypeError(f"{argument}={value!r} is a truth value; give a number.")
    try:
        result = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{argument}={value!r} is not a number.") from None
    if math.isfinite(result) and low <= result <= high and not (strict and result == low):
        return result
    limits = [] if low == -math.inf else [f"{'above' if strict else 'at least'} {low:g}"]
    limits += [] if high == math.inf else [f"at most {high:g}"]
    allowed = " ".join(["a finite number", " and ".join(limits)]).strip()
    raise ValueError(f"{argument}={value!r} is out of range: give {allowed}.")


def count(argument: str, value: Any, *, low: int = 1) -> int:
    """Return ``value`` as an int if it is a whole number of at least ``low``."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{argument}={value!r} is not a whole number.")
    result = int(value.__index__())
    if result < low:
        raise ValueError(f"{argument}={result} is too small: give at least {low}.")
    return result


def eps(value: Any, argument: str = "eps") -> float:
    """A radius: finite and not negative, in the unit of the images (20 pixels are 20/255)."""
    return number(argument, value, low=0.0)


def box(value: Any, argument: str = "bounds") -> tuple[float, float]:
    """The range of every coordinate, as a pair of finite numbers, the lower one first.

    >>> box((0, 1))
    (0.0, 1.0)
    """
    try:
        low, high = value
    except (TypeError, ValueError):
        raise TypeError(
            f"{argument}={value!r} is not a pair of numbers; give (low, high), for images (0, 1)."
        ) from None
    low, high = number(argument, low), number(argument, high)
    if low >= high:
        raise ValueError(f"{argument}={value!r} is empty; give (low, high) with low < high.")
    return low, high


def generator(value: Any, argument: str = "generator") -> torch.Generator | None:
    """A source of random numbers of torch, or None for its global one."""
    if value is not None and not isinstance(value, torch.Generator):
        raise TypeError(
            f"{argument}={value!r} is not a torch.Generator; give for example "
            "torch.Generator().manual_seed(0), or None for torch's global one."
        )
    return value


def images(
    x: Any, argument: str = "x", *, bounds: tuple[float, float] | None = (0.0, 1.0)
) -> Tensor:
    """A batch of finite floating-point inputs, first dimension the batch, values in ``bounds``."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{argument} is a {type(x).__name__}; give a torch.Tensor, batch first.")
    if not x.is_floating_point():
        raise TypeError(
            f"{argument} has dtype {x.dtype}; give floating-point values in [0, 1] "
            f"(for 8-bit images: {argument}.float() / 255)."
        )
    if x.ndim < 2:
        raise ValueError(
            f"{argument} has shape {tuple(x.shape)}; the first dimension is the batch, so a single "
            f"input needs {argument}[None]."
        )
    if not torch.isfinite(x).all():
        bad = int((~torch.isfinite(x)).sum())
        raise ValueError(f"{argument} holds {bad} NaN or infinite values; give finite numbers.")
    if bounds is not None and x.numel():
        low, high = float(x.min()), float(x.max())
        if low < bounds[0] or high > bounds[1]:
            raise ValueError(
                f"{argument} has values in [{low:g}, {high:g}]; allowed is "
                f"[{bounds[0]:g}, {bounds[1]:g}]."
            )
    return x


def same_dtype(x: Tensor, model: nn.Module, argument: str = "x") -> Tensor:
    """Inputs of the dtype that the module's parameters have."""
    dtypes = {p.dtype for p in model.parameters()}
    if dtypes and dtypes != {x.dtype}:
        names = ", ".join(sorted(map(str, dtypes)))
        raise TypeError(
            f"{argument} has dtype {x.dtype}, the network has {names}; convert one of them "
            f"(such as {argument}.float() or net.double())."
        )
    return x


def labels(y: Any, n: int, classes: int, argument: str = "y") -> Tensor:
    """``n`` integer labels in 0 … classes−1, as an int64 tensor of shape (n,)."""
    if not isinstance(y, Tensor):
        raise TypeError(f"{argument} is a {type(y).__name__}; give a torch.Tensor of labels.")
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise TypeError(f"{argument} has dtype {y.dtype}; give integer labels.")
    if y.shape != (n,):
        raise ValueError(
            f"{argument} has shape {tuple(y.shape)}; give one label per input: ({n},)."
        )
    if n and (int(y.min()) < 0 or int(y.max()) >= classes):
        raise ValueError(
            f"{argument} has labels in [{int(y.min())}, {int(y.max())}]; allowed is "
            f"[0, {classes - 1}]."
        )
    return y.long()


def eval_mode(model: nn.Module, argument: str = "model") -> nn.Module:
    """A module in evaluation mode throughout: attacks and proofs never switch it themselves."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"{argument} is a {type(model).__name__}; give a torch.nn.Module.")
    for name, module in model.named_modules():
        if module.training:
            where = f" (submodule {name!r})" if name else ""
            raise ValueError(
                f"{argument} is in training mode{where}; call {argument}.eval() first."
            )
    return model
