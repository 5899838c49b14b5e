"""Layers and compilation that several tasks share, made from settings.

A regulariser and a dropout layer are there even when their number is zero: models of one task then have one
structure, and differ only in numbers. `batch_normalization = false` and `max_norm = "none"` do change it.
"""

from typing import Any

import keras

from pipeline.values import Settings


def l1_l2(settings: Settings) -> keras.regularizers.Regularizer:
    """The kernels' penalty, l1 * sum|w| + l2 * sum w^2."""
    return keras.regularizers.L1L2(l1=settings["l1"], l2=settings["l2"])


def max_norm(settings: Settings, axis: int | list[int] = 0) -> keras.constraints.Constraint | None:
    """The bound on the norm of each unit's incoming weights; `axis` spans one unit's, as in Keras."""
    if settings["max_norm"] == "none":
        return None
    return keras.constraints.MaxNorm(settings["max_norm"], axis=axis)


def dense(units: int, activation: str, settings: Settings, **more: Any) -> keras.layers.Layer:
    """A Dense layer with the kernel's penalty and bound."""
    return keras.layers.Dense(
        units,
        activation=activation,
        kernel_regularizer=l1_l2(settings),
        kernel_constraint=max_norm(settings),
        **more,
    )


def batch_normalization(settings: Settings, **more: Any) -> list[keras.layers.Layer]:
    """One BatchNormalization layer, or none if it is off; `more` overrides its numbers."""
    if not settings["batch_normalization"]:
        return []
    numbers = {"momentum": settings["bn_momentum"], "epsilon": settings["bn_epsilon"], **more}
    return [keras.layers.BatchNormalization(**numbers)]


def hidden_widths(settings: Settings, published: tuple[int, ...]) -> tuple[int, ...]:
    """Units of each hidden layer: the published ones, or what `units` and `hidden_layers` ask for.

    More layers than were published repeat the last published width.
    """
    layers = settings["hidden_layers"]
    count = len(published) if layers == "published" else int(layers)
    widths = (published + published[-1:] * count)[:count]
    return widths if settings["units"] == "published" else (int(settings["units"]),) * count


def classifier(
    name: str,
    shape: tuple[int, ...],
    layers: list[keras.layers.Layer],
    optimizer: keras.optimizers.Optimizer,
) -> keras.Model:
    """A compiled classifier: one unit in the last layer means two classes and a sigmoid, else a softmax.

    Its metrics are accuracy and log loss; the log loss has no penalties in it, unlike Keras's `loss`.
    """
    model = keras.Sequential([keras.Input(shape), *layers], name=name)
    if model.output_shape[-1] == 1:
        loss = "binary_crossentropy"
        metrics = [
            keras.metrics.BinaryAccuracy(name="accuracy"),
            keras.metrics.BinaryCrossentropy(name="log_loss"),
        ]
    else:
        loss = "sparse_categorical_crossentropy"
        metrics = [
            keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
            keras.metrics.SparseCategoricalCrossentropy(name="log_loss"),
        ]
    model.compile(optimizer=optimizer, loss=loss, metrics=metrics)
    return model
