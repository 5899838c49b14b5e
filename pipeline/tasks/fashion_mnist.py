"""Fashion-MNIST: one hidden layer with every regulariser of the book, on 70,000 pictures of clothes."""

import keras

from pipeline.datasets import keras_sets
from pipeline.metrics import CLASSIFICATION
from pipeline.settings import HIDDEN_LAYERS, LEARNING_RATE, REGULARISATION, TRAINING, UNITS, Parameter
from pipeline.tasks import blocks
from pipeline.tasks.task import Task
from pipeline.values import Data, Settings

_WIDTHS = (64,)

_ACTIVATION = Parameter(
    "activation", "word", "linear", "of the hidden layers", words=("linear", "relu", "tanh", "elu", "gelu")
)
_ACTIVITY_L1 = Parameter(
    "activity_l1", "float", 0.0, "L1 penalty of the hidden layers' outputs", low=0, in_loss=True
)


def build(settings: Settings, data: Data) -> keras.Model:
    """Flatten - Dense 64 - BatchNormalization - Dropout - softmax, Adam; grey values are scaled inside."""
    layers: list[keras.layers.Layer] = [keras.layers.Rescaling(1.0 / 255.0), keras.layers.Flatten()]
    for units in blocks.hidden_widths(settings, _WIDTHS):
        activity = keras.regularizers.L1(settings["activity_l1"])
        layers.append(
            blocks.dense(units, str(settings["activation"]), settings, activity_regularizer=activity)
        )
        layers += blocks.batch_normalization(settings)
        layers.append(keras.layers.Dropout(settings["dropout"]))
    layers.append(keras.layers.Dense(len(data.classes), activation="softmax"))
    return blocks.classifier(
        "fashion_mnist",
        data.train.one_input.shape[1:],
        layers,
        keras.optimizers.Adam(settings["learning_rate"]),
    )


TASK = Task(
    name="fashion_mnist",
    parameters=(
        LEARNING_RATE,
        *TRAINING,
        *REGULARISATION,
        UNITS,
        HIDDEN_LAYERS,
        _ACTIVATION,
        _ACTIVITY_L1,
    ),
    metrics=CLASSIFICATION,
    load=keras_sets.fashion_mnist,
    build=build,
)
