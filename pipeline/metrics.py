"""Scores of predictions, by the names they carry in Keras's logs, in space files and in MLflow.

Selection on validation rows and scoring of test rows use the same functions. Each metric here is a mean
over rows, so a bootstrap resamples `per_row` instead of scoring again.
"""

from collections.abc import Callable, Mapping

import numpy as np

from pipeline.values import Answers, Array, Metric, balance, class_numbers

ACCURACY = Metric("accuracy", "maximize")
LOG_LOSS = Metric("log_loss", "minimize")
CLASSIFICATION = (ACCURACY, LOG_LOSS)
BALANCED_ACCURACY = Metric("balanced_accuracy", "maximize")
BALANCED_LOG_LOSS = Metric("balanced_log_loss", "minimize")
"""Means over the classes of the means over their rows: rare classes count as much as others."""

# Keras clips probabilities by its fuzz factor before the logarithm (keras.config.epsilon()).
_FUZZ = 1e-7


def class_probabilities(predictions: Array) -> Array:
    """(rows, classes) from what a classifier answers: (rows, 1) of a sigmoid becomes two columns."""
    predictions = np.asarray(predictions, dtype=np.float64)
    if predictions.shape[-1] == 1:
        return np.concatenate([1.0 - predictions, predictions], axis=-1)
    return predictions


def per_row(metric: str, labels: Array, probabilities: Array) -> Array:
    """Each row's share of the metric, (rows,); NaN where a probability is not finite.

    Args:
        metric: `accuracy` or `log_loss` of classes, also `balanced_…`, `mse` or `mae` of numbers.
        labels: class numbers or numbers, (rows,) or (rows, 1), or one-hot, (rows, classes).
        probabilities: (rows, classes), each row summing to one; or numbers, (rows, 1).

    Raises:
        KeyError: no metric has that name.
    """
    rows = _PER_ROW[metric](class_numbers(labels), probabilities)
    found: Array = np.where(np.all(np.isfinite(probabilities), axis=-1), rows, np.nan)
    return found


def score(metric: str, labels: Array, probabilities: Array) -> float:
    """The metric over all rows; NaN if any probability is not finite."""
    return float(per_row(metric, labels, probabilities).mean())


def rows_of(metric: Metric, targets: Array | Mapping[str, Array], answers: Answers) -> Array:
    """Each row's share of a task's metric, (rows,); NaN where an answer is not finite.

    Args:
        metric: any of a task's.
        targets: (rows,), or of several outputs by name.
        answers: likewise.
    """
    if metric.parts:
        mean: Array = np.sum(
            [share * rows_of(part, targets, answers) for part, share in metric.parts], axis=0
        )
        return mean
    kind = metric.name.removeprefix(f"{metric.output}_")
    return per_row(kind, _of(metric.output, targets), _of(metric.output, answers))


def score_of(metric: Metric, targets: Array | Mapping[str, Array], answers: Answers) -> float:
    """The metric over all rows; NaN if any answer is not finite."""
    return float(rows_of(metric, targets, answers).mean())


def _of(output: str, parts: Array | Mapping[str, Array]) -> Array:
    if isinstance(parts, Mapping):
        return parts[output]
    return parts


def _accuracy(labels: Array, probabilities: Array) -> Array:
    hits: Array = (probabilities.argmax(axis=-1) == labels).astype(np.float64)
    return hits


def _log_loss(labels: Array, probabilities: Array) -> Array:
    of_target = np.take_along_axis(probabilities, labels[:, None].astype(np.int64), axis=-1)[:, 0]
    losses: Array = -np.log(np.clip(of_target, _FUZZ, 1.0 - _FUZZ))
    return losses


def _squared_error(targets: Array, answers: Array) -> Array:
    squares: Array = np.square(answers.reshape(-1) - targets)
    return squares


def _absolute_error(targets: Array, answers: Array) -> Array:
    sizes: Array = np.abs(answers.reshape(-1) - targets)
    return sizes


_PER_ROW: Mapping[str, Callable[[Array, Array], Array]] = {
    "accuracy": _accuracy,
    "log_loss": _log_loss,
    "balanced_accuracy": lambda labels, found: balance(labels) * _accuracy(labels, found),
    "balanced_log_loss": lambda labels, found: balance(labels) * _log_loss(labels, found),
    "mse": _squared_error,
    "mae": _absolute_error,
}
