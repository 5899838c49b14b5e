"""The commands, each from its checked parameters to what it leaves in MLflow."""

import contextlib
import importlib.metadata
import json
import math
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline import loop, options, samplers, storage
from pipeline import space as spaces
from pipeline import study as studies
from pipeline.closing import Closing, Result, as_text, table
from pipeline.datasets import splits
from pipeline.engines.fit import FitEngine
from pipeline.errors import RunError
from pipeline.finalists import train
from pipeline.progress import ProgressLine
from pipeline.space import Space
from pipeline.study import Origin, Study
from pipeline.tasks import find
from pipeline.tasks.task import Task
from pipeline.tracking import trials
from pipeline.tracking.connection import connect, redacted
from pipeline.tracking.parent import ENGINE, STUDY, TASK, Parent, open_parent, origin
from pipeline.tracking.recorder import MEMBER, TRIAL, Recorder
from pipeline.values import Data

_PACKAGES = ("keras", "tensorflow", "jax", "optuna", "mlflow", "numpy", "pandas", "scikit-learn")


@dataclass(frozen=True)
class _Job:
    """Everything a command works with, checked and opened."""

    asked: Mapping[str, Any]
    task: Task
    space: Space
    data: Data
    folds: tuple[Data, ...]
    study: Study
    parent: Parent


def search(asked: Mapping[str, Any]) -> Result | None:
    """Study -> trials -> ensemble -> report, all in MLflow.

    Returns:
        What was found; None if the study was complete already, or no trial finished in the time given.

    Raises:
        UserError: before the first trial.
        RunError: no trial completed, or MLflow cannot be written any more.
    """
    job = _open_search(asked)
    with _ending(job.parent):
        if not job.study.remaining(asked["trials"]) and job.study.closed:
            _say_complete(job)
            return None
        _record_origin(job)
        _train_trials(job)
        counts = job.study.counts()
        if not counts.completed:
            return _nothing_completed(job)
        return _close(job, "greedy")


def ensemble(asked: Mapping[str, Any]) -> Result:
    """Makes the ensemble of a study again, by another method or of another size."""
    job = _open_existing(asked)
    with _ending(job.parent):
        if not job.study.counts().completed:
            raise RunError(f"study {job.study.name}: no trial has completed, so there is nothing to choose from")
        return _close(job, asked["method"])


def _open_search(asked: Mapping[str, Any]) -> _Job:
    name = asked["study"] or asked["task"]
    file = Path(asked["space"]) if asked["space"] else spaces.file_of(asked["task"])
    task = find(asked["task"])
    space = spaces.read(file, task.parameters, task.metrics).with_epochs(asked["epochs"])
    samplers.check(asked["sampler"], asked["pruner"], asked["folds"], space.searched)
    start = Origin(task.name, asked["size"], asked["folds"], asked["epochs"], file.name, space.text)
    return _open(name, asked, start, task, space)


def _open_existing(asked: Mapping[str, Any]) -> _Job:
    name = asked["study"]
    start = studies.origin_of(name, storage.connect(asked["storage"] or "", name))
    task = find(start.task)
    file = Path(start.space_file)
    space = spaces.parse(start.space_text, file, task.parameters, task.metrics).with_epochs(start.epochs)
    return _open(name, {**asked, "sampler": "random", "pruner": "none", "seed": 0}, start, task, space)


def _open(name: str, asked: Mapping[str, Any], start: Origin, task: Task, space: Space) -> _Job:
    data = task.load(start.size)
    folds = splits.folds(data, start.folds)
    client = connect()
    study = studies.open_study(
        name,
        storage.connect(asked["storage"] or "", name),
        space,
        start,
        ", ".join(f"{split} {digest[:12]}" for split, digest in data.digests.items()),
        pruner=asked["pruner"],
        sampler=asked["sampler"],
        seed=asked["seed"],
    )
    parent = open_parent(client, name, task.name, study.parent_run)
    study.set_parent_run(parent.run_id)
    return _Job(asked, task, space, data, folds, study, parent)


def _train_trials(job: _Job) -> None:
    asked, study = job.asked, job.study
    counts, best = study.counts(), study.finished()[:1]
    deadline = time.monotonic() + asked["timeout"] if asked["timeout"] else math.inf
    progress = ProgressLine(
        job.space.objective,
        counts.total + study.remaining(asked["trials"]),
        counts.total,
        (best[0].value, best[0].number) if best else None,
    )
    progress.say(_greeting(job))
    with _engine(job, job.folds) as engine, contextlib.closing(Recorder(job.parent, len(job.folds))) as recorder:
        rooms = loop.Rooms(study, engine, recorder, progress, asked["pruner"], len(job.folds))
        started = time.monotonic()
        try:
            loop.run(rooms, asked["trials"], deadline)
        finally:
            progress.close()
            _record_counts(job, counts.total, time.monotonic() - started)
    if len(job.folds) > 1:
        _train_finalists(job)
    if study.remaining(asked["trials"]):
        progress.say(f"the time is over with {study.counts().total} of {asked['trials']} trials; the same command goes on")


def _train_finalists(job: _Job) -> None:
    finished = job.study.finished()
    wanted = [trial for place, trial in enumerate(finished) if place < job.asked["members"] or trial.baseline]
    there = trials.finished(job.parent, MEMBER)
    with _engine(job, (job.data,)) as engine, contextlib.closing(Recorder(job.parent, 1)) as recorder:
        train([trial for trial in wanted if trial.number not in there], engine, recorder)


def _close(job: _Job, method: str) -> Result:
    tag = MEMBER if len(job.folds) > 1 else TRIAL
    numbers = frozenset(trials.finished(job.parent, tag))
    closing = Closing(job.study, job.task, job.data, job.space.objective, job.parent, tag, numbers)
    result = closing.close(method, job.asked["members"], job.asked["seed"])
    job.study.close()
    settings = ", ".join(f"{name}={_short(value)}" for name, value in result.champion.settings.items())
    print(f"\n{as_text(table(result))}\n\nchampion: {settings}")
    print(f"MLflow run {result.run_id}: models champion and ensemble, report.html", flush=True)
    return result


@contextlib.contextmanager
def _engine(job: _Job, folds: tuple[Data, ...]) -> Iterator[FitEngine]:
    """The engine with a folder for the models it makes, beside the study's journal."""
    home = storage.home(job.study.name)
    home.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=home, prefix="training-") as folder:
        engine = FitEngine(job.task.build, folds, job.space.budget, job.space.objective, Path(folder))
        with contextlib.closing(engine):
            yield engine


@contextlib.contextmanager
def _ending(parent: Parent) -> Iterator[None]:
    """Gives the parent run its final status, however the command ends."""
    try:
        yield
    except KeyboardInterrupt:
        parent.end("KILLED", "interrupted")
        raise
    except BaseException as error:
        with contextlib.suppress(Exception):  # the store itself may be what failed; the first error counts
            parent.end("FAILED", str(error).splitlines()[0] if str(error) else type(error).__name__)
        raise
    parent.end("FINISHED")


def _record_origin(job: _Job) -> None:
    """What the study is and what made it; what cannot change is logged once, as params."""
    parent, space = job.parent, job.space
    versions = {package: _version(package) for package in _PACKAGES}
    versions = {package: version for package, version in versions.items() if version}
    parent.tag({
        STUDY: job.study.name,
        TASK: job.task.name,
        ENGINE: "fit",
        "pipeline.sampler": samplers.described(job.asked["sampler"], space.searched),
        "pipeline.pruner": job.asked["pruner"],
        "pipeline.seed": str(job.asked["seed"]),
        **{f"version.{package}": version for package, version in versions.items()},
        **origin(_commit()),
    })
    parent.text(json.dumps(versions, indent=2), "versions.json")
    if not parent.resumed:
        parent.params({
            "objective.metric": space.objective.metric,
            "objective.direction": space.objective.direction,
            **{f"budget.{key}": str(value) for key, value in vars(space.budget).items()},
            "study.folds": str(len(job.folds)),
            "study.size": str(job.asked["size"]),
        })
        parent.data(job.data)
        parent.text(space.text, f"search_space/{space.file.name}")


def _record_counts(job: _Job, before: int, seconds: float) -> None:
    counts = job.study.counts()
    job.parent.metrics({
        "trials_completed": counts.completed,
        "trials_pruned": counts.pruned,
        "trials_failed": counts.failed,
        **({"trials_per_hour": (counts.total - before) / seconds * 3600} if counts.total > before else {}),
    })


def _nothing_completed(job: _Job) -> None:
    reasons = job.study.reasons()
    if reasons:
        raise RunError("no trial completed: " + "; ".join(reasons[:3]))
    return None


def _say_complete(job: _Job) -> None:
    counts = job.study.counts()
    print(
        f"study {job.study.name} is complete: {counts.completed} trials completed, {counts.pruned} pruned,"
        f" {counts.failed} failed. Give more trials= to go on with it, or another study= to start anew.\n"
        f"MLflow run {job.parent.run_id}",
        flush=True,
    )


def _greeting(job: _Job) -> str:
    import keras

    counts, asked = job.study.counts(), job.asked
    gone_on = f", {counts.total} trials there" if counts.total else ""
    return (
        f"study {job.study.name}{gone_on} | task {job.task.name}: {job.data.train.rows} rows to learn from,"
        f" {job.data.validation.rows} to choose by\n"
        f"engine fit on {keras.backend.backend()} | sampler"
        f" {samplers.described(asked['sampler'], job.space.searched)} | pruner {asked['pruner']}\n"
        f"MLflow {redacted(job.parent.store)}, run {job.parent.run_id}"
    )


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _commit() -> str:
    """The commit of this program's checkout, or empty outside of one."""
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
