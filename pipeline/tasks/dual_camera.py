"""Dual camera: two pictures through one shared Xception, without pretrained weights."""

from typing import Any

import keras

from pipeline.datasets import generated
from pipeline.forms import Pictures
from pipeline.metrics import CLASSIFICATION
from pipeline.settings import techniques
from pipeline.tasks import blocks
from pipeline.tasks.task import Task
from pipeline.values import Data, Settings

_CAMERAS = ("left", "right")
_LAYERS = keras.layers


def build(settings: Settings, data: Data) -> keras.Model:
    """One Xception base for both pictures, its features joined - Dropout - softmax; RMSprop.

    The base has the searched numbers in each of its BatchNormalizations and kernels; without
    BatchNormalization it has none.
    """
    shape = data.train.inputs["left"].shape[1:]
    inputs = {name: keras.Input(shape, dtype="uint8", name=name) for name in _CAMERAS}
    base = _base(settings, shape)
    scaled = {name: blocks.rescaling(1.0 / 255.0)(picture) for name, picture in inputs.items()}
    joined = _LAYERS.Concatenate()([base(scaled[name]) for name in _CAMERAS])
    last = [blocks.dropout(settings), blocks.answer(len(data.classes), "softmax")]
    model = keras.Model(inputs, blocks.through(joined, last), name="dual_camera")
    return blocks.compiled(model, settings)


def _base(settings: Settings, shape: tuple[int, ...]) -> keras.Model:
    """Keras's Xception without its top, with the techniques that the settings ask for."""
    published = keras.applications.Xception(
        include_top=False, weights=None, input_shape=shape, pooling="avg", name="xception"
    )

    def changed(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if isinstance(layer, _LAYERS.BatchNormalization):
            (normalization,) = blocks.batch_normalization(settings) or [_LAYERS.Identity()]
            config = {**normalization.get_config(), "name": layer.name}
            return type(normalization).from_config(config)
        if isinstance(layer, _LAYERS.SeparableConv2D):
            config.update(blocks.separable_kernels(settings))
        elif isinstance(layer, _LAYERS.Conv2D):
            config.update(blocks.kernel(settings, [0, 1, 2]))
        return type(layer).from_config(config)

    def called(layer: keras.layers.Layer, *tensors: Any, **more: Any) -> Any:
        # An Identity takes no mask, and a BatchNormalization in its place was given none.
        return layer(*tensors) if isinstance(layer, _LAYERS.Identity) else layer(*tensors, **more)

    return keras.models.clone_model(published, clone_function=changed, call_function=called)


TASK = Task(
    name="dual_camera",
    parameters=techniques(optimizer="rmsprop"),
    metrics=CLASSIFICATION,
    load=generated.dual_camera,
    build=build,
    form=lambda data: Pictures(),
)
