"""Run the notebooks, compare what they recorded with the papers, write the report, build the book.

Notebooks import from here: `record`, `provenance`, and for what takes long `long_run` and
`work_folder`.
"""

from robustlib.reproduce.long_runs import long_run, work_folder
from robustlib.reproduce.origin import provenance
from robustlib.reproduce.recording import record

__all__ = ["long_run", "provenance", "record", "work_folder"]
