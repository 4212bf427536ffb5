"""Compare the claims with the recorded reference run and with the last run on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustlib.reproduce.claims import Claim, holds, in_words, is_number, load_claims
from robustlib.reproduce.notebooks import (
    BookError,
    Chapter,
    chapters,
    load_source,
    read,
    run_key,
)
from robustlib.reproduce.recording import Value, recorded
from robustlib.reproduce.reference import stale

REPRODUCED, NOT_REPRODUCED, NOT_RUN = "reproduced", "not reproduced", "not run"


@dataclass(frozen=True)
class Run:
    """What one execution of a notebook recorded, and how it was made."""

    values: dict[str, Value | None]
    about: dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A claim with its reference run, this run, and a verdict for each."""

    claim: Claim
    reference: Value | None
    reference_interval: tuple[float, float] | None
    reference_verdict: str
    reference_seconds: float | None
    run: Value | None
    run_interval: tuple[float, float] | None
    verdict: str
    seconds: float | None

    def to_dict(self) -> dict[str, Any]:
        """The row as `robustlib check --json` prints it."""
        claim = self.claim
        return {
            "id": claim.id,
            "paper": claim.paper,
            "item": claim.item,
            "quantity": claim.quantity,
            "claimed": claim.claimed,
            "statement": claim.statement,
            "status": claim.status,
            "relation": in_words(claim),
            "reference": self.reference,
            "reference_interval": self.reference_interval,
            "reference_verdict": self.reference_verdict,
            "reference_seconds": self.reference_seconds,
            "run": self.run,
            "interval": self.run_interval,
            "verdict": self.verdict,
            "seconds": self.seconds,
            "because": claim.because,
        }


@dataclass(frozen=True)
class Comparison:
    """All rows, what is wrong beside them, and the runs that were compared."""

    profile: str
    rows: list[Row]
    problems: list[str]
    runs: dict[str, dict[str, Any]]

    @property
    def ok(self) -> bool:
        """Whether everything that this profile requires holds."""
        return not self.problems and not self.failing()

    def failing(self) -> list[str]:
        """The claims that do not hold although they should, in words."""
        lines = []
        for row in self.rows:
            claim = row.claim
            required = self.profile in claim.profiles
            if claim.because:
                continue
            if required and row.verdict != REPRODUCED:
                lines.append(f"{claim.id}: {row.verdict}{_values(claim, row.run, self.profile)}")
            if row.reference_verdict == NOT_REPRODUCED:
                lines.append(f"{claim.id}: not reproduced{_values(claim, row.reference, 'record')}")
        return lines


def _values(claim: Claim, value: Value | None, where: str) -> str:
    if value is None:
        return f" ({where})"
    shown = f"{value:.6g}" if isinstance(value, float) else f"{value}"
    return f" ({where}: {claim.key} is {shown}, wanted {in_words(claim)})"


def compare(root: Path, profile: str) -> Comparison:
    """Compare every claim with the recorded reference run and with the last run at ``profile``.

    A claim that is not required at ``profile`` counts as not run there, and its reference value is
    compared all the same.
    """
    claims = load_claims(root)
    found = chapters(root)
    problems = [problem for chapter in found if (problem := stale(chapter))]
    references = {chapter.name: _reference_run(chapter) for chapter in found}
    runs = {chapter.name: _this_run(chapter, profile, problems) for chapter in found}
    rows = []
    for claim in claims:
        reference, run = references[claim.notebook], runs[claim.notebook]
        asked = run if profile in claim.profiles else None
        held = "reference" in claim.profiles
        rows.append(
            Row(
                claim,
                *_side(claim, reference),
                _verdict(claim, reference if held else None, problems),
                None if reference is None else reference.about.get("seconds"),
                *_side(claim, asked),
                _verdict(claim, asked, problems),
                None if asked is None else asked.about.get("seconds"),
            )
        )
    about = {name: run.about for name, run in runs.items() if run is not None}
    return Comparison(profile, rows, list(dict.fromkeys(problems)), about)


def _reference_run(chapter: Chapter) -> Run | None:
    run = _run(chapter.recorded)
    return run if run and run.about.get("profile") == "reference" else None


def _this_run(chapter: Chapter, profile: str, problems: list[str]) -> Run | None:
    run = _run(chapter.executed(profile))
    if run is not None and run.about.get("key") != run_key(load_source(chapter), profile):
        problems.append(
            f"{chapter.name}: its {profile} run is older than its code, the library or the "
            f"environment; run `robustlib reproduce --profile {profile} --only {chapter.name}`"
        )
    return run


def _run(path: Path) -> Run | None:
    notebook = read(path)
    if notebook is None:
        return None
    try:
        return Run(recorded(notebook), dict(notebook.metadata.get("robustlib", {})))
    except ValueError as error:
        raise BookError(f"{path}: {error}") from None


def _side(claim: Claim, run: Run | None) -> tuple[Value | None, tuple[float, float] | None]:
    if run is None:
        return None, None
    ends = [run.values.get(f"{claim.key}.{end}") for end in ("low", "high")]
    low, high = (float(end) if is_number(end) else None for end in ends)
    return run.values.get(claim.key), None if low is None or high is None else (low, high)


def _verdict(claim: Claim, run: Run | None, problems: list[str]) -> str:
    if run is None:
        return NOT_RUN
    try:
        return REPRODUCED if holds(claim, run.values) else NOT_REPRODUCED
    except BookError as error:
        problems.append(str(error))
        return NOT_RUN
