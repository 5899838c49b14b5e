"""Final models of a study with folds: its trials have scores but no models of their own.

The best trials' settings, and the baseline's, are trained once more on all training rows, with the validation
rows for early stopping; each is a child run tagged as a member, never as a trial.
"""

import logging
import math
from collections.abc import Sequence

from pipeline.engines.engine import Engine, Event
from pipeline.loop import drive
from pipeline.study import Finished
from pipeline.tracking.recorder import FAILED, FINISHED, KILLED, MEMBER, SEED, Recorder
from pipeline.values import Candidate, Outcome, Progress

_log = logging.getLogger(__name__)


def train(
    finalists: Sequence[Finished], engine: Engine, recorder: Recorder, deadline: float = math.inf
) -> None:
    """Trains each finalist and records it, the best first, until `deadline`, on `time.monotonic()`."""
    waiting = list(finalists)

    def ask() -> Candidate | None:
        if not waiting:
            return None
        finalist = waiting.pop(0)
        _begin(finalist, recorder)
        return Candidate(finalist.number, finalist.seed, finalist.settings)

    def handle(event: Event) -> bool:
        if isinstance(event, Progress):
            recorder.epoch(event)
        elif isinstance(event, Outcome):
            _end(event, recorder)
        return isinstance(event, Outcome)

    def interrupt(number: int, reason: str) -> None:
        recorder.end(number, KILLED, reason=reason)

    drive(engine, ask, handle, interrupt, deadline)


def _begin(finalist: Finished, recorder: Recorder) -> None:
    recorder.start(
        finalist.number,
        f"member-{finalist.number:04d}",
        finalist.settings,
        {MEMBER: str(finalist.number), SEED: str(finalist.seed)},
    )


def _end(outcome: Outcome, recorder: Recorder) -> None:
    if outcome.failure:
        _log.warning("trial %d trained on all rows failed: %s", outcome.number, outcome.failure)
        recorder.end(
            outcome.number, FAILED, reason=outcome.failure, folder=outcome.folder, detail=outcome.detail
        )
        return
    recorder.end(
        outcome.number,
        FINISHED,
        metrics={"best_epoch": outcome.best_epoch},
        files=tuple(file for file in (outcome.model_file, outcome.predictions_file) if file),
        folder=outcome.folder,
    )
