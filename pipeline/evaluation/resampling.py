"""The bootstrap: rows drawn with replacement, 2,000 times, the same draws for every score of every model.

So the differences of two models are paired: a resample with many hard rows is one for both.
"""

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from pipeline.evaluation.findings import Score
from pipeline.evaluation.measures import Measure
from pipeline.values import Array

_RESAMPLES = 2000
_CONFIDENCE = 0.95
# Resamples at a time: with 25,000 rows, the counts of 50 of them take 10 MB.
_AT_ONCE = 50

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Resampled:
    """A measure of the rows and of every resample.

    value: () or (scores,). drawn: (2000,) or (scores, 2000). leans: as of the measure.
    """

    value: Array
    drawn: Array
    leans: bool = False

    def score(self) -> Score:
        """The score with its percentile interval, of the resamples in which it is defined.

        Of a score that leans, resamples are moved down until their median is the value, though not below 0:
        each adds noise of its own, and the interval would leave out the value itself.
        """
        value = float(self.value)
        defined = self.drawn[np.isfinite(self.drawn)]
        if not np.isfinite(value) or not len(defined):
            return Score(value, value, value)
        tail = 50 * (1 - _CONFIDENCE)
        low, middle, high = np.percentile(defined, [tail, 50, 100 - tail])
        if self.leans:
            low, high = (max(0.0, edge - max(0.0, middle - value)) for edge in (low, high))
        return Score(value, float(low), float(high))

    def scores(self) -> list[Score]:
        """The same of a measure of several scores, one by one."""
        return [
            Resampled(*pair, leans=self.leans).score() for pair in zip(self.value, self.drawn, strict=True)
        ]

    def minus(self, other: "Resampled") -> "Resampled":
        return Resampled(self.value - other.value, self.drawn - other.drawn)


def resample(measures: Mapping[Key, Measure], rows: int, seed: int) -> dict[Key, Resampled]:
    """Every measure on the same resamples, which derive from the seed."""
    drawn: dict[Key, list[Array]] = {key: [] for key in measures}
    for counts in _counts(rows, seed):
        for key, measure in measures.items():
            drawn[key].append(measure.of(counts))
    return {
        key: Resampled(measure.value(), np.concatenate(drawn[key], axis=-1), measure.leans)
        for key, measure in measures.items()
    }


def _counts(rows: int, seed: int) -> Iterator[Array]:
    """How often each row was drawn, (rows, resamples at once)."""
    rng = np.random.default_rng(seed)
    for _ in range(_RESAMPLES // _AT_ONCE):
        chosen = rng.integers(0, rows, (_AT_ONCE, rows))
        places = chosen * _AT_ONCE + np.arange(_AT_ONCE)[:, None]
        counts = np.bincount(places.ravel(), minlength=rows * _AT_ONCE)
        yield counts.reshape(rows, _AT_ONCE).astype(np.float64)
