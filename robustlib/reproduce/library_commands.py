"""The commands that use the library: verify, data, train."""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustlib.reproduce.notebooks import check_writable, write
from robustlib.reproduce.progress import clock

if TYPE_CHECKING:
    from torch import Tensor

    from robustlib.verification import Verification


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
    store = options.store or Path(f"{options.out}.sqlite")
    check_writable(options.out, "out")
    check_writable(store, "store")

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
    bar = _bar("images")
    result = rl.verify(
        net,
        x,
        y,
        eps=options.eps,
        norm=options.norm,
        time_limit=options.time_limit,
        solver=options.solver,
        store=store,
        progress=lambda event: bar(event["done"], event["total"], _counts(event["verdicts"])),
    )
    rows = _rows(options.indices, x, y, result)
    text = io.StringIO()
    table = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write(options.out, text.getvalue())
    if options.json:
        print(json.dumps(rows, indent=1))
    print(f"{_counts(result.counts())}; {options.out}", file=sys.stderr)
    return 1 if "undecided" in result.verdict else 0


def _rows(
    chosen: Sequence[int], x: Tensor, y: Tensor, result: Verification
) -> list[dict[str, Any]]:
    rows = []
    for place, (index, answer) in enumerate(zip(chosen, result.results, strict=True)):
        distance = None
        if answer.witness is not None:
            distance = float((answer.witness.double() - x[place].double()).abs().max())
        rows.append(
            {
                "index": index,
                "label": int(y[place]),
                "verdict": answer.verdict,
                "stage": answer.stage,
                "lower": _finite(answer.lower),
                "upper": _finite(answer.upper),
                "distance": distance,
                "seconds": round(answer.seconds, 4),
            }
        )
    return rows


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _counts(verdicts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(verdicts.items()))


def _bar(unit: str) -> Callable[[int, int, str], None]:
    """A line of progress on the error stream: done, what came out, elapsed, about how much left."""
    start = time.monotonic()
    live = sys.stderr.isatty()
    printed = [start]

    def show(done: int, total: int, text: str) -> None:
        now = time.monotonic()
        if done < total and now - printed[0] < (0.2 if live else 5.0):
            return
        printed[0] = now
        left = (now - start) / done * (total - done)
        line = f"{done}/{total} {unit}: {text}; {clock(now - start)} elapsed, {clock(left)} left"
        last = "\n" if not live or done == total else ""
        sys.stderr.write(("\r\x1b[K" if live else "") + line + last)
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
    """Train one network by its recipe, or list the recipes."""
    from robustlib import training

    if options.list:
        recipes = [recipe.settings() for recipe in training.RECIPES.values()]
        print(json.dumps(recipes, indent=1) if options.json else "\n".join(training.RECIPES))
        return 0
    if not options.name:
        raise ValueError(f"train needs a name: one of {', '.join(training.RECIPES)}.")
    done = training.train(options.name, out=options.out, progress=_bar("epochs"))
    print(done.path)
    return 0
