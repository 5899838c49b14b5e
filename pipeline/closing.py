"""What follows the last trial: the ensemble, the champion, their test scores, the report, all in MLflow."""

import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from pipeline import ensemble, evaluation, report
from pipeline.engines.engine import MODEL_FILE, PREDICTIONS_FILE
from pipeline.ensemble import Ensemble
from pipeline.evaluation import Score
from pipeline.metrics import LOG_LOSS
from pipeline.study import Finished, Study
from pipeline.tasks.task import Task
from pipeline.tracking import models, trials
from pipeline.tracking.parent import Parent
from pipeline.values import Data, Metric, Objective

_log = logging.getLogger(__name__)

# Selection looks at the best 50 models, as auto-sklearn does: worse ones are hardly ever chosen.
_POOL = 50
_EXAMPLE_ROWS = 3


@dataclass(frozen=True)
class Result:
    """What a search found.

    scores: on the test rows, by model (baseline, champion, ensemble), then by metric.
    """

    study: str
    run_id: str
    champion: Finished
    ensemble: Ensemble
    scores: Mapping[str, Mapping[str, Score]]


@dataclass(frozen=True)
class Closing:
    """What is closed: a study with finished trials, and where its models lie.

    tag: marks the child runs that hold the models (`recorder.TRIAL`, or `MEMBER` for a study with folds).
    numbers: the trials that have a model, at least one.
    """

    study: Study
    task: Task
    data: Data
    objective: Objective
    parent: Parent
    tag: str
    numbers: frozenset[int]

    def close(self, method: str, members: int, seed: int) -> Result:
        """Makes and records everything; the test rows are opened after the last choice."""
        finished = self._with_models()
        champion = finished[0]
        baseline = next((trial for trial in finished if trial.baseline), None)
        with tempfile.TemporaryDirectory() as folder:
            chosen = self._select(finished, method, members, Path(folder))
            made = self._models(champion, baseline, chosen, Path(folder))
            scores = evaluation.score_test(self.data, made, self.task.metrics, seed)
            result = Result(self.study.name, self.parent.run_id, champion, chosen, scores)
            self._record(result, made, Path(folder))
        return result

    def _with_models(self) -> list[Finished]:
        """The completed trials that have a model, best first; says so if a choice is lost by that."""
        finished = self.study.finished()
        chosen = [trial for trial in finished if trial.number in self.numbers]
        missing = [
            f"trial {trial.number}{' (baseline)' if trial.baseline else ''}"
            for place, trial in enumerate(finished)
            if trial.number not in self.numbers and (place == 0 or trial.baseline)
        ]
        if missing:
            _log.warning("without a model in MLflow, and so left out: %s", ", ".join(missing))
        return chosen

    def _select(self, finished: Sequence[Finished], method: str, members: int, folder: Path) -> Ensemble:
        predictions = {
            trial.number: np.load(trials.fetch(self.parent, self.tag, trial.number, PREDICTIONS_FILE, folder))
            for trial in finished[:_POOL]
        }
        labels = self.data.validation.labels
        return ensemble.select(method, predictions, labels, self._metric(), members)

    def _models(
        self, champion: Finished, baseline: Finished | None, chosen: Ensemble, folder: Path
    ) -> dict[str, keras.Model]:
        def load(number: int) -> keras.Model:
            return keras.models.load_model(trials.fetch(self.parent, self.tag, number, MODEL_FILE, folder))

        made = {} if baseline is None else {"baseline": load(baseline.number)}
        made["champion"] = load(champion.number)
        # Loaded again: as parts of the ensemble, models take other names.
        made["ensemble"] = ensemble.as_model(
            [(load(number), weight) for number, weight in chosen.weights.items()]
        )
        return made

    def _record(self, result: Result, made: Mapping[str, keras.Model], folder: Path) -> None:
        parent = self.parent
        # Before the models: MLflow copies the run's metrics to a model that it logs.
        parent.metrics(self._metrics(result))
        example = self.data.validation.one_input[:_EXAMPLE_ROWS]
        for name in ("champion", "ensemble"):
            file = folder / f"{name}.keras"
            made[name].save(file)
            parent.file(file, "models")
            models.log(parent, name, made[name], example, made[name].predict(example, verbose=0))
        parent.text(json.dumps(dict(result.champion.settings), indent=2), "champion.json")
        weights = {str(number): weight for number, weight in result.ensemble.weights.items()}
        parent.text(json.dumps(weights, indent=2), "ensemble.json")
        pages = report.draw(
            folder,
            result.study,
            table(result),
            self.study.history(),
            self.objective,
            {
                name: trials.curve(parent, self.tag, result.champion.number, name)
                for name in ("loss", "val_loss", "accuracy", "val_accuracy")
            },
        )
        for page in pages:
            parent.file(page, None if page.suffix == ".html" else "plots")

    def _metrics(self, result: Result) -> dict[str, float]:
        metrics = {f"best_{self.objective.metric}": result.champion.value}
        metrics[f"ensemble_val_{self._metric().name}"] = result.ensemble.value
        for model, scores in result.scores.items():
            for name, score in scores.items():
                metrics[f"{model}_test_{name}"] = score.value
                metrics[f"{model}_test_{name}_low"] = score.low
                metrics[f"{model}_test_{name}_high"] = score.high
        return metrics

    def _metric(self) -> Metric:
        """What the ensemble is chosen by: the objective, or log loss where that is Keras's loss."""
        name = self.objective.metric.removeprefix("val_")
        return next((metric for metric in self.task.metrics if metric.name == name), LOG_LOSS)


def table(result: Result) -> list[list[str]]:
    """The closing table: a header, then a row a model with its test scores and their 95 % intervals."""
    names = list(next(iter(result.scores.values())))
    rows = [["model", *(f"test {name}" for name in names), "trained as"]]
    weights = ", ".join(
        f"{weight:.3g} × trial {number}" for number, weight in result.ensemble.weights.items()
    )
    made_of = {
        "baseline": "the published settings",
        "champion": f"trial {result.champion.number}",
        "ensemble": weights,
    }
    for model, scores in result.scores.items():
        cells = [f"{score.value:.4f} [{score.low:.4f}, {score.high:.4f}]" for score in scores.values()]
        rows.append([model, *cells, made_of[model]])
    return rows


def as_text(rows: Sequence[Sequence[str]]) -> str:
    """The table in columns, for a terminal or a log."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
