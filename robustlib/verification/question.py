"""One input's question, and the bounds that its stages share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from robustlib.attacks.balls import BALLS, Ball
from robustlib.bounds import Box, Region, network_bounds, norm_ball, rows_lower_bound
from robustlib.network import Network, margin_rows
from robustlib.verification.witness import Witness, distance, is_within, strict_witness


@dataclass(frozen=True, eq=False)
class Question:
    """Is there another label than ``label`` within ``eps`` of ``x`` and inside ``bounds``?

    ``norm`` measures the distance: "inf", "1" or "2".
    """

    module: nn.Module
    network: Network
    x: Tensor
    label: int
    eps: float
    bounds: tuple[float, float]
    norm: str = "inf"

    @cached_property
    def center(self) -> np.ndarray:
        """x as a flat float64 array."""
        return self.x.detach().cpu().double().reshape(-1).numpy()

    @cached_property
    def region(self) -> Region:
        """All inputs that are meant, and for rounding a hair more: what proofs are about."""
        return norm_ball(self.center, self.eps, self.norm, self.bounds)

    @cached_property
    def ball(self) -> Ball:
        """The inputs that are meant, in x's dtype and not one more: where witnesses lie."""
        return BALLS[self.norm].around(self.x.detach().cpu()[None], self.eps, self.bounds)

    @cached_property
    def box(self) -> Box:
        """A box around the region."""
        return self.region.box

    @cached_property
    def boxes(self) -> list[Box]:
        return network_bounds(self.network, self.region)

    @cached_property
    def finite(self) -> bool:
        """Whether no bound overflowed: an encoding needs them all."""
        return all(np.isfinite([*box.lower, *box.upper]).all() for box in self.boxes)

    @cached_property
    def targets(self) -> list[int]:
        return [j for j in range(self.network.classes) if j != self.label]

    def crown_margins(self) -> np.ndarray:
        """Safe lower bounds of the margins over the ball, one for each of ``targets``."""
        rows = margin_rows(self.label, self.network.classes)
        return rows_lower_bound(self.network, self.boxes, self.region, rows)

    def check(self, candidate: np.ndarray) -> Witness | None:
        """The point of the ball next to the candidate as a strict witness, or None."""
        near = torch.from_numpy(np.asarray(candidate, dtype=np.float64)).to(self.x.dtype)
        point = self.ball.project(near.reshape(1, *self.x.shape))[0]
        found = strict_witness(self.module, self.network, point, self.label, self.targets)
        flat = point.double().reshape(-1).numpy()
        if found is None or not is_within(flat, self.center, self.eps, self.norm):
            return None
        return replace(found, distance=distance(flat, self.center, self.norm))
