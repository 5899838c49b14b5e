"""LeNet with BatchNormalization, as the tasks `mnist` and `digits` train it.

Pixels are scaled and padded to 32 x 32 inside the model, so it takes images as they are stored.
"""

from collections.abc import Callable

import keras

from pipeline.settings import Parameter, techniques
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

PARAMETERS = (
    *techniques(optimizer="adam", activation="tanh", scaling="min_max"),
    _THIRD_CONVOLUTION,
)


def builder(name: str, white: float) -> Callable[[Settings, Data], keras.Model]:
    """`build` for images whose brightest grey value is `white`."""

    def build(settings: Settings, data: Data) -> keras.Model:
        """Conv 6 - BN - AvgPool - Conv 16 - BN - AvgPool - Conv 120 - BN - Dense 84 - softmax; tanh, Adam."""
        height, width, channels = data.train.one_input.shape[1:]
        size, stride = {"5x5": (5, 1), "1x1": (1, 5)}[str(settings["third_convolution"])]
        layers = [
            *blocks.scaling(settings, data.train, white),
            keras.layers.ZeroPadding2D((_around(height), _around(width))),
            *blocks.convolution(6, 5, settings),
            keras.layers.AveragePooling2D(2),
            *blocks.convolution(16, 5, settings),
            keras.layers.AveragePooling2D(2),
            *blocks.convolution(120, size, settings, strides=stride),
            keras.layers.Flatten(),
            # As published: no BatchNormalization here.
            *blocks.dense(84, settings, normalised=False),
            blocks.dropout(settings),
            blocks.answer(len(data.classes), "softmax"),
        ]
        return blocks.classifier(name, (height, width, channels), layers, settings)

    return build


def _around(pixels: int) -> tuple[int, int]:
    missing = _SIDE - pixels
    return missing // 2, missing - missing // 2
