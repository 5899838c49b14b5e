"""How a study's trials stand, each trial that has ended looked at once.

A search asks several questions before each new trial. With thousands of trials none of them may go through
all the trials again: each would cost more than the trial before it.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

from pipeline import samplers

INTERRUPTED, STARTED_FROM = "interrupted", "started_from"
"""User attributes: of a trial that a study of before ended when it was interrupted; of one that began with
another study's settings, which."""


@dataclass(frozen=True)
class Standing:
    """How the trials stand, without those that studies of before ended where they were interrupted.

    ended: how many, by state. open: that wait or train, in the order of their numbers. drawn: how many have
    drawn settings, open ones too. baseline: whether there is a baseline. started_from: labels of the starts
    that were had.
    """

    ended: Mapping[TrialState, int]
    open: Sequence[FrozenTrial]
    drawn: int
    baseline: bool
    started_from: Set[str]

    @property
    def total(self) -> int:
        """How many have ended."""
        return sum(self.ended.values())

    def in_state(self, state: TrialState) -> list[FrozenTrial]:
        """Those that are open and in that state, in the order of their numbers."""
        return [trial for trial in self.open if trial.state == state]


class Tally:
    """Counts a study's trials.

    trials: reads all of a study, each at the place of its number. What has ended there stays as it is.
    """

    def __init__(self, trials: Callable[[], Sequence[FrozenTrial]]) -> None:
        self._trials = trials
        self._seen = 0
        self._open: list[int] = []
        self._ended = Counter[TrialState]()
        self._drawn, self._baseline, self._started_from = 0, False, set[str]()

    def look(self) -> Standing:
        """How the trials stand now."""
        trials = self._trials()
        new = [*self._open, *range(self._seen, len(trials))]
        self._seen = len(trials)
        self._open = [number for number in new if not trials[number].state.is_finished()]
        for number in set(new) - set(self._open):
            self._count(trials[number])
        waiting = [trials[number] for number in self._open]
        baselines = sum(samplers.BASELINE in trial.user_attrs for trial in waiting)
        labels = {str(trial.user_attrs.get(STARTED_FROM, "")) for trial in waiting}
        return Standing(
            self._ended,
            waiting,
            self._drawn + len(waiting) - baselines,
            self._baseline or baselines > 0,
            self._started_from | labels - {""},
        )

    def _count(self, trial: FrozenTrial) -> None:
        """Of a trial that has ended."""
        if INTERRUPTED in trial.user_attrs:
            return
        self._ended[trial.state] += 1
        if samplers.BASELINE in trial.user_attrs:
            self._baseline = True
        else:
            self._drawn += 1
        if label := trial.user_attrs.get(STARTED_FROM):
            self._started_from.add(str(label))
