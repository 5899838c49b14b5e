"""What a command works with: everything checked and opened before the first trial."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline import presence, samplers, source, storage, warm_start
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
from pipeline.tracking import outbox
from pipeline.tracking.connection import Client, connect
from pipeline.tracking.parent import Parent, open_parent
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
    """The job of a search, new or gone on with; for a block.

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
    warm = warm_start.find(asked["warm_start"], url, start.task, space) if asked["warm_start"] else None
    # Before the first file is made: a store that does not answer leaves nothing behind.
    client = connect()
    with storage.ours(url, name, asked["wait"] or 0.0):
        outbox.check_left(storage.home(name) / outbox.HOME)
        data = task.load(start.size)
        folds = splits.folds(data, start.folds)
        with storage.connected(url, name) as store, presence.shown(store, url, name) as shown:
            job = _open(asked, _Found(name, start, task, space, data, folds), store, client, shown)
            if warm and job.study.start_from(warm.study, warm.starts):
                job = replace(job, told=warm.told)
            yield job


@contextlib.contextmanager
def open_existing(asked: Mapping[str, Any]) -> Iterator[Job]:
    """The job of a study that is there, with the task, space and data it was started with; for a block.

    Raises:
        UserError: there is no such study, it cannot be opened, or `metric` is none of its task's.
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
        yield _open(settled, found, store, client, presence.looking(store, url, name))


@dataclass(frozen=True)
class _Found:
    """What a job is made of before anything is opened."""

    name: str
    start: Origin
    task: Task
    space: Space
    data: Data
    folds: tuple[Data, ...]


def _open(asked: Mapping[str, Any], found: _Found, store: Storage, client: Client, presence: Presence) -> Job:
    study = studies.open_study(
        found.name,
        store,
        found.space,
        found.start,
        studies.described(found.data),
        pruner=asked["pruner"],
        sampler=asked["sampler"],
        seed=asked["seed"],
    )
    with study.alone():
        parent = open_parent(client, found.name, found.task.name, study.parent_run)
        study.set_parent_run(parent.run_id)
    return Job(asked, found.task, found.space, found.data, found.folds, study, parent, presence)
