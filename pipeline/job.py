"""What a command works with: everything checked and opened before the first trial."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import samplers, storage
from pipeline import space as spaces
from pipeline import study_opening as studies
from pipeline.datasets import splits
from pipeline.space import Space
from pipeline.study import Study
from pipeline.study_opening import Origin
from pipeline.tasks import find
from pipeline.tasks.task import Task
from pipeline.tracking.connection import connect
from pipeline.tracking.parent import Parent, open_parent
from pipeline.values import Data


@dataclass(frozen=True)
class Job:
    """Everything a command works with, checked and opened."""

    asked: Mapping[str, Any]
    task: Task
    space: Space
    data: Data
    folds: tuple[Data, ...]
    study: Study
    parent: Parent


def open_search(asked: Mapping[str, Any]) -> Job:
    """The job of a search, new or gone on with.

    Raises:
        UserError: for anything that cannot be used.
    """
    name = asked["study"] or asked["task"]
    file = Path(asked["space"]) if asked["space"] else spaces.file_of(asked["task"])
    task = find(asked["task"])
    space = spaces.read(file, task.parameters, task.metrics).with_epochs(asked["epochs"])
    samplers.check(asked["sampler"], asked["pruner"], asked["folds"], space.searched)
    start = Origin(task.name, asked["size"], asked["folds"], asked["epochs"], file.name, space.text)
    return _open(name, asked, start, task, space)


def open_existing(asked: Mapping[str, Any]) -> Job:
    """The job of a study that is there, with the task, space and data it was started with.

    Raises:
        UserError: there is no such study, or it cannot be opened.
    """
    name = asked["study"]
    storage.check_there(asked["storage"] or "", name)
    start = studies.origin_of(name, storage.connect(asked["storage"] or "", name))
    task = find(start.task)
    file = Path(start.space_file)
    space = spaces.parse(start.space_text, file, task.parameters, task.metrics).with_epochs(start.epochs)
    return _open(name, {**asked, "sampler": "random", "pruner": "none", "seed": 0}, start, task, space)


def _open(name: str, asked: Mapping[str, Any], start: Origin, task: Task, space: Space) -> Job:
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
    return Job(asked, task, space, data, folds, study, parent)
