"""Images: a person's own pictures, by a small residual convnet or a separable one."""

from typing import Any

import keras

from pipeline.datasets import pictures
from pipeline.datasets.pictures import Album
from pipeline.forms import Pictures
from pipeline.metrics import CLASSIFICATION
from pipeline.settings import Parameter, techniques
from pipeline.source import Source
from pipeline.tasks import blocks
from pipeline.tasks.task import Task
from pipeline.values import Data, Settings

# A picture is halved until its shorter side would be less than this, and so many times at most.
_LEAST_SIDE, _MOST_STAGES = 4, 4

_NETWORK = Parameter(
    "network",
    "word",
    "residual",
    "what its convolutions are: full ones in pairs with a shortcut, or depthwise separable ones",
    words=("residual", "separable"),
)
_FILTERS = Parameter(
    "filters", "int", 16, "of the first stage; each stage has twice as many", low=1, high=512
)
_FLIP = Parameter(
    "flip",
    "bool",
    default=False,
    meaning="whether pictures are mirrored at random, left to right, in training",
)
_TRANSLATION, _ZOOM = (
    Parameter(name, "float", 0.0, f"at random in training, {what}, at most", low=0, high=1, open_high=True)
    for name, what in (
        ("translation", "as a share of height and width"),
        ("zoom", "in or out, as a share of the size"),
    )
)
_ROTATION = Parameter(
    "rotation", "float", 0.0, "at random in training, either way, as a share of a whole turn", low=0, high=0.5
)


def build(settings: Settings, data: Data) -> keras.Model:
    """Augmentation - convolution - stages with MaxPool 2 between - average - Dropout - softmax.

    A stage is a residual block of two convolutions, or two separable ones, with BatchNormalization after
    each. There are one to four, as many as the picture can be halved and keep 4 pixels.
    """
    shape = data.train.one_input.shape[1:]
    place = keras.Input(shape, name="image")
    filters = int(settings["filters"])
    first = [
        *blocks.scaling(settings, data.train, pictures.WHITE),
        *_augmentation(settings),
        *blocks.convolution(filters, 3, settings, padding="same"),
    ]
    tensor = blocks.through(place, first)
    stage = {"residual": _residual, "separable": _separable}[str(settings["network"])]
    for number in range(_stages(*shape[:2])):
        if number:
            tensor = keras.layers.MaxPooling2D(2)(tensor)
        tensor = stage(tensor, filters * 2**number, settings)
    last = [
        keras.layers.GlobalAveragePooling2D(),
        blocks.dropout(settings),
        blocks.answer(len(data.classes), "softmax"),
    ]
    return blocks.compiled(keras.Model(place, blocks.through(tensor, last), name="images"), settings)


def _stages(height: int, width: int) -> int:
    side, count = min(height, width), 1
    while side // 2 >= _LEAST_SIDE and count < _MOST_STAGES:
        side, count = side // 2, count + 1
    return count


def _augmentation(settings: Settings) -> list[keras.layers.Layer]:
    """Keras's layers that change pictures at random while it trains; none for what is off."""
    # Numbers of 16 bits cannot tell neighbouring pixels of a picture of some hundred.
    layers: list[keras.layers.Layer] = []
    wide = blocks.wide()
    if settings["flip"]:
        layers.append(keras.layers.RandomFlip("horizontal", **wide))
    # What comes in at an edge is as the edge.
    if share := settings["translation"]:
        layers.append(keras.layers.RandomTranslation(share, share, fill_mode="nearest", **wide))
    if share := settings["rotation"]:
        layers.append(keras.layers.RandomRotation(share, fill_mode="nearest", **wide))
    if share := settings["zoom"]:
        layers.append(keras.layers.RandomZoom(share, fill_mode="nearest", **wide))
    return layers


def _residual(tensor: Any, filters: int, settings: Settings) -> Any:
    """Two convolutions with a shortcut past them, projected where the filters change: arXiv 1512.03385."""
    changed = blocks.through(
        tensor,
        [
            *blocks.convolution(filters, 3, settings, padding="same"),
            *blocks.convolution(filters, 3, settings, padding="same"),
        ],
    )
    if tensor.shape[-1] != filters:
        tensor = keras.layers.Conv2D(filters, 1, **blocks.kernel(settings, [0, 1, 2]))(tensor)
    return keras.layers.Add()([changed, tensor])


def _separable(tensor: Any, filters: int, settings: Settings) -> Any:
    """Two depthwise separable convolutions: arXiv 1610.02357."""
    return blocks.through(
        tensor,
        [
            *blocks.separable(filters, 3, settings, padding="same"),
            *blocks.separable(filters, 3, settings, padding="same"),
        ],
    )


def task(source: Source) -> Task:
    """The task of a person's pictures; see `datasets/pictures.py` for what they may be."""
    album = Album(source)
    return Task(
        name="images",
        parameters=(
            *techniques(optimizer="adam", activation="relu", scaling="standardise"),
            _NETWORK,
            _FILTERS,
            _FLIP,
            _TRANSLATION,
            _ROTATION,
            _ZOOM,
        ),
        metrics=CLASSIFICATION,
        load=album.load,
        build=build,
        form=lambda data: Pictures(column=pictures.column(source)),
        raw=album.raw,
        source=source,
    )
