"""The releases of all assignments, made once for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("otter", reason="no Otter-Grader; install it: pip install 'robustlib[course]'")

from robustlib.course import release
from robustlib.course.release import Release
from tests.course.helpers import ROOT


@pytest.fixture(scope="session")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Release]:
    """The release of an assignment by its name; it is made at the first call."""
    folder = tmp_path_factory.mktemp("assignments")
    made: dict[str, Release] = {}

    def get(name: str) -> Release:
        if name not in made:
            made[name] = release.release(name, ROOT, folder)
        return made[name]

    return get
