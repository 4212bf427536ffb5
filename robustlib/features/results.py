"""What the chapters show: experiments, studies and pictures, computed where they are missing.

Two worlds have rows of the same names: CIFAR-10 (:mod:`robustlib.features.catalog`), at the scale
of the reference run, and the drawn set whose features are known
(:mod:`robustlib.features.known_truth`).
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from joblib import Parallel, delayed

from robustlib import checks, data
from robustlib.features import catalog, experiments, known_truth, networks, pictures, studies
from robustlib.features.experiments import Experiment, Place, settings_of
from robustlib.metrics import Estimate

Keep = Callable[[str, dict[str, Any], Callable[[], Any]], Any]
Table = dict[str, Experiment]
Say = Callable[[str], None]
PROFILES = ("quick", "reference")
CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
REGIMES = Path(__file__).with_name("regimes.csv")  # the log of the search for settings
SHOWN = ("seed", "numbers", "data_set", "log", "cpu_seconds", "wall_seconds", "device", "commit")


def experiment(
    name: str, seed: int, place: Place, table: Table, *, commit: str = "", say: Say | None = None
) -> dict[str, Any]:
    """The record of a row, run now if it is missing, after the rows whose networks it needs.

    Examples
    --------
    >>> from robustlib.features import known_truth as drawn
    >>> table = drawn.EXPERIMENTS
    >>> record = experiment("robust_dataset", 0, drawn.place("runs"), table)  # doctest: +SKIP
    >>> record["numbers"]["test"]["value"] > 0.7  # doctest: +SKIP
    True
    """
    row = table[checks.choice("name", name, table)]
    for needed in filter(None, [row.teacher, *row.build.get("keep", [])]):
        experiment(needed, seed, place, table, commit=commit, say=say)
    return experiments.run(row, seed, place, table, commit=commit, progress=say)


def study(
    name: str,
    seed: int,
    place: Place,
    table: Table,
    *,
    commit: str = "",
    say: Say | None = None,
    **sizes: Any,
) -> list[dict[str, Any]]:
    """The rows of a study, measured now if they are missing, after the experiments it needs."""
    checks.choice("name", name, studies.STUDIES)
    for needed in studies.STUDIES[name].needs(table):
        experiment(needed, seed, place, table, commit=commit, say=say)
    return list(studies.run(name, seed, place, table, commit=commit, **sizes)["rows"])


def picture(
    name: str, seed: int, place: Place, table: Table, *, say: Say | None = None, **sizes: Any
) -> dict[str, Any]:
    """Arrays of images that a chapter shows, after the experiments they need."""
    draw, needs = pictures.PICTURES[checks.choice("name", name, pictures.PICTURES)]
    for needed in needs:
        experiment(needed, seed, place, table, say=say)
    return draw(place, seed, table, **sizes)


class Runs:
    """All that a chapter shows of one world, each part computed once and kept.

    Parameters
    ----------
    profile : {"quick", "reference"}
        "quick" is the drawn set, computed as one; "reference" is CIFAR-10, row by row.
    keep : callable
        Called as ``keep(name, settings, compute)``; returns what ``compute()`` gives, or what it
        gave before with the same settings: ``robustlib.reproduce.long_run`` in the book.
    folder : callable
        From a name to a folder that stays: ``robustlib.reproduce.work_folder`` in the book.
        ``python -m robustlib.features`` uses the same by default, so what it has made is found.
    seeds : int
        How many seeds, from 0 on, where a result is said to have more than one.
    say : callable, optional
        Called with a line now and then.

    Examples
    --------
    >>> from robustlib.reproduce import long_run, work_folder
    >>> runs = Runs("reference", long_run, work_folder, seeds=3)
    >>> records = runs.experiment("standard", seeds=3)  # doctest: +SKIP
    >>> records[0]["numbers"]["test"]["value"]  # doctest: +SKIP
    0.8114
    """

    def __init__(
        self,
        profile: str,
        keep: Keep,
        folder: Callable[[str], Path],
        *,
        seeds: int = 1,
        say: Say | None = None,
    ) -> None:
        self.quick = checks.choice("profile", profile, PROFILES) == "quick"
        self.table = known_truth.EXPERIMENTS if self.quick else catalog.EXPERIMENTS
        self.seeds = checks.count("seeds", seeds)
        self._keep, self._folder, self._say = keep, folder, say

    @property
    def classes(self) -> list[str]:
        """The names of the labels."""
        return list(data.SHAPES) if self.quick else CIFAR10

    def network(self, name: str) -> str:
        """The architecture of a row, in words."""
        places = known_truth.ARCHITECTURES if self.quick else networks.ARCHITECTURES
        architecture = self.table[name].architecture
        weights = sum(p.numel() for p in places[architecture]().parameters())
        return f"{architecture.replace('_', ' ')}, {weights / 1000:.0f} thousand weights"

    @property
    def attack(self) -> dict[str, int]:
        """Steps, restarts and images of the attack behind a robust accuracy."""
        return dict(known_truth.ATTACK if self.quick else experiments.ATTACK)

    def experiment(self, name: str, *, seeds: int | None = None) -> list[dict[str, Any]]:
        """Records of a row, one a seed; by default of all seeds."""
        if self.quick:
            return list(self._drawn["experiments"][name])
        about = settings_of(self.table[name], self.table)
        return [
            self._keep(
                f"features.{name}-{seed}",
                {"experiment": about, "seed": seed},
                functools.partial(self._record, name, seed),
            )
            for seed in range(min(seeds or self.seeds, self.seeds))
        ]

    def _record(self, name: str, seed: int) -> dict[str, Any]:
        return _shown(experiment(name, seed, self._place, self.table, say=self._say))

    def study(self, name: str) -> list[dict[str, Any]]:
        """The rows of a study of seed 0."""
        if self.quick:
            return list(self._drawn["studies"][name])
        needs = studies.STUDIES[name].needs(self.table)
        return list(
            self._keep(
                f"features.{name}",
                {"study": name, "needs": self._settings(needs)},
                lambda: study(name, 0, self._place, self.table, say=self._say),
            )
        )

    def picture(self, name: str) -> dict[str, Any]:
        """Images of seed 0, as arrays of 8-bit levels."""
        if self.quick:
            return dict(self._drawn["pictures"][name])
        needs = pictures.PICTURES[name][1]
        return dict(
            self._keep(
                f"features.{name}",
                {"picture": name, "needs": self._settings(needs)},
                lambda: picture(name, 0, self._place, self.table, say=self._say),
            )
        )

    def answers(self) -> list[dict[str, dict[str, float]]]:
        """What the networks of the drawn set go by, one dictionary a seed, whatever the profile."""
        if self.quick:
            return [self._drawn["answers"]]
        about = {"drawn": _drawn_settings(known_truth.CORE), "seeds": self.seeds}
        return list(
            self._keep(
                "features.known_truth",
                about,
                lambda: [_answers(seed, self._say) for seed in range(self.seeds)],
            )
        )

    def _settings(self, names: Iterable[str]) -> dict[str, Any]:
        return {name: settings_of(self.table[name], self.table) for name in names}

    @functools.cached_property
    def _place(self) -> Place:
        folder = self._folder("features")
        return Place.cifar10(folder / "work", folder / "records")

    @functools.cached_property
    def _drawn(self) -> dict[str, Any]:
        table = known_truth.EXPERIMENTS
        about = {"drawn": _drawn_settings(table), "sizes": known_truth.SIZES}
        return dict(self._keep("features.drawn", about, lambda: drawn(say=self._say)))


def over_seeds(records: Sequence[dict[str, Any]], key: str) -> Estimate:
    """One number of several records: the mean, from the lowest to the highest end of the intervals.

    ``low`` is the lowest end of the seeds' Wilson intervals and ``high`` the highest, so that both
    the choice of test images and that of the seed are in it.

    Examples
    --------
    >>> one, two = ({"value": v, "low": v - 0.1, "high": v + 0.1, "n": 50} for v in (0.4, 0.6))
    >>> found = over_seeds([{"numbers": {"test": one}}, {"numbers": {"test": two}}], "test")
    >>> found.value, round(found.low, 3), round(found.high, 3), found.n
    (0.5, 0.3, 0.7, 100)
    """
    rows = [record["numbers"][key] for record in records]
    return Estimate(
        sum(row["value"] for row in rows) / len(rows),
        min(row["low"] for row in rows),
        max(row["high"] for row in rows),
        sum(row["n"] for row in rows),
    )


def drawn(seed: int = 0, *, say: Say | None = None) -> dict[str, Any]:
    """All rows, studies, pictures and answers of the drawn set: under a minute."""
    table, sizes = known_truth.EXPERIMENTS, known_truth.SIZES
    with tempfile.TemporaryDirectory() as folder:
        place = known_truth.place(folder)
        Parallel(n_jobs=2)(delayed(_half)(folder, seed, standard) for standard in (True, False))
        return {
            "answers": {
                name: asdict(found)
                for name, found in known_truth.separate(folder, seed=seed, progress=say).items()
            },
            "experiments": {
                name: [_shown(experiment(name, seed, place, table, say=say))] for name in table
            },
            "studies": {
                name: study(name, seed, place, table, say=say, **sizes[name])
                for name in studies.STUDIES
            },
            "pictures": {
                name: picture(name, seed, place, table, say=say, **sizes[name])
                for name in pictures.PICTURES
            },
        }


def _half(folder: str, seed: int, standard: bool) -> None:
    """Run the rows of the drawn set that the standard network teaches, with itself, or all others.

    Each half takes about as long; a row that both need is run by one while the other waits.
    """
    torch.set_num_threads(1)
    table, place = known_truth.EXPERIMENTS, known_truth.place(folder)
    for name, row in table.items():
        if ("standard" in (name, row.teacher)) == standard:
            experiment(name, seed, place, table)


def _answers(seed: int, say: Say | None) -> dict[str, dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        found = known_truth.separate(folder, seed=seed, progress=say)
    return {name: asdict(one) for name, one in found.items()}


def _drawn_settings(table: Table) -> dict[str, Any]:
    return {name: settings_of(row, known_truth.EXPERIMENTS) for name, row in table.items()}


def _shown(record: dict[str, Any]) -> dict[str, Any]:
    """What a chapter needs of a record; settings are beside it in what is kept."""
    log = [
        {key: round(value, 4) for key, value in row.items() if key != "cpu_seconds"}
        for row in record["log"]
    ]
    return {**{key: record[key] for key in SHOWN}, "log": log}
