"""How tests are shared between processes, where pytest-xdist runs several."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """One process a file, and one for all of tests/book: one site, one browser."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            name = str(nodeid)
            return "book" if name.startswith("tests/book/") else name.split("::", 1)[0]

    return ByFile(config, log)
