"""The area under the ROC curve as a function of sums over rows, so that resamples need no sorting.

The area is the chance that a row of the class is ranked above another, where a tie counts half (Mann and
Whitney). Rows are sorted once, and cut into runs: rows of one kind with none of the other kind between them,
or tied rows of both kinds. Within a run no order matters, so two sums a run say all: how many rows of the
class, and how many others. A good classifier has few runs.
"""

import numpy as np
from scipy import sparse

from pipeline.evaluation.measures import Measure, mean_of_defined, ratio
from pipeline.values import Array


def roc_auc(labels: Array, probabilities: Array) -> Measure:
    """The area of two classes; of more, the mean over the classes of each against the rest.

    A class that no row of a resample has, or that every row has, is left out; NaN where that leaves none.

    Args:
        labels: class numbers, (rows,).
        probabilities: finite, (rows, classes).
    """
    rows, classes = probabilities.shape
    numbers = np.array([1]) if classes == 2 else np.unique(labels)
    own = labels == numbers[:, None]
    runs = np.stack([_runs(*pair) for pair in zip(own, probabilities.T[numbers], strict=True)])
    lengths = runs.max(axis=1) + 1
    firsts, total = np.cumsum(lengths) - lengths, int(lengths.sum())
    # With many classes most rows are in one run of others: what the rest leaves of all rows.
    longest = np.array([np.bincount(*pair).argmax() for pair in zip(runs, ~own, strict=True)])
    added = own | (runs != longest[:, None])
    # A sum for the rows of the class in each run, then one for the others.
    sums_of = runs + firsts[:, None] + np.where(own, 0, total)
    places = (sums_of[added], np.nonzero(added)[1])
    adds = sparse.csr_array((np.ones(added.sum()), places), shape=(2 * total, rows))

    def read(sums: Array) -> Array:
        inside, outside = sums[:total], sums[total:].copy()
        members = np.add.reduceat(inside, firsts, axis=0)
        outside[firsts + longest] = rows - members - np.add.reduceat(outside, firsts, axis=0)
        below = np.cumsum(outside, axis=0) - outside
        # Of one class: the running sum began with the first one's runs.
        below -= np.repeat(below[firsts], lengths, axis=0)
        above = np.add.reduceat(inside * (below + outside / 2), firsts, axis=0)
        return mean_of_defined(ratio(above, members * (rows - members)))

    return Measure(adds, read)


def _runs(own: Array, scores: Array) -> Array:
    """The number of each row's run, (rows,), from 0, rising with the score."""
    order = np.argsort(scores)
    tied = np.concatenate([[0], np.cumsum(np.diff(scores[order]) > 0)])
    has_own = np.bincount(tied, own[order]) > 0
    has_other = np.bincount(tied, ~own[order]) > 0
    mixed = has_own & has_other
    begins = mixed[1:] | mixed[:-1] | (has_own[1:] != has_own[:-1])
    run_of_tied = np.concatenate([[0], np.cumsum(begins)])
    runs = np.empty(len(own), dtype=np.int64)
    runs[order] = run_of_tied[tied]
    return runs
