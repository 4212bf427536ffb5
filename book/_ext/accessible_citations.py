"""Give the entries of a bibliography the role that screen readers and axe-core accept.

docutils writes each entry with the role ``doc-biblioentry`` inside an element of the role ``list``;
that role is deprecated, and a list whose children are not list items is announced wrongly.
"""

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator


def visit_citation(translator: HTML5Translator, node: nodes.Element) -> None:
    HTML5Translator.visit_citation(translator, node)
    tag = translator.body.pop()
    translator.body.append(tag.replace('role="doc-biblioentry"', 'role="listitem"'))


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_node(
        nodes.citation, override=True, html=(visit_citation, HTML5Translator.depart_citation)
    )
    return {"parallel_read_safe": True, "parallel_write_safe": True}
