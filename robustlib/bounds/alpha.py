"""α- and β-CROWN: bounds that are climbed by gradient steps, for many branches at a time.

A branch of a row fixes some units to z ≥ 0 or z ≤ 0. CROWN bounds the row on it with a slope
α ∈ [0, 1] below each open unit (Xu et al. 2021), a multiplier β ≥ 0 for each fixed one (Wang et al.
2021), and planes above the units of the first layer (``bounds.hull``). All are climbed together on
the reduced form of the network. A bound counts only once the same α, β and planes, put into the
network itself, give one that is safe under rounding (``safe``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from robustlib.bounds.box import Box
from robustlib.bounds.crown import Lines, Planes, relu_lines, rows_lower_bound
from robustlib.bounds.hull import plane_offsets
from robustlib.bounds.reduced import Rows, reduce_network, reduce_rows
from robustlib.bounds.region import Region
from robustlib.network import Network

RATE, DECAY = 0.1, 0.97
PLANE_RATE, PLANE_DECAY = 0.03, 0.985
CLOSED = 1e-7  # a bound above this is worth the safe recomputation
ENOUGH = 1e-3  # planes that serve many branches gain nothing from a bound above this


@dataclass(frozen=True, eq=False)
class Branches:
    """A batch of branches, and what is known of each.

    Attributes
    ----------
    row : (branches,) which row is bounded.
    signs : (branches, units) −1 or 1 where the branch fixes the unit, else 0.
    alpha, beta : (branches, units)
    bound : (branches,) not safe under rounding.
    weight : (branches, units) how much the bound loses to the relaxation of each unit.
    """

    row: Tensor
    signs: Tensor
    alpha: Tensor
    beta: Tensor
    bound: Tensor
    weight: Tensor

    def take(self, which: np.ndarray | list[int]) -> Branches:
        return Branches(*(value[which] for value in vars(self).values()))

    @staticmethod
    def join(parts: list[Branches]) -> Branches:
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return Branches(*(torch.cat(column) for column in columns))


class BranchBounds:
    """Lower bounds of rows · logits on branches of a region, from the reduced network.

    Parameters
    ----------
    network : without max-pooling.
    region : the inputs.
    boxes : bounds of every step over them (``network_bounds``).
    rows : (rows, classes), such as ``margin_rows``.

    Attributes
    ----------
    units : how many units are unstable, in all layers together.
    """

    def __init__(
        self, network: Network, region: Region, boxes: list[Box], rows: np.ndarray
    ) -> None:
        self.network, self.region, self.boxes, self.rows = network, region, boxes, rows
        self.layers = reduce_network(network, region.box, boxes)
        last = len(network.steps) - 1
        self._margin = _tensors(reduce_rows(network, region.box, boxes, self.layers, rows, last))
        self._hidden = [_tensors(layer.rows) for layer in self.layers]
        self.sizes = [len(layer.index) for layer in self.layers]
        self.units = sum(self.sizes)
        self._lower, self._upper = (
            torch.from_numpy(np.hstack([*(getattr(s, side) for s in self.layers), np.zeros(0)]))
            for side in ("lower", "upper")
        )
        self._above = self._upper / (self._upper - self._lower)
        self.lift = -self._above * self._lower
        self._planes: tuple[Tensor, Tensor] | None = None
        center = 0.5 * (region.box.lower + region.box.upper)
        self._center = torch.from_numpy(center)
        self._radius = torch.from_numpy(region.box.upper - center)

    def roots(self) -> Branches:
        """For every row the branch that fixes nothing, with the slopes of CROWN."""
        n = len(self.rows)
        zeros = torch.zeros(n, self.units, dtype=torch.float64)
        alpha = (self._upper > -self._lower).double().expand(n, -1)
        bound = torch.full((n,), -torch.inf, dtype=torch.float64)
        return Branches(torch.arange(n), zeros, alpha, zeros, bound, zeros)

    def evaluate(
        self,
        row: Tensor,
        signs: Tensor,
        alpha: Tensor,
        beta: Tensor,
        added: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Bounds (branches,), units' coefficients (branches, units), and where they are attained.

        The last is a point of the region for each branch: the one where its relaxation is lowest.
        With ``added`` (branches, units) the bounds are those of row · logits + added · z.
        """
        inputs, units, constant = self._margin
        on_x = inputs[row]
        on_y = [u[row] for u in units]
        bound = constant[row]
        parts = [s.split(self.sizes, 1) for s in (signs, alpha, beta)]
        extra = None if added is None else added.split(self.sizes, 1)
        above = self._above.split(self.sizes)
        lift = self.lift.split(self.sizes)
        coefficients: list[Tensor] = [torch.empty(0)] * len(self.sizes)
        for k in range(len(self.sizes) - 1, -1, -1):
            sign, slope, multiplier = (part[k] for part in parts)
            a = coefficients[k] = on_y[k]
            open_ = sign == 0
            relaxed = a.clamp(min=0) * slope
            negative = open_ * a.clamp(max=0)
            if k == 0 and self._planes is not None:
                on_x = on_x + negative @ self._planes[0]
                bound = bound + negative @ self._planes[1]
            else:
                relaxed = relaxed + negative * above[k]
                bound = bound + negative @ lift[k]
            z = torch.where(open_, relaxed, a * (sign > 0)) - multiplier * sign
            if extra is not None:
                z = z + extra[k]
            layer_inputs, layer_units, layer_constant = self._hidden[k]
            on_x = on_x + z @ layer_inputs
            bound = bound + z @ layer_constant
            for j in range(k):
                on_y[j] = on_y[j] + z @ layer_units[j]
        points = self._lowest(on_x.detach())
        bound = bound + (on_x * points).sum(1)
        return bound, torch.cat([*coefficients, on_x[:, :0]], 1), points

    def _lowest(self, rows: Tensor) -> Tensor:
        """Where each row is smallest over the region."""
        if isinstance(self.region, Box):
            return self._center - rows.sign() * self._radius
        return torch.from_numpy(self.region.lowest_points(rows.numpy()))

    def improve(self, batch: Branches, steps: int) -> tuple[Branches, Tensor]:
        """Climb the bounds over α and β with Adam; every branch keeps its best.

        The second result has the points of the region where the bounds are attained.
        """
        alpha = batch.alpha.clone().requires_grad_(True)
        beta = batch.beta.clone().requires_grad_(True)
        optimizer = torch.optim.Adam([alpha, beta], lr=RATE)
        best = torch.full_like(batch.bound, -torch.inf)
        kept = [batch.alpha, batch.beta, batch.weight, self._center.expand(len(best), -1)]
        for _ in range(steps):
            bound, coefficient, points = self.evaluate(batch.row, batch.signs, alpha, beta)
            better = (bound > best).detach()
            best = torch.where(better, bound.detach(), best)
            weight = coefficient.detach().clamp(max=0).abs() * self.lift
            now = [alpha.detach(), beta.detach(), weight, points]
            kept = [torch.where(better[:, None], a, b) for a, b in zip(now, kept, strict=True)]
            if bool((best > CLOSED).all()) or not alpha.numel():
                break
            _climb(optimizer, bound, alpha, beta, batch.signs, DECAY)
        alpha, beta, weight, points = kept
        return replace(batch, alpha=alpha, beta=beta, bound=best, weight=weight), points

    @property
    def has_hull(self) -> bool:
        """Whether there are planes to turn: open units in the first layer, over a box."""
        return bool(self.sizes) and self.sizes[0] > 0 and isinstance(self.region, Box)

    def fit_planes(self, batch: Branches, steps: int) -> Branches:
        """Turn the planes above the first layer's units so that the sum of the bounds grows.

        They are the same for all branches, and start as the lines of CROWN. Their slopes move in
        units of the weights. Returned are the branches with the α and β that go with them.
        """
        weight, _, constant = self._hidden[0]
        if self._planes is None:
            share = self._above[: self.sizes[0], None].expand_as(weight).clone()
        else:
            share = self._planes[0] / torch.where(weight == 0, 1.0, weight)
        share.requires_grad_(True)
        alpha = batch.alpha.clone().requires_grad_(True)
        beta = batch.beta.clone().requires_grad_(True)
        optimizer = torch.optim.Adam([share, alpha, beta], lr=PLANE_RATE)
        best, kept = -torch.inf, (self._planes, batch.alpha, batch.beta)
        for _ in range(steps):
            slopes = share * weight
            rest = weight - slopes
            inactive = slopes.abs() @ self._radius - slopes @ self._center
            active = rest @ self._center + rest.abs() @ self._radius + constant
            self._planes = slopes, torch.maximum(inactive, active)
            bound, _, _ = self.evaluate(batch.row, batch.signs, alpha, beta)
            bound = bound.clamp(max=ENOUGH)
            if float(bound.detach().sum()) > best:
                best = float(bound.detach().sum())
                planes = self._planes[0].detach(), self._planes[1].detach()
                kept = planes, alpha.detach().clone(), beta.detach().clone()
            if bool((bound > CLOSED).all()):
                break
            _climb(optimizer, bound, alpha, beta, batch.signs, PLANE_DECAY)
        self._planes, alpha, beta = kept
        return replace(batch, alpha=alpha, beta=beta)

    def row_and_gradient(self, x: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        """rows[row] · logits at every x (points, input_size), and its gradient there."""
        outputs: list[Tensor] = []
        active: list[Tensor] = []
        for inputs, units, constant in self._hidden:
            z = x @ inputs.T + constant
            z = z + sum((y @ u.T for y, u in zip(outputs, units, strict=True)), torch.zeros(1))
            active.append(z > 0)
            outputs.append(z.clamp(min=0))
        inputs, units, constant = self._margin
        gradient = inputs[row]
        value = (x * gradient).sum(1) + constant[row]
        on_y = [u[row] for u in units]
        for k in range(len(outputs) - 1, -1, -1):
            value = value + (outputs[k] * units[k][row]).sum(1)
            z = on_y[k] * active[k]
            layer_inputs, layer_units, _ = self._hidden[k]
            gradient = gradient + z @ layer_inputs
            for j in range(k):
                on_y[j] = on_y[j] + z @ layer_units[j]
        return value, gradient

    def safe(self, batch: Branches, extra: np.ndarray | None = None) -> np.ndarray:
        """The bounds of these branches recomputed on the network itself, safe under rounding.

        With ``extra`` (branches, units) they are those of row · logits + extra · z.
        """
        offset, lines = 0, {}
        for k, (layer, size) in enumerate(zip(self.layers, self.sizes, strict=True)):
            part = slice(offset, offset + size)
            offset += size
            sign, slope, multiplier = (
                value[:, part].numpy() for value in (batch.signs, batch.alpha, batch.beta)
            )
            common = relu_lines(self.boxes[layer.step - 1] if layer.step else self.region.box)
            below, above, intercept = (
                np.repeat(line[None], len(sign), axis=0)
                for line in (common.below, common.above, common.intercept)
            )
            below[:, layer.index] = np.where(sign == 0, slope, sign > 0)
            above[:, layer.index] = np.where(sign == 0, above[:, layer.index], sign > 0)
            intercept[:, layer.index] *= sign == 0
            added = np.zeros_like(below)
            added[:, layer.index] = -multiplier * sign
            if extra is not None:
                added[:, layer.index] += extra[:, part]
            planes = None if k or self._planes is None else self._safe_planes(sign == 0)
            lines[layer.step] = Lines(below, above, intercept, added, planes)
        rows = self.rows[batch.row.numpy()]
        return rows_lower_bound(self.network, self.boxes, self.region, rows, lines=lines)

    def _safe_planes(self, is_open: np.ndarray) -> Planes:
        """The planes with offsets that are safe, for all units of the first layer."""
        assert self._planes is not None
        layer = self.layers[0]
        units = len(layer.active)
        slopes, offsets = np.zeros((units, self.network.input_size)), np.zeros(units)
        share = np.zeros((len(is_open), units))
        found = self._planes[0].numpy()
        slopes[layer.index] = found
        offsets[layer.index] = plane_offsets(
            self.network, self.boxes, self.region, layer.step, layer.index, found
        )
        share[:, layer.index] = is_open
        return Planes(slopes, offsets, share)


def _climb(
    optimizer: torch.optim.Adam,
    bound: Tensor,
    alpha: Tensor,
    beta: Tensor,
    signs: Tensor,
    decay: float,
) -> None:
    """One step up the sum of the bounds, back into α ∈ [0, 1], β ≥ 0 on fixed units."""
    optimizer.zero_grad()
    (-bound.sum()).backward()
    optimizer.step()
    optimizer.param_groups[0]["lr"] *= decay
    with torch.no_grad():
        alpha.clamp_(0, 1)
        beta.clamp_(min=0).mul_(signs != 0)


def _tensors(rows: Rows) -> tuple[Tensor, list[Tensor], Tensor]:
    return (
        torch.from_numpy(np.asarray(rows.inputs)),
        [torch.from_numpy(u) for u in rows.units],
        torch.from_numpy(rows.constant),
    )
