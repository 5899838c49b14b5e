"""Iris: a deep MLP with BatchNormalization after each hidden layer, on 150 flowers.

The inputs are standardised inside the model, with the mean and variance of the training rows, so the saved
model takes centimetres.
"""

import keras

from pipeline.datasets import bundled
from pipeline.metrics import CLASSIFICATION
from pipeline.settings import HIDDEN_LAYERS, UNITS, Parameter, techniques
from pipeline.tasks import blocks
from pipeline.tasks.task import Task
from pipeline.values import Data, Settings

_WIDTHS = (64, 128, 128, 64, 64)

# One published variant has its own numbers in the last BatchNormalization; the searched pair drives all.
_LAST_BN_MOMENTUM = Parameter(
    "last_bn_momentum",
    "float",
    "bn_momentum",
    "momentum of the last BatchNormalization, where it has its own",
    low=0,
    high=1,
    open_high=True,
    words=("bn_momentum",),
)
_LAST_BN_EPSILON = Parameter(
    "last_bn_epsilon",
    "float",
    "bn_epsilon",
    "epsilon of the last BatchNormalization, where it has its own",
    low=0,
    open_low=True,
    words=("bn_epsilon",),
)


def build(settings: Settings, data: Data) -> keras.Model:
    """Dense 64-128-128-64-64-3, relu, BatchNormalization and Dropout after each hidden layer, Adam."""
    layers = blocks.scaling(settings, data.train)
    widths = blocks.hidden_widths(settings, _WIDTHS)
    for place, units in enumerate(widths, start=1):
        own = _last(settings) if place == len(widths) else {}
        layers += [*blocks.dense(units, settings, **own), blocks.dropout(settings)]
    layers.append(blocks.answer(len(data.classes), "softmax"))
    return blocks.classifier("iris", data.train.one_input.shape[1:], layers, settings)


def _last(settings: Settings) -> dict[str, object]:
    def own(name: str) -> object:
        value = settings[f"last_{name}"]
        return settings[name] if value == name else value

    return {
        "momentum": own("bn_momentum"),
        "epsilon": own("bn_epsilon"),
        "beta_initializer": keras.initializers.RandomNormal(mean=0.0, stddev=0.05),
        "gamma_initializer": keras.initializers.Constant(0.9),
    }


TASK = Task(
    name="iris",
    parameters=(
        *techniques(optimizer="adam", activation="relu", scaling="standardise"),
        UNITS,
        HIDDEN_LAYERS,
        _LAST_BN_MOMENTUM,
        _LAST_BN_EPSILON,
    ),
    metrics=CLASSIFICATION,
    load=bundled.iris,
    build=build,
    form=lambda data: bundled.iris_columns(),
)
