"""The search loop: ask -> add -> step -> record -> tell."""

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from pipeline import stops
from pipeline.engines.engine import Engine, Event
from pipeline.errors import RunError
from pipeline.progress import ProgressLine
from pipeline.study import Study
from pipeline.tracking.recorder import BASELINE, FAILED, FINISHED, KILLED, SEED, TRIAL, WARM_START, Recorder
from pipeline.values import Candidate, FoldScore, Outcome, Progress


@dataclass(frozen=True)
class Rooms:
    """What the loop connects. pruner: its name, for the reasons it gives. epochs, folds: of each trial."""

    study: Study
    engine: Engine
    recorder: Recorder
    progress: ProgressLine
    pruner: str
    epochs: int
    folds: int


def run(rooms: Rooms, trials: int, deadline: float = math.inf) -> None:
    """Trains trials until the study has `trials` of them, or until `deadline`, a point of `time.monotonic()`.

    However it ends, trials under way are closed: an exception or the deadline leaves none running.
    """

    def ask() -> Candidate | None:
        if not rooms.study.remaining(trials):
            return None
        candidate = rooms.study.ask()
        _begin(rooms.study, rooms.recorder, candidate)
        return candidate

    def interrupt(number: int, reason: str) -> None:
        rooms.study.interrupt(number, reason)
        rooms.recorder.end(number, KILLED, reason=reason)

    drive(rooms.engine, ask, lambda event: _handle(event, rooms), interrupt, deadline)


def drive(
    engine: Engine,
    ask: Callable[[], Candidate | None],
    handle: Callable[[Event], bool],
    interrupt: Callable[[int, str], None],
    deadline: float = math.inf,
) -> None:
    """Keeps an engine busy until there is nothing more to train.

    Args:
        engine: trains.
        ask: the next candidate, or None if there is none now.
        handle: takes an event; whether its trial is over.
        interrupt: takes the number of a trial that is ended from outside, and the reason.
        deadline: a point of `time.monotonic()` after which nothing goes on.
    """
    running: set[int] = set()
    reason = "the search failed"
    try:
        while time.monotonic() < deadline:
            stops.check()
            while engine.free() and (candidate := ask()):
                running.add(candidate.number)
                engine.add(candidate)
            if not running:
                return
            for event in engine.step():
                if event.number in running and handle(event):
                    running.discard(event.number)
        reason = "the time is over"
    except KeyboardInterrupt:
        reason = "interrupted"
        raise
    finally:
        for number in running:
            engine.drop(number)
            # Each trial is closed in the study, where the record cannot be written any more, too: it says so
            # when it is closed.
            with contextlib.suppress(RunError):
                interrupt(number, reason)


def _begin(study: Study, recorder: Recorder, candidate: Candidate) -> None:
    baseline, started_from = study.is_baseline(candidate.number), study.started_from(candidate.number)
    tags = {TRIAL: str(candidate.number), SEED: str(candidate.seed)}
    if baseline:
        tags[BASELINE] = "true"
    if started_from:
        tags[WARM_START] = started_from
    recorder.start(
        candidate.number,
        f"trial-{candidate.number:04d}" + (" (baseline)" if baseline else ""),
        study.drawn(candidate),
        tags,
    )


def _handle(event: Event, rooms: Rooms) -> bool:
    """Records an event; whether its trial is over."""
    match event:
        case Outcome():
            _finish(event, rooms)
            return True
        case Progress():
            rooms.recorder.epoch(event)
            rooms.progress.epoch(event)
            # With folds, a trial's epochs come fold after fold: only whole folds can be compared.
            return rooms.folds == 1 and _pruned(
                rooms, event.number, event.objective, f"epoch {event.epoch}", rooms.epochs - 1 - event.epoch
            )
        case FoldScore():
            return _pruned(
                rooms, event.number, event.value, f"fold {event.fold}", rooms.folds - 1 - event.fold
            )


def _pruned(rooms: Rooms, number: int, value: float, step: str, left: int) -> bool:
    """Reports an intermediate value; whether the pruner ended the trial. left: steps still to come."""
    if rooms.pruner == "none":
        # A report costs a write to the study's storage; nobody would read it, and MLflow has the curve.
        return False
    given_up = rooms.study.report(number, value, int(step.split()[1]))
    if not given_up or not left:
        # A trial that is done anyway is worth more finished than pruned.
        return False
    reason = f"pruned by {rooms.pruner} after {step}: {value:.6g}"
    rooms.engine.drop(number)
    rooms.study.prune(number, reason)
    rooms.recorder.end(number, KILLED, reason=reason)
    rooms.progress.trial(number, reason, None)
    return True


def _finish(outcome: Outcome, rooms: Rooms) -> None:
    recorder, progress = rooms.recorder, rooms.progress
    rooms.study.tell(outcome)
    if outcome.failure:
        recorder.end(
            outcome.number, FAILED, reason=outcome.failure, folder=outcome.folder, detail=outcome.detail
        )
        progress.trial(outcome.number, f"failed: {outcome.failure}", None)
        return
    best = {f"best_{name}": value for name, value in outcome.metrics.items() if name.startswith("val_")}
    recorder.end(
        outcome.number,
        FINISHED,
        metrics={
            **best,
            "best_epoch": outcome.best_epoch,
            "epochs": outcome.epochs,
            "seconds": outcome.seconds,
            **({"first_epoch": outcome.replay.first_epoch} if outcome.replay else {}),
        },
        files=tuple(file for file in (outcome.model_file, outcome.predictions_file) if file),
        folder=outcome.folder,
    )
    progress.trial(
        outcome.number,
        f"completed: {outcome.value:.4f} at epoch {outcome.best_epoch} in {outcome.seconds:.1f} s",
        outcome.value,
    )
