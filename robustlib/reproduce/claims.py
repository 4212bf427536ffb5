"""The claims of the book: their form, and whether recorded values satisfy one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from robustlib.reproduce.notebooks import PROFILES, BookError, chapters
from robustlib.reproduce.recording import Value

STATUSES = ("quoted", "digitised", "derived", "recalled-unverified", "statement")
KINDS: dict[str, set[str]] = {
    "equal": {"tolerance"},
    "interval": set(),
    "at_least": {"value"},
    "at_most": {"value"},
    "less_than": {"other"},
    "greater_than": {"other"},
    "true": set(),
}
NEEDED = {"id", "paper", "item", "quantity", "claimed", "status", "notebook", "key", "relation"}
NEEDED |= {"profiles"}
OPTIONAL = {"statement", "because"}


@dataclass(frozen=True)
class Claim:
    """One entry of ``book/claims.yml``; the header of that file explains the fields."""

    id: str
    paper: str
    item: str
    quantity: str
    claimed: float | bool | None
    status: str
    notebook: str
    key: str
    relation: dict[str, Any]
    profiles: tuple[str, ...]
    statement: str = ""
    because: str = ""


def load_claims(root: Path) -> list[Claim]:
    """Read ``book/claims.yml``.

    Raises
    ------
    BookError
        An entry that does not follow the schema; the message names the claim and the field.
    """
    path = root / "book" / "claims.yml"
    entries = load_yaml(path) or []
    if not isinstance(entries, list):
        raise BookError(f"{path} has to be a list of claims.")
    notebooks = [chapter.name for chapter in chapters(root)]
    claims: list[Claim] = []
    for place, entry in enumerate(entries, start=1):
        claim = _claim(entry, place, notebooks)
        if any(other.id == claim.id for other in claims):
            raise BookError(f"claim {claim.id!r} is there twice; ids are unique.")
        claims.append(claim)
    return claims


def load_yaml(path: Path) -> Any:
    """The content of a YAML file; a `BookError` says what is wrong with it, and where."""
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BookError(f"{path} does not exist.") from None
    except yaml.YAMLError as error:
        raise BookError(f"{path} is not valid YAML: {error}") from None


def _claim(entry: Any, place: int, notebooks: list[str]) -> Claim:
    if not isinstance(entry, dict):
        raise BookError(f"claim number {place} is not a mapping of fields.")
    name = f"claim {entry.get('id', f'number {place}')!r}"

    def need(condition: bool, problem: str) -> None:
        if not condition:
            raise BookError(f"{name}: {problem}")

    fields = NEEDED | OPTIONAL
    unknown = sorted(map(str, set(entry) - fields))
    need(not unknown, f"unknown field {', '.join(unknown)}; allowed: {', '.join(sorted(fields))}.")
    missing = sorted(NEEDED - set(entry))
    need(not missing, f"field {', '.join(missing)} is missing.")
    for field in sorted(fields - {"claimed", "relation", "profiles"}):
        value = entry.get(field, "text")
        need(isinstance(value, str) and value != "", f"{field}={value!r} has to be a text.")
    _one_of(need, "status", entry["status"], STATUSES)
    _one_of(need, "notebook", entry["notebook"], notebooks)
    profiles = entry["profiles"]
    need(isinstance(profiles, list) and profiles != [], "profiles has to be a list with an entry.")
    for profile in profiles:
        _one_of(need, "profile", profile, PROFILES)
    start = entry["notebook"].rsplit("/", 1)[-1] + "."
    need(entry["key"].startswith(start), f"key={entry['key']!r} has to begin with {start!r}.")

    claimed, relation = entry["claimed"], entry["relation"]
    need(
        claimed is None or isinstance(claimed, int | float),
        f"claimed={claimed!r} has to be a number, or null for a statement.",
    )
    need(claimed is not None or "statement" in entry, "claimed is null, so it needs a statement.")
    need(isinstance(relation, dict) and "kind" in relation, "relation needs a kind.")
    kind = "true" if relation["kind"] is True else relation["kind"]
    _one_of(need, "relation kind", kind, KINDS)
    extra = sorted(map(str, set(relation) - KINDS[kind] - {"kind"}))
    need(not extra, f"relation {kind} does not know {', '.join(extra)}.")
    if kind in ("equal", "interval"):
        need(is_number(claimed), f"relation {kind} needs a claimed number.")
    if kind == "equal":
        tolerance = relation.get("tolerance")
        need(is_number(tolerance) and tolerance >= 0, "relation equal needs a tolerance ≥ 0.")
    if kind in ("at_least", "at_most"):
        bound = relation.get("value", claimed)
        need(is_number(bound), f"relation {kind} needs a value, or a claimed number.")
    if kind in ("less_than", "greater_than"):
        other = relation.get("other")
        need(
            isinstance(other, str) and other.startswith(start),
            f"relation {kind} needs other, a key of the same notebook ({start}…).",
        )
    return Claim(**{**entry, "relation": {**relation, "kind": kind}, "profiles": tuple(profiles)})


def _one_of(need: Any, field: str, value: Any, allowed: Any) -> None:
    need(value in allowed, f"unknown {field} {value!r}; allowed: {', '.join(allowed)}.")


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a value is a number; a truth value is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def in_words(claim: Claim) -> str:
    """The relation of a claim as a reader understands it.

    >>> claim = Claim("a", "p", "Table 1", "q", 4.38, "quoted", "m/n", "n.k",
    ...               {"kind": "equal", "tolerance": 0.01}, ("quick",))
    >>> in_words(claim)
    '= 4.38 ± 0.01'
    """
    kind = claim.relation["kind"]
    if kind == "equal":
        tolerance = claim.relation["tolerance"]
        return f"= {claim.claimed:g}" + (f" ± {tolerance:g}" if tolerance else "")
    if kind == "interval":
        return f"the interval holds {claim.claimed:g}"
    if kind in ("at_least", "at_most"):
        return f"{'≥' if kind == 'at_least' else '≤'} {_bound(claim):g}"
    if kind == "true":
        return "true"
    return f"{'<' if kind == 'less_than' else '>'} {claim.relation['other']}"


def _bound(claim: Claim) -> float:
    return float(claim.relation.get("value", claim.claimed or 0.0))


def holds(claim: Claim, values: Mapping[str, Value | None]) -> bool:
    """Whether recorded values satisfy a claim.

    Raises
    ------
    BookError
        A key that the claim needs was not recorded, or has no value of the right kind.
    """
    kind = claim.relation["kind"]
    value = _lookup(claim, claim.key, values)
    if kind == "true":
        if not isinstance(value, bool):
            raise BookError(f"claim {claim.id!r}: {claim.key!r} is {value!r}, not True or False.")
        return value
    number = _number(claim, claim.key, values)
    if kind == "equal":
        slack = float(claim.relation["tolerance"]) + 1e-12 * abs(float(claim.claimed or 0.0))
        return abs(number - float(claim.claimed or 0.0)) <= slack
    if kind == "interval":
        low, high = (_number(claim, f"{claim.key}.{end}", values) for end in ("low", "high"))
        return low <= float(claim.claimed or 0.0) <= high
    if kind in ("at_least", "at_most"):
        return number >= _bound(claim) if kind == "at_least" else number <= _bound(claim)
    other = _number(claim, claim.relation["other"], values)
    return number < other if kind == "less_than" else number > other


def _lookup(claim: Claim, key: str, values: Mapping[str, Value | None]) -> Value:
    if key not in values:
        raise BookError(f"claim {claim.id!r}: {claim.notebook} does not record {key!r}.")
    value = values[key]
    if value is None:
        raise BookError(f"claim {claim.id!r}: {claim.notebook} records {key!r} without a value.")
    return value


def _number(claim: Claim, key: str, values: Mapping[str, Value | None]) -> float:
    value = _lookup(claim, key, values)
    if not is_number(value):
        raise BookError(f"claim {claim.id!r}: {key!r} is {value!r}, not a number.")
    return float(value)
