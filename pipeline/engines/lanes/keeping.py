"""What is kept of lanes on their way, so that their trainings can go on where they were interrupted.

Of a lane that is all that changes while it trains, and its curve; of a fold that is over, its curve alone.
Nothing of it depends on how many lanes there are, or on which one it was.
"""

import math
import time
from collections.abc import Sequence

import jax

from pipeline.engines import resuming
from pipeline.engines.checkpoints import Checkpoint, Checkpoints, Training
from pipeline.engines.engine import Resumed
from pipeline.engines.lanes.berth import Berth
from pipeline.engines.lanes.entries import Entry
from pipeline.engines.lanes.state import State, at_start
from pipeline.values import Array, Budget, Data, Objective


class Keeper:
    """Keeps lanes as checkpoints, and finds them again.

    Args:
        checkpoints: where they are kept; None to keep none.
        folds: the data of each fold; one for training without folds.
        budget: what ends a training.
        objective: the logged metric that scores a trial.
    """

    def __init__(
        self, checkpoints: Checkpoints | None, folds: Sequence[Data], budget: Budget, objective: Objective
    ) -> None:
        self._checkpoints, self._folds = checkpoints, folds
        self._budget, self._objective = budget, objective
        # Of trials under way: when this process began with each; the folds that are over and not kept yet.
        self._begun: dict[int, float] = {}
        self._over: dict[int, list[tuple[Entry, int]]] = {}

    def find(self, entries: Sequence[Entry]) -> None:
        """Lets the trainings of a trial, all its folds, go on from their checkpoints, where there are any."""
        if self._checkpoints is None:
            return
        for entry in entries:
            start = at_start(entry.values, self._budget)
            found = self._checkpoints.read(self._training(entry), _named(start))
            if found is None:
                continue
            entry.curve = [dict(metrics) for metrics in found.curve]
            entry.over, entry.seconds = found.best_epoch, found.seconds
            entry.turns = [(epoch, of_program) for epoch, of_program in found.state["turns"]]
            if entry.over is None:
                leaves = [found.arrays[name] for name in _named(start)]
                entry.lane = jax.tree.unflatten(jax.tree.structure(start), leaves)
        seconds = max(entry.seconds for entry in entries)
        for entry in entries:
            entry.seconds = seconds

    def resumed(self, entry: Entry) -> Resumed:
        """The event of a training that goes on; its lane has what it needed, which is let go."""
        entry.lane = None
        return resuming.event(entry.candidate.number, entry.fold, entry.curve, self._objective, entry.steps)

    def keep(self, berth: Berth) -> None:
        """Keeps those lanes of a program, between two calls, whose last checkpoint is long ago."""
        if self._checkpoints is None:
            return
        now = time.monotonic()
        due = [
            (entry.kept, lane, entry)
            for lane, entry in enumerate(berth.entries)
            if entry and now - max(entry.kept, self._began(entry)) >= self._checkpoints.seconds
        ]
        for _, lane, entry in sorted(due, key=lambda one: one[:2]):
            if not self._checkpoints.ready:
                break
            (state,) = berth.lanes_of([lane])
            self._write(self._checkpoints, entry, None, _named(state))
            entry.kept = now
        for number, over in tuple(self._over.items()):
            if now - self._begun.get(number, math.inf) >= self._checkpoints.seconds:
                for entry, best_epoch in over:
                    self._write(self._checkpoints, entry, best_epoch, {})
                del self._over[number]

    def over(self, entry: Entry, best_epoch: int) -> None:
        """A fold of a trial is over, which is kept once the trial is old enough."""
        if self._checkpoints is not None:
            self._over.setdefault(entry.candidate.number, []).append((entry, best_epoch))

    def forget(self, number: int) -> None:
        """A trial is over, or not wanted any more."""
        self._begun.pop(number, None)
        self._over.pop(number, None)

    def _began(self, entry: Entry) -> float:
        """When this process began with the entry's trial, the first of its folds."""
        return self._begun.setdefault(entry.candidate.number, entry.started + entry.seconds)

    def _write(
        self, checkpoints: Checkpoints, entry: Entry, best_epoch: int | None, arrays: dict[str, Array]
    ) -> None:
        seconds = entry.seconds + time.monotonic() - self._began(entry)
        state = {"turns": entry.turns}
        checkpoints.write(
            self._training(entry), Checkpoint(tuple(entry.curve), seconds, best_epoch, state, arrays)
        )

    def _training(self, entry: Entry) -> Training:
        return resuming.training(
            "lanes",
            entry.candidate,
            entry.fold,
            self._budget,
            self._folds[entry.fold],
            program=repr(entry.key),
        )


def _named(state: State) -> dict[str, Array]:
    """A lane's arrays by their places."""
    return {str(place): leaf for place, leaf in enumerate(jax.tree.leaves(state))}
