"""A tiny book: two notebooks that run in a second, claims about them, a table of contents."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from robustlib.reproduce import notebooks
from robustlib.reproduce.notebooks import chapters
from robustlib.reproduce.runner import reproduce

HEADER = """\
---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

"""
PARAMETERS = """\
```{code-cell} ipython3
:tags: [parameters]

profile = "reference"
seed = 0
```

"""
SUM = """\
# A sum

It takes {{ seconds_quick }} at `quick` and {{ seconds_reference }} at `reference`, and gives
{glue:text}`sum.total:.2f`.

""" + (
    PARAMETERS
    + """\
```{code-cell} ipython3
from robustlib.reproduce import record

n = {"quick": 3, "reference": 4}[profile]
record("sum.total", sum(range(n)) + 0.5, interval=(2, 8))
record("sum.small", 1)
record("sum.positive", n > 0)
```

Text between the cells.

```{code-cell} ipython3
n
```
"""
)
PRODUCT = """\
# A product

""" + (
    PARAMETERS
    + """\
```{code-cell} ipython3
from robustlib.reproduce import provenance, record

record("product.value", 6)
provenance(profile=profile, seed=seed)
```
"""
)
CLAIMS = """\
- id: total
  paper: euclid
  item: "Table 1"
  quantity: "a sum"
  claimed: 6.5
  status: quoted
  notebook: toys/sum
  key: sum.total
  relation: {kind: equal, tolerance: 0.01}
  profiles: [reference]
- id: positive
  paper: euclid
  item: "Theorem 2"
  quantity: "its sign"
  claimed: null
  statement: "the sum is positive"
  status: statement
  notebook: toys/sum
  key: sum.positive
  relation: {kind: true}
  profiles: [quick, reference]
- id: product
  paper: euclid
  item: "Table 1"
  quantity: "a product"
  claimed: 6
  status: recalled-unverified
  notebook: toys/product
  key: product.value
  relation: {kind: equal, tolerance: 0}
  profiles: [quick, reference]
"""
TARGETS = """\
- paper: euclid
  title: "Elements"
  items:
    - {item: "Table 1", title: "sums and products"}
    - {item: "Theorem 2", title: "sums are positive"}
    - {item: "Figure 9", title: "a circle"}
    - {item: "Figure 10", title: "a line", chapter: book/index}
"""


def make_book(root: Path) -> Path:
    """Write the sources of the tiny book below ``root``."""
    for name, text in (("sum", SUM), ("product", PRODUCT)):
        path = root / "notebooks" / "toys" / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HEADER + text)
    (root / "book").mkdir()
    (root / "book" / "claims.yml").write_text(CLAIMS)
    (root / "book" / "targets.yml").write_text(TARGETS)
    return root


@pytest.fixture(scope="session", autouse=True)
def _steady_library() -> Iterator[None]:
    """The library may be edited while its tests run; these are not about that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(notebooks, "library_hash", lambda: "steady")
        yield


@pytest.fixture(scope="session")
def _finished_book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_book(tmp_path_factory.mktemp("finished"))
    for profile in ("quick", "reference"):
        outcomes = reproduce(chapters(root), profile, record=profile == "reference")
        assert [outcome.status for outcome in outcomes] == ["ran", "ran"]
    return root


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """The tiny book, nothing executed."""
    return make_book(tmp_path / "book")


@pytest.fixture
def finished(_finished_book: Path, tmp_path: Path) -> Path:
    """The tiny book, executed at both profiles and recorded: a copy that a test may change."""
    return Path(shutil.copytree(_finished_book, tmp_path / "book"))


@pytest.fixture(scope="session")
def edit() -> Callable[[Path, str, str], None]:
    """Replace text that has to be in a file."""

    def replace(path: Path, old: str, new: str) -> None:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return replace
