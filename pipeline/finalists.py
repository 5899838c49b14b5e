"""Final models of a study with folds: its trials have scores but no models of their own.

The best trials' settings, and the baseline's, are trained once more on all training rows, with the validation
rows for early stopping; each is a child run tagged as a member, never as a trial.
"""

import logging
from collections.abc import Sequence

from pipeline.engines.engine import Engine
from pipeline.study import Finished
from pipeline.tracking.recorder import FAILED, FINISHED, MEMBER, SEED, Recorder
from pipeline.values import Candidate, Outcome, Progress

_log = logging.getLogger(__name__)


def train(finalists: Sequence[Finished], engine: Engine, recorder: Recorder) -> None:
    """Trains each finalist and records it."""
    waiting = list(finalists)
    running = 0
    while waiting or running:
        while waiting and engine.free():
            finalist = waiting.pop(0)
            recorder.start(
                finalist.number,
                f"member-{finalist.number:04d}",
                finalist.settings,
                {MEMBER: str(finalist.number), SEED: str(finalist.seed)},
            )
            engine.add(Candidate(finalist.number, finalist.seed, finalist.settings))
            running += 1
        for event in engine.step():
            if isinstance(event, Progress):
                recorder.epoch(event)
            elif isinstance(event, Outcome):
                _end(event, recorder)
                running -= 1


def _end(outcome: Outcome, recorder: Recorder) -> None:
    if outcome.failure:
        _log.warning("trial %d trained on all rows failed: %s", outcome.number, outcome.failure)
        recorder.end(outcome.number, FAILED, reason=outcome.failure, detail=outcome.detail)
        return
    recorder.end(
        outcome.number,
        FINISHED,
        metrics={"best_epoch": outcome.best_epoch},
        files=tuple(file for file in (outcome.model_file, outcome.predictions_file) if file),
    )
