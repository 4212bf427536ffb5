"""What each part of the paper's method is worth: their Table 1, and the material of Tables 3–6."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor, nn

from robustlib import checks
from robustlib.network import from_torch
from robustlib.verification.paper import CONTROL, PaperSettings, decide_by_mip, domain_bounds
from robustlib.verification.question import Question
from robustlib.verification.result import TIME_LIMIT, Verdict

# Table 1 by the optimization removed
ABLATION = {
    "(Control)": CONTROL,
    "Progressive tightening": replace(CONTROL, progressive=False),
    "Restricted input domain": replace(CONTROL, restricted_domain=False),
    "Asymmetric bounds": replace(CONTROL, asymmetric=False),
}


def measure(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    cases: Mapping[str, PaperSettings] = ABLATION,
    norm: str = "inf",
    bounds: tuple[float, float] = (0.0, 1.0),
    solver: str = "highs",
    time_limit: float = 120.0,
    domain_time_limit: float = 3600.0,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> pd.DataFrame:
    """Run the paper's method on every image once for each of the ``cases``.

    Parameters
    ----------
    net, x, y, eps, norm, bounds : as in ``verify``.
    cases : name → settings.
    solver : engine of the programs.
    time_limit : wall seconds for one image in one case.
    domain_time_limit : wall seconds for the bounds over all inputs, computed once for a case that
        has ``restricted_domain=False``; units that it does not reach keep bounds of intervals.
    progress : called after every image with a dict: done, total, case.

    Returns
    -------
    table : one row an image and case: case, image, verdict, note; timed_out (within bounds or
        engine); build_seconds, solve_seconds, total_seconds (their sum, the paper's time),
        confirm_seconds (beside it); nodes; labels_eliminated; active, inactive, unstable units;
        binaries; by_interval, by_lp, by_mip (units that a stage settled), programs, exits;
        domain_seconds (of the case's one-off bounds, else NaN).

    Examples
    --------
    >>> import robustlib as rl
    >>> x, y = rl.data.digits("test", n=2)
    >>> table = measure(rl.zoo.load("digits_mlp"), x, y, eps=0.02, cases={"(Control)": CONTROL})
    >>> len(table), summarize(table).index.tolist()
    (2, ['(Control)'])
    """
    checks.eval_mode(net, "net")
    network = from_torch(net, tuple(x.shape[1:]))
    labels = checks.labels(y, len(x), network.classes).tolist()
    rows = []
    for name, settings in cases.items():
        shared, spent = None, np.nan
        if not settings.restricted_domain:
            start = time.perf_counter()
            shared = domain_bounds(
                network, bounds, settings=settings, solver=solver, time_limit=domain_time_limit
            )
            spent = time.perf_counter() - start
        for i, label in enumerate(labels):
            question = Question(net, network, x[i], label, eps, bounds, norm)
            verdict = decide_by_mip(
                question, time_limit=time_limit, solver=solver, settings=settings, shared=shared
            )
            rows.append({"case": name, "image": i, **_row(verdict), "domain_seconds": spent})
            if progress is not None:
                total = len(cases) * len(labels)
                progress({"done": len(rows), "total": total, "case": name})
    return pd.DataFrame(rows)


def _row(verdict: Verdict) -> dict[str, Any]:
    report = verdict.details or {}
    settled = report.get("settled", {})
    late = verdict.note == TIME_LIMIT and not report["confirm_seconds"]
    return {
        "verdict": verdict.verdict,
        "note": verdict.note,
        "timed_out": late,
        "build_seconds": verdict.build_seconds,
        "solve_seconds": verdict.solve_seconds,
        "total_seconds": verdict.build_seconds + verdict.solve_seconds,
        "nodes": verdict.nodes,
        **{stage: settled.get(stage[3:], 0) for stage in ("by_interval", "by_lp", "by_mip")},
        **{
            name: report[name]
            for name in (
                "confirm_seconds", "labels_eliminated", "active", "inactive", "unstable",
                "binaries", "programs", "exits",
            )
        },
    }  # fmt: skip


def summarize(table: pd.DataFrame) -> pd.DataFrame:
    """The columns of the paper's tables, one row a case, over the images with the right label.

    Returns
    -------
    Means of build_seconds, solve_seconds, total_seconds, confirm_seconds, labels_eliminated,
    unstable, active, inactive; nodes_mean, nodes_median and nodes_max; timed_out, a share; images;
    error_lower and error_upper, the adversarial error over all images (a misclassified one counts)
    if no, or if every, undecided image has an adversarial example; domain_seconds.
    """
    rows = {}
    for case, group in table.groupby("case", sort=False):
        asked = group[group.verdict != "misclassified"]
        wrong = group.verdict.isin(["adversarial", "misclassified"])
        means = asked[
            ["build_seconds", "solve_seconds", "total_seconds", "confirm_seconds",
             "labels_eliminated", "unstable", "active", "inactive"]
        ].mean()  # fmt: skip
        rows[case] = {
            **means.to_dict(),
            "nodes_mean": asked.nodes.mean(),
            "nodes_median": asked.nodes.median(),
            "nodes_max": asked.nodes.max(),
            "timed_out": asked.timed_out.mean(),
            "images": len(asked),
            "error_lower": wrong.mean(),
            "error_upper": (wrong | (group.verdict == "undecided")).mean(),
            "domain_seconds": group.domain_seconds.iloc[0],
        }
    return pd.DataFrame.from_dict(rows, orient="index")
