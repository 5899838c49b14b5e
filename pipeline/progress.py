"""How a search shows that it goes on: a live line on a terminal, plain lines in a log."""

import shutil
import sys
import time
from typing import TextIO

from pipeline.values import Objective, Progress

_REDRAW_SECONDS = 0.2
_LOG_SECONDS = 60.0


class ProgressLine:
    """Shows trials done, best value, rate and time left.

    Args:
        objective: what the best value is of.
        total: trials there will be.
        done: trials there were before.
        best: the best value so far with its trial, if there is one.
        stream: where to; a terminal gets one line that is redrawn, anything else a line a trial.
        what: is counted.
    """

    def __init__(
        self,
        objective: Objective,
        total: int,
        done: int,
        best: tuple[float, int] | None,
        stream: TextIO | None = None,
        what: str = "trials",
    ) -> None:
        self._what = what
        self._objective = objective
        self._total = total
        self._before = self._done = done
        self._best = best
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty()
        self._started = time.monotonic()
        self._shown = self._started

    def epoch(self, progress: Progress) -> None:
        """A trial's epoch is done."""
        wait = _REDRAW_SECONDS if self._live else _LOG_SECONDS
        if time.monotonic() - self._shown >= wait:
            self._show(f"trial {progress.number}, epoch {progress.epoch + 1}: {self._state()}")

    def trial(self, number: int, text: str, value: float | None) -> None:
        """A trial ended; value is None unless it completed."""
        self._done += 1
        if value is not None and self._is_best(value):
            self._best = (value, number)
        if self._live and value is not None:
            self._show(self._state())
        else:
            self.say(f"trial {number} {text} | {self._state()}")

    def say(self, text: str) -> None:
        """A line that stays."""
        self._clear()
        print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Leaves the terminal's line clean."""
        self._clear()

    def _state(self) -> str:
        seconds = time.monotonic() - self._started
        parts = [f"{self._done}/{self._total} {self._what}"]
        if self._best:
            parts.append(f"best {self._objective.metric} {self._best[0]:.4f} (trial {self._best[1]})")
        trained = self._done - self._before
        if trained and seconds > 0:
            parts.append(f"{trained / seconds * 3600:.0f} {self._what}/h")
            parts.append(f"{_duration((self._total - self._done) * seconds / trained)} left")
        return " | ".join(parts)

    def _is_best(self, value: float) -> bool:
        if self._best is None:
            return True
        return value > self._best[0] if self._objective.direction == "maximize" else value < self._best[0]

    def _show(self, text: str) -> None:
        self._shown = time.monotonic()
        if not self._live:
            print(text, file=self._stream, flush=True)
            return
        width = shutil.get_terminal_size().columns - 1
        print(f"\r{text[:width]:<{width}}", end="", file=self._stream, flush=True)

    def _clear(self) -> None:
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r{'':<{width}}\r", end="", file=self._stream, flush=True)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
