"""What is scored on the test rows: the task's own metrics, and of each output all that suits it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from pipeline.evaluation import classes, numbers
from pipeline.evaluation.measures import Measure, by_group, mean, mean_of_defined, ratio, stacked
from pipeline.metrics import rows_of
from pipeline.values import Answers, Array, Direction, Metric, class_numbers

_DIRECTIONS: Mapping[str, Direction] = {
    "accuracy": "maximize",
    "balanced_accuracy": "maximize",
    "log_loss": "minimize",
    "roc_auc": "maximize",
    "ece": "minimize",
    "precision": "maximize",
    "recall": "maximize",
    "rmse": "minimize",
    "mae": "minimize",
    "r2": "maximize",
}

_BALANCED = "balanced_"

Measures = Mapping[Metric, Measure]


def named(kind: str, output: str) -> Metric:
    """A score of an output, such as `income_roc_auc`; of the only output, `roc_auc`."""
    return Metric(f"{output}_{kind}" if output else kind, _DIRECTIONS[kind], output)


def of_task(metrics: Sequence[Metric], targets: Array | Mapping[str, Array], answers: Answers) -> Measures:
    """The task's own metrics, over rows or over classes; NaN where an answer is not finite."""
    found: dict[Metric, Measure] = {}
    for metric in metrics:
        kind = metric.name.removeprefix(f"{metric.output}_")
        if kind.startswith(_BALANCED):
            of_rows = replace(metric, name=metric.name.replace(_BALANCED, "", 1))
            found[metric] = _over_classes(rows_of(of_rows, targets, answers), targets, metric.output)
        else:
            found[metric] = mean(rows_of(metric, targets, answers))
    return found


def _over_classes(rows: Array, targets: Array | Mapping[str, Array], output: str) -> Measure:
    """The mean of the means that the rows of each class have; a resample is of the classes that it has."""
    labels = class_numbers(targets[output] if isinstance(targets, Mapping) else targets).astype(np.int64)
    classes = int(labels.max()) + 1

    def read(sums: Array) -> Array:
        return mean_of_defined(ratio(sums[:classes], sums[classes:]))

    return Measure(stacked(by_group(labels, classes, rows), by_group(labels, classes)), read)


def of_output(output: str, targets: Array, answers: Array) -> Measures:
    """Every score of an output; none is defined where an answer is not finite.

    Args:
        output: its name; "" of the only one.
        targets: class numbers or numbers, (rows,).
        answers: probabilities, (rows, classes), or numbers, (rows,).
    """
    score = classes.measures if answers.ndim == 2 else numbers.measures
    if np.isfinite(answers).all():
        found = score(targets, answers)
    else:
        any_answers = score(targets, np.zeros_like(answers))
        found = {kind: _undefined(measure) for kind, measure in any_answers.items()}
    return {named(kind, output): measure for kind, measure in found.items()}


def _undefined(measure: Measure) -> Measure:
    return Measure(measure.adds, lambda sums: np.full_like(measure.read(sums), np.nan))
