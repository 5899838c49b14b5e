"""Inception and residual blocks: branches beside each other, and shortcuts past convolutions."""

from typing import Any

import keras

from pipeline.datasets import generated
from pipeline.forms import Pictures
from pipeline.metrics import CLASSIFICATION
from pipeline.settings import techniques
from pipeline.tasks import blocks
from pipeline.tasks.task import Task
from pipeline.values import Data, Settings

_FILTERS = 128


def build(settings: Settings, data: Data) -> keras.Model:
    """Four branches of 128 filters, a residual block that halves the picture, one of the same size; RMSprop.

    BatchNormalization after each convolution but those beside a residual block, Dropout before the softmax.
    """
    pictures = keras.Input(data.train.one_input.shape[1:], name="picture")
    scaled = blocks.through(pictures, blocks.scaling(settings, data.train, white=255.0))
    mixed = _inception(scaled, settings)
    halved = _residual(mixed, settings, stride=2)
    same = _residual(halved, settings, stride=1)
    last = [
        keras.layers.GlobalAveragePooling2D(),
        blocks.dropout(settings),
        blocks.answer(len(data.classes), "softmax"),
    ]
    model = keras.Model(pictures, blocks.through(same, last), name="inception_residual")
    return blocks.compiled(model, settings)


def _inception(tensor: Any, settings: Settings) -> Any:
    """Four ways to see neighbours, each with stride 2: C. Szegedy et al., arXiv 1409.4842, and others."""
    branches = (
        _convolutions(settings, (1, 2)),
        _convolutions(settings, (1, 1), (3, 2)),
        [keras.layers.AveragePooling2D(3, strides=2, padding="same"), *_convolutions(settings, (3, 1))],
        _convolutions(settings, (1, 1), (3, 1), (3, 2)),
    )
    return keras.layers.Concatenate()([blocks.through(tensor, branch) for branch in branches])


def _residual(tensor: Any, settings: Settings, stride: int) -> Any:
    """Three convolutions with a shortcut past them: K. He et al., arXiv 1512.03385.

    Where they change the size, the shortcut is projected by a 1 x 1 convolution.
    """
    changed = blocks.through(tensor, _convolutions(settings, (3, 1), (3, 1), (3, stride)))
    if stride > 1 or tensor.shape[-1] != _FILTERS:
        projection = keras.layers.Conv2D(
            _FILTERS, 1, strides=stride, padding="same", **blocks.kernel(settings, [0, 1, 2])
        )
        tensor = projection(tensor)
    return keras.layers.Add()([changed, tensor])


def _convolutions(settings: Settings, *sizes_and_strides: tuple[int, int]) -> list[keras.layers.Layer]:
    return [
        layer
        for size, stride in sizes_and_strides
        for layer in blocks.convolution(_FILTERS, size, settings, strides=stride, padding="same")
    ]


TASK = Task(
    name="inception_residual",
    parameters=techniques(optimizer="rmsprop", activation="relu", scaling="min_max"),
    metrics=CLASSIFICATION,
    load=generated.inception_residual,
    build=build,
    form=lambda data: Pictures(),
)
