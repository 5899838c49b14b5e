"""What a task is: rows, a model, and the settings that the model reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.settings import Parameter
from pipeline.values import Array, Data, Metric, Settings, Size

if TYPE_CHECKING:
    # Which backend Keras runs on is not settled yet where tasks are only listed.
    import keras


@dataclass(frozen=True)
class Task:
    """A named task.

    parameters: every setting that `build` or the engine reads; a search space may name these and no others.
    metrics: what a compiled model measures besides the loss, by Keras's metric names.
    load: (size) -> rows. build: (settings, data) -> a compiled, ordinary Keras model with fresh weights; what
    it takes from `data` (shapes, classes, means) comes from the training rows alone. texts: inputs,
    (rows, ...) -> what each row says in words, where rows are texts; None where the words are not known.
    """

    name: str
    parameters: tuple[Parameter, ...]
    metrics: tuple[Metric, ...]
    load: Callable[[Size], Data]
    build: Callable[[Settings, Data], keras.Model]
    texts: Callable[[Array], list[str] | None] | None = None
