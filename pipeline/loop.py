"""The search loop: ask -> add -> step -> record -> tell."""

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from pipeline import ledger, stops
from pipeline.engines.checkpoints import Checkpoints
from pipeline.engines.engine import Engine, Event, Interrupted, Resumed
from pipeline.errors import RunError
from pipeline.ledger import Ledger
from pipeline.progress import ProgressLine
from pipeline.study import Study
from pipeline.tracking.recorder import BASELINE, FAILED, FINISHED, KILLED, SEED, TRIAL, WARM_START, Recorder
from pipeline.values import Candidate, FoldScore, Outcome, Progress

_PAUSE_SECONDS = 0.2


@dataclass(frozen=True)
class Rooms:
    """What the loop connects.

    pruner: its name, for the reasons it gives. epochs, folds: of each trial. checkpoints: of trials under
    way, of no use once the study knows how their trial ended; None for none.
    """

    study: Study
    engine: Engine
    recorder: Recorder
    progress: ProgressLine
    pruner: str
    epochs: int
    folds: int
    checkpoints: Checkpoints | None = None


def run(rooms: Rooms, trials: int, deadline: float = math.inf) -> None:
    """Trains trials until the study has `trials` of them, or until `deadline`, a point of `time.monotonic()`.

    However it ends, trials under way are closed: an exception or the deadline leaves none running. Those that
    other processes train are waited for, so that whoever goes on finds the study complete.
    """
    study, told = rooms.study, Ledger(rooms.progress.say)
    waits = False

    def ask() -> Candidate | None:
        candidate = None
        if not told.down:
            with told.borne():
                told.write()
                candidate = study.next(trials)
        if candidate:
            try:
                _begin(study, rooms.recorder, candidate)
            except RunError:
                told.tell(lambda: study.interrupt(candidate.number, "the search failed"))
                raise
        return candidate

    def more() -> bool:
        nonlocal waits
        if told.down:
            return True
        with told.borne():
            told.write()
            study.queue_left()
            elsewhere = study.elsewhere()
            if elsewhere and not waits:
                rooms.progress.say(f"waiting for {elsewhere} trials that other processes train")
                waits = True
            return bool(elsewhere or study.remaining(trials))
        return True

    def interrupt(number: int, reason: str) -> None:
        told.tell(lambda: study.interrupt(number, reason))
        rooms.recorder.end(number, KILLED, reason=reason)

    with ledger.alive(study):
        try:
            drive(rooms.engine, ask, lambda event: _handle(event, rooms, told), interrupt, deadline, more)
        finally:
            with stops.put_off():
                told.close()


def drive(
    engine: Engine,
    ask: Callable[[], Candidate | None],
    handle: Callable[[Event], bool],
    interrupt: Callable[[int, str], None],
    deadline: float = math.inf,
    more: Callable[[], bool] = lambda: False,
) -> None:
    """Keeps an engine busy until there is nothing more to train.

    Args:
        engine: trains.
        ask: the next candidate, or None if there is none now.
        handle: takes an event; whether its trial is over.
        interrupt: takes the number of a trial that is ended from outside, and the reason.
        deadline: a point of `time.monotonic()` after which nothing goes on.
        more: whether there may be something to train later, where there is nothing now.
    """
    running: set[int] = set()
    reason = "the search failed"
    try:
        while time.monotonic() < deadline:
            stops.check()
            while engine.free() and _admitted(engine, ask, running):
                stops.check()
            if not running:
                if not more():
                    return
                time.sleep(_PAUSE_SECONDS)
            for event in engine.step():
                # What is recorded of a trial and what the study is told belong together.
                with stops.put_off():
                    if event.number in running and handle(event):
                        running.discard(event.number)
        reason = "the time is over"
    except KeyboardInterrupt:
        reason = "interrupted"
        raise
    finally:
        # A first stop that comes only now changes nothing.
        with stops.put_off():
            for number in running:
                engine.drop(number)
                # Each trial is closed in the study, where the record cannot be written any more, too: it says
                # so when it is closed.
                with contextlib.suppress(RunError):
                    interrupt(number, reason)


def _admitted(engine: Engine, ask: Callable[[], Candidate | None], running: set[int]) -> bool:
    """Whether there was another candidate, which the engine has now."""
    with stops.put_off():
        candidate = ask()
        if candidate:
            running.add(candidate.number)
            engine.add(candidate)
    return candidate is not None


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


def _handle(event: Event, rooms: Rooms, told: Ledger) -> bool:
    """Records an event; whether its trial is over."""
    match event:
        case Outcome():
            _finish(event, rooms, told)
            return True
        case Progress():
            rooms.recorder.epoch(event)
            rooms.progress.epoch(event)
            # With folds, a trial's epochs come fold after fold: only whole folds can be compared.
            return rooms.folds == 1 and _pruned(
                rooms,
                told,
                event.number,
                event.objective,
                f"epoch {event.epoch}",
                rooms.epochs - 1 - event.epoch,
            )
        case Resumed():
            _resume(event, rooms)
            return False
        case Interrupted():
            told.tell(lambda: rooms.study.interrupt(event.number, event.reason))
            rooms.recorder.end(event.number, KILLED, reason=event.reason)
            return True
        case FoldScore():
            return _pruned(
                rooms, told, event.number, event.value, f"fold {event.fold}", rooms.folds - 1 - event.fold
            )


def _resume(event: Resumed, rooms: Rooms) -> None:
    """Records the epochs before a checkpoint once more, in the run that is the trial's now.

    The pruner has seen them, and they are no work of this process.
    """
    rooms.recorder.resumed(event.number, event.before)
    fold = f", fold {event.fold}," if rooms.folds > 1 else ""
    rooms.progress.say(
        f"trial {event.number}{fold} goes on after epoch {len(event.before)} from its checkpoint"
    )


def _pruned(rooms: Rooms, told: Ledger, number: int, value: float, step: str, left: int) -> bool:
    """Reports an intermediate value; whether the pruner ended the trial. left: steps still to come."""
    if rooms.pruner == "none":
        # A report costs a write to the study's storage; nobody would read it, and MLflow has the curve.
        return False
    given_up = False
    if not told.down:
        with told.borne():
            given_up = rooms.study.report(number, value, int(step.split()[1]))
    if not given_up or not left:
        # A trial that is done anyway is worth more finished than pruned.
        return False
    reason = f"pruned by {rooms.pruner} after {step}: {value:.6g}"
    rooms.engine.drop(number)
    rooms.recorder.end(number, KILLED, reason=reason, note=rooms.study.note(number, pruned=reason))
    _tell(rooms, told, number, lambda: rooms.study.prune(number, reason))
    rooms.progress.trial(number, reason, None)
    return True


def _tell(rooms: Rooms, told: Ledger, number: int, act: Callable[[], bool]) -> None:
    """Tells the study how a trial ended; then its record goes on to MLflow, and its checkpoints go."""

    def all_of_it() -> None:
        if act():
            rooms.recorder.release(number)
        else:
            rooms.recorder.revoke(number, "another process has it by now")
        if rooms.checkpoints:
            rooms.checkpoints.forget(number)

    told.tell(all_of_it)


def _finish(outcome: Outcome, rooms: Rooms, told: Ledger) -> None:
    recorder, progress = rooms.recorder, rooms.progress
    note = rooms.study.note(
        outcome.number,
        failure=outcome.failure,
        value=outcome.value,
        replay=asdict(outcome.replay) if outcome.replay else None,
    )
    if outcome.failure:
        recorder.end(
            outcome.number,
            FAILED,
            reason=outcome.failure,
            folder=outcome.folder,
            detail=outcome.detail,
            note=note,
        )
        _tell(rooms, told, outcome.number, lambda: rooms.study.tell(outcome))
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
        note=note,
    )
    _tell(rooms, told, outcome.number, lambda: rooms.study.tell(outcome))
    progress.trial(
        outcome.number,
        f"completed: {outcome.value:.4f} at epoch {outcome.best_epoch} in {outcome.seconds:.1f} s",
        outcome.value,
    )
