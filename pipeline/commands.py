"""The commands, each from its checked parameters to what it leaves in MLflow."""

import math
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from pipeline import recovery, storage, training
from pipeline.closing import Closing, Wish
from pipeline.engines import choice
from pipeline.errors import RunError, UserError
from pipeline.job import Job, open_existing, open_search
from pipeline.provenance import record_origin
from pipeline.report.page import as_text
from pipeline.result import Result, table
from pipeline.stored import Stored
from pipeline.tracking import registry, trials
from pipeline.tracking.apart import opened_writer
from pipeline.tracking.parent import ending
from pipeline.tracking.recorder import MEMBER, REFIT, TRIAL
from pipeline.values import Member


def search(asked: Mapping[str, Any]) -> Result | None:
    """Study -> trials -> ensemble -> report, all in MLflow.

    Returns:
        What was found; None if the study was complete already, no trial finished in the time given, or
        another process trains it still.

    Raises:
        UserError: before the first trial.
        RunError: no trial completed, or MLflow cannot be written any more.
    """
    # Before anything else, as it takes as long to start as what comes before the first trial.
    with (
        opened_writer(lanes=choice.name_of(asked["engine"]) == "lanes") as apart,
        open_search(asked) as job,
    ):
        late = recovery.recover(job)
        if asked["register"]:
            registry.check(job.parent.client, asked["register"], job.task.name)
        # What was delivered only now is in no ensemble yet.
        trials_done = not job.study.remaining(asked["trials"]) and job.study.closed and not late
        closed = trials_done and not training.finalists_of(job)
        if closed and not _unregistered(job) and not _unrefitted(job):
            _say_complete(job)
            return None
        try:
            record_origin(job)
        except RunError as error:
            # The first things written: a store that cannot keep them is found before the first trial.
            raise UserError(str(error)) from None
        deadline = time.monotonic() + asked["timeout"] if asked["timeout"] else math.inf
        trained = math.inf if trials_done else training.train_trials(job, deadline, apart)
        with job.study.patient():
            return _end(job, trained, deadline)


def _end(job: Job, trained: float, deadline: float) -> Result | None:
    """What follows the trials, in the last process that has trained some.

    trained: when the last epoch ended; infinite if there was none. deadline: of all training.
    """
    if not storage.patiently(job.presence.leave):
        _say_left_to_another(job.asked)
        return None
    while True:
        if finalists := training.finalists_of(job):
            last = training.train_finalists(job, finalists, deadline)
            trained = last if math.isfinite(last) else trained
        recovery.tidy(job)
        # Before its models: what ends in between is not taken as closed.
        ended = job.study.counts().total
        numbers = _numbers(job)
        if not numbers:
            _say_no_model(job)
            return None
        with job.study.alone():
            result = _close(job, "greedy", numbers, ended)
        # A process that came and went meanwhile has left its trials to this one.
        if job.study.closed or not storage.patiently(job.presence.leave):
            break
    if math.isfinite(trained):
        job.parent.metrics({"finish_seconds": time.monotonic() - trained})
    return result


def ensemble(asked: Mapping[str, Any]) -> Result:
    """Makes the ensemble of a study again, by another method or metric, or of another size.

    Raises:
        UserError: before anything is changed.
        RunError: there is no model to choose from, or MLflow cannot be read or written.
    """
    with open_existing(asked) as job:
        method = asked["method"]
        ended = job.study.counts().total
        numbers = _numbers(job)
        if not numbers:
            raise RunError(
                f"study {job.study.name}: no trial has a model, so there is nothing to choose from"
            )
        if not isinstance(method, str):
            _check_weights(method, len(numbers), job.study.name)
        with ending(job.parent, job.presence.last):
            return _close(job, method, numbers, ended)


def _unregistered(job: Job) -> bool:
    """Whether a version is asked for that the study has not added yet."""
    name = job.asked["register"]
    return bool(name) and not registry.has_entered(job.parent.client, name, job.parent.run_id)


def _unrefitted(job: Job) -> bool:
    """Whether models trained on all rows are asked for, and the last closing was of others."""
    return job.asked["refit"] and job.parent.tag_of(REFIT) != "true"


def _check_weights(weights: Sequence[float], models: int, study: str) -> None:
    if len(weights) > models:
        raise UserError(
            f"method: must be at most as many weights as study {study} has trials with models, {models}, but"
            f" is {len(weights)} weights"
        )
    if not math.isclose(sum(weights), 1.0):
        print(f"the weights' sum is {sum(weights):.6g}: each is divided by it", flush=True)


def _say_left_to_another(asked: Mapping[str, Any]) -> None:
    """Says who closes the study, and what of this command's wishes that one may not have been given."""
    print("another process trains the study still: it makes the ensemble and the scores", flush=True)
    wishes = [f"register={asked['register']}"] if asked["register"] else []
    wishes += ["refit=true"] if asked["refit"] else []
    if wishes:
        of = " and ".join(wishes)
        print(
            f"{of}: not done by this process; when that one has ended, the same command does it", flush=True
        )


def _say_no_model(job: Job) -> None:
    """Says that there is nothing to choose from; an error where trials failed."""
    if reasons := job.study.reasons():
        raise RunError("no trial completed: " + "; ".join(reasons[:3]))
    print("no trial has a model yet; the same command goes on", flush=True)


def _numbers(job: Job) -> frozenset[int]:
    """The completed trials whose models MLflow has."""
    completed = {str(Member(trial.number)) for trial in job.study.finished()}
    return frozenset(int(label) for label in completed & trials.ended(job.parent, _tag(job)))


def _copies(job: Job) -> frozenset[Member]:
    """The models of completed trials' settings from further seeds."""
    completed = {trial.number for trial in job.study.finished()}
    members = map(Member.of, trials.ended(job.parent, MEMBER))
    return frozenset(member for member in members if member.copy and member.trial in completed)


def _tag(job: Job) -> str:
    """What marks the child runs that hold models: with folds, a trial has none of its own."""
    return MEMBER if len(job.folds) > 1 else TRIAL


def _close(job: Job, method: str | Sequence[float], numbers: frozenset[int], ended: int) -> Result:
    """Makes and keeps all that follows the trials.

    Args:
        job: of the study.
        method: as of `Wish`.
        numbers: of the trials that have a model, at least one.
        ended: how many trials had ended before those were looked for.
    """
    asked = job.asked
    stored = Stored(job.parent, job.data, _tag(job), numbers, _copies(job))
    # Of a search, members are chosen by what it optimises; `ensemble` registers nothing.
    metric, register = asked.get("metric") or "", asked.get("register") or ""
    wish = Wish(method, asked["members"], asked["seed"], metric, asked["export"], register)
    again = partial(training.train_again, job, stored) if asked["refit"] else None
    what = Closing(job.study, job.task, job.data, job.space.objective, stored, ended, again)
    result = what.close(wish)
    job.study.close(ended)
    job.parent.tag({REFIT: str(result.refit).lower()})
    # What is as everywhere says nothing of this one.
    usual = {parameter.name: parameter.default for parameter in job.task.parameters}
    settings = ", ".join(
        f"{name}={_short(value)}"
        for name, value in result.champion.settings.items()
        if name not in usual or value != usual[name]
    )
    print(f"\n{as_text(table(result))}\n\nchampion: {settings}")
    print(f"MLflow run {result.run_id}: models champion and ensemble, report.html", flush=True)
    if result.registered:
        print(f"models:/{result.registered}", flush=True)
    return result


def _say_complete(job: Job) -> None:
    counts = job.study.counts()
    print(
        f"study {job.study.name} is complete: {counts.completed} trials completed, {counts.pruned} pruned,"
        f" {counts.failed} failed. Give more trials= to go on with it, or another study= to start anew.\n"
        f"MLflow run {job.parent.run_id}",
        flush=True,
    )


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
