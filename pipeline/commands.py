"""The commands, each from its checked parameters to what it leaves in MLflow."""

import contextlib
import gc
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline import loop, samplers, started
from pipeline.closing import Closing, Result, table
from pipeline.engines import callbacks, choice
from pipeline.engines.choice import Order
from pipeline.engines.engine import Engine
from pipeline.errors import RunError, UserError
from pipeline.finalists import train
from pipeline.job import Job, open_existing, open_search
from pipeline.progress import ProgressLine
from pipeline.provenance import record_origin
from pipeline.report.page import as_text
from pipeline.secrets import redacted
from pipeline.tracking import trials
from pipeline.tracking.apart import Process, opened_writer
from pipeline.tracking.curves import CurveFiles
from pipeline.tracking.parent import ending
from pipeline.tracking.recorder import MEMBER, TRIAL, Recorder
from pipeline.values import Data

# What is kept of a trial's model, which with folds it does not have.
_OF_MODELS = (callbacks.CHECKPOINT, callbacks.ACTIVATIONS)


def search(asked: Mapping[str, Any]) -> Result | None:
    """Study -> trials -> ensemble -> report, all in MLflow.

    Returns:
        What was found; None if the study was complete already, or no trial finished in the time given.

    Raises:
        UserError: before the first trial.
        RunError: no trial completed, or MLflow cannot be written any more.
    """
    # Before anything else, as it takes as long to start as what comes before the first trial.
    with (
        opened_writer(lanes=choice.name_of(asked["engine"]) == "lanes") as apart,
        open_search(asked) as job,
        ending(job.parent),
    ):
        if not job.study.remaining(asked["trials"]) and job.study.closed:
            _say_complete(job)
            return None
        try:
            record_origin(job)
        except RunError as error:
            # The first things written: a store that cannot keep them is found before the first trial.
            raise UserError(str(error)) from None
        deadline = time.monotonic() + asked["timeout"] if asked["timeout"] else math.inf
        trained = _train_trials(job, deadline, apart)
        if len(job.folds) > 1:
            _train_finalists(job, deadline)
        numbers = _numbers(job)
        if not numbers:
            _say_no_model(job)
            return None
        result = _close(job, "greedy", numbers)
        if math.isfinite(trained):
            job.parent.metrics({"finish_seconds": time.monotonic() - trained})
        return result


def ensemble(asked: Mapping[str, Any]) -> Result:
    """Makes the ensemble of a study again, by another method or of another size."""
    with open_existing(asked) as job, ending(job.parent):
        numbers = _numbers(job)
        if not numbers:
            raise RunError(
                f"study {job.study.name}: no trial has a model, so there is nothing to choose from"
            )
        return _close(job, asked["method"], numbers)


def _train_trials(job: Job, deadline: float, apart: Process | None) -> float:
    """Trains the trials that are missing; when the last epoch ended, infinite if there was none.

    apart: writes to MLflow.
    """
    asked, study = job.asked, job.study
    counts, best = study.counts(), study.finished()[:1]
    progress = ProgressLine(
        job.space.objective,
        counts.total + study.remaining(asked["trials"]),
        counts.total,
        (best[0].value, best[0].number) if best else None,
    )
    for text in (_greeting(job), *_less_kept(job)):
        progress.say(text)
    # All modules are there to stay: no collection has to look through them again.
    gc.freeze()
    with (
        choice.opened(_order(job, job.folds)) as engine,
        contextlib.closing(Recorder(job.parent, len(job.folds), apart, _curve_files(job))) as recorder,
    ):
        rooms = loop.Rooms(
            study, engine, recorder, progress, asked["pruner"], job.space.budget.epochs, len(job.folds)
        )
        began = time.monotonic()
        try:
            loop.run(rooms, asked["trials"], deadline)
        except BaseException:
            # The store may be what failed; the first error counts.
            with contextlib.suppress(RunError):
                _record_counts(job, engine, counts.total, time.monotonic() - began)
            raise
        finally:
            progress.close()
        _record_counts(job, engine, counts.total, time.monotonic() - began)
        times = engine.times()
    if study.remaining(asked["trials"]):
        progress.say(
            f"the time is over with {study.counts().total} of {asked['trials']} trials;"
            " the same command goes on"
        )
    return times.last


def _train_finalists(job: Job, deadline: float) -> None:
    finished = job.study.finished()
    wanted = [trial for place, trial in enumerate(finished) if place < job.asked["members"] or trial.baseline]
    there = trials.finished(job.parent, MEMBER)
    with (
        opened_writer(lanes=choice.name_of(job.asked["engine"]) == "lanes") as apart,
        choice.opened(_order(job, (job.data,))) as engine,
        contextlib.closing(Recorder(job.parent, 1, apart, _curve_files(job))) as recorder,
    ):
        train([trial for trial in wanted if trial.number not in there], engine, recorder, deadline)


def _say_no_model(job: Job) -> None:
    """Says that there is nothing to choose from; an error where trials failed."""
    if reasons := job.study.reasons():
        raise RunError("no trial completed: " + "; ".join(reasons[:3]))
    print("no trial has a model yet; the same command goes on", flush=True)


def _numbers(job: Job) -> frozenset[int]:
    """The completed trials whose models MLflow has."""
    completed = {trial.number for trial in job.study.finished()}
    return frozenset(completed & trials.finished(job.parent, _tag(job)))


def _tag(job: Job) -> str:
    """What marks the child runs that hold models: with folds, a trial has none of its own."""
    return MEMBER if len(job.folds) > 1 else TRIAL


def _close(job: Job, method: str, numbers: frozenset[int]) -> Result:
    closing = Closing(job.study, job.task, job.data, job.space.objective, job.parent, _tag(job), numbers)
    result = closing.close(method, job.asked["members"], job.asked["seed"])
    job.study.close()
    # What is as everywhere says nothing of this one.
    usual = {parameter.name: parameter.default for parameter in job.task.parameters}
    settings = ", ".join(
        f"{name}={_short(value)}"
        for name, value in result.champion.settings.items()
        if name not in usual or value != usual[name]
    )
    print(f"\n{as_text(table(result))}\n\nchampion: {settings}")
    print(f"MLflow run {result.run_id}: models champion and ensemble, report.html", flush=True)
    return result


def _order(job: Job, folds: tuple[Data, ...]) -> Order:
    """What the engine is to train: the trials over their folds, or final models over all rows."""
    asked = job.asked
    return Order(
        asked["engine"],
        job.task.build,
        folds,
        job.data.train if len(folds) > 1 else None,
        job.space.budget,
        job.space.objective,
        asked["lanes"] or job.study.lanes,
        asked["seed"],
        asked["trials"],
        [name for name in _kept(job) if len(folds) == 1 or name not in _OF_MODELS],
    )


def _kept(job: Job) -> tuple[str, ...]:
    """The names of what a trial keeps besides its model."""
    return job.asked["callbacks"] or ()


def _curve_files(job: Job) -> CurveFiles | None:
    kept = _kept(job)
    csv, events = "csv" in kept, callbacks.TENSORBOARD in kept
    own = tuple(name for name, _ in job.space.objective.means)
    return CurveFiles(csv, events, own) if csv or events else None


def _less_kept(job: Job) -> Iterator[str]:
    """Says what of the callbacks that are asked for a trial does not get."""
    if callbacks.TENSORBOARD in _kept(job) and not choice.draws_weights(job.asked["engine"]):
        yield "callbacks: tensorboard has scalars only; the rest needs engine=fit on TensorFlow"
    of_models = [name for name in _kept(job) if name in _OF_MODELS]
    if of_models and len(job.folds) > 1:
        yield f"callbacks: {', '.join(of_models)}: not of trials, as with folds they keep no models"


def _record_counts(job: Job, engine: Engine, before: int, seconds: float) -> None:
    counts, times = job.study.counts(), engine.times()
    job.parent.metrics(
        {
            "trials_completed": counts.completed,
            "trials_pruned": counts.pruned,
            "trials_failed": counts.failed,
            **times.metrics,
            **({"startup_seconds": times.first - started.AT} if math.isfinite(times.first) else {}),
            **(
                {"trials_per_hour": (counts.total - before) / seconds * 3600} if counts.total > before else {}
            ),
        }
    )


def _say_complete(job: Job) -> None:
    counts = job.study.counts()
    print(
        f"study {job.study.name} is complete: {counts.completed} trials completed, {counts.pruned} pruned,"
        f" {counts.failed} failed. Give more trials= to go on with it, or another study= to start anew.\n"
        f"MLflow run {job.parent.run_id}",
        flush=True,
    )


def _greeting(job: Job) -> str:
    counts, asked = job.study.counts(), job.asked
    gone_on = f", {counts.total} trials there" if counts.total else ""
    return (
        f"study {job.study.name}{gone_on} | task {job.task.name}: {job.data.train.rows} rows to learn from,"
        f" {job.data.validation.rows} to choose by\n"
        f"engine {choice.described(asked['engine'])} | sampler"
        f" {samplers.described(asked['sampler'], job.space.searched)} | pruner {asked['pruner']}\n"
        f"MLflow {redacted(job.parent.store)}, run {job.parent.run_id}"
    )


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
