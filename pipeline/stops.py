"""Stops in good order: the first SIGINT or SIGTERM interrupts, and no later one disturbs the end."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

END_SECONDS = 25.0
"""What ends in good order does so within, or it waits: for a store that neither answers nor refuses, or for a
very long epoch. Whoever has asked for the end kills it after half a minute, mostly."""

_asked = threading.Event()
_blocks = 0


def check() -> None:
    """Raises KeyboardInterrupt if a stop was asked for.

    What a signal's handler raises is lost where it happens to run inside a destructor, or in a callback of
    the garbage collector. So whatever takes long asks now and then.
    """
    if _asked.is_set():
        raise KeyboardInterrupt


def asked() -> bool:
    """Whether a stop was asked for: what ends then has seconds for it."""
    return _asked.is_set()


@contextlib.contextmanager
def put_off() -> Iterator[None]:
    """For a short block that must not end half-way: a stop that comes in it is seen by the next `check`."""
    global _blocks  # noqa: PLW0603  # signals are the process's, and come on its main thread
    _blocks += 1
    try:
        yield
    finally:
        _blocks -= 1


class Stops:
    """Turns the first SIGINT or SIGTERM into a KeyboardInterrupt, and lets no later one disturb the end.

    Ctrl-C on `mlflow run` sends both, one after the other. signal: the number of the one that came.

    give_up: is called, on a thread of its own, where the end takes longer than `END_SECONDS`.
    """

    def __init__(self, give_up: Callable[[], None] = lambda: None) -> None:
        self.signal = int(signal.SIGINT)
        self._timer = threading.Timer(END_SECONDS, give_up)
        self._timer.daemon = True
        self._before: dict[int, Any] = {}
        _asked.clear()
        if threading.current_thread() is threading.main_thread():
            self._before = {kind: signal.signal(kind, self._stop) for kind in (signal.SIGINT, signal.SIGTERM)}

    def restore(self) -> None:
        self._timer.cancel()
        for kind, handler in self._before.items():
            signal.signal(kind, handler)
        _asked.clear()

    def _stop(self, number: int, _: object) -> None:
        self.signal = number
        for kind in self._before:
            signal.signal(kind, signal.SIG_IGN)
        _asked.set()
        self._timer.start()
        if not _blocks:
            raise KeyboardInterrupt
