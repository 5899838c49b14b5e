"""Layers and compilation that several tasks share, made from settings.

A regulariser and a dropout layer are there even when their number is zero: models of one task then have one
structure, and differ only in numbers. `batch_normalization = false`, `max_norm = "none"` and the words of
settings such as `activation` do change it.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from pipeline.values import Array, Settings, Split


def on(settings: Settings, technique: str) -> float:
    """A technique's number, or zero where it is switched off."""
    return float(settings[technique]) if settings[f"{technique}_on"] else 0.0


def l1_l2(settings: Settings) -> keras.regularizers.Regularizer:
    """The kernels' penalty, l1 * sum|w| + l2 * sum w^2."""
    return keras.regularizers.L1L2(l1=on(settings, "l1"), l2=on(settings, "l2"))


def max_norm(settings: Settings, axis: int | list[int] = 0) -> keras.constraints.Constraint | None:
    """The bound on the norm of each unit's incoming weights; `axis` spans one unit's, as in Keras."""
    if settings["max_norm"] == "none" or not settings["max_norm_on"]:
        return None
    return keras.constraints.MaxNorm(settings["max_norm"], axis=axis)


def kernel(settings: Settings, axis: int | list[int] = 0) -> dict[str, Any]:
    """Arguments of a layer with a kernel: its initialiser, penalty and bound."""
    return {
        "kernel_initializer": str(settings["initializer"]),
        "kernel_regularizer": l1_l2(settings),
        "kernel_constraint": max_norm(settings, axis),
    }


def hidden(
    make: Callable[..., keras.layers.Layer], settings: Settings, *, normalised: bool = True, **own: Any
) -> list[keras.layers.Layer]:
    """A layer, its activation, and BatchNormalization before or after that.

    make: the layer, of its `activation` and `activity_regularizer`. normalised: whether it may have the
    BatchNormalization. own: numbers of that.
    """
    activation = str(settings["activation"])
    normalization = batch_normalization(settings, **own) if normalised else []
    activity = {"activity_regularizer": keras.regularizers.L1(on(settings, "activity_l1"))}
    if normalization and settings["bn_position"] == "before":
        last = keras.layers.Activation(activation, **activity)
        return [make(activation=None), *normalization, last]
    return [make(activation=activation, **activity), *normalization]


def dense(units: int, settings: Settings, **own: Any) -> list[keras.layers.Layer]:
    """A hidden Dense layer; see `hidden`."""

    def make(**more: Any) -> keras.layers.Layer:
        return keras.layers.Dense(units, **kernel(settings), **more)

    return hidden(make, settings, **own)


def convolution(filters: int, size: int, settings: Settings, rank: int = 2, **more: Any) -> list[Any]:
    """A hidden convolution over `rank` axes; see `hidden`. more: of the layer, such as strides."""
    kind = {1: keras.layers.Conv1D, 2: keras.layers.Conv2D}[rank]

    def make(**activation: Any) -> keras.layers.Layer:
        return kind(filters, size, **kernel(settings, list(range(rank + 1))), **more, **activation)

    return hidden(make, settings)


def separable(filters: int, size: int, settings: Settings, **more: Any) -> list[Any]:
    """A hidden SeparableConv2D; see `hidden`. The bound is on the pointwise part, which mixes channels."""

    def make(**activation: Any) -> keras.layers.Layer:
        return keras.layers.SeparableConv2D(
            filters, size, **separable_kernels(settings), **more, **activation
        )

    return hidden(make, settings)


def separable_kernels(settings: Settings) -> dict[str, Any]:
    """Arguments of a SeparableConv2D: initialisers, penalties and the bound."""
    return {
        "depthwise_initializer": str(settings["initializer"]),
        "pointwise_initializer": str(settings["initializer"]),
        "depthwise_regularizer": l1_l2(settings),
        "pointwise_regularizer": l1_l2(settings),
        "pointwise_constraint": max_norm(settings, [0, 1, 2]),
    }


def lstm(units: int, settings: Settings, **more: Any) -> keras.layers.Layer:
    """An LSTM that answers with its last state; penalty and bound are those of its input kernel."""
    return keras.layers.LSTM(units, **kernel(settings), **more)


def batch_normalization(settings: Settings, **own: Any) -> list[keras.layers.Layer]:
    """One BatchNormalization layer, or none if it is off; `own` overrides its numbers."""
    if not settings["batch_normalization"]:
        return []
    numbers = {
        "momentum": settings["bn_momentum"],
        "epsilon": settings["bn_epsilon"],
        "gamma_initializer": keras.initializers.Constant(settings["bn_gamma"]),
    }
    if settings["bn_beta_stddev"]:
        numbers["beta_initializer"] = keras.initializers.RandomNormal(stddev=settings["bn_beta_stddev"])
    return [keras.layers.BatchNormalization(**{**numbers, **own})]


def dropout(settings: Settings) -> keras.layers.Layer:
    """Dropout, of rate zero where it is off."""
    rate = on(settings, "dropout")
    if not rate:
        # As Keras does for any other rate: the layers after it begin with the same weights either way.
        random.randint(1, int(1e9))  # noqa: S311
    return keras.layers.Dropout(rate)


def scaling(settings: Settings, train: Split, white: float | None = None) -> list[keras.layers.Layer]:
    """What scales the only input, by numbers of the training rows.

    white: the brightest value of pixels, whose range is known: 0 to `white` becomes 0 to 1 under `min_max`.
    """
    match settings["scaling"]:
        case "standardise":
            mean, variance = train.moments
            return [_normalization(mean, variance)]
        case "min_max" if white is not None:
            return [rescaling(1.0 / white)]
        case "min_max":
            low, high = train.extremes
            return [_normalization(low, np.square(high - low))]
        case _:
            # Whole numbers become floats, which the next layer needs.
            return [rescaling(1.0)] if train.one_input.dtype.kind in "iu" else []


def _normalization(mean: Array, variance: Array) -> keras.layers.Layer:
    return keras.layers.Normalization(mean=mean.tolist(), variance=variance.tolist(), **wide())


def rescaling(factor: float, offset: float = 0.0, **more: Any) -> keras.layers.Layer:
    """Inputs times a factor plus an offset, see `wide`. more: of the layer, such as its name."""
    return keras.layers.Rescaling(factor, offset, **more, **wide())


def answer(units: int, activation: str | None = None, **more: Any) -> keras.layers.Layer:
    """The last layer, see `wide`. more: of the layer, such as its name."""
    return keras.layers.Dense(units, activation=activation, **more, **wide())


def wide() -> dict[str, Any]:
    """Arguments of a layer that computes with Keras's full width whatever the others compute with.

    Numbers as they come, such as years, differ beyond the third digit, which 16 bits do not have; and a
    softmax of them gives probabilities of three digits (https://keras.io/api/mixed_precision/).
    """
    return {"dtype": keras.config.floatx()}


def hidden_widths(settings: Settings, published: tuple[int, ...]) -> tuple[int, ...]:
    """Units of each hidden layer: the published ones, or what `units` and `hidden_layers` ask for.

    More layers than were published repeat the last published width.
    """
    layers = settings["hidden_layers"]
    count = len(published) if layers == "published" else int(layers)
    widths = (published + published[-1:] * count)[:count]
    return widths if settings["units"] == "published" else (int(settings["units"]),) * count


def through(tensor: Any, layers: Sequence[keras.layers.Layer]) -> Any:
    """A tensor through layers, one after another."""
    for layer in layers:
        tensor = layer(tensor)
    return tensor


def optimizer(settings: Settings) -> keras.optimizers.Optimizer:
    """The optimiser with its learning rate and, where it has one, its own number."""
    rate = settings["learning_rate"]
    match settings["optimizer"]:
        case "adamw":
            return keras.optimizers.AdamW(rate, weight_decay=settings["weight_decay"])
        case "sgd":
            return keras.optimizers.SGD(rate, momentum=settings["momentum"])
        case "rmsprop":
            return keras.optimizers.RMSprop(rate)
        case _:
            return keras.optimizers.Adam(rate)


def classifier(
    name: str, shape: tuple[int, ...], layers: list[keras.layers.Layer], settings: Settings, **given: Any
) -> keras.Model:
    """A compiled classifier of one input; see `compiled`. given: of the input, such as its dtype."""
    model = keras.Sequential([keras.Input(shape, **given), *layers], name=name)
    return compiled(model, settings)


def compiled(model: keras.Model, settings: Settings, *, logits: bool = False) -> keras.Model:
    """The model, compiled as a classifier: one unit in the last layer means two classes, else a softmax.

    Its metrics are accuracy and log loss; the log loss has no penalties in it, unlike Keras's `loss`.

    logits: whether it answers with one logit.
    """
    model.compile(
        optimizer=optimizer(settings),
        loss=loss_of(model.output_shape[-1], logits=logits),
        metrics=metrics_of(model.output_shape[-1], logits=logits),
    )
    return model


def loss_of(units: int, *, logits: bool = False) -> Any:
    """The loss of an output of so many units."""
    if logits:
        return keras.losses.BinaryCrossentropy(from_logits=True)
    return "binary_crossentropy" if units == 1 else "sparse_categorical_crossentropy"


def metrics_of(units: int, *, logits: bool = False) -> list[keras.metrics.Metric]:
    """Accuracy and log loss of an output of so many units."""
    if units > 1:
        return [
            keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
            keras.metrics.SparseCategoricalCrossentropy(name="log_loss"),
        ]
    # A logit's threshold is zero, and Keras asks for one above.
    threshold = keras.config.epsilon() if logits else 0.5
    return [
        keras.metrics.BinaryAccuracy(name="accuracy", threshold=threshold),
        keras.metrics.BinaryCrossentropy(name="log_loss", from_logits=logits),
    ]
