"""Scores of classes, each as a function of sums over rows."""

from collections.abc import Mapping

import numpy as np

from pipeline.evaluation.measures import Measure, by_group, mean, mean_of_defined, ratio, stacked
from pipeline.evaluation.ranking import roc_auc
from pipeline.metrics import per_row
from pipeline.values import Array

BINS = 15


def measures(labels: Array, probabilities: Array) -> Mapping[str, Measure]:
    """Every score of classes; `precision` and `recall` are scores of each class.

    Precision is not defined of a class that no row is said to be, nor recall of one that no row is; balanced
    accuracy is the mean of the recalls that are. scikit-learn scores the same with `zero_division=nan`.

    Args:
        labels: class numbers, (rows,).
        probabilities: finite, (rows, classes).
    """
    classes = probabilities.shape[1]
    said, hits = probabilities.argmax(axis=1), right(labels, probabilities)
    of_class = stacked(by_group(labels, classes, hits), by_group(labels, classes))
    of_said = stacked(by_group(said, classes, hits), by_group(said, classes))
    return {
        "accuracy": mean(per_row("accuracy", labels, probabilities)),
        "balanced_accuracy": Measure(of_class, lambda sums: mean_of_defined(_shares(sums))),
        "log_loss": mean(per_row("log_loss", labels, probabilities)),
        "roc_auc": roc_auc(labels, probabilities),
        "ece": _calibration_error(labels, probabilities),
        "precision": Measure(of_said, _shares),
        "recall": Measure(of_class, _shares),
    }


def right(labels: Array, probabilities: Array) -> Array:
    """Whether each row's top class is its own, (rows,)."""
    found: Array = probabilities.argmax(axis=1) == labels
    return found


def bins_of(probabilities: Array) -> Array:
    """Each row's calibration bin, (rows,): bin k holds top probabilities above k / 15, up to (k + 1) / 15."""
    bins = np.ceil(probabilities.max(axis=1) * BINS).astype(np.int64) - 1
    found: Array = np.clip(bins, 0, BINS - 1)
    return found


def _calibration_error(labels: Array, probabilities: Array) -> Measure:
    """How far a bin's accuracy is from its mean top probability, on average over the rows.

    C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, with 15 bins of equal width.
    """
    rows = len(labels)
    excess = right(labels, probabilities) - probabilities.max(axis=1)
    # A bin's distance times its rows is the size of the sum of its rows' excesses.
    return Measure(
        by_group(bins_of(probabilities), BINS, excess),
        lambda sums: np.abs(sums).sum(axis=0) / rows,
        leans=True,
    )


def _shares(sums: Array) -> Array:
    """(hits and then rows of each class, resamples) -> (classes, resamples)."""
    hits, rows = np.split(sums, 2)
    return ratio(hits, rows)
