"""The command `ablate`: trains all arms from the same seeds, scores them once, and says what differs."""

import contextlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import source, stops, storage
from pipeline import study_opening as studies
from pipeline.ablation import differences, page, plan, training
from pipeline.ablation.differences import Difference
from pipeline.ablation.plan import Group
from pipeline.ablation.training import Stage
from pipeline.engines import choice
from pipeline.errors import RunError, UserError
from pipeline.provenance import record_program
from pipeline.report.page import as_text
from pipeline.space import Space
from pipeline.tasks import find
from pipeline.tasks.task import Task
from pipeline.tracking.connection import connect
from pipeline.tracking.parent import ENGINE, TASK, Parent, ending, open_parent
from pipeline.values import Metric, Settings

ABLATION = "pipeline.ablation"
"""A tag of the parent: the task."""

_TITLE = "What each technique is worth"


@dataclass(frozen=True)
class _Champion:
    """The best trial that a study's sampler drew."""

    study: str
    trial: int
    settings: Settings


def ablate(asked: Mapping[str, Any]) -> list[Difference]:
    """Trains every arm from every seed, scores all on the test rows, and records what differs.

    Raises:
        UserError: before the first training.
        RunError: MLflow cannot be written any more, or no training completed.
    """
    own = source.of(asked)
    task = find(asked["task"], own)
    choice.check(asked["engine"], task)
    space = task.read_space(asked["space"]).with_epochs(asked["epochs"])
    champion = _champion(asked, task, space)
    groups = plan.groups(space, champion.settings if champion else None)
    if not groups:
        raise UserError(f"{space.file} [baseline]: an ablation needs a baseline, comparisons, or a study=")
    stages = list(training.planned(asked, task, space, _chosen(asked["groups"], groups)))
    client = connect()
    with contextlib.ExitStack() as until_its_end, tempfile.TemporaryDirectory(prefix="regatta-") as folder:
        with stops.put_off():
            parent = open_parent(client, f"{task.name} ablation", task.name, "")
            until_its_end.enter_context(ending(parent))
        stops.check()
        _record_start(parent, asked, task, stages, champion)
        for stage in stages:
            training.train(asked, task, stage, parent, Path(folder))
        # After every training of every stage: nothing that is trained can follow from a score.
        for stage in stages:
            training.score(task, stage)
        return _close(parent, task, space, stages, Path(folder))


def _champion(asked: Mapping[str, Any], task: Task, space: Space) -> _Champion | None:
    """The champion of the study that was asked for, or of the task's own; None if that one is not there.

    Raises:
        UserError: what was asked for is not there, or has no trial that the sampler drew.
    """
    name, url = asked["study"] or source.study_of(asked["task"], task.source), asked["storage"] or ""
    if asked["study"]:
        storage.check_there(url, name)
    elif not storage.is_there(url, name):
        return None
    with storage.connected(url, name) as store:
        if not asked["study"] and not studies.is_there(name, store):
            return None
        best = studies.best_drawn(name, store, asked["task"])
    if best is None:
        if asked["study"]:
            raise UserError(f"study {name}: no trial that the sampler drew completed, so it has no champion")
        return None
    return _Champion(name, best[0], space.published(best[1]))


def _chosen(asked: tuple[str, ...], groups: tuple[Group, ...]) -> tuple[Group, ...]:
    """Those groups that were asked for by name.

    Raises:
        UserError: there is no such group here.
    """
    short = {plan.ADDED: "added", plan.TAKEN: "taken"}
    names = {group.name: short.get(group.name, group.name) for group in groups}
    for name in asked:
        if name not in ("all", *names.values()):
            more = "; taken needs a study" if name == "taken" else ""
            raise UserError(f"groups: must be all, or of {', '.join(names.values())}, but is {name!r}{more}")
    return tuple(group for group in groups if "all" in asked or names[group.name] in asked)


def _close(parent: Parent, task: Task, space: Space, stages: list[Stage], folder: Path) -> list[Difference]:
    shown = _shown_metrics(task, space)
    found: dict[str, list[Difference]] = {}
    missing: list[str] = []
    for stage in stages:
        for group in stage.groups:
            scores = {
                arm.name: {
                    one.repeat: one.scores
                    for one in stage.trainings
                    if training.key(group, arm) in one.names and one.scores
                }
                for arm in group.arms
            }
            found[group.name] = differences.of_group(group, scores, [metric.name for metric in task.metrics])
            missing += [training.key(group, arm) for arm in group.arms if not scores[arm.name]]
    every = [difference for group in found.values() for difference in group]
    if not every:
        raise RunError("no two arms have a seed that both finished with, so there is nothing to compare")
    parent.text(page.as_csv(found), "ablation.csv")
    parent.metrics(page.as_metrics(found))
    for file in page.draw(folder, f"{_TITLE}: {task.name}", found, shown, missing):
        parent.file(file, None if file.suffix == ".html" else "plots")
    for name, rows in found.items():
        print(f"\n{name}\n{as_text(page.table(rows, shown))}")
    if missing:
        print(f"\n{page.MISSING}: {', '.join(missing)}")
    print(f"\nMLflow run {parent.run_id}: ablation.csv, ablation.html", flush=True)
    return every


def _shown_metrics(task: Task, space: Space) -> list[Metric]:
    """The objective's, and accuracy beside it."""
    names = [space.objective.metric.removeprefix("val_"), "accuracy"]
    return [metric for metric in task.metrics if metric.name in names] or [task.metrics[-1]]


def _record_start(
    parent: Parent, asked: Mapping[str, Any], task: Task, stages: list[Stage], champion: _Champion | None
) -> None:
    parent.tag({ABLATION: task.name, TASK: task.name, ENGINE: choice.name_of(asked["engine"])})
    record_program(parent)
    names = ("seeds", "seed", "size", "epochs", "groups", "precision")
    params = {f"ablation.{name}": _shown(asked[name]) for name in names}
    if champion:
        params |= {"ablation.study": champion.study, "ablation.champion": f"trial {champion.trial}"}
        print(f"champion: trial {champion.trial} of the study {champion.study}, the best one drawn")
    parent.params(params)
    for stage in stages:
        parent.data(stage.data)
    parent.text(stages[0].space.text, f"search_space/{stages[0].space.file.name}")


def _shown(value: Any) -> str:
    if value is None:
        return "the space file's"
    return ", ".join(value) if isinstance(value, tuple) else str(value)
