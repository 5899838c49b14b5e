"""From folds to trials: a trial with folds is over with the last of them."""

from pipeline.engines.engine import Event
from pipeline.engines.lanes.entries import Entry
from pipeline.engines.lanes.finishing import Finisher
from pipeline.values import FoldScore, Objective


class Folds:
    """The folds that are done, of trials under way.

    Args:
        count: of each trial.
        objective: the logged metric that scores a trial.
        finisher: makes the outcome of a trial.
    """

    def __init__(self, count: int, objective: Objective, finisher: Finisher) -> None:
        self.count = count
        self._objective, self._finisher = objective, finisher
        self._done: dict[int, list[tuple[Entry, int]]] = {}

    def end(self, entry: Entry, best_epoch: int, ended: float) -> list[Event]:
        """The end of a fold, and of its trial with the last one. ended: when, on `time.monotonic()`."""
        number = entry.candidate.number
        events: list[Event] = [FoldScore(number, entry.fold, entry.curve[best_epoch][self._objective.metric])]
        done = self._done.setdefault(number, [])
        done.append((entry, best_epoch))
        if len(done) == self.count:
            events.append(self._finisher.mean(self._done.pop(number), ended))
        return events

    def forget(self, number: int) -> None:
        """A trial is not wanted any more."""
        self._done.pop(number, None)
