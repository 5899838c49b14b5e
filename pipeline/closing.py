"""What follows the last trial: the ensemble, the champion, their test scores, the report, all in MLflow."""

import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from pipeline import answers, ensemble, evaluation
from pipeline.engines.engine import MODEL_FILE, PREDICTIONS_FILE, SEVERAL_PREDICTIONS_FILE
from pipeline.ensemble import Ensemble, Judge
from pipeline.evaluation import Score
from pipeline.report import diagram, passages
from pipeline.report import study as study_report
from pipeline.report.page import Section
from pipeline.study import Finished, Study
from pipeline.tasks.task import Task
from pipeline.tracking import models, trials
from pipeline.tracking.parent import Parent
from pipeline.values import Answers, Data, Metric, Objective

_log = logging.getLogger(__name__)

# Selection looks at the best 50 models, as auto-sklearn does: worse ones are hardly ever chosen.
_POOL = 50
_EXAMPLE_ROWS = 3


@dataclass(frozen=True)
class Result:
    """What a search found.

    scores: on the test rows, by model (baseline, champion, ensemble), then by metric. best: the best possible
    expected scores by metric, where they are known.
    """

    study: str
    run_id: str
    champion: Finished
    ensemble: Ensemble
    scores: Mapping[str, Mapping[str, Score]]
    best: Mapping[str, float]


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
            result = Result(self.study.name, self.parent.run_id, champion, chosen, scores, self._best())
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
        predictions = {trial.number: self._predictions(trial.number, folder) for trial in finished[:_POOL]}
        metric = self._metric()
        # The loss of the same answers decides between equals; a mean of scores holds one.
        tie = next(
            (
                one
                for one in self.task.metrics
                if one.name.endswith("log_loss") and one.output == metric.output
            ),
            metric,
        )
        return ensemble.select(method, predictions, Judge(self.data.validation.targets, metric, tie), members)

    def _predictions(self, number: int, folder: Path) -> Answers:
        """What a trial's model answered to the validation rows."""
        name = SEVERAL_PREDICTIONS_FILE if self.data.outputs else PREDICTIONS_FILE
        found = np.load(trials.fetch(self.parent, self.tag, number, name, folder))
        return {part: found[part] for part in self.data.outputs} if self.data.outputs else found

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
        inputs = self.data.validation.take(np.arange(min(_EXAMPLE_ROWS, self.data.validation.rows))).inputs
        example = dict(inputs) if isinstance(inputs, Mapping) else inputs
        for name in ("champion", "ensemble"):
            file = folder / f"{name}.keras"
            made[name].save(file)
            parent.file(file, "models")
            answer = answers.by_name(made[name], made[name].predict(example, verbose=0))
            models.log(parent, name, made[name], example, answer.get("", answer))
        parent.text(json.dumps(dict(result.champion.settings), indent=2), "champion.json")
        weights = {str(number): weight for number, weight in result.ensemble.weights.items()}
        parent.text(json.dumps(weights, indent=2), "ensemble.json")
        drawn = diagram.draw(made["champion"], folder / "champion_diagram.png")
        if drawn:
            parent.file(drawn, "plots")
        parent.text(diagram.summary(made["champion"]), "champion_summary.txt")
        names = [metric.name for metric in self.task.metrics]
        shown = "accuracy" if "accuracy" in names else self._metric().name
        pages = study_report.draw(
            folder,
            result.study,
            table(result),
            self.study.history(),
            self.objective,
            {
                name: trials.curve(parent, self.tag, result.champion.number, name)
                for name in ("loss", "val_loss", shown, f"val_{shown}")
            },
            [*self._passages(result.champion, folder), *_looks(made["champion"], drawn)],
        )
        for page in pages:
            parent.file(page, None if page.suffix == ".html" else "plots")

    def _passages(self, champion: Finished, folder: Path) -> list[Section]:
        """Some validation rows in words, with what the champion says of them."""
        if self.task.texts is None:
            return []
        probabilities = np.asarray(self._predictions(champion.number, folder))
        found = passages.section(self.data.validation, probabilities, self.data.classes, self.task.texts)
        return [found] if found else []

    def _best(self) -> dict[str, float]:
        """The best possible scores that are known, also of means of such."""
        best = self.data.best
        means = {
            metric.name: sum(best[part.name] * share for part, share in metric.parts)
            for metric in self.task.metrics
            if metric.parts and all(part.name in best for part, _ in metric.parts)
        }
        return {**best, **means}

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
        """What the ensemble is chosen by: the objective, or the last metric where that is Keras's loss."""
        name = self.objective.metric.removeprefix("val_")
        return next((metric for metric in self.task.metrics if metric.name == name), self.task.metrics[-1])


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
    if result.best:
        cells = [f"{result.best[name]:.4f}" if name in result.best else "" for name in names]
        rows.append(["best possible", *cells, "known of generated rows"])
    return rows


def _looks(model: keras.Model, drawn: Path | None) -> list[Section]:
    if drawn:
        return [Section("The champion's layers", picture=drawn)]
    return [Section("The champion's layers", text=diagram.summary(model))]
