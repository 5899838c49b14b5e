"""How the search loop and a thread that trains take turns."""

import queue
import threading

from pipeline.engines.engine import Event
from pipeline.values import Outcome


class Baton:
    """Hands control to and fro between the search loop and the training thread: one runs at a time."""

    def __init__(self) -> None:
        self.stop = False
        self._go = threading.Semaphore(0)
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()

    def next_event(self) -> Event | None:
        """The search loop's side: lets training go on until its next event; None if it was stopped."""
        self._go.release()
        return self._events.get()

    def wait_for_step(self) -> None:
        self._go.acquire()

    def pass_on(self, event: Event) -> None:
        """Training's side: gives an event and waits until the search loop wants to go on."""
        self._events.put(event)
        self._go.acquire()

    def finish(self, outcome: Outcome | None) -> None:
        self._events.put(outcome)
