"""A program with its lanes as the engine runs it: who is in which lane, and what a call brought."""

import hashlib
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field

import keras
import numpy as np

from pipeline.engines import rows
from pipeline.engines.lanes.program import Program, Report
from pipeline.engines.lanes.state import State
from pipeline.engines.lanes.twin import Twin, Values
from pipeline.values import Array, Candidate, Data

# A call as long as this hides what happens around it, and is still short for a search that is to stop.
_CALL_SECONDS = 0.25


@dataclass(frozen=True)
class Key:
    """What makes a program: the structure of its models, and what they are fed."""

    structure: str
    batch_size: int
    shuffle: bool
    learn_rows: int
    check_rows: int

    @property
    def number(self) -> int:
        """The program's own number, from which its row orders derive; the same on every machine."""
        return int(hashlib.sha256(repr(self).encode()).hexdigest()[:8], 16)


@dataclass
class Entry:
    """One training, of a candidate on one fold: built, then in a lane, then over.

    plain: the model as it was built. first_epoch: the program's epoch in which it started.
    """

    candidate: Candidate
    fold: int
    key: Key
    plain: keras.Model
    twin: Twin
    values: Values
    first_epoch: int = -1
    started: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Call:
    """A call under way: who was in which lane, and the future of its report and the time of its end."""

    entries: tuple[Entry | None, ...]
    epochs: int
    begun: float
    done: "Future[tuple[Report, float]]"


class Berth:
    """Runs one program: refills its lanes from those who wait, and calls it.

    seed: of the study, for the row orders. own_orders: whether they derive from each training's own seed.
    """

    def __init__(
        self,
        key: Key,
        program: Program,
        seed: int,
        folds: Sequence[Data],
        watcher: Executor,
        *,
        own_orders: bool,
    ) -> None:
        self._own_orders = own_orders
        self.key = key
        self.waiting: deque[Entry] = deque()
        self.call: Call | None = None
        self.entries: list[Entry | None] = [None] * program.lanes
        self.epoch = 0
        self._program, self._seed, self._folds, self._watcher = program, seed, folds, watcher
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

        most_epochs: of the lane that may train longest.
        """
        if self.call or not self.busy:
            return
        state = self._refilled()
        left = max(most_epochs - len(entry.curve) for entry in self.entries if entry)
        epochs = max(1, min(self._epochs, self._program.most_epochs, left))
        self._state, logs = self._program.run(state, self._orders(epochs), self._check_order(), epochs)
        begun = time.monotonic()
        self.epoch += epochs
        program = self._program
        done = self._watcher.submit(lambda: (program.report(logs, epochs), time.monotonic()))
        self.call = Call(tuple(self.entries), epochs, begun, done)

    def finish(self, call: Call) -> tuple[Report, float]:
        """Waits for the call under way; its report, and when it ended."""
        report, ended = call.done.result()
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
                found.append((entry, values._replace(tables=entry.values.tables), int(epochs[lane])))
            self.free(lane)
        return found

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
        for lane, entry in zip(places, entries, strict=True):
            entry.first_epoch, entry.started = self.epoch, time.monotonic()
            self.entries[lane] = entry
        return state

    def _orders(self, epochs: int) -> Array:
        return self._program.orders([self._order(self.epoch + later) for later in range(epochs)])

    def _order(self, epoch: int) -> Array:
        """(rows,) of all lanes, or (lanes, rows) where each has its own."""
        key = self.key
        if self._own_orders:
            return np.stack([self._own_order(entry, epoch) for entry in self.entries])
        order = rows.order(self._seed, key.number, epoch, key.learn_rows, shuffle=key.shuffle)
        if len(self._folds) == 1:
            return order
        return np.stack([self._fold_rows(entry)[0][order] for entry in self.entries])

    def _own_order(self, entry: Entry | None, epoch: int) -> Array:
        """As `model.fit` alone would have it; a free lane has any."""
        rows_, seed, later = self.key.learn_rows, 0, 0
        if entry:
            seed, later = entry.candidate.seed, epoch - entry.first_epoch
        return rows.order(seed, 0, later, rows_, shuffle=self.key.shuffle)

    def _check_order(self) -> Array | None:
        if self._own_orders:
            each = np.arange(self.key.check_rows, dtype=np.int32)
            return np.tile(each, (len(self.entries), 1))
        if len(self._folds) == 1:
            return None
        return np.stack([self._fold_rows(entry)[1] for entry in self.entries]).astype(np.int32)

    def _fold_rows(self, entry: Entry | None) -> tuple[Array, Array]:
        """A lane's rows of the whole training split; a free lane has any."""
        fold = entry.fold if entry else next(one.fold for one in self.entries if one)
        found = self._folds[fold].fold
        if found is None:
            raise LookupError(f"fold {fold} has no row numbers")
        return found.learn, found.check
