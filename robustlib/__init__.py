"""Understand, measure and prove the robustness of neural networks.

The names below are imported when they are first used, so that ``import robustlib`` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robustlib import attacks, data, features, metrics, plots, theory, training, zoo
    from robustlib.pointwise import pointwise_robustness
    from robustlib.verification import min_distortion, verify

__version__ = "0.1.0"
__all__ = [
    "attacks",
    "data",
    "features",
    "metrics",
    "min_distortion",
    "plots",
    "pointwise_robustness",
    "theory",
    "training",
    "verify",
    "zoo",
]

_FUNCTIONS = {
    "min_distortion": "robustlib.verification",
    "pointwise_robustness": "robustlib.pointwise",
    "verify": "robustlib.verification",
}


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(_FUNCTIONS[name]), name)
    if name in __all__:
        return importlib.import_module(f"robustlib.{name}")
    raise AttributeError(f"module 'robustlib' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
