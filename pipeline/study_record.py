"""What the study's run in MLflow keeps of its result: metrics, tables, pictures, the report."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from pipeline.ensemble import Ensemble
from pipeline.evaluation import record, tables
from pipeline.evaluation.findings import Evaluation
from pipeline.report import diagram, figures, passages
from pipeline.report import evaluation as evaluation_report
from pipeline.report import study as study_report
from pipeline.report.page import Section
from pipeline.result import Result, table
from pipeline.stored import Stored
from pipeline.study import Finished
from pipeline.tasks.task import Task
from pipeline.values import Member, Metric, Objective


@dataclass(frozen=True)
class StudyRecord:
    """What is kept, and where.

    stored: the study's models. objective: of the study. metric: what the ensemble was chosen by. history:
    (trial, objective value) of the completed trials, in order.
    """

    stored: Stored
    task: Task
    objective: Objective
    metric: Metric
    history: Sequence[tuple[int, float]]

    def keep(self, result: Result, made: Mapping[str, keras.Model], folder: Path) -> None:
        """Metrics, files and pictures. made: the models by name. folder: exists; for files on their way."""
        parent = self.stored.parent
        # Before the models: MLflow copies the run's metrics to a model that it logs.
        parent.metrics(self._metrics(result))
        parent.text(json.dumps(dict(result.champion.settings), indent=2), "champion.json")
        weights = {str(member): weight for member, weight in result.ensemble.weights.items()}
        parent.text(json.dumps(weights, indent=2), "ensemble.json")
        drawn = diagram.draw(made["champion"], folder / "champion_diagram.png")
        if drawn:
            parent.file(drawn, "plots")
        parent.text(diagram.summary(made["champion"]), "champion_summary.txt")
        names = [metric.name for metric in self.task.metrics]
        shown = "accuracy" if "accuracy" in names else self.metric.name
        pages = study_report.draw(
            folder,
            result.study,
            table(result),
            self.history,
            self.objective,
            {
                name: self.stored.curve(result.champion.number, name)
                for name in ("loss", "val_loss", shown, f"val_{shown}")
            },
            [
                self._members(result.ensemble, folder),
                *self._tested(result.evaluation, folder),
                *self._passages(result.champion, folder),
                *_looks(made["champion"], drawn),
            ],
        )
        for page in pages:
            parent.file(page, None if page.suffix == ".html" else "plots")

    def _tested(self, found: Evaluation, folder: Path) -> list[Section]:
        """What the test rows say, for the report; its tables and pictures recorded."""
        for name, text in tables.files(found).items():
            self.stored.parent.text(text, f"evaluation/{name}")
        sections = evaluation_report.sections(found, folder)
        for section in sections:
            if section.picture:
                self.stored.parent.file(section.picture, "plots")
        return sections

    def _members(self, chosen: Ensemble[Member], folder: Path) -> Section:
        """How the ensemble's score grows with its members, which the record has as a picture, too."""
        figure = figures.ensemble_curve(
            chosen.curve.greedy, chosen.curve.uniform, (chosen.size, chosen.value), self.metric.name
        )
        picture = figures.save(figure, folder / "ensemble_curve.png")
        self.stored.parent.file(picture, "plots")
        note = (
            "On the validation rows, which the members were chosen by. Left out before, as they answer nearly"
            f" as better models do: {len(chosen.left_out)}."
        )
        return Section("The ensemble and its members", note, picture=picture)

    def _passages(self, champion: Finished, folder: Path) -> list[Section]:
        """Some validation rows in words, with what the champion says of them."""
        if self.task.texts is None:
            return []
        probabilities = np.asarray(self.stored.predictions(Member(champion.number), folder))
        found = passages.section(
            self.stored.data.validation, probabilities, self.stored.data.classes, self.task.texts
        )
        return [found] if found else []

    def _metrics(self, result: Result) -> dict[str, float]:
        metrics = {f"best_{self.objective.metric}": result.champion.value}
        # By all of them, so that nothing of an ensemble that was chosen by another metric stays.
        metrics |= {f"ensemble_val_{name}": value for name, value in result.validation.items()}
        metrics["ensemble_near_duplicates"] = len(result.ensemble.left_out)
        return metrics | record.as_metrics(result.evaluation)


def _looks(model: keras.Model, drawn: Path | None) -> list[Section]:
    if drawn:
        return [Section("The champion's layers", picture=drawn)]
    return [Section("The champion's layers", text=diagram.summary(model))]
