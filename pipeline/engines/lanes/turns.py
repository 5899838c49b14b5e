"""Whose turn the devices are: calls that train run side by side, and whoever measures is alone.

A step that is timed while other programs train seems to take several times as long as it does.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator

Alone = Callable[[], contextlib.AbstractContextManager[None]]
"""For a block in which nothing trains."""


class Turns:
    """Calls are short, so a measurement waits for those under way, and no new one begins before its end."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._calls = 0
        self._measuring = False

    def begin(self) -> bool:
        """A call wants to begin; whether it may. Each that may is ended by `end`."""
        with self._changed:
            if self._measuring:
                return False
            self._calls += 1
            return True

    def end(self) -> None:
        """A call is over."""
        with self._changed:
            self._calls -= 1
            self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Waits until no call is under way, and lets none begin in the block; for one thread at a time."""
        with self._changed:
            self._measuring = True
            self._changed.wait_for(lambda: not self._calls)
        try:
            yield
        finally:
            with self._changed:
                self._measuring = False
