"""Separable images: a stack of depthwise separable convolutions names what a small picture shows."""

import keras

from pipeline.datasets import generated
from pipeline.forms import Pictures
from pipeline.metrics import CLASSIFICATION
from pipeline.settings import techniques
from pipeline.tasks import blocks
from pipeline.tasks.task import Task
from pipeline.values import Data, Settings

# Filters of the convolutions between two poolings.
_STAGES = ((32, 64), (64, 128), (64, 128))
_DENSE = 32


def build(settings: Settings, data: Data) -> keras.Model:
    """SeparableConv2D 32, 64 - MaxPool - 64, 128 - MaxPool - 64, 128 - average - Dense 32 - softmax; RMSprop.

    BatchNormalization after each convolution and the Dense layer, Dropout before the last layer.
    """
    layers = blocks.scaling(settings, data.train, white=255.0)
    for place, stage in enumerate(_STAGES):
        layers += [keras.layers.MaxPooling2D(2)] if place else []
        for filters in stage:
            layers += blocks.separable(filters, 3, settings)
    layers.append(keras.layers.GlobalAveragePooling2D())
    layers += [*blocks.dense(_DENSE, settings), blocks.dropout(settings)]
    layers.append(blocks.answer(len(data.classes), "softmax"))
    return blocks.classifier("separable_images", data.train.one_input.shape[1:], layers, settings)


TASK = Task(
    name="separable_images",
    parameters=techniques(optimizer="rmsprop", activation="relu", scaling="min_max"),
    metrics=CLASSIFICATION,
    load=generated.separable_images,
    build=build,
    form=lambda data: Pictures(),
)
