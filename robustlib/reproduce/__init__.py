"""Run the notebooks, compare what they recorded with the papers, write the report, build the book.

Notebooks import two functions from here: `record` and `provenance`.
"""

from robustlib.reproduce.origin import provenance
from robustlib.reproduce.recording import record

__all__ = ["provenance", "record"]
