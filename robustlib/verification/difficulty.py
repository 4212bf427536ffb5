"""What makes an image hard to verify: units that can switch, labels that stay possible."""

from __future__ import annotations

import numpy as np
import pandas as pd
from torch import Tensor, nn

from robustlib import checks
from robustlib.bounds import network_bounds, outer_ball, rows_lower_bound
from robustlib.network import ReLU, from_torch, margin_rows


def difficulty(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> pd.DataFrame:
    """The determinants of the solve time in Table 3 of Tjeng et al. (2019), by CROWN's bounds.

    Parameters
    ----------
    net : nn.Sequential of supported layers, in evaluation mode.
    x, y : (n, …) images inside ``bounds`` and their labels.
    eps : radius of the l∞ ball.

    Returns
    -------
    One row an image. ``unstable``, ``stably_active``, ``stably_inactive``: how many ReLUs can
    switch in the ball, are on in all of it, or off. ``labels_by_logits``: labels whose largest
    logit lies below the smallest of another label (the paper's criterion); ``labels_by_margins``:
    labels j ≠ y with logit[y] > logit[j] in all of the ball.

    Raises
    ------
    TypeError, ValueError
        For bad input; the message names the argument, the value and what is allowed.

    Examples
    --------
    >>> import torch
    >>> net = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2)).eval()
    >>> for p, v in zip(net.parameters(), ([[1.0]], [0.0], [[1.0], [0.0]], [1.0, 0.0])):
    ...     p.data = torch.tensor(v)
    >>> difficulty(net, torch.tensor([[0.5]]), torch.tensor([0]), eps=0.1).iloc[0].to_dict()
    {'unstable': 0, 'stably_active': 1, 'stably_inactive': 0, 'labels_by_logits': 1, \
'labels_by_margins': 1}
    """
    eps, bounds = checks.eps(eps), checks.box(bounds)
    checks.eval_mode(net, "net")
    x = checks.images(x, bounds=bounds)
    network = from_torch(net, tuple(x.shape[1:]))
    y = checks.labels(y, len(x), network.classes)
    relus = [k for k, step in enumerate(network.steps) if isinstance(step, ReLU)]
    logits = np.eye(network.classes)
    counts = []
    for image, label in zip(x.detach().double().flatten(1).numpy(), y.tolist(), strict=True):
        ball = outer_ball(image, eps, bounds)
        boxes = network_bounds(network, ball)
        low = np.concatenate([np.zeros(0), *(boxes[k - 1].lower for k in relus)])
        high = np.concatenate([np.zeros(0), *(boxes[k - 1].upper for k in relus)])
        floor = rows_lower_bound(network, boxes, ball, logits)
        ceiling = -rows_lower_bound(network, boxes, ball, -logits)
        rows = margin_rows(label, network.classes)
        margins = rows_lower_bound(network, boxes, ball, rows)
        counts.append({
            "unstable": int(((low < 0) & (high > 0)).sum()),
            "stably_active": int((low >= 0).sum()),
            "stably_inactive": int(((low < 0) & (high <= 0)).sum()),
            "labels_by_logits": int((ceiling < floor.max()).sum()),
            "labels_by_margins": int((margins > 0).sum()),
        })  # fmt: skip
    return pd.DataFrame(counts)
