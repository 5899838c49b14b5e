"""IMDB: a small MLP on multi-hot words, is a film review positive?"""

import keras
import numpy as np

from pipeline.datasets import keras_sets, published
from pipeline.metrics import CLASSIFICATION
from pipeline.settings import HIDDEN_LAYERS, UNITS, techniques
from pipeline.tasks import blocks
from pipeline.tasks.task import Task
from pipeline.values import Array, Data, Settings

_WIDTHS = (16, 16)


def build(settings: Settings, data: Data) -> keras.Model:
    """Multi-hot - Dense 16 - Dense 16 - sigmoid, RMSprop; BatchNormalization and Dropout after each relu."""
    layers: list[keras.layers.Layer] = []
    for units in blocks.hidden_widths(settings, _WIDTHS):
        layers += [*blocks.dense(units, settings), blocks.dropout(settings)]
    layers.append(blocks.answer(1, "sigmoid"))
    return blocks.classifier("imdb", data.train.one_input.shape[1:], layers, settings)


def texts(inputs: Array) -> list[str] | None:
    """The words that each review holds, the rarest first: their order is not in the rows."""
    words = keras_sets.imdb_words()
    if words is None:
        return None
    marks = len(keras_sets.IMDB_MARKS)
    return [
        ", ".join(words[number] for number in np.flatnonzero(row)[::-1] if number >= marks) for row in inputs
    ]


TASK = Task(
    name="imdb",
    parameters=(*techniques(optimizer="rmsprop", activation="relu"), UNITS, HIDDEN_LAYERS),
    metrics=CLASSIFICATION,
    load=keras_sets.imdb,
    build=build,
    texts=texts,
    form=lambda data: keras_sets.imdb_texts(published.IMDB_WORDS),
)
