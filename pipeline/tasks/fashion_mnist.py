"""Fashion-MNIST: one hidden layer with every regulariser of the book, on 70,000 pictures of clothes."""

import keras

from pipeline.datasets import keras_sets
from pipeline.forms import Drawing, Pictures
from pipeline.metrics import CLASSIFICATION
from pipeline.settings import HIDDEN_LAYERS, UNITS, techniques
from pipeline.tasks import blocks
from pipeline.tasks.task import Task
from pipeline.values import Data, Settings

_WIDTHS = (64,)


def build(settings: Settings, data: Data) -> keras.Model:
    """Flatten - Dense 64 - BatchNormalization - Dropout - softmax, Adam; grey values are scaled inside."""
    layers = [*blocks.scaling(settings, data.train, white=255.0), keras.layers.Flatten()]
    for units in blocks.hidden_widths(settings, _WIDTHS):
        layers += [*blocks.dense(units, settings), blocks.dropout(settings)]
    layers.append(blocks.answer(len(data.classes), "softmax"))
    return blocks.classifier("fashion_mnist", data.train.one_input.shape[1:], layers, settings)


TASK = Task(
    name="fashion_mnist",
    parameters=(
        *techniques(optimizer="adam", activation="linear", scaling="min_max"),
        UNITS,
        HIDDEN_LAYERS,
    ),
    metrics=CLASSIFICATION,
    load=keras_sets.fashion_mnist,
    build=build,
    # As the set was made: the longest side fills 28 pixels (H. Xiao et al., 2017, section 2).
    form=lambda data: Pictures(drawing=Drawing(box=28, centre="box")),
)
