"""Training what a search asks for: its trials, and the models that are trained after them."""

import contextlib
import gc
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from pipeline import loop, samplers, started, storage
from pipeline.engines import callbacks, choice
from pipeline.engines.checkpoints import HOME, Checkpoints
from pipeline.engines.choice import Order
from pipeline.engines.engine import Engine
from pipeline.finalists import Finalist, chosen, train
from pipeline.job import Job
from pipeline.progress import ProgressLine
from pipeline.secrets import redacted
from pipeline.stored import Stored
from pipeline.tracking import outbox, trials
from pipeline.tracking.apart import Process, opened_writer
from pipeline.tracking.curves import CurveFiles
from pipeline.tracking.recorder import FAILED, FINISHED, MEMBER, REFIT, Recorder
from pipeline.values import Data, Member

# What is kept of a trial's model, which with folds it does not have.
_OF_MODELS = (callbacks.CHECKPOINT, callbacks.ACTIVATIONS)


def train_trials(job: Job, deadline: float, apart: Process | None) -> float:
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
    for text in (_greeting(job), *job.told, *_less_kept(job)):
        progress.say(text)
    # All modules are there to stay: no collection has to look through them again.
    gc.freeze()
    with (
        _checkpoints(job) as checkpoints,
        _recorder(job, len(job.folds), apart) as recorder,
        choice.opened(
            replace(_order(job, job.folds), until=deadline, checkpoints=checkpoints), recorder.folder
        ) as engine,
    ):
        rooms = loop.Rooms(
            study,
            engine,
            recorder,
            progress,
            asked["pruner"],
            job.space.budget.epochs,
            len(job.folds),
            checkpoints,
        )
        began = time.monotonic()
        try:
            loop.run(rooms, asked["trials"], deadline)
        except BaseException:
            # A store may be what failed; the first error counts.
            with contextlib.suppress(Exception):
                _record_counts(job, engine, counts.total, time.monotonic() - began)
            raise
        finally:
            progress.close()
        with study.patient():
            _record_counts(job, engine, counts.total, time.monotonic() - began)
        times = engine.times()
    with study.patient():
        if study.remaining(asked["trials"]):
            progress.say(
                f"the time is over with {study.counts().total} of {asked['trials']} trials;"
                " the same command goes on"
            )
    return times.last


def finalists_of(job: Job) -> list[Finalist]:
    """What is to be trained after the trials and was not yet; what failed would fail again."""
    asked, folds = job.asked, len(job.folds) > 1
    if not folds and asked["seeds"] == 1:
        return []
    # What was cleaned away was not worth keeping, and is not trained anew.
    ended = trials.ended(job.parent, MEMBER, (FINISHED, FAILED), with_cleaned=True)
    there = set(map(Member.of, ended))
    return chosen(job.study.finished(), asked["members"], asked["seeds"], there, folds=folds)


def train_finalists(job: Job, finalists: Sequence[Finalist], deadline: float) -> float:
    """Trains what may be in the ensemble beside the trials; when the last epoch ended, as of trials."""
    if time.monotonic() < deadline:
        print(f"training {len(finalists)} members after the trials", flush=True)
    with (
        opened_writer(lanes=choice.name_of(job.asked["engine"]) == "lanes") as apart,
        _recorder(job, 1, apart) as recorder,
        choice.opened(_order(job, (job.data,)), recorder.folder) as engine,
        _models_line(job, len(finalists)) as progress,
    ):
        train(finalists, engine, recorder, progress, deadline)
        last = engine.times().last
    if left := len(finalists_of(job)):
        print(
            f"the time is over with {len(finalists) - left} of {len(finalists)} members; the same command"
            " goes on",
            flush=True,
        )
    return last


def train_again(job: Job, stored: Stored, members: Sequence[Member]) -> frozenset[Member]:
    """Trains members on training and validation rows together; those that have such a model then.

    Each trains for as many epochs as its best one was, as no rows are left to stop it by; where the plateau's
    rule led its learning rate, steps of equal factors lead it as far down now.
    """
    there = {Member.of(label) for label in trials.ended(job.parent, REFIT)}
    by_number = {trial.number: trial for trial in job.study.finished()}
    wanted = [
        Finalist(
            by_number[member.trial], member.copy, stored.epochs(member), REFIT, tuple(stored.rates(member))
        )
        for member in dict.fromkeys(members)
        if member not in there
    ]
    if wanted:
        print(f"training {len(wanted)} models again, on all rows but the test rows", flush=True)
        data = replace(job.data, train=job.data.train.joined(job.data.validation))
        with (
            opened_writer(lanes=choice.name_of(job.asked["engine"]) == "lanes") as apart,
            _recorder(job, 1, apart) as recorder,
            choice.opened(_order(job, (data,)), recorder.folder) as engine,
            _models_line(job, len(wanted)) as progress,
        ):
            train(wanted, engine, recorder, progress)
    return frozenset(map(Member.of, trials.ended(job.parent, REFIT))) & frozenset(members)


def _models_line(job: Job, models: int) -> contextlib.AbstractContextManager[ProgressLine]:
    """How the training of models goes on that are no trials."""
    return contextlib.closing(ProgressLine(job.space.objective, models, 0, None, what="models"))


def _recorder(job: Job, folds: int, apart: Process | None) -> contextlib.AbstractContextManager[Recorder]:
    """What writes to MLflow by way of the study's own folder."""
    box = outbox.new(storage.home(job.study.name) / outbox.HOME, job.parent.run_id)
    return contextlib.closing(Recorder(job.parent, folds, apart, _curve_files(job), outbox=box))


def _checkpoints(job: Job) -> contextlib.AbstractContextManager[Checkpoints | None]:
    """From which trials go on that were interrupted, in the study's own folder."""
    seconds = job.asked["checkpoint"]
    if not seconds:
        return contextlib.nullcontext()
    return contextlib.closing(Checkpoints(storage.home(job.study.name) / HOME, seconds))


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
        own_fit=job.task.fit,
        precision=asked["precision"],
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


def _greeting(job: Job) -> str:
    counts, asked = job.study.counts(), job.asked
    gone_on = f", {counts.total} trials there" if counts.total else ""
    return (
        f"study {job.study.name}{gone_on} | task {job.task.name}: {job.data.train.rows} rows to learn from,"
        f" {job.data.validation.rows} to choose by\n"
        f"engine {choice.described(asked['engine'], asked['precision'])} | sampler"
        f" {samplers.described(asked['sampler'], job.space.searched)} | pruner {asked['pruner']}\n"
        f"MLflow {redacted(job.parent.store)}, run {job.parent.run_id}"
    )
