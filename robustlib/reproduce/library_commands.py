"""The commands that use the library: verify, distortion, measure, data, train."""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustlib.reproduce.notebooks import check_writable, write
from robustlib.reproduce.progress import clock

if TYPE_CHECKING:
    from torch import Tensor, nn


def indices(text: str) -> Sequence[int]:
    """Positions written as ``0:100`` or ``3,7,9``.

    >>> list(indices("2:5")), indices("3,7")
    ([2, 3, 4], [3, 7])
    """
    try:
        if ":" in text:
            first, last = (int(part) for part in text.split(":"))
            chosen: Sequence[int] = range(first, last)
        else:
            chosen = [int(part) for part in text.split(",")]
    except ValueError:
        chosen = []
    if not chosen or min(chosen) < 0:
        raise argparse.ArgumentTypeError(f"{text!r} names no images; write 0:100 or 3,7,9")
    return chosen


def verify(options: argparse.Namespace) -> int:
    """Verify images one by one; 1 if one stays undecided."""
    if not math.isfinite(options.eps) or options.eps < 0:
        raise ValueError(f"eps={options.eps} is out of range: give a finite number of at least 0.")
    store = _store(options)

    import robustlib as rl

    net, x, y = _load(options)
    result = rl.verify(
        net, x, y, eps=options.eps, method=options.method, store=store, **_common(options)
    )
    rows = [
        {
            "index": index,
            "label": int(label),
            "verdict": answer.verdict,
            "stage": answer.stage,
            "lower": _finite(answer.lower),
            "upper": _finite(answer.upper),
            "distance": _finite(answer.distance),
            "seconds": round(answer.seconds, 4),
        }
        for index, label, answer in zip(options.indices, y, result.results, strict=True)
    ]
    _hand_over(options, rows)
    error = rl.metrics.adversarial_error(result.verdict)
    low, high = (f"{100 * end.value:.2f} %" for end in (error.lower, error.upper))
    says = f"{low}, exact" if error.exact else f"between {low} and {high}"
    say(f"{_counts(result.counts())}; adversarial error {says}")
    say(_cost(options, sum(result.seconds)))
    return 1 if "undecided" in result.verdict else 0


def distortion(options: argparse.Namespace) -> int:
    """The minimum distortion of images; 1 if one is not finished."""
    store = _store(options)

    from robustlib.verification import min_distortions

    net, x, y = _load(options)
    found = min_distortions(net, x, y, store=store, **_common(options))
    rows = [
        {
            "index": index,
            "label": int(label),
            "nearest": answer.label,
            "distance": _finite(answer.distance),
            "lower": _finite(answer.lower),
            "finished": answer.finished,
            "nodes": answer.nodes,
            "seconds": round(answer.seconds, 4),
        }
        for index, label, answer in zip(options.indices, y, found, strict=True)
    ]
    _hand_over(options, rows)
    finished = sum(answer.finished for answer in found)
    say(f"{finished} finished, {len(found) - finished} open")
    say(_cost(options, sum(answer.seconds for answer in found)))
    return 0 if finished == len(found) else 1


def measure(options: argparse.Namespace) -> int:
    """ρ̂ of images, and what it says at one radius; 1 if one is undecided."""
    if options.limit is not None and options.limit < options.eps:
        raise ValueError(
            f"limit={options.limit:g} is below eps={options.eps:g}: no frequency at eps is found "
            "that way; give a limit of at least eps, or none."
        )
    store = _store(options)

    import robustlib as rl

    net, x, y = _load(options)
    found = rl.pointwise_robustness(
        net,
        x,
        method=options.method,
        targets=options.targets,
        alpha=options.alpha,
        pixels=options.pixels,
        limit=options.limit,
        form=options.form,
        lazy=not options.full,
        solver=options.solver,
        store=store,
        **_many(options),
    )
    rows = [
        {
            "index": index,
            "label": int(label),
            "predicted": int(found.label[i]),
            "target": int(found.target[i]),
            "status": found.status[i],
            "rho": _finite(found.rho[i]),
            "distance": _finite(found.distance[i]),
            "survives": found.rounded[i] is not None if options.pixels else None,
            "iterations": int(found.iterations[i]),
            "used": int(found.used[i]),
            "constraints": int(found.constraints[i]),
            "seconds": round(float(found.seconds[i]), 4),
        }
        for i, (index, label) in enumerate(zip(options.indices, y, strict=True))
    ]
    _hand_over(options, rows)
    undecided = found.status.count("undecided")
    decided = found.rho[[status != "undecided" for status in found.status]]
    how = rl.metrics.adversarial_frequency(decided, options.eps)
    severe = rl.metrics.adversarial_severity(decided, options.eps)
    say(
        f"{_counts(Counter(found.status))}; of the {how.n} decided, adversarial frequency "
        f"{100 * how.value:.2f} % ({100 * how.low:.2f} to {100 * how.high:.2f}), severity "
        f"{severe.value:.4f} ({severe.low:.4f} to {severe.high:.4f}) at eps {options.eps:.4f}"
    )
    say(_cost(options, float(sum(found.seconds))))
    return 1 if undecided else 0


def _store(options: argparse.Namespace) -> Path:
    """Where answers are kept: beside the table, unless told otherwise."""
    store: Path = options.store or options.out.with_suffix(".sqlite")
    if store == options.out:
        raise ValueError(f"out={str(options.out)!r} is the place of the store; give another name.")
    check_writable(options.out, "out")
    check_writable(store, "store")
    return store


def _load(options: argparse.Namespace) -> tuple[nn.Module, Tensor, Tensor]:
    import robustlib as rl
    from robustlib import checks

    network = checks.choice("network", options.network, rl.zoo.list())
    dataset = checks.choice("dataset", options.dataset, rl.data.names())
    net = rl.zoo.load(network)
    x, y = rl.data.load(dataset, options.split, indices=options.indices)
    found, wanted = tuple(x.shape[1:]), rl.zoo.info(network).input_shape
    if found != wanted:
        raise ValueError(
            f"dataset={dataset!r} has images of shape {found}, but network={network!r} reads "
            f"{wanted}; it was trained on {rl.zoo.info(network).data}."
        )
    return net, x, y


def _common(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "norm": options.norm,
        "time_limit": options.time_limit,
        "solver": options.solver,
        **_many(options),
    }


def _many(options: argparse.Namespace) -> dict[str, Any]:
    """Who works, and the line of progress."""
    shown = bar("images")
    return {
        "workers": options.workers,
        "dask": options.dask,
        "progress": lambda event: shown(
            event["done"], event["total"], _so_far(event), event["elapsed"], event["eta"]
        ),
    }


def _so_far(event: dict[str, Any]) -> str:
    """What came out, by which stage, and what waits where.

    >>> _so_far({"verdicts": {"robust": 3}, "stages": {"crown": 2, "pgd": 1}, "left": {"exact": 4}})
    '3 robust (2 crown, 1 pgd); left: 4 exact'
    """
    text = f"{_counts(event['verdicts'])} ({_counts(event['stages'])})"
    left = {stage: count for stage, count in event["left"].items() if count}
    return f"{text}; left: {_counts(left)}" if left else text


def _hand_over(options: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """Write the table; print it too if asked to."""
    text = io.StringIO()
    table = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write(options.out, text.getvalue())
    if options.json:
        print(json.dumps(rows, indent=1))


def _cost(options: argparse.Namespace, seconds: float) -> str:
    """What the images took, whenever that was, and what this call took."""
    times = os.times()
    here = times.user + times.system + times.children_user + times.children_system
    cluster = "" if options.dask is None else ", without the cluster's workers"
    return f"{seconds:.1f} s for the images; {here:.1f} CPU s now{cluster}; {options.out}"


def say(line: str) -> None:
    print(line, file=sys.stderr)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _counts(words: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(words.items()))


def bar(unit: str) -> Callable[..., None]:
    """A line of progress on the error stream: done, what came out, elapsed, about how much left.

    On a terminal it is renewed in place, elsewhere there is a line every few seconds.
    """
    start = time.monotonic()
    live = sys.stderr.isatty()
    printed = [start]

    def show(
        done: int,
        total: int,
        text: str,
        elapsed: float | None = None,
        left: float | None = None,
    ) -> None:
        now = time.monotonic()
        if done < total and now - printed[0] < (0.2 if live else 5.0):
            return
        printed[0] = now
        if elapsed is None:  # nobody knows better than that all takes the same time
            elapsed = now - start
            left = elapsed / done * (total - done) if done else None
        rest = "time left not known" if left is None else f"about {clock(left)} left"
        line = f"{done}/{total} {unit}: {text}; {clock(elapsed)} elapsed, {rest}"
        if live:
            line = "\r\x1b[K" + line[: shutil.get_terminal_size().columns - 1]
        sys.stderr.write(line + ("\n" if not live or done == total else ""))
        sys.stderr.flush()

    return show


def data(options: argparse.Namespace) -> int:
    """Say what data is there, or download one data set."""
    from robustlib import checks, data

    if options.action == "download":
        if not options.name:
            raise ValueError(f"download needs a name: one of {', '.join(data.names())}.")
        print(data.download(options.name, progress=sys.stderr.isatty()))
        return 0
    rows = data.status()
    if options.name:
        checks.choice("name", options.name, [row["name"] for row in rows])
        rows = [row for row in rows if row["name"] == options.name]
    if options.json:
        print(json.dumps(rows, indent=1))
    else:
        print("\n".join(_status_line(row) for row in rows))
    return 1 if any(row["files"] and row["checksum"] != "ok" for row in rows) else 0


def _status_line(row: dict[str, Any]) -> str:
    there = "there" if row["present"] else "missing" if not row["files"] else "in part"
    size = f"{row['bytes'] / 1e6:.1f} MB" if row["bytes"] else ""
    line = f"{row['name']:<10} {there:<8} {size:>9}  {row['place']}"
    if not row["expected"]:
        return line
    if row["checksum"] == "ok":
        return f"{line}  (checksums fit)"
    return f"{line}\n{'':<10} {row['checksum']}"


def train(options: argparse.Namespace) -> int:
    """Train one network by its recipe or its row of the table of features, or list both."""
    from robustlib import checks, training
    from robustlib.features.catalog import EXPERIMENTS
    from robustlib.features.experiments import settings_of
    from robustlib.reproduce import feature_commands

    names = [*training.RECIPES, *EXPERIMENTS]
    if options.list:
        recipes = [recipe.settings() for recipe in training.RECIPES.values()]
        recipes += [settings_of(row, EXPERIMENTS) for row in EXPERIMENTS.values()]
        print(json.dumps(recipes, indent=1) if options.json else "\n".join(names))
        return 0
    if not options.name:
        raise ValueError(f"train needs a name: one of {', '.join(names)}.")
    if checks.choice("name", options.name, names) in EXPERIMENTS:
        return feature_commands.train(options)
    if options.seed is not None:
        raise ValueError(
            f"seed={options.seed} has no meaning for {options.name!r}, whose recipe has a seed; "
            "leave it out."
        )
    done = training.train(options.name, out=options.out, progress=bar("epochs"))
    print(done.path)
    return 0
