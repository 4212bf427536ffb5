"""The prose beside the chapters: what it says about files, names and versions is true."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import pytest
import yaml

import robustlib
from robustlib.reproduce.notebooks import Chapter, chapters, load_source
from robustlib.reproduce.solutions import solutions

ROOT = Path(__file__).parents[2]
TEXTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "PERFORMANCE.md"]
TEXTS += sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "book").glob("*.md"))
CHAPTERS = chapters(ROOT)


def test_every_page_of_the_table_of_contents_has_a_source(toc_files: list[str]) -> None:
    generated = "book/reproducibility_report"
    missing = {file for file in toc_files if not (ROOT / f"{file}.md").exists()}
    assert missing == {generated}


def test_every_code_name_of_the_notation_page_is_in_the_library() -> None:
    code = "\n".join(path.read_text() for path in (ROOT / "robustlib").rglob("*.py"))
    words = set(re.findall(r"\w+", code))
    rows = re.findall(r"^\|.*\|(.*)\|$", (ROOT / "book/notation.md").read_text(), re.MULTILINE)
    names = {name for cell in rows for name in re.findall(r"`([^`]+)`", cell)}
    assert names
    unknown = {
        name for name in names for word in re.findall(r"[A-Za-z]\w+", name) if word not in words
    }
    assert unknown == set()


@pytest.mark.parametrize("name", TEXTS)
def test_links_between_files_lead_somewhere(name: str) -> None:
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", (ROOT / name).read_text())
    assert [link for link in links if not (ROOT / name).parent.joinpath(link).exists()] == []


def test_the_example_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    example = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert example is not None
    exec(example[1], {})
    assert "robust" in capsys.readouterr().out


def test_the_citation_has_the_version_of_the_library() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == robustlib.__version__


def test_every_paper_that_a_claim_or_target_names_is_in_the_references() -> None:
    keys = set(re.findall(r"^@\w+\{([^,]+),", (ROOT / "book/references.bib").read_text(), re.M))
    named = {
        entry["paper"]
        for file in ("claims.yml", "targets.yml")
        for entry in yaml.safe_load((ROOT / "book" / file).read_text()) or []
    }
    assert named - keys == set()


def test_no_line_of_prose_is_lost_as_a_comment() -> None:
    pages = [*(ROOT / "notebooks").glob("*/*.md"), *(ROOT / "book").glob("*.md")]
    lost = [
        f"{page.name}: {line}"
        for page in pages
        for line in re.sub(
            r"^```\{code-cell.*?^```$", "", page.read_text(), flags=re.S | re.M
        ).split("\n")
        if line.startswith("%")  # MyST takes the line for a comment
    ]
    assert len(pages) > 10
    assert lost == []


@pytest.mark.parametrize("chapter", CHAPTERS, ids=[chapter.name for chapter in CHAPTERS])
def test_every_exercise_has_a_solution_and_code_in_it_can_fail(chapter: Chapter) -> None:
    """The quick run of the chapter executes what is found here, and nothing else."""
    text = chapter.source.read_text()
    asked = re.findall(r"^`+\{exercise\}.*\n:label: (\S+)$", text, re.MULTILINE)
    assert len(asked) >= 3
    assert asked == re.findall(r"^`+\{solution\} (\S+)$", text, re.MULTILINE)
    found = solutions(load_source(chapter))
    _, exercises = text.split("{exercise}", 1)
    fences = len(re.findall(r"^```python$", exercises, re.MULTILINE))
    assert fences == len(found)  # one fence each
    for solution in found:
        nodes = ast.walk(ast.parse(solution.code))
        assert any(isinstance(node, ast.Assert) for node in nodes), solution.exercise


@pytest.mark.parametrize("chapter", CHAPTERS, ids=[chapter.name for chapter in CHAPTERS])
def test_no_warning_stands_in_a_recorded_chapter(chapter: Chapter) -> None:
    cells = nbformat.read(chapter.recorded, as_version=4).cells
    assert [o.text for c in cells for o in c.get("outputs", []) if o.get("name") == "stderr"] == []


def test_the_optional_part_of_an_assignment_finds_the_recorded_networks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "book/assignments/planted_features.md").read_text()
    example = re.search(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert example is not None
    monkeypatch.chdir(ROOT)
    exec(example[1], {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert all("test_next" in line for line in lines)
    assert sum("robust_0.5" in line for line in lines) == 4
