"""The command `report`: the report of a study once more, of what its record and MLflow hold.

Nothing is trained, no test row is looked at, and MLflow is left as it is: scores are those of the last
closing, and pictures that only that could draw are taken as they were kept. A study that has had no closing
yet is told of by its trials so far.
"""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import source, storage
from pipeline import study_opening as studies
from pipeline.engines.engine import PREDICTIONS_FILE
from pipeline.errors import RunError, UserError
from pipeline.evaluation import reading
from pipeline.evaluation.findings import Evaluation
from pipeline.report import evaluation as evaluation_report
from pipeline.report import passages
from pipeline.report import study as study_report
from pipeline.report.page import Section
from pipeline.result import rows_of
from pipeline.space import Space
from pipeline.study import Finished, Study
from pipeline.study_opening import Origin
from pipeline.tasks import find
from pipeline.tasks.task import Task
from pipeline.tracking import trials
from pipeline.tracking.connection import connect
from pipeline.tracking.parent import Parent, find_parent
from pipeline.tracking.recorder import MEMBER, REFIT, TRIAL
from pipeline.values import Data, Member

_BEST = 10
_FILES = tuple(
    f"{name}.csv" for name in ("scores", "differences", "per_class", "confusion_matrix", "calibration")
)


@dataclass(frozen=True)
class _Kept:
    """A study as it was found. rows: of its task; None where they are not needed or not to be had."""

    origin: Origin
    task: Task
    space: Space
    study: Study
    parent: Parent
    rows: Data | None


@dataclass(frozen=True)
class _Closing:
    """What the last closing left. weights: of the ensemble's members."""

    champion: Finished
    weights: Mapping[Member, float]
    evaluation: Evaluation


def report(asked: Mapping[str, Any]) -> Path:
    """Draws the report into the file `output`, by default `STUDY.html` in the current folder; the file.

    Raises:
        UserError: there is no such study, no trial of it has completed, or the file cannot be written.
        RunError: MLflow cannot be read, or holds something else.
    """
    name, url = asked["study"], asked["storage"] or ""
    output = Path(asked["output"] or f"{name}.html")
    if output.is_dir() or not output.parent.is_dir() or not os.access(output.parent, os.W_OK):
        raise UserError(f"output: {output}: must be a file in a folder that is there and can be written to")
    storage.check_there(url, name)
    client = connect()
    with storage.connected(url, name) as store, tempfile.TemporaryDirectory(prefix="regatta-") as folder:
        origin = studies.origin_of(name, store)
        task = find(origin.task, source.read(origin.source))
        space = task.parse_space(origin.space_text, Path(origin.space_file))
        study = studies.read_study(name, store, space.with_epochs(origin.epochs))
        finished = study.finished()
        if not finished:
            raise UserError(f"study {name}: no trial has completed yet, so there is nothing to report")
        parent = find_parent(client, name, study.parent_run)
        rows = _rows(task, origin, studies.digest_of(name, store))
        kept = _Kept(origin, task, space, study, parent, rows)
        closing = _closing(kept, finished)
        page = _closed(kept, closing, Path(folder)) if closing else _open(kept, finished, Path(folder))
        _write(page, output)
    print(f"{output}: the report of study {name}{'' if closing else ', of its trials so far'}", flush=True)
    return output


def _rows(task: Task, origin: Origin, digest: str) -> Data | None:
    """The task's rows, where something of the report is of them: texts, or scores known to be the best."""
    if task.texts is None and source.kind_of(origin.task) != "named":
        return None
    try:
        rows = task.load(origin.size)
    except UserError as error:
        print(f"without what is of the rows themselves: {str(error).splitlines()[0]}", flush=True)
        return None
    if studies.described(rows) != digest:
        print("without what is of the rows themselves: they are others than the study's", flush=True)
        return None
    return rows


def _closing(kept: _Kept, finished: Sequence[Finished]) -> _Closing | None:
    """What the last closing left in MLflow; None if there was none."""
    parent = kept.parent
    if not parent.has("evaluation/scores.csv"):
        return None
    try:
        texts = {
            name: parent.read(f"evaluation/{name}") for name in _FILES if parent.has(f"evaluation/{name}")
        }
        found = reading.evaluation(texts, kept.task.metrics)
        settings = json.loads(parent.read("champion.json"))
        weights = {
            Member.of(label): float(w) for label, w in json.loads(parent.read("ensemble.json")).items()
        }
        # Settings that came after that closing are not in the file.
        champion = next(
            trial
            for trial in finished
            if all(trial.settings.get(name) == value for name, value in settings.items())
        )
    except (ValueError, AttributeError) as error:
        raise RunError(
            f"run {parent.run_id}: what it holds of the closing cannot be read: {error}"
        ) from error
    except StopIteration:
        raise RunError(f"run {parent.run_id}: champion.json is of none of the study's trials") from None
    return _Closing(champion, weights, found)


def _closed(kept: _Kept, closing: _Closing, folder: Path) -> Path:
    evaluation, number = closing.evaluation, closing.champion.number
    best = kept.rows.best if kept.rows else {}
    refit = kept.parent.tag_of(REFIT) == "true"
    table = rows_of(evaluation, number, closing.weights, best, refit=refit)
    note = study_report.NOTE
    if not kept.study.closed:
        note += " Trials have ended since these were made; the same search command makes them anew."
    more = [
        *_picture(kept, "ensemble_curve.png", "The ensemble and its members", folder),
        *evaluation_report.sections(evaluation, folder),
        *_estimates(kept, folder),
        *_passages(kept, number, folder),
        *_looks(kept, folder),
    ]
    return _draw(kept, table, number, more, note, folder)


def _open(kept: _Kept, finished: Sequence[Finished], folder: Path) -> Path:
    counts = kept.study.counts()
    note = (
        f"Of the trials so far: {counts.completed} completed, {counts.pruned} pruned, {counts.failed} failed."
        " The test rows have not been looked at; the search does so when it closes, and the same search"
        " command goes on with it."
    )
    names = list(kept.space.searched)
    table = [["trial", kept.space.objective.metric, *names]]
    for trial in finished[:_BEST]:
        shown = [_short(trial.settings[name]) for name in names]
        table.append(
            [f"{trial.number}{' (baseline)' if trial.baseline else ''}", f"{trial.value:.4f}", *shown]
        )
    return _draw(kept, table, finished[0].number, [], note, folder)


def _draw(
    kept: _Kept,
    table: Sequence[Sequence[str]],
    champion: int,
    more: Sequence[Section],
    note: str,
    folder: Path,
) -> Path:
    objective = kept.space.objective
    names = [metric.name for metric in kept.task.metrics]
    of_objective = objective.metric.removeprefix("val_")
    shown = next((name for name in ("accuracy", of_objective) if name in names), names[-1])
    curves = _curves(kept, champion, ("loss", "val_loss", shown, f"val_{shown}"))
    history = kept.study.history()
    pages = study_report.draw(folder, kept.study.name, table, history, objective, curves, more, note)
    return pages[0]


def _curves(kept: _Kept, number: int, names: Sequence[str]) -> dict[str, list[float]] | None:
    """A trial's curves by name; None of one with folds that was not trained as a member."""
    tag = MEMBER if kept.origin.folds > 1 else TRIAL
    if str(number) not in trials.ended(kept.parent, tag, with_cleaned=True):
        return None
    found = {name: trials.curve(kept.parent, tag, number, name) for name in names}
    return found if all(found.values()) else None


def _picture(kept: _Kept, name: str, heading: str, folder: Path) -> list[Section]:
    """A picture of the last closing, if it was kept."""
    if not kept.parent.has(f"plots/{name}"):
        return []
    return [Section(heading, picture=kept.parent.fetch(f"plots/{name}", folder))]


def _estimates(kept: _Kept, folder: Path) -> list[Section]:
    """Of outputs that are numbers: single test rows, which are in that picture alone."""
    found = []
    for name in kept.parent.names("plots"):
        stem = Path(name).stem
        if stem.startswith("predicted_and_true"):
            output = stem.removeprefix("predicted_and_true").removeprefix("_")
            found.append(evaluation_report.estimates(kept.parent.fetch(name, folder), output))
    return found


def _passages(kept: _Kept, number: int, folder: Path) -> list[Section]:
    """Some validation rows in words, with what the champion says of them."""
    if kept.task.texts is None or kept.rows is None:
        return []
    tag = MEMBER if kept.origin.folds > 1 else TRIAL
    file = trials.fetch(kept.parent, tag, Member(number), PREDICTIONS_FILE, folder)
    found = passages.section(kept.rows.validation, np.load(file), kept.rows.classes, kept.task.texts)
    return [found] if found else []


def _looks(kept: _Kept, folder: Path) -> list[Section]:
    heading = "The champion's layers"
    if drawn := _picture(kept, "champion_diagram.png", heading, folder):
        return drawn
    if kept.parent.has("champion_summary.txt"):
        return [Section(heading, text=kept.parent.read("champion_summary.txt"))]
    return []


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _write(page: Path, output: Path) -> None:
    """Puts the page in its place, whole or not at all."""
    unfinished = output.with_name(f".{output.name}.{os.getpid()}.unfinished")
    try:
        unfinished.write_bytes(page.read_bytes())
        unfinished.replace(output)
    except OSError as error:
        raise RunError(f"output: {output}: cannot be written: {error.strerror or error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
