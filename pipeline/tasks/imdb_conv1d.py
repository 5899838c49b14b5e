"""IMDB by convolutions over word vectors: is a film review positive?"""

import keras

from pipeline.datasets import keras_sets
from pipeline.metrics import CLASSIFICATION
from pipeline.settings import techniques
from pipeline.tasks import blocks
from pipeline.tasks.task import Task
from pipeline.values import Array, Data, Settings

_VECTOR, _FILTERS, _SIZE, _POOL = 128, 32, 7, 5


def build(settings: Settings, data: Data) -> keras.Model:
    """Embedding 128 - Conv1D 32 - MaxPool 5 - Conv1D 32 - GlobalAveragePooling - Dense 1, a logit; RMSprop.

    BatchNormalization after each convolution, Dropout after the pooling and before the last layer.
    """
    layers = [
        keras.layers.Embedding(data.words[""], _VECTOR),
        *blocks.convolution(_FILTERS, _SIZE, settings, rank=1),
        keras.layers.MaxPooling1D(_POOL),
        blocks.dropout(settings),
        *blocks.convolution(_FILTERS, _SIZE, settings, rank=1),
        keras.layers.GlobalAveragePooling1D(),
        blocks.dropout(settings),
        blocks.answer(1),
    ]
    length = data.train.one_input.shape[1]
    model = keras.Sequential([keras.Input((length,), dtype="int32"), *layers], name="imdb_conv1d")
    return blocks.compiled(model, settings, logits=True)


def texts(inputs: Array) -> list[str] | None:
    """The words of each review in order, a dash for each that is too rare to be known."""
    words = keras_sets.imdb_words()
    if words is None:
        return None
    # Of the marks only that of a rare word stands for something that was said.
    marks = ["–" if mark == "<rare>" else "" for mark in keras_sets.IMDB_MARKS]
    shown = [*marks, *words[len(marks) :]]
    return [" ".join(filter(None, (shown[number] for number in row))) for row in inputs]


TASK = Task(
    name="imdb_conv1d",
    parameters=techniques(optimizer="rmsprop", activation="relu"),
    metrics=CLASSIFICATION,
    load=keras_sets.imdb_sequences,
    build=build,
    texts=texts,
    form=lambda data: keras_sets.imdb_texts(data.words[""], data.train.one_input.shape[1]),
)
