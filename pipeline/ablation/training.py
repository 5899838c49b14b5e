"""The trainings of an ablation: which arms from which seeds, how they are trained, and their scores."""

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline import loop
from pipeline.ablation.plan import Arm, Group
from pipeline.engines import choice
from pipeline.engines.choice import Order
from pipeline.engines.engine import Event, Interrupted
from pipeline.evaluation.scoring import values_of
from pipeline.progress import ProgressLine
from pipeline.secrets import redacted
from pipeline.seeds import derived
from pipeline.space import Space
from pipeline.tasks.task import Task
from pipeline.tracking.apart import opened_writer
from pipeline.tracking.parent import Parent
from pipeline.tracking.recorder import FAILED, FINISHED, KILLED, SEED, Recorder
from pipeline.values import Candidate, Data, Outcome, Progress, Replay, Settings

ARM, REPEAT = "pipeline.arm", "pipeline.repeat"
"""Tags of a training's run: the arm, and the number of the seed that its pairs share."""

_KEPT = "scores are made last, so there are none: run the same command again"


@dataclass
class Training:
    """One arm from one seed. names: of the arms with these settings, in all groups."""

    number: int
    settings: Settings
    repeat: int
    seed: int
    names: list[str]
    model: Path | None = None
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """Groups that are trained on the same rows for as long."""

    groups: tuple[Group, ...]
    space: Space
    data: Data
    trainings: list[Training]


def planned(asked: Mapping[str, Any], task: Task, space: Space, groups: tuple[Group, ...]) -> Iterator[Stage]:
    """The groups by what they are trained on, each arm from every seed."""
    kinds = [(group.size or asked["size"], asked["epochs"] or group.epochs) for group in groups]
    number = 0
    for kind in dict.fromkeys(kinds):
        own = tuple(group for group, its in zip(groups, kinds, strict=True) if its == kind)
        trainings: list[Training] = []
        for settings, names in _distinct(own):
            for repeat in range(asked["seeds"]):
                seed = derived(asked["seed"], repeat)
                trainings.append(Training(number, settings, repeat, seed, names))
                number += 1
        yield Stage(own, space.with_epochs(kind[1]), task.load(kind[0]), trainings)


def _distinct(groups: tuple[Group, ...]) -> list[tuple[Settings, list[str]]]:
    """Each settings once, with the arms that have them."""
    found: list[tuple[Settings, list[str]]] = []
    for group in groups:
        for arm in group.arms:
            names = next((names for settings, names in found if settings == arm.settings), None)
            if names is None:
                names = []
                found.append((arm.settings, names))
            names.append(key(group, arm))
    return found


def key(group: Group, arm: Arm) -> str:
    """An arm's name among those of all groups."""
    return f"{group.name}: {arm.name}"


def train(asked: Mapping[str, Any], task: Task, stage: Stage, parent: Parent, folder: Path) -> None:
    """Trains a stage; models that were trained are in the folder."""
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
        own_orders=True,
        own_fit=task.fit,
        precision=asked["precision"],
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
            # Arms of one seed share their row orders, whatever else their models draw, and seeds do not:
            # otherwise an interval would know nothing of them.
            orders = Replay(training.seed, 0, 0, lanes=1)
            return Candidate(training.number, training.seed, training.settings, orders)

        def handle(event: Event) -> bool:
            if isinstance(event, Progress):
                recorder.epoch(event)
                progress.epoch(event)
            elif isinstance(event, Outcome):
                _end(event, by_number[event.number], recorder, progress, folder)
            elif isinstance(event, Interrupted):
                interrupt(event.number, event.reason)
                waiting.append(by_number[event.number])
            return isinstance(event, Outcome | Interrupted)

        def interrupt(number: int, reason: str) -> None:
            recorder.end(number, KILLED, reason=reason)

        try:
            loop.drive(engine, ask, handle, interrupt)
        finally:
            progress.close()


def _end(
    outcome: Outcome, training: Training, recorder: Recorder, progress: ProgressLine, folder: Path
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


def score(task: Task, stage: Stage) -> None:
    """Scores every model of a stage on its test rows; models of equal settings share what is compiled."""
    trained: dict[str, list[tuple[Training, Path]]] = {}
    for training in stage.trainings:
        if training.model:
            trained.setdefault(training.names[0], []).append((training, training.model))
    files = [[file for _, file in group] for group in trained.values()]
    values = values_of(stage.data, files, task.metrics)
    for group, scores in zip(trained.values(), values, strict=True):
        for (training, _), found in zip(group, scores, strict=True):
            training.scores = found


def _greeting(task: Task, stage: Stage, parent: Parent, asked: Mapping[str, Any]) -> str:
    names = ", ".join(group.name for group in stage.groups)
    return (
        f"ablation of {task.name}: {names} | {len(stage.trainings)} trainings, {asked['seeds']} seeds each,"
        f" {stage.data.train.rows} rows, up to {stage.space.budget.epochs} epochs\n"
        f"engine {choice.described(asked['engine'], asked['precision'])} | MLflow {redacted(parent.store)},"
        f" run {parent.run_id}"
    )
