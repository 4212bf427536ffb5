"""The staged pages, the report, and a book that builds without a warning or not at all."""

from __future__ import annotations

import csv
import json
import shutil
import socket
import threading
import urllib.request
from pathlib import Path

import nbformat
import pytest

from robustlib.reproduce import site
from robustlib.reproduce.claims import load_claims
from robustlib.reproduce.comparison import compare
from robustlib.reproduce.notebooks import BookError
from robustlib.reproduce.report import load_targets, missing_items, write_report

ROOT = Path(__file__).parents[2]
TOC = """\
format: jb-book
root: book/index
chapters:
  - file: notebooks/toys/sum
  - file: notebooks/toys/product
    sections:
      - file: book/reproducibility_report
"""


@pytest.fixture
def book(finished: Path, edit) -> Path:
    """The finished tiny book with the pages and the configuration that a build needs."""
    shutil.copy(ROOT / "_config.yml", finished)
    shutil.copytree(ROOT / "book" / "_static", finished / "book" / "_static")
    shutil.copytree(ROOT / "book" / "_ext", finished / "book" / "_ext")
    (finished / "book" / "_toc.yml").write_text(TOC)
    (finished / "book" / "index.md").write_text("# Tiny\n\n$x^2$ by {cite}`euclid`.\n")
    (finished / "book" / "references.bib").write_text(
        "@book{euclid, author={Euclid}, title={Elements}, year={1482}, publisher={Ratdolt}}\n"
    )
    edit(finished / "book" / "index.md", "`.\n", "`.\n\n```{bibliography}\n```\n")
    return finished


def staged(book: Path, profile: str = "quick") -> Path:
    return site.stage(book, compare(book, profile))


def test_a_staged_chapter_has_the_present_prose_the_recorded_outputs_and_the_seconds(book, edit):
    edit(book / "notebooks" / "toys" / "sum.md", "Text between", "Better text between")
    page = nbformat.read(staged(book) / "notebooks" / "toys" / "sum.ipynb", 4)
    text = "\n".join(cell.source for cell in page.cells)
    assert "Better text between" in text
    assert "{{" not in text
    assert " s at `quick` and " in text
    assert page.cells[-1].outputs[0].data["text/plain"] == "4"


def test_the_sources_are_not_touched_and_old_pages_do_not_survive(book):
    before = {path: path.read_bytes() for path in (book / "notebooks").rglob("*.*")}
    (book / "_build" / "source").mkdir()
    (book / "_build" / "source" / "old.md").write_text("old")
    assert not (staged(book) / "old.md").exists()
    assert before == {path: path.read_bytes() for path in (book / "notebooks").rglob("*.*")}


def test_chapters_without_a_record_are_named_with_the_command_that_helps(book):
    (book / "notebooks" / "toys" / "sum.ipynb").unlink()
    with pytest.raises(BookError, match=r"toys/sum.*--profile reference --record --only toys/sum"):
        staged(book)


def test_the_report_shows_each_value_with_its_status_and_its_verdict_in_words(book):
    text = (staged(book) / "book" / "reproducibility_report.md").read_text()
    assert "3 claims: 3 reproduced, 0 not reproduced, 0 not run" in text
    assert "profile `quick`: 2 reproduced, 0 not reproduced, 1 not run" in text
    assert "6 (recalled, unverified)" in text
    assert "the sum is positive (statement)" in text
    assert "6.5 (2 to 8) [✓ reproduced]{.verdict .verdict-reproduced}" in text
    assert "[– not run]{.verdict .verdict-not-run}" in text
    assert "({doc}`sum </notebooks/toys/sum>`)" in text
    assert "Python 3." in text


def test_the_report_shows_a_failure_with_what_was_wanted(book, edit):
    edit(book / "book" / "claims.yml", "claimed: 6\n", 'claimed: 9\n  because: "few epochs"\n')
    text = (staged(book) / "book" / "reproducibility_report.md").read_text()
    assert "6 [✗ not reproduced]{.verdict .verdict-not-reproduced} wanted = 9," in text
    assert "Why: few epochs" in text


def test_the_report_lists_what_is_not_there_yet_and_only_that(book):
    text = (staged(book) / "book" / "reproducibility_report.md").read_text()
    missing = text.split("## Not there yet")[1]
    assert "**Figure 9.** a circle" in missing
    assert not any(item in missing for item in ("Table 1", "Theorem 2", "Figure 10"))


def test_without_a_run_the_report_says_so(book):
    shutil.rmtree(book / "_build" / "run")
    text = (staged(book) / "book" / "reproducibility_report.md").read_text()
    assert "**This run**: there is none" in text


def test_the_downloads_hold_the_same_rows(book):
    folder = staged(book, "reference") / "book"
    rows = json.loads((folder / "reproducibility.json").read_text())
    with (folder / "reproducibility.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [row["id"] for row in table]
    assert [row["verdict"] for row in table] == ["reproduced"] * 3


@pytest.mark.parametrize("text", ["- {paper: a}", "- {paper: a, title: b, items: [{x: 1}]}"])
def test_a_fault_in_the_targets_is_an_error_with_the_place(book, text):
    (book / "book" / "targets.yml").write_text(text)
    with pytest.raises(BookError, match=r"targets\.yml"):
        load_targets(book)


def test_every_claim_of_the_book_is_about_an_item_of_the_targets():
    _, items = load_targets(ROOT)
    claims = load_claims(ROOT)
    known = {(item.paper, item.item) for item in items}
    assert [c.id for c in claims if (c.paper, c.item) not in known] == []
    assert len(missing_items(items, claims)) < len(items) or not claims


def test_the_report_says_why_an_item_is_not_shown(finished, tmp_path):
    items = '[{item: Figure 9, title: Ninth, because: "no data."}, {item: Figure 10, title: T}]'
    (finished / "book" / "targets.yml").write_text(f"- {{paper: p, title: P, items: {items}}}\n")
    text = write_report(finished, tmp_path, compare(finished, "quick"), pages=set()).read_text()
    assert "* **Figure 9.** Ninth. Not shown: no data.\n" in text
    assert "* **Figure 10.** T\n" in text


def test_links_go_only_to_pages_of_the_book(finished, tmp_path):
    page = write_report(finished, tmp_path, compare(finished, "quick"), pages=set())
    assert "{doc}" not in page.read_text()


def test_a_warning_of_the_build_is_a_failure(book, capfd):
    (book / "book" / "index.md").write_text("# Tiny\n\n[x](#nowhere) {cite}`euclid`\n")
    with pytest.raises(RuntimeError, match="has warnings"):
        site.build(book, compare(book, "quick"))
    captured = capfd.readouterr()
    assert "nowhere" in captured.out + captured.err
    assert site.report_page(book).exists()


def test_only_the_parts_of_mathjax_that_a_page_loads_are_kept(tmp_path):
    kept = ("tex-chtml.js", "output/chtml/fonts/a.woff2", "input/tex/extensions/bbox.js")
    for name in (*kept, "tex-svg.js", "output/svg/fonts/b.woff2", "input/mml.js"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    site.trim_mathjax(tmp_path)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert {name for name in left if "." in name} == set(kept)
    assert "output/svg" not in left


def test_the_book_is_served_on_localhost_only(book, monkeypatch):
    index = site.site_index(book)
    index.parent.mkdir(parents=True)
    index.write_text("hello")
    servers = []
    original = site.http.server.ThreadingHTTPServer.serve_forever
    monkeypatch.setattr(
        site.http.server.ThreadingHTTPServer,
        "serve_forever",
        lambda self: (servers.append(self), original(self, 0.05))[1],
    )
    thread = threading.Thread(target=site.serve, args=(book, 0))
    thread.start()
    while not servers:
        thread.join(0.01)
    host, port = servers[0].server_address
    with urllib.request.urlopen(f"http://{host}:{port}/index.html") as answer:
        assert answer.read() == b"hello"
    servers[0].shutdown()
    thread.join()
    assert host == "127.0.0.1"


def test_a_book_that_cannot_be_written_is_refused_with_the_place(book):
    shutil.move(book / "_build", book / "away")
    (book / "_build").touch()
    with pytest.raises(BookError, match=r"_build.*cannot be written"):
        staged(book)


def test_a_port_in_use_is_named(book):
    index = site.site_index(book)
    index.parent.mkdir(parents=True)
    index.touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BookError, match=rf"port={port} cannot be used \(Address.*--port"):
            site.serve(book, port)


def test_serving_before_building_says_what_to_do(finished):
    with pytest.raises(BookError, match="robustlib book"):
        site.serve(finished, 0)
