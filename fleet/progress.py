"""How a run stands, for the person who waits: one line on a terminal, now and then one in a log."""

import sys
import time
from typing import TextIO

from .ledger import Stats

TOLD_S = 10.0
MOST_ERRORS = 20


class Progress:
    """Of a run of so many ``rows``; a terminal's line is rewritten, a log gets further ones."""

    def __init__(self, rows: int, stream: TextIO = sys.stderr) -> None:
        self.rows, self._stream = rows, stream
        self._began: tuple[float, int] | None = None
        self._last, self._told, self._width, self._errors = 0.0, -1, 0, 0

    def line(self, stats: Stats) -> None:
        """How far it is, how fast, how long still, and what failed since the last time."""
        for error in stats.errors:
            self._errors += 1
            if self._errors <= MOST_ERRORS:
                self.say(f"failed: {error}")
            elif self._errors == MOST_ERRORS + 1:
                self.say("more rows fail; the manifest names them all")
        now, ended = time.monotonic(), stats.done + stats.failed
        if self._began is None and stats.made:
            # From the first row on: starting ComfyUI is no measure of a row.
            self._began = (now, stats.made)
        text = f"{ended}/{self.rows}" + (f", {stats.failed} failed" if stats.failed else "")
        if self._began and stats.made > self._began[1]:
            rate = (stats.made - self._began[1]) / (now - self._began[0])
            left = (self.rows - ended - stats.over) / rate
            text += f" · {_rate(rate)} · {_duration(left)} left"
        text += f" · {stats.servers} server{'' if stats.servers == 1 else 's'}"
        text += f" · ${stats.usd:.2f}" if stats.usd else ""
        if self._stream.isatty():
            self._stream.write(f"\r[fleet] {text}".ljust(self._width))
            self._width = len(text) + 9
            self._stream.flush()
        elif now - self._last > TOLD_S and ended != self._told:
            self.say(text)
            self._last, self._told = now, ended

    def say(self, text: str) -> None:
        """A line of its own."""
        clear = f"\r{' ' * self._width}\r" if self._width else ""
        self._width = 0
        self._stream.write(f"{clear}[fleet] {text}\n")
        self._stream.flush()


def _rate(rows_a_second: float) -> str:
    if rows_a_second >= 1:
        return f"{rows_a_second:.1f}/s"
    return f"{rows_a_second * 60:.1f}/min"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
