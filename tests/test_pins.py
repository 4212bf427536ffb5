"""environment.yml, pyproject.toml and requirements.lock name the same versions."""

from __future__ import annotations

import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def pins(lines: list[str]) -> dict[str, str]:
    """Name and version of ``name==version`` lines; every line has to be one."""
    found = [line.split("==") for line in lines]
    assert all(len(pair) == 2 for pair in found), lines
    return {name.lower().replace("_", "-"): version.strip() for name, version in found}


def project() -> dict[str, str]:
    about = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = [line for lines in about["optional-dependencies"].values() for line in lines]
    return pins(about["dependencies"] + optional)


def lock() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return pins([line for line in lines if line.strip() and not line.startswith("#")])


def conda() -> tuple[list[str], dict[str, str]]:
    *direct, nested = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    *lines, last = nested["pip"]
    assert last == "-e ."
    return direct, pins(lines)


def test_the_lock_holds_every_pin_of_the_project():
    locked = lock()
    assert {name: locked.get(name) for name in project()} == project()


def test_conda_has_the_pins_of_the_project():
    direct, nested = conda()
    assert nested == project()
    oldest = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert f"python={oldest.removeprefix('>=')}" in direct


def test_no_pin_has_a_local_version():
    """``torch==2.13.0+cpu`` is on no public index."""
    for found in (project(), lock(), conda()[1]):
        assert not [name for name, version in found.items() if "+" in version]
