"""Models that are trained after the trials, so that an ensemble may take them: child runs tagged as members,
never as trials.

With folds, trials have scores but no models of their own: the best trials' settings, and the baseline's, are
trained once more on all training rows, with the validation rows for early stopping. And the best settings may
be trained from further seeds, as models of one setting that began elsewhere err elsewhere: F. Wenzel et al.,
"Hyperparameter Ensembles for Robustness and Uncertainty Quantification", NeurIPS 2020. At last, what was
chosen may be trained again on training and validation rows together.
"""

import logging
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from pipeline.engines import schedules
from pipeline.engines.engine import Engine, Event, Interrupted
from pipeline.loop import drive
from pipeline.progress import ProgressLine
from pipeline.seeds import derived
from pipeline.study import Finished
from pipeline.tracking.recorder import FAILED, FINISHED, KILLED, MEMBER, REFIT, SEED, Recorder
from pipeline.values import Candidate, Member, Outcome, Progress, Settings

_log = logging.getLogger(__name__)

# Settings that have further seeds: each of those is a training as long as a trial.
_SEEDED = 4


@dataclass(frozen=True)
class Finalist:
    """A trial whose settings are trained again. copy: 0 with its own seed, from 1 with further ones.

    epochs: as of `Candidate`. tag: of its child run, `MEMBER`, or `REFIT` where it learns from all rows.
    rates: of learning, of the epochs that led to the model that there is; a refit's go down as far.
    """

    trial: Finished
    copy: int
    epochs: int = 0
    tag: str = MEMBER
    rates: tuple[float, ...] = ()

    @property
    def settings(self) -> Settings:
        return schedules.as_it_fell(self.trial.settings, self.rates)

    @property
    def member(self) -> Member:
        return Member(self.trial.number, self.copy)

    @property
    def seed(self) -> int:
        return derived(self.trial.seed, self.copy) if self.copy else self.trial.seed


def chosen(
    finished: Sequence[Finished], members: int, seeds: int, there: Collection[Member], *, folds: bool
) -> list[Finalist]:
    """What is still to be trained after the trials, the best settings first.

    Args:
        finished: the completed trials, best first.
        members: of the ensemble, at most.
        seeds: how many trainings of each of the best settings there are to be, the trial's own counted.
        there: members that were trained before.
        folds: whether trials have no models of their own.
    """
    own = [trial for place, trial in enumerate(finished) if place < members or trial.baseline]
    wanted = [Finalist(trial, 0) for trial in own if folds]
    # Each setting's first further seed before any second one: the time may end in between.
    wanted += [
        Finalist(trial, copy) for copy in range(1, seeds) for trial in finished[: min(_SEEDED, members)]
    ]
    return [finalist for finalist in wanted if finalist.member not in there]


def train(
    finalists: Sequence[Finalist],
    engine: Engine,
    recorder: Recorder,
    progress: ProgressLine,
    deadline: float = math.inf,
) -> None:
    """Trains each finalist and records it, in their order, until `deadline`, on `time.monotonic()`."""
    # The engine and the record know trainings by numbers: here by such as are no finalist's trial.
    first = 1 + max((finalist.trial.number for finalist in finalists), default=0)
    by_number = {
        first + place if finalist.copy else finalist.trial.number: finalist
        for place, finalist in enumerate(finalists)
    }
    waiting = list(by_number)

    def ask() -> Candidate | None:
        if not waiting:
            return None
        number = waiting.pop(0)
        finalist = by_number[number]
        _begin(number, finalist, recorder)
        return Candidate(number, finalist.seed, finalist.settings, epochs=finalist.epochs)

    def handle(event: Event) -> bool:
        trial = by_number[event.number].trial.number
        if isinstance(event, Progress):
            recorder.epoch(event)
            progress.epoch(replace(event, number=trial))
        elif isinstance(event, Outcome):
            _end(event, by_number[event.number], recorder)
            progress.trial(trial, "failed" if event.failure else "trained once more", None)
        elif isinstance(event, Interrupted):
            interrupt(event.number, event.reason)
            waiting.append(event.number)
        return isinstance(event, Outcome | Interrupted)

    def interrupt(number: int, reason: str) -> None:
        recorder.end(number, KILLED, reason=reason)

    drive(engine, ask, handle, interrupt, deadline)


def _begin(number: int, finalist: Finalist, recorder: Recorder) -> None:
    copy = f"-{finalist.copy}" if finalist.copy else ""
    recorder.start(
        number,
        f"{finalist.tag.rpartition('.')[2]}-{finalist.trial.number:04d}{copy}",
        finalist.settings,
        {finalist.tag: str(finalist.member), SEED: str(finalist.seed)},
    )


def _end(outcome: Outcome, finalist: Finalist, recorder: Recorder) -> None:
    if outcome.failure:
        what = "on all rows" if finalist.tag == REFIT else "as a member"
        _log.warning("%s, trained %s, failed: %s", finalist.member.described, what, outcome.failure)
        recorder.end(
            outcome.number, FAILED, reason=outcome.failure, folder=outcome.folder, detail=outcome.detail
        )
        return
    best = {f"best_{name}": value for name, value in outcome.metrics.items() if name.startswith("val_")}
    recorder.end(
        outcome.number,
        FINISHED,
        metrics={**best, "best_epoch": outcome.best_epoch},
        files=tuple(file for file in (outcome.model_file, outcome.predictions_file) if file),
        folder=outcome.folder,
    )
