"""What a command works with: everything checked and opened before the first trial."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline import presence, samplers, source, stops, storage, warm_start
from pipeline import study_opening as studies
from pipeline.datasets import splits
from pipeline.engines import choice
from pipeline.errors import UserError
from pipeline.presence import Presence
from pipeline.source import Source
from pipeline.space import Space
from pipeline.storage import Storage
from pipeline.study import Study
from pipeline.study_opening import Origin
from pipeline.tasks import find
from pipeline.tasks.task import Task
from pipeline.tracking import launched, outbox
from pipeline.tracking.connection import Client, connect
from pipeline.tracking.parent import Parent, ending, open_parent
from pipeline.values import Data


@dataclass(frozen=True)
class Job:
    """Everything a command works with, checked and opened.

    told: what a person should know of how it begins, a line each.
    """

    asked: Mapping[str, Any]
    task: Task
    space: Space
    data: Data
    folds: tuple[Data, ...]
    study: Study
    parent: Parent
    presence: Presence
    told: tuple[str, ...] = ()


@contextlib.contextmanager
def open_search(asked: Mapping[str, Any]) -> Iterator[Job]:
    """The job of a search, new or gone on with; for a block, at whose end its run has its final status.

    Raises:
        UserError: for anything that cannot be used.
    """
    own = source.of(asked)
    name = asked["study"] or source.study_of(asked["task"], own)
    task = find(asked["task"], own)
    choice.check(asked["engine"], task)
    if asked["warm_start"]:
        warm_start.check(asked["warm_start"], name, asked["sampler"])
    space = task.read_space(asked["space"]).with_epochs(asked["epochs"])
    samplers.check(asked["sampler"], asked["pruner"], asked["folds"], space.searched)
    given = {part: value for part, value in vars(own).items() if value != vars(Source())[part]}
    start = Origin(
        asked["task"],
        asked["size"],
        asked["folds"],
        asked["epochs"],
        space.file.name,
        space.text,
        given,
        asked["precision"],
    )
    url = asked["storage"] or ""
    warm = None
    if asked["warm_start"] and not warm_start.is_had(asked["warm_start"], url, name):
        warm = warm_start.find(asked["warm_start"], url, start.task, space)
    # Before the first file is made: a store that does not answer leaves nothing behind.
    client = connect()
    launched.sign(client, storage.home(launched.HOME))
    with storage.ours(url, name, asked["wait"] or 0.0):
        outbox.check_left(storage.home(name) / outbox.HOME)
        data = task.load(start.size)
        folds = splits.folds(data, start.folds)
        with (
            storage.connected(url, name) as store,
            presence.shown(store, url, name) as shown,
            contextlib.ExitStack() as until_its_end,
        ):
            found = _Found(name, start, task, space, data, folds)
            study = _study(asked, found, store)
            # A stop may come between, but not between a run and what will end it.
            with study.alone(), stops.put_off():
                parent = _parent(client, found, study)
                until_its_end.enter_context(ending(parent, shown.last))
            stops.check()
            job = _job(asked, found, study, parent, shown)
            if warm and job.study.start_from(warm.study, warm.starts):
                job = replace(job, told=warm.told)
            yield job


@contextlib.contextmanager
def open_existing(asked: Mapping[str, Any]) -> Iterator[Job]:
    """The job of a study that is there, with the task, space and data it was started with; for a block.

    Its run is as it was, until `ending`.

    Raises:
        UserError: there is no such study or run, it cannot be opened, or `metric` is none of its task's.
    """
    name, url = asked["study"], asked["storage"] or ""
    storage.check_there(url, name)
    with storage.ours(url, name), storage.connected(url, name) as store:
        client = connect()
        start = studies.origin_of(name, store)
        task = find(start.task, source.read(start.source))
        names = [metric.name for metric in task.metrics]
        if (metric := asked.get("metric")) and metric not in names:
            raise UserError(
                f"metric: must be one of task {task.name}'s, {', '.join(names)}, but is {metric!r}"
            )
        file = Path(start.space_file)
        space = task.parse_space(start.space_text, file).with_epochs(start.epochs)
        data = task.load(start.size)
        folds = splits.folds(data, start.folds)
        # Nothing is asked of a study that is only read.
        settled = {**asked, "sampler": "random", "pruner": "none", "seed": 0}
        # Models may be trained again.
        kept = {"engine": "auto", "lanes": None, "trials": 1, "callbacks": (), "precision": start.precision}
        settled |= kept
        found = _Found(name, start, task, space, data, folds)
        study = _study(settled, found, store)
        if not study.parent_run:
            raise UserError(f"study {name}: has no MLflow run yet; search makes one")
        parent = _parent(client, found, study)
        yield _job(settled, found, study, parent, presence.looking(store, url, name))


@dataclass(frozen=True)
class _Found:
    """What a job is made of before anything is opened."""

    name: str
    start: Origin
    task: Task
    space: Space
    data: Data
    folds: tuple[Data, ...]


def _study(asked: Mapping[str, Any], found: _Found, store: Storage) -> Study:
    return studies.open_study(
        found.name,
        store,
        found.space,
        found.start,
        studies.described(found.data),
        pruner=asked["pruner"],
        sampler=asked["sampler"],
        seed=asked["seed"],
    )


def _parent(client: Client, found: _Found, study: Study) -> Parent:
    """The study's run, which its record names from now on; another process must not be in this, too."""
    known = study.parent_run
    parent = open_parent(client, found.name, found.task.name, known, "" if known else study.key())
    study.set_parent_run(parent.run_id)
    return parent


def _job(asked: Mapping[str, Any], found: _Found, study: Study, parent: Parent, presence: Presence) -> Job:
    return Job(asked, found.task, found.space, found.data, found.folds, study, parent, presence)
