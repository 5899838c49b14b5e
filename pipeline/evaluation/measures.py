"""Scores as functions of sums over rows: what a bootstrap can resample without scoring a row twice.

A resample is how often each row was drawn, so its sums are what each row adds, times those counts: one
product of matrices gives the sums of many resamples.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from pipeline.values import Array


@dataclass(frozen=True)
class Measure:
    """A score, or several of the same sums.

    adds: (sums, rows), sparse: what a row adds to each sum. read: (sums, resamples) -> (resamples,), or
    (scores, resamples); NaN where a score is not defined. leans: whether noise alone raises it, as it does a
    sum of distances: then resamples lie above the value.
    """

    adds: Any
    read: Callable[[Array], Array]
    leans: bool = False

    def of(self, counts: Array) -> Array:
        """The score of each resample; counts: how often each row was drawn, (rows, resamples)."""
        return self.read(self.adds @ counts)

    def value(self) -> Array:
        """The score of all rows, each once: () or (scores,)."""
        found: Array = self.of(np.ones((self.adds.shape[1], 1)))[..., 0]
        return found


def mean(rows: Array) -> Measure:
    """The mean of a number that each row has, (rows,)."""
    return Measure(rows_adding(rows), lambda sums: sums[0] / len(rows))


def rows_adding(*columns: Array) -> Any:
    """The sum of each of these numbers of a row, (rows,) each: (sums, rows), sparse."""
    return sparse.csr_array(np.stack(columns))


def by_group(group: Array, groups: int, adds: Array | float = 1.0) -> Any:
    """What each row adds to its group and to no other, (groups, rows), sparse.

    Args:
        group: the number of each row's group, (rows,).
        groups: how many there are.
        adds: what each row adds, (rows,) or the same for all.
    """
    rows = len(group)
    each = np.broadcast_to(np.asarray(adds, dtype=np.float64), (rows,))
    return sparse.csr_array((each, (group, np.arange(rows))), shape=(groups, rows))


def stacked(*parts: Any) -> Any:
    """The sums of several such matrices, one after the other."""
    return sparse.vstack(parts, format="csr")


def ratio(above: Array, below: Array) -> Array:
    """The quotients; NaN where there is nothing to divide by."""
    found = np.full(np.broadcast_shapes(above.shape, below.shape), np.nan)
    np.divide(above, below, out=found, where=below != 0)
    return found


def mean_of_defined(scores: Array) -> Array:
    """The mean of each column, (scores, resamples) -> (resamples,), NaN left out; NaN where all are."""
    defined = np.isfinite(scores)
    return ratio(np.where(defined, scores, 0.0).sum(axis=0), defined.sum(axis=0))
