"""LeNet with BatchNormalization, as the tasks `mnist` and `digits` train it.

Pixels are scaled and padded to 32 x 32 inside the model, so it takes images as they are stored.
"""

from collections.abc import Callable

import keras

from pipeline.settings import LEARNING_RATE, REGULARISATION, TRAINING, Parameter
from pipeline.tasks import blocks
from pipeline.values import Data, Settings

_SIDE = 32

# The published comparison of shuffle against no shuffle has its own third convolution.
_THIRD_CONVOLUTION = Parameter(
    "third_convolution",
    "word",
    "5x5",
    "kernel of the third convolution; 1x1 goes with stride 5",
    words=("5x5", "1x1"),
)

PARAMETERS = (LEARNING_RATE, *TRAINING, *REGULARISATION, _THIRD_CONVOLUTION)


def builder(name: str, white: float) -> Callable[[Settings, Data], keras.Model]:
    """`build` for images whose brightest grey value is `white`."""

    def build(settings: Settings, data: Data) -> keras.Model:
        """Conv 6 - BN - AvgPool - Conv 16 - BN - AvgPool - Conv 120 - BN - Dense 84 - softmax; tanh, Adam."""
        height, width, channels = data.train.one_input.shape[1:]
        third = {"5x5": (5, 1), "1x1": (1, 5)}[str(settings["third_convolution"])]
        layers = [
            keras.layers.Rescaling(1.0 / white),
            keras.layers.ZeroPadding2D((_around(height), _around(width))),
            _convolution(6, 5, 1, settings),
            *blocks.batch_normalization(settings),
            keras.layers.AveragePooling2D(2),
            _convolution(16, 5, 1, settings),
            *blocks.batch_normalization(settings),
            keras.layers.AveragePooling2D(2),
            _convolution(120, *third, settings),
            *blocks.batch_normalization(settings),
            keras.layers.Flatten(),
            blocks.dense(84, "tanh", settings),
            keras.layers.Dropout(settings["dropout"]),
            keras.layers.Dense(len(data.classes), activation="softmax"),
        ]
        optimizer = keras.optimizers.Adam(settings["learning_rate"])
        return blocks.classifier(name, (height, width, channels), layers, optimizer)

    return build


def _convolution(filters: int, kernel: int, stride: int, settings: Settings) -> keras.layers.Layer:
    return keras.layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        activation="tanh",
        kernel_regularizer=blocks.l1_l2(settings),
        kernel_constraint=blocks.max_norm(settings, axis=[0, 1, 2]),
    )


def _around(pixels: int) -> tuple[int, int]:
    missing = _SIDE - pixels
    return missing // 2, missing - missing // 2
