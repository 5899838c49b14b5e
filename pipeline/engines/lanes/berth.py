"""A program with its lanes as the engine runs it: who is in which lane, and what a call brought."""

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass

import numpy as np

from pipeline.engines.lanes.entries import Entry, Key
from pipeline.engines.lanes.orders import Orders
from pipeline.engines.lanes.plan import Report
from pipeline.engines.lanes.state import State
from pipeline.engines.lanes.streamed import AnyProgram
from pipeline.engines.lanes.turns import Turns
from pipeline.engines.lanes.twin import Values

# A call as long as this hides what happens around it, and is still short for a search that is to stop.
_CALL_SECONDS = 0.25


@dataclass(frozen=True)
class Call:
    """A call under way: who was in which lane, and the future of its lanes, report and end."""

    entries: tuple[Entry | None, ...]
    epochs: int
    begun: float
    done: "Future[tuple[State, Report, float]]"


class Berth:
    """Runs one program: refills its lanes from those who wait, and calls it.

    watcher: waits for calls. turns: of those who measure and those who train.
    """

    def __init__(
        self, key: Key, program: AnyProgram, orders: Orders, watcher: Executor, turns: Turns
    ) -> None:
        self.key = key
        self.waiting: deque[Entry] = deque()
        self.call: Call | None = None
        self.entries: list[Entry | None] = [None] * program.lanes
        self.epoch = 0
        self._program, self._orders, self._watcher, self._turns = program, orders, watcher, turns
        self._state: State | None = None  # before the first lane
        self._epochs = 1

    @property
    def lanes(self) -> int:
        return len(self.entries)

    @property
    def busy(self) -> bool:
        return any(self.entries) or bool(self.waiting)

    def launch(self, most_epochs: int) -> None:
        """Fills the free lanes and starts a call, if there is anything to train and none under way.

        While somebody measures it waits for its turn. most_epochs: of the lane that may train longest.
        """
        if self.call or not self.busy or not self._turns.begin():
            return
        try:
            self.call = self._begun(most_epochs)
        except BaseException:
            self._turns.end()
            raise

    def _begun(self, most_epochs: int) -> Call:
        state = self._refilled()
        left = max(
            (entry.candidate.epochs or most_epochs) - len(entry.curve) for entry in self.entries if entry
        )
        epochs = max(1, min(self._epochs, self._program.most_epochs, left))
        each = [self._orders.learn(self.key, self.entries, self.epoch + later) for later in range(epochs)]
        check = self._orders.check(self.entries)
        begun = time.monotonic()
        self.epoch += epochs
        program = self._program

        def watched() -> tuple[State, Report, float]:
            try:
                # Here, as rows that are streamed keep whoever calls busy for all of the call.
                after, logs = program.run(state, program.orders(each), check, epochs)
                return after, program.report(logs, epochs), time.monotonic()
            finally:
                self._turns.end()

        done = self._watcher.submit(watched)
        return Call(tuple(self.entries), epochs, begun, done)

    def finish(self, call: Call) -> tuple[Report, float]:
        """Waits for the call under way; its report, and when it ended."""
        self._state, report, ended = call.done.result()
        self.call = None
        an_epoch = max((ended - call.begun) / call.epochs, 1e-6)
        self._epochs = max(1, min(round(_CALL_SECONDS / an_epoch), 2 * call.epochs))
        return report, ended

    def retire(self, lanes: Sequence[int]) -> list[tuple[Entry, Values, int]]:
        """Empties lanes whose trainings are over: what each was, its best weights, and their epoch."""
        if self._state is None:
            raise LookupError("no lane has trained yet")
        epochs = np.asarray(self._state.control.stopping.best_epoch)
        found = []
        for lane, values in zip(lanes, self._program.layout.best(self._state, lanes), strict=True):
            entry = self.entries[lane]
            if entry:
                best = len(entry.curve) - 1 if entry.candidate.epochs else int(epochs[lane])
                found.append((entry, values._replace(tables=entry.values.tables), best))
            self.free(lane)
        return found

    def lanes_of(self, lanes: Sequence[int]) -> list[State]:
        """Some lanes as they are between two calls, each with all that changes while it trains."""
        if self._state is None:
            raise LookupError("no lane has trained yet")
        return self._program.layout.whole(self._state, lanes)

    def free(self, lane: int) -> None:
        self.entries[lane] = None

    def drop(self, number: int) -> None:
        """Forgets a trial, wherever it is."""
        self.waiting = deque(entry for entry in self.waiting if entry.candidate.number != number)
        self.entries = [
            None if entry and entry.candidate.number == number else entry for entry in self.entries
        ]

    def _refilled(self) -> State:
        """The lanes, those that are free filled from those who wait."""
        free = [lane for lane, entry in enumerate(self.entries) if entry is None]
        places = free[: len(self.waiting)]
        entries = [self.waiting.popleft() for _ in places]
        layout = self._program.layout
        state = self._state
        values = [entry.values for entry in entries]
        if state is None:
            state = layout.start(values[0], places, values)
        elif entries:
            state = layout.admit(state, places, values)
        going_on = {lane: entry.lane for lane, entry in zip(places, entries, strict=True) if entry.lane}
        if going_on:
            state = layout.resume(state, going_on)
        for lane, entry in zip(places, entries, strict=True):
            entry.turns.append((len(entry.curve), self.epoch))
            entry.started = time.monotonic() - entry.seconds
            self.entries[lane] = entry
        return state
