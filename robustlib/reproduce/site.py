"""Stage the book's source, let Jupyter Book build it without a warning, and serve the result."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from robustlib.reproduce.claims import load_yaml
from robustlib.reproduce.comparison import Comparison
from robustlib.reproduce.notebooks import (
    BookError,
    Chapter,
    check_writable,
    load_source,
    read,
    same_code,
    with_outputs,
    write_notebook,
)
from robustlib.reproduce.reference import last_seconds, recorded_seconds, remedy
from robustlib.reproduce.report import write_report

MATHJAX_LOADED = (
    "tex-chtml.js",
    "output/chtml",
    "input/tex/extensions",
    "a11y",
    "ui",
    "sre/mathmaps/base.json",
    "sre/mathmaps/en.json",
    "sre/mathmaps/nemeth.json",
)


def site_index(root: Path) -> Path:
    """The first page of the built book."""
    return root / "_build" / "site" / "_build" / "html" / "index.html"


def report_page(root: Path) -> Path:
    """The reproducibility report of the built book."""
    return site_index(root).parent / "book" / "reproducibility_report.html"


def build(root: Path, comparison: Comparison) -> Path:
    """Stage and build the book; return its first page.

    Raises
    ------
    BookError
        A chapter of the table of contents without a recorded run.
    RuntimeError
        Any warning or error of the build.
    """
    source = stage(root, comparison)
    site = root / "_build" / "site"
    shutil.rmtree(site, ignore_errors=True)
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(source)]
    command += ["--toc", str(source / "book" / "_toc.yml"), "--path-output", str(site)]
    plain = {} if sys.stdout.isatty() else {"NO_COLOR": "1"}
    command += ["-W", "-n", "--keep-going"]
    done = subprocess.run(command, cwd=root, env={**os.environ, **plain})
    if done.returncode != 0:
        raise RuntimeError("the book has warnings or errors (above); it has to have none.")
    trim_mathjax(site_index(root).parent / "_static" / "mathjax")
    return site_index(root)


def stage(root: Path, comparison: Comparison) -> Path:
    """Copy what the book is made of to ``_build/source``, with the generated report; return it.

    Chapters are their recorded runs with the present prose of their sources, and with measured
    seconds in the place of ``{{ seconds_quick }}`` and ``{{ seconds_reference }}``.
    """
    documents = set(toc_documents(load_yaml(root / "book" / "_toc.yml")))
    pages = sorted(page for page in documents if page.startswith("notebooks/"))
    chapters = [Chapter(page.removeprefix("notebooks/"), root) for page in pages]
    missing = [chapter.name for chapter in chapters if not chapter.recorded.exists()]
    if missing:
        raise BookError(
            f"no recorded run of {', '.join(missing)}, so the book cannot show "
            f"{'them' if len(missing) > 1 else 'it'}; make it: {remedy(*missing)}"
        )
    source = root / "_build" / "source"
    check_writable(source / "_config.yml")
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    shutil.copy2(root / "_config.yml", source)
    shutil.copytree(root / "book", source / "book")
    for chapter in chapters:
        write_notebook(source / "notebooks" / f"{chapter.name}.ipynb", chapter_page(chapter))
    write_report(root, source / "book", comparison, documents)
    if any(page.startswith("book/assignments/") for page in documents):
        from robustlib.course import pages as coursework  # needs Otter-Grader

        coursework.write(root, source, documents)
    return source


def toc_documents(entry: Any) -> Iterator[str]:
    """The documents that a table of contents names, at any depth."""
    if isinstance(entry, dict):
        for field, value in entry.items():
            if field in ("file", "root"):
                yield str(value).removesuffix(".md").removesuffix(".ipynb")
            else:
                yield from toc_documents(value)
    elif isinstance(entry, list):
        for item in entry:
            yield from toc_documents(item)


def chapter_page(chapter: Chapter) -> Any:
    """The recorded run of a chapter as the book shows it."""
    page: Any = read(chapter.recorded)
    source = load_source(chapter)
    if same_code(source, page):
        page = with_outputs(source, page)
    for profile in ("quick", "reference"):
        seconds = in_words(recorded_seconds(chapter, profile) or last_seconds(chapter, profile))
        for cell in page.cells:
            if cell.cell_type == "markdown":
                cell.source = cell.source.replace(f"{{{{ seconds_{profile} }}}}", seconds)
    return page


def in_words(seconds: float | None) -> str:
    """A duration in the unit a person would use.

    >>> in_words(12.4), in_words(200), in_words(9000), in_words(None)
    ('12 s', '3 min', '2.5 h', 'not measured yet')
    """
    if seconds is None:
        return "not measured yet"
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def trim_mathjax(folder: Path) -> None:
    """Delete the parts of MathJax that no page loads: other input and output formats."""
    keep = [folder / part for part in MATHJAX_LOADED]
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file() and not any(path.is_relative_to(part) for part in keep):
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def serve(root: Path, port: int) -> None:
    """Serve the built book on this machine only, until Ctrl-C."""
    folder = site_index(root).parent
    if not site_index(root).exists():
        raise BookError("there is no built book yet; make it: robustlib book")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=os.fspath(folder))
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as error:
        raise BookError(
            f"port={port} cannot be used ({error.strerror}); choose another with --port."
        ) from None
    with server:
        print(f"The book is at http://127.0.0.1:{server.server_address[1]}/ (Ctrl-C ends this)")
        server.serve_forever()
