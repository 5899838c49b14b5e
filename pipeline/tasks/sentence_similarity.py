"""Sentence similarity: one LSTM reads two sentences, does the left one claim more?"""

import keras

from pipeline.datasets import generated
from pipeline.metrics import CLASSIFICATION
from pipeline.settings import techniques
from pipeline.tasks import blocks
from pipeline.tasks.task import Task
from pipeline.values import Data, Settings

_UNITS = 32
_SENTENCES = ("left", "right")


def build(settings: Settings, data: Data) -> keras.Model:
    """One LSTM 32 for both sentences of 128-wide vectors, joined - sigmoid; RMSprop.

    BatchNormalization and Dropout on what is joined.
    """
    shape = data.train.inputs["left"].shape[1:]
    inputs = {name: keras.Input(shape, name=name) for name in _SENTENCES}
    reader = blocks.lstm(_UNITS, settings, name="reader")
    joined = keras.layers.Concatenate()([reader(inputs[name]) for name in _SENTENCES])
    last = [
        *blocks.batch_normalization(settings),
        blocks.dropout(settings),
        blocks.answer(1, "sigmoid"),
    ]
    model = keras.Model(inputs, blocks.through(joined, last), name="sentence_similarity")
    return blocks.compiled(model, settings)


TASK = Task(
    name="sentence_similarity",
    parameters=techniques(optimizer="rmsprop"),
    metrics=CLASSIFICATION,
    load=generated.sentence_similarity,
    build=build,
)
