"""Scores on the test rows with their intervals: the only room that may see the test split.

It is opened once a command, for all models together, after every choice has been made.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from scipy.stats import bootstrap

from pipeline import answers
from pipeline.metrics import rows_of, score_of
from pipeline.values import Array, Data, Metric

_RESAMPLES = 2000
_CONFIDENCE = 0.95
_BATCH_ROWS = 2048
# Resamples drawn at a time: with 25,000 rows, 50 of them take 10 MB.
_RESAMPLES_AT_ONCE = 50


@dataclass(frozen=True)
class Score:
    """A metric on the test rows and its 95 % bootstrap interval (percentiles, rows resampled)."""

    value: float
    low: float
    high: float


def score_test(
    data: Data, models: Mapping[str, keras.Model], metrics: Sequence[Metric], seed: int
) -> dict[str, dict[str, Score]]:
    """Each model's score by each metric; the intervals derive from the seed."""
    test = data.test.unseal()
    inputs = dict(test.inputs) if isinstance(test.inputs, Mapping) else test.inputs
    scores: dict[str, dict[str, Score]] = {}
    for name, model in models.items():
        found = answers.read(model, model.predict(inputs, batch_size=_BATCH_ROWS, verbose=0), data)
        scores[name] = {metric.name: _score(rows_of(metric, test.targets, found), seed) for metric in metrics}
    return scores


def values_of(
    data: Data, alike: Sequence[Sequence[Path]], metrics: Sequence[Metric]
) -> list[list[dict[str, float]]]:
    """Each model's score by each metric, for many models in `.keras` files.

    alike: files of models that differ in their weights alone, which are predicted by one compiled function.
    """
    test = data.test.unseal()
    inputs = dict(test.inputs) if isinstance(test.inputs, Mapping) else test.inputs
    found: list[list[dict[str, float]]] = []
    for files in alike:
        model = keras.models.load_model(files[0])
        found.append([])
        for file in files:
            model.load_weights(file)
            answered = answers.read(model, model.predict(inputs, batch_size=_BATCH_ROWS, verbose=0), data)
            found[-1].append({metric.name: score_of(metric, test.targets, answered) for metric in metrics})
    return found


def _score(rows: Array, seed: int) -> Score:
    value = float(rows.mean())
    if len(rows) < 2 or not np.isfinite(value):
        return Score(value, value, value)
    interval = bootstrap(
        (rows,),
        np.mean,
        n_resamples=_RESAMPLES,
        batch=_RESAMPLES_AT_ONCE,
        confidence_level=_CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Score(value, float(interval.low), float(interval.high))
