"""What a person sees while notebooks run: which one, which cell, time elapsed and left."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import TextIO

PLAIN_EVERY = 2.0
SILENT_AT_MOST = 30.0


def clock(seconds: float) -> str:
    """Seconds as a person reads a stopwatch.

    >>> clock(7), clock(75), clock(3725)
    ('0:07', '1:15', '1:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Progress:
    """Progress of a run of several notebooks, on a terminal as one live line, else as plain lines.

    Parameters
    ----------
    expected : mapping of str to float or None
        Each notebook to run, with the seconds that it took last time (``None``: not known).
    jobs : int
        How many run at once.
    out : file
        Where to print; a terminal gets a live line.
    now : callable
        The clock, in seconds.
    """

    def __init__(
        self,
        expected: Mapping[str, float | None],
        *,
        jobs: int,
        out: TextIO | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.expected = dict(expected)
        self.jobs = jobs
        self.out = out or sys.stdout
        self.now = now
        self.start = now()
        self.live = self.out.isatty()
        self.running: dict[str, tuple[float, int, int]] = {}
        self.took: dict[str, float] = {}
        self.stopped = False
        self.lock = threading.Lock()
        self.printed = self.start

    def started(self, name: str, cells: int) -> None:
        """A notebook with this many code cells begins."""
        with self.lock:
            self.running[name] = (self.now(), 0, cells)
            place = len(self.took) + len(self.running)
            self._line(f"[{place}/{len(self.expected)}] {name}: {cells} cells")

    def cell(self, name: str, number: int) -> None:
        """A notebook begins its code cell ``number``, counted from 1."""
        with self.lock:
            begun, _, cells = self.running[name]
            self.running[name] = (begun, number, cells)
            if not self.live and self.now() - self.printed >= PLAIN_EVERY:
                self._line(f"      {name}: cell {number} of {cells}; {self._times()}")
        self.tick()

    def finished(self, name: str, words: str) -> None:
        """A notebook ended; ``words`` say how."""
        with self.lock:
            begun = self.running.pop(name, (self.now(), 0, 0))[0]
            self.took[name] = self.now() - begun
            self._line(f"      {name}: {words}; {self._times()}")

    def stop(self) -> None:
        """Print nothing more: what ends from now on was interrupted, it did not fail."""
        self.stopped = True

    def tick(self) -> None:
        """Renew the live line; without a terminal, a line when nothing was printed for long."""
        with self.lock:
            if self.stopped or not self.running:
                return
            cells = ", ".join(f"{name} {at}/{of}" for name, (_, at, of) in self.running.items())
            line = f"{len(self.took)}/{len(self.expected)} done; {cells}; {self._times()}"
            if self.live:
                width = shutil.get_terminal_size().columns - 1
                self.out.write("\r\x1b[K" + line[:width])
                self.out.flush()
            elif self.now() - self.printed >= SILENT_AT_MOST:
                self._line(f"      {line}")

    def left(self) -> float | None:
        """About how many seconds are left; ``None`` where nothing that is known tells."""
        known = [*(s for s in self.expected.values() if s is not None), *self.took.values()]
        if not known:
            return None
        mean = sum(known) / len(known)
        total = 0.0
        for name, seconds in self.expected.items():
            if name not in self.took:
                begun = self.running.get(name, (self.now(), 0, 0))[0]
                total += max((mean if seconds is None else seconds) - (self.now() - begun), 0.0)
        if self.running and total == 0.0:  # longer than last time
            return None
        return total / max(min(self.jobs, len(self.expected) - len(self.took)), 1)

    def _times(self) -> str:
        left = self.left()
        rest = "time left not known" if left is None else f"about {clock(left)} left"
        return f"{clock(self.now() - self.start)} elapsed, {rest}"

    def _line(self, text: str) -> None:
        self.printed = self.now()
        if self.stopped:
            return
        self.out.write(("\r\x1b[K" if self.live else "") + text + "\n")
        self.out.flush()
