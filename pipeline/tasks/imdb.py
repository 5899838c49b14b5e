"""IMDB: a small MLP on multi-hot words, is a film review positive?"""

import keras

from pipeline.datasets import keras_sets
from pipeline.metrics import CLASSIFICATION
from pipeline.settings import HIDDEN_LAYERS, LEARNING_RATE, REGULARISATION, TRAINING, UNITS
from pipeline.tasks import blocks
from pipeline.tasks.task import Task
from pipeline.values import Data, Settings

_WIDTHS = (16, 16)


def build(settings: Settings, data: Data) -> keras.Model:
    """Multi-hot - Dense 16 - Dense 16 - sigmoid, RMSprop; BatchNormalization and Dropout after each relu."""
    layers: list[keras.layers.Layer] = []
    for units in blocks.hidden_widths(settings, _WIDTHS):
        layers.append(blocks.dense(units, "relu", settings))
        layers += blocks.batch_normalization(settings)
        layers.append(keras.layers.Dropout(settings["dropout"]))
    layers.append(keras.layers.Dense(1, activation="sigmoid"))
    return blocks.classifier(
        "imdb", data.train.one_input.shape[1:], layers, keras.optimizers.RMSprop(settings["learning_rate"])
    )


TASK = Task(
    name="imdb",
    parameters=(LEARNING_RATE, *TRAINING, *REGULARISATION, UNITS, HIDDEN_LAYERS),
    metrics=CLASSIFICATION,
    load=keras_sets.imdb,
    build=build,
)
