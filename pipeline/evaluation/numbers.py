"""Scores of numbers, each as a function of sums over rows."""

from collections.abc import Mapping

import numpy as np

from pipeline.evaluation.measures import Measure, mean, ratio, rows_adding
from pipeline.values import Array


def measures(targets: Array, answers: Array) -> Mapping[str, Measure]:
    """Root mean squared error, mean absolute error and R².

    R² is not defined of targets that are all equal, where scikit-learn says 0 or 1.

    Args:
        targets: (rows,).
        answers: finite, (rows,).
    """
    squares = np.square(answers - targets)
    squared = mean(squares)
    return {
        "rmse": Measure(squared.adds, lambda sums: np.sqrt(squared.read(sums))),
        "mae": mean(np.abs(answers - targets)),
        "r2": _explained(targets, squares),
    }


def _explained(targets: Array, squares: Array) -> Measure:
    """1 less the squared errors' share of the targets' squared distances from their mean."""
    rows = len(targets)
    # From near their mean, so that the difference below keeps its digits.
    centred = targets - targets.mean()

    def read(sums: Array) -> Array:
        errors, total, total_squares = sums
        spread = total_squares - np.square(total) / rows
        # Of equal targets there is left what rounding leaves.
        spread[spread <= rows * np.finfo(np.float64).eps * total_squares] = 0.0
        return 1.0 - ratio(errors, spread)

    return Measure(rows_adding(squares, centred, np.square(centred)), read)
