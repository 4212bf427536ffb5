"""Numbers that a notebook records, and reading them back from the executed notebook."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping
from typing import Any

KEY = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)+")
ENDS = ("low", "high")

Value = bool | int | float | str


def record(key: str, value: Any, *, interval: tuple[Any, Any] | None = None) -> None:
    """Record one value of a notebook under a stable key, for the prose, the claims and the report.

    Parameters
    ----------
    key : str
        ``NAME.what``: the notebook's name, a dot, and what was measured; lower case letters,
        digits and underscores.
    value : bool, int, float or str, or a NumPy or torch scalar
        Numbers have to be finite.
    interval : (low, high), optional
        Recorded as ``key.low`` and ``key.high``.

    Raises
    ------
    ValueError
        A key that does not follow the pattern, a value that is NaN or infinite, or an interval
        whose ends are in the wrong order.
    TypeError
        A value that is not a scalar, or an interval that is not a pair of numbers.

    Notes
    -----
    The value becomes a glue variable (``myst_nb.glue``) without being displayed: a page shows it
    by ``{glue:text}`linear_regions.accuracy:.2f```.

    Examples
    --------
    >>> record("linear_regions.accuracy", float("nan"))
    Traceback (most recent call last):
    ValueError: value of 'linear_regions.accuracy' is nan; record finite numbers only.
    """
    values = {check_key(key): plain(key, value)}
    if interval is not None:
        values.update(zip((f"{key}.low", f"{key}.high"), _ends(key, interval), strict=True))
    from myst_nb import glue

    for name, item in values.items():
        glue(name, item, display=False)


def check_key(key: Any) -> str:
    """Return ``key`` if it reads ``NAME.what``; the endings of intervals are reserved.

    >>> check_key("gaussian_model.theorem_2_gap")
    'gaussian_model.theorem_2_gap'
    """
    if not isinstance(key, str) or not KEY.fullmatch(key):
        raise ValueError(
            f"key={key!r} is not allowed: write NAME.what in lower case letters, digits and "
            "underscores, for example 'linear_regions.accuracy'."
        )
    if key.rsplit(".", 1)[1] in ENDS:
        raise ValueError(
            f"key={key!r} ends in '.low' or '.high', which are made from interval=(low, high)."
        )
    return key


def plain(key: str, value: Any) -> Value:
    """The Python scalar behind ``value``: NumPy and torch scalars are unwrapped, NaN is refused.

    >>> import numpy as np
    >>> plain("a.b", np.float64(0.5)), plain("a.b", np.bool_(True))
    (0.5, True)
    """
    if not isinstance(value, Value) or type(value).__module__ != "builtins":
        item = getattr(value, "item", None)
        if item is None or getattr(value, "ndim", 0) != 0:
            raise TypeError(
                f"value of {key!r} is a {type(value).__name__}; record a single number, a truth "
                "value or a text."
            )
        value = item()
    if not isinstance(value, Value):
        raise TypeError(f"value of {key!r} is a {type(value).__name__}, not a real scalar.")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"value of {key!r} is {value}; record finite numbers only.")
    return value


def _ends(key: str, interval: Any) -> tuple[float, float]:
    try:
        low, high = interval
    except (TypeError, ValueError):
        raise TypeError(f"interval of {key!r} is {interval!r}; give a pair (low, high).") from None
    ends = []
    for name, end in zip(ENDS, (low, high), strict=True):
        number = plain(f"{key}.{name}", end)
        if isinstance(number, bool | str):
            raise TypeError(f"interval of {key!r} is {interval!r}; give two numbers.")
        ends.append(float(number))
    if ends[0] > ends[1]:
        raise ValueError(f"interval of {key!r} is {interval!r}; the lower end comes first.")
    return ends[0], ends[1]


def recorded(notebook: Mapping[str, Any]) -> dict[str, Value | None]:
    """What an executed notebook recorded: ``{key: value}``, ``None`` where a key has no value.

    Parameters
    ----------
    notebook : nbformat notebook (version 4)
        As `nbformat.read` gives it.

    Raises
    ------
    ValueError
        A key that was recorded twice.
    """
    values: dict[str, Value | None] = {}
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            scrap = output.get("metadata", {}).get("scrapbook")
            if scrap is None:
                continue
            if scrap["name"] in values:
                raise ValueError(f"key {scrap['name']!r} is recorded twice.")
            values[scrap["name"]] = _literal(
                output.get("data", {}).get(scrap.get("mime_prefix", "") + "text/plain")
            )
    return values


def _literal(text: Any) -> Value | None:
    text = "".join(text) if isinstance(text, list) else text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError):
        return None
    if not isinstance(value, Value) or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value
