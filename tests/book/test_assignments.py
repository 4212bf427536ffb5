"""The pages of the assignments: complete, and without anything that a student must not see."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from robustlib.course import sources
from tests.course.helpers import NAMES, ROOT
from tests.course.test_release import secret_lines


def test_every_assignment_has_a_page_and_the_download_of_its_notebook(site: Path) -> None:
    for name in NAMES:
        html = (site / f"book/assignments/{name}.html").read_text()
        assert "{{" not in re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
        (link,) = re.findall(rf'href="([^"]+/{name}\.ipynb)"', html)
        notebook = nbformat.read(str((site / "book/assignments" / link).resolve()), as_version=4)
        assert notebook.metadata["otter"]["assignment_name"] == name
        text = re.sub(r"<[^>]+>", "", html)
        for words in (
            "A passed check is not the grade.",
            "for hidden tests",
            "make env",
            f"robustlib course release --assignment {name}",
        ):
            assert words in text


@pytest.mark.parametrize("name", NAMES)
def test_no_solution_and_no_hidden_test_is_in_the_site(name: str, site: Path) -> None:
    """Lines that the chapters have too are no secret: they are ways to call the library."""
    files = (ROOT / "notebooks").rglob("*.md")
    chapters = "\n".join(p.read_text() for p in files if p.parent.name != "assignments")
    source = sources.path_of(name, ROOT)
    secret = {line for line in secret_lines(source) if line not in chapters}
    hints = re.findall(r"hidden: true\nfailure_message: (.+)", source.read_text())
    assert len(secret) > 20
    assert len(hints) > 5
    found = set()
    for path in site.rglob("*"):
        if path.suffix in {".html", ".ipynb", ".js", ".json", ".md", ".txt"}:
            text = path.read_text(errors="replace")
            plain = re.sub(r"<[^>]+>", "", text).replace("&quot;", '"').replace("&#39;", "'")
            plain = plain.replace("&lt;", "<").replace("&gt;", ">").replace('\\"', '"')
            found |= {(path.name, line) for line in [*secret, *hints] if line in plain}
    assert found == set()
    assert not list(site.rglob("*autograder*"))
    assert not list(site.rglob("points.json"))
