"""Text: a person's own texts, by a bag of words, by convolutions over them, or read one after another."""

from typing import Any

import keras

from pipeline.datasets.texts import NUMBER, Corpus
from pipeline.metrics import CLASSIFICATION
from pipeline.settings import Parameter, techniques
from pipeline.source import Source
from pipeline.tasks import blocks
from pipeline.tasks.task import Task
from pipeline.values import Data, Metric, Settings

_MARKS = 3
# Units of the bag's two layers; of the word vectors; filters and their width in words, and what is pooled.
_DENSE, _VECTOR, _FILTERS, _SIZE, _POOL, _LSTM = 16, 64, 32, 5, 5, 32

_NETWORK = Parameter(
    "network",
    "word",
    "multi_hot",
    "how texts are read: as a bag of words, by convolutions over word vectors, or by an LSTM over them",
    words=("multi_hot", "conv1d", "lstm"),
)


PARAMETERS = (*techniques(optimizer="adam", activation="relu"), _NETWORK)


def build(settings: Settings, data: Data) -> keras.Model:
    """Word numbers - one of three networks - Dropout - softmax, or one number.

    A number is learned in units of the training targets' standard deviation, from their mean: the model's
    last layer brings it back.
    """
    words, length = data.words[""], data.train.one_input.shape[1]
    place = keras.Input((length,), dtype="int32", name="text")
    network = {"multi_hot": _multi_hot, "conv1d": _conv1d, "lstm": _lstm}[str(settings["network"])]
    read = blocks.dropout(settings)(network(place, words, settings))
    if data.classes:
        answer = blocks.answer(len(data.classes), "softmax")(read)
        return blocks.compiled(keras.Model(place, answer, name="text"), settings)
    return _of_number(place, read, settings, data)


def _multi_hot(place: Any, words: int, settings: Settings) -> Any:
    """Dense 16 - Dense 16 on a 1 for each word that is there, with BatchNormalization and Dropout between.

    The first layer is written as an Embedding whose vectors are added up, each word's once. That is the same
    product without all its zeros: of 10,000 words a text holds few.
    """
    ordered = keras.ops.sort(place, axis=1)
    before = keras.ops.pad(ordered[:, :-1], [[0, 0], [1, 0]])
    # Each word's first place; marks are no words.
    counted = keras.ops.logical_and(ordered >= _MARKS, ordered != before)
    kernels = keras.layers.Embedding(
        words,
        _DENSE,
        embeddings_initializer=str(settings["initializer"]),
        embeddings_regularizer=blocks.l1_l2(settings),
        embeddings_constraint=blocks.max_norm(settings),
    )
    share = keras.ops.expand_dims(keras.ops.cast(counted, "float32"), -1)
    summed = keras.ops.sum(kernels(ordered) * share, axis=1)
    hidden = [
        keras.layers.Activation(str(settings["activation"])),
        *blocks.batch_normalization(settings),
        blocks.dropout(settings),
        *blocks.dense(_DENSE, settings),
    ]
    return blocks.through(summed, hidden)


def _conv1d(place: Any, words: int, settings: Settings) -> Any:
    """Embedding 64 - Conv1D 32 - MaxPool 5, if there are as many - Conv1D 32 - the mean over the words."""
    layers = [
        keras.layers.Embedding(words, _VECTOR),
        *blocks.convolution(_FILTERS, _SIZE, settings, rank=1, padding="same"),
        *([keras.layers.MaxPooling1D(_POOL)] if place.shape[1] >= _POOL * _SIZE else []),
        blocks.dropout(settings),
        *blocks.convolution(_FILTERS, _SIZE, settings, rank=1, padding="same"),
        keras.layers.GlobalAveragePooling1D(),
    ]
    return blocks.through(place, layers)


def _lstm(place: Any, words: int, settings: Settings) -> Any:
    """Embedding 64 - LSTM 32, with BatchNormalization on its last state."""
    layers = [
        keras.layers.Embedding(words, _VECTOR),
        blocks.lstm(_LSTM, settings),
        *blocks.batch_normalization(settings),
    ]
    return blocks.through(place, layers)


def _of_number(place: Any, read: Any, settings: Settings, data: Data) -> keras.Model:
    targets = data.train.targets[NUMBER]
    mean, deviation = float(targets.mean()), float(targets.std()) or 1.0
    unit = blocks.answer(1)(read)
    answer = blocks.rescaling(deviation, mean, name=NUMBER)(unit)
    model = keras.Model(place, {NUMBER: answer}, name="text")
    model.compile(
        optimizer=blocks.optimizer(settings),
        loss={NUMBER: "mse"},
        # In units of the targets' variance, so that the penalties weigh the same whatever is counted.
        loss_weights={NUMBER: deviation**-2},
        metrics={
            NUMBER: [
                keras.metrics.MeanSquaredError(name="mse"),
                keras.metrics.MeanAbsoluteError(name="mae"),
            ]
        },
    )
    return model


def task(source: Source) -> Task:
    """The task of a person's texts; see `datasets/texts.py` for what they may be.

    Raises:
        UserError: the file cannot be used.
    """
    corpus = Corpus(source)
    is_number = corpus.column.target.is_number
    return Task(
        name="text",
        parameters=PARAMETERS,
        metrics=(Metric("mse", "minimize", NUMBER), Metric("mae", "minimize", NUMBER))
        if is_number
        else CLASSIFICATION,
        load=corpus.load,
        build=build,
        texts=None if is_number else corpus.shown,
        form=lambda data: corpus.form,
        raw=corpus.raw,
        space="text_number" if is_number else "",
        source=source,
    )
