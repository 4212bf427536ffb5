"""Bounds of every step of a network over a box, safe under rounding."""

from robustlib.bounds.box import Box, inner_ball, outer_ball
from robustlib.bounds.crown import (
    Lines,
    network_bounds,
    relu_lines,
    rows_lower_bound,
    unstable_units,
)
from robustlib.bounds.interval import interval_step

__all__ = [
    "Box",
    "Lines",
    "inner_ball",
    "interval_step",
    "network_bounds",
    "outer_ball",
    "relu_lines",
    "rows_lower_bound",
    "unstable_units",
]
