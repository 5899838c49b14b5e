"""Where the time of a search in lanes goes."""

import math
import threading

from pipeline.engines.engine import Times


class Clock:
    """Adds up when lane programs ran and what filled them; times are of `time.monotonic()`, in seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._compile_seconds = 0.0
        self._first = math.inf
        self._calls: list[tuple[float, float]] = []
        self._trained = self._offered = 0

    def compiled(self, seconds: float) -> None:
        with self._lock:
            self._compile_seconds += seconds

    def began(self, begin: float) -> None:
        self._first = min(self._first, begin)

    def ended(self, begin: float, end: float, trained: int, offered: int) -> None:
        """A call is over. trained: lane-epochs that counted; offered: lanes times epochs."""
        if self._calls and begin <= self._calls[-1][1]:
            # Calls of two programs overlap: kept as one stretch, so that memory stays flat as well.
            begin, last = min(begin, self._calls[-1][0]), self._calls.pop()[1]
            end = max(end, last)
        self._calls.append((begin, end))
        self._trained += trained
        self._offered += offered

    def times(self) -> Times:
        """So far, with `overhead_share`, `compile_seconds` and `lane_occupancy` as metrics."""
        last = max((end for _, end in self._calls), default=math.inf)
        found = {"compile_seconds": self._compile_seconds}
        if self._calls:
            busy = sum(end - begin for begin, end in self._calls)
            found["overhead_share"] = max(0.0, 1 - busy / max(last - self._first, 1e-9))
            found["lane_occupancy"] = self._trained / self._offered
        return Times(self._first, last, found)
