"""The command `ablate`: trains all arms from the same seeds, scores them once, and says what differs."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline import evaluation, loop, storage
from pipeline import space as spaces
from pipeline import study_opening as studies
from pipeline.ablation import differences, page, plan
from pipeline.ablation.differences import Difference
from pipeline.ablation.plan import Arm, Group
from pipeline.engines import choice
from pipeline.engines.choice import Order
from pipeline.engines.engine import Event
from pipeline.errors import RunError, UserError
from pipeline.progress import ProgressLine
from pipeline.provenance import record_program
from pipeline.report.page import as_text
from pipeline.secrets import redacted
from pipeline.seeds import derived
from pipeline.space import Space
from pipeline.tasks import find
from pipeline.tasks.task import Task
from pipeline.tracking.apart import opened_writer
from pipeline.tracking.connection import connect
from pipeline.tracking.parent import ENGINE, TASK, Parent, ending, open_parent
from pipeline.tracking.recorder import FAILED, FINISHED, KILLED, SEED, Recorder
from pipeline.values import Candidate, Data, Metric, Outcome, Progress, Settings

ABLATION, ARM, REPEAT = "pipeline.ablation", "pipeline.arm", "pipeline.repeat"
"""Tags: on the parent the task; on a child run the arm, and the number of the seed that its pairs share."""

_TITLE = "What each technique is worth"
_KEPT = "scores are made last, so there are none: run the same command again"


@dataclass
class _Training:
    """One arm from one seed. names: of the arms with these settings, in all groups."""

    number: int
    settings: Settings
    repeat: int
    seed: int
    names: list[str]
    model: Path | None = None
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Champion:
    """The best trial that a study's sampler drew."""

    study: str
    trial: int
    settings: Settings


@dataclass(frozen=True)
class _Stage:
    """Groups that are trained on the same rows for as long."""

    groups: tuple[Group, ...]
    space: Space
    data: Data
    trainings: list[_Training]


def ablate(asked: Mapping[str, Any]) -> list[Difference]:
    """Trains every arm from every seed, scores all on the test rows, and records what differs.

    Raises:
        UserError: before the first training.
        RunError: MLflow cannot be written any more, or no training completed.
    """
    task = find(asked["task"])
    file = Path(asked["space"]) if asked["space"] else spaces.file_of(asked["task"])
    space = spaces.read(file, task.parameters, task.metrics).with_epochs(asked["epochs"])
    champion = _champion(asked, task, space)
    groups = plan.groups(space, champion.settings if champion else None)
    if not groups:
        raise UserError(f"{file} [baseline]: an ablation needs a baseline, comparisons, or a study=")
    stages = list(_stages(asked, task, space, _chosen(asked["groups"], groups)))
    parent = open_parent(connect(), f"{task.name} ablation", task.name, "")
    with ending(parent), tempfile.TemporaryDirectory(prefix="regatta-") as folder:
        _record_start(parent, asked, task, stages, champion)
        for stage in stages:
            _train(asked, task, stage, parent, Path(folder))
        # After every training of every stage: nothing that is trained can follow from a score.
        for stage in stages:
            _score(task, stage)
        return _close(parent, task, space, stages, Path(folder))


def _champion(asked: Mapping[str, Any], task: Task, space: Space) -> _Champion | None:
    """The champion of the study that was asked for, or of the task's own; None if that one is not there.

    Raises:
        UserError: what was asked for is not there, or has no trial that the sampler drew.
    """
    name, url = asked["study"] or task.name, asked["storage"] or ""
    if not asked["study"] and not storage.is_there(url, name):
        return None
    storage.check_there(url, name)
    with storage.connected(url, name) as store:
        if not asked["study"] and not studies.is_there(name, store):
            return None
        best = studies.best_drawn(name, store, task.name)
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


def _stages(
    asked: Mapping[str, Any], task: Task, space: Space, groups: tuple[Group, ...]
) -> Iterator[_Stage]:
    kinds = [(group.size or asked["size"], asked["epochs"] or group.epochs) for group in groups]
    number = 0
    for kind in dict.fromkeys(kinds):
        own = tuple(group for group, its in zip(groups, kinds, strict=True) if its == kind)
        trainings: list[_Training] = []
        for settings, names in _distinct(own):
            for repeat in range(asked["seeds"]):
                seed = derived(asked["seed"], repeat)
                trainings.append(_Training(number, settings, repeat, seed, names))
                number += 1
        yield _Stage(own, space.with_epochs(kind[1]), task.load(kind[0]), trainings)


def _distinct(groups: tuple[Group, ...]) -> list[tuple[Settings, list[str]]]:
    """Each settings once, with the arms that have them."""
    found: list[tuple[Settings, list[str]]] = []
    for group in groups:
        for arm in group.arms:
            names = next((names for settings, names in found if settings == arm.settings), None)
            if names is None:
                names = []
                found.append((arm.settings, names))
            names.append(_key(group, arm))
    return found


def _key(group: Group, arm: Arm) -> str:
    return f"{group.name}: {arm.name}"


def _train(asked: Mapping[str, Any], task: Task, stage: _Stage, parent: Parent, folder: Path) -> None:
    by_number = {training.number: training for training in stage.trainings}
    waiting = list(stage.trainings)
    progress = ProgressLine(stage.space.objective, len(waiting), 0, None)
    progress.say(_greeting(task, stage, parent, asked))
    order = Order(
        asked["engine"],
        task.build,
        (stage.data,),
        None,
        stage.space.budget,
        stage.space.objective,
        asked["lanes"],
        asked["seed"],
        len(waiting),
        # Arms of one seed share it, and seeds do not: otherwise an interval would know nothing of it.
        own_orders=True,
    )
    with (
        opened_writer(lanes=choice.name_of(asked["engine"]) == "lanes") as apart,
        choice.opened(order) as engine,
        contextlib.closing(Recorder(parent, 1, apart, kept=_KEPT)) as recorder,
    ):

        def ask() -> Candidate | None:
            if not waiting:
                return None
            training = waiting.pop(0)
            tags = {ARM: training.names[0], REPEAT: str(training.repeat), SEED: str(training.seed)}
            recorder.start(
                training.number, f"{training.names[0]}, seed {training.repeat}", training.settings, tags
            )
            return Candidate(training.number, training.seed, training.settings)

        def handle(event: Event) -> bool:
            if isinstance(event, Progress):
                recorder.epoch(event)
                progress.epoch(event)
            elif isinstance(event, Outcome):
                _end(event, by_number[event.number], recorder, progress, folder)
            return isinstance(event, Outcome)

        def interrupt(number: int, reason: str) -> None:
            recorder.end(number, KILLED, reason=reason)

        try:
            loop.drive(engine, ask, handle, interrupt)
        finally:
            progress.close()


def _end(
    outcome: Outcome, training: _Training, recorder: Recorder, progress: ProgressLine, folder: Path
) -> None:
    if outcome.failure or outcome.model_file is None:
        recorder.end(outcome.number, FAILED, reason=outcome.failure, detail=outcome.detail)
        progress.trial(outcome.number, f"failed: {outcome.failure}", None)
        return
    training.model = folder / f"{outcome.number}.keras"
    shutil.move(outcome.model_file, training.model)
    recorder.end(
        outcome.number, FINISHED, metrics={"best_epoch": outcome.best_epoch, "epochs": outcome.epochs}
    )
    progress.trial(outcome.number, f"{training.names[0]}, seed {training.repeat}", outcome.value)


def _score(task: Task, stage: _Stage) -> None:
    """Scores every model of a stage on its test rows; models of equal settings share what is compiled."""
    trained: dict[str, list[tuple[_Training, Path]]] = {}
    for training in stage.trainings:
        if training.model:
            trained.setdefault(training.names[0], []).append((training, training.model))
    files = [[file for _, file in group] for group in trained.values()]
    values = evaluation.values_of(stage.data, files, task.metrics)
    for group, scores in zip(trained.values(), values, strict=True):
        for (training, _), found in zip(group, scores, strict=True):
            training.scores = found


def _close(parent: Parent, task: Task, space: Space, stages: list[_Stage], folder: Path) -> list[Difference]:
    shown = _shown_metrics(task, space)
    found: dict[str, list[Difference]] = {}
    missing: list[str] = []
    for stage in stages:
        for group in stage.groups:
            scores = {
                arm.name: {
                    training.repeat: training.scores
                    for training in stage.trainings
                    if _key(group, arm) in training.names and training.scores
                }
                for arm in group.arms
            }
            found[group.name] = differences.of_group(group, scores, [metric.name for metric in task.metrics])
            missing += [_key(group, arm) for arm in group.arms if not scores[arm.name]]
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
    parent: Parent, asked: Mapping[str, Any], task: Task, stages: list[_Stage], champion: _Champion | None
) -> None:
    parent.tag({ABLATION: task.name, TASK: task.name, ENGINE: choice.name_of(asked["engine"])})
    record_program(parent)
    names = ("seeds", "seed", "size", "epochs", "groups")
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


def _greeting(task: Task, stage: _Stage, parent: Parent, asked: Mapping[str, Any]) -> str:
    names = ", ".join(group.name for group in stage.groups)
    return (
        f"ablation of {task.name}: {names} | {len(stage.trainings)} trainings, {asked['seeds']} seeds each,"
        f" {stage.data.train.rows} rows, up to {stage.space.budget.epochs} epochs\n"
        f"engine {choice.described(asked['engine'])} | MLflow {redacted(parent.store)}, run {parent.run_id}"
    )
