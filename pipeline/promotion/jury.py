"""What compares models of one study with each other, and with the one that is in use."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from pipeline import answers
from pipeline.forms import Form
from pipeline.metrics import score_of
from pipeline.tasks.task import Raw
from pipeline.values import Answers, Array, Data, Metric, Split

_BATCH_ROWS = 2048


@dataclass(frozen=True)
class Jury:
    """Scores answers to the study's validation rows: the test rows decide nothing.

    form: of these rows. raw: gives them as a person has them, where the task can (`Task.raw`).
    """

    data: Data
    metric: Metric
    form: Form
    raw: Raw | None = None

    @property
    def rows(self) -> Split:
        """The rows that are judged by."""
        return self.data.validation

    def answers(self, model: keras.Model) -> Answers:
        """What a model says that takes the rows as they are."""
        inputs = self.rows.inputs
        given = dict(inputs) if isinstance(inputs, Mapping) else inputs
        return answers.read(model, model.predict(given, batch_size=_BATCH_ROWS, verbose=0), self.data)

    def score(self, answered: Answers, some: Array | None = None) -> float:
        """The metric of answers to all rows, over all of them or some, (rows,) of bool."""
        if some is None:
            return score_of(self.metric, self.rows.targets, answered)
        return score_of(self.metric, _some(self.rows.targets, some), _some(answered, some))

    def better(self, one: float, other: float) -> bool:
        """Whether a score is above another; one that is no number is above none."""
        if math.isnan(other):
            return not math.isnan(one)
        return one > other if self.metric.direction == "maximize" else one < other


def _some(parts: Any, rows: Array) -> Any:
    if isinstance(parts, Mapping):
        return {name: part[rows] for name, part in parts.items()}
    return parts[rows]
