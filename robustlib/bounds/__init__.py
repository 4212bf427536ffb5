"""Bounds of every step of a network over a set of inputs, safe under rounding."""

from robustlib.bounds.box import Box, inner_ball, outer_ball
from robustlib.bounds.crown import (
    Lines,
    Planes,
    network_bounds,
    relu_lines,
    rows_lower_bound,
    unstable_units,
)
from robustlib.bounds.hull import plane_offsets
from robustlib.bounds.interval import interval_step
from robustlib.bounds.region import L1Ball, L2Ball, Region, Simplex, norm_ball

__all__ = [
    "Box",
    "L1Ball",
    "L2Ball",
    "Lines",
    "Planes",
    "Region",
    "Simplex",
    "inner_ball",
    "interval_step",
    "network_bounds",
    "norm_ball",
    "outer_ball",
    "plane_offsets",
    "relu_lines",
    "rows_lower_bound",
    "unstable_units",
]
