"""Predictions of one lane's weights, by a function compiled once for a structure."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from pipeline.engines.lanes import numbers, tables
from pipeline.engines.lanes.twin import Twin, Values
from pipeline.values import Split

_ROWS = 1024


class Predictor:
    """What a model of the twin's structure answers; several threads may ask."""

    def __init__(self, twin: Twin) -> None:
        self._twin = twin
        self._compiled: dict[int, Any] = {}

    def predict(self, values: Values, split: Split) -> Any:
        """Answers as `model.predict` gives them, arrays of (rows, ...)."""
        weights = (values.trainable, values.non_trainable, values.numbers, values.tables)
        inputs, parts = dict(split.inputs) if isinstance(split.inputs, Mapping) else split.inputs, []
        for first in range(0, split.rows, _ROWS):
            last = min(first + _ROWS, split.rows)
            batch = jax.tree.map(lambda leaf, a=first, b=last: leaf[a:b], inputs)
            parts.append(self._of(last - first, weights, batch)(*weights, batch))
        return jax.tree.map(lambda *leaves: np.concatenate([np.asarray(leaf) for leaf in leaves]), *parts)

    def _of(self, rows: int, weights: Any, batch: Any) -> Any:
        with self._twin.lock:
            if rows not in self._compiled:
                self._compiled[rows] = jax.jit(self._answer).lower(*weights, batch)
                self._compiled[rows] = self._compiled[rows].compile()
            return self._compiled[rows]

    def _answer(self, trainable: Any, non_trainable: Any, numbers_: Any, tables_: Any, batch: Any) -> Any:
        model = self._twin.model
        with numbers.bound(self._twin.slots, numbers_), tables.bound(model, tables_):
            answers, _ = model.stateless_call(trainable, non_trainable, batch, training=False)
        return answers
