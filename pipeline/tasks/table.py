"""A table of your own: a residual MLP whose regularisation and techniques, its cocktail, are searched.

The idea that a plain network with the right cocktail beats what was made for tables: A. Kadra et al.,
"Well-tuned Simple Nets Excel on Tabular Datasets", NeurIPS 2021 (arXiv 2106.11189).
"""

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from pipeline.carried import encoding
from pipeline.datasets import tables
from pipeline.datasets.tables import ANSWER, Table
from pipeline.forms import Table as TableForm
from pipeline.metrics import ACCURACY, BALANCED_ACCURACY, BALANCED_LOG_LOSS, LOG_LOSS
from pipeline.settings import Parameter, techniques
from pipeline.source import Source
from pipeline.tasks import blocks
from pipeline.tasks.cocktail import Blend, Cocktail, Gate
from pipeline.tasks.task import Task
from pipeline.values import Data, Metric, Settings

_EMBEDDED = 8
# With fewer categories than so many times the numbers of an embedding, it says what one-hot says.
_ALIKE = 2

UNITS = Parameter("units", "int", 256, "units of each hidden layer", low=1)
HIDDEN_LAYERS = Parameter("hidden_layers", "int", 3, "how many hidden layers", low=1, high=64)
SKIP = Parameter(
    "skip", "bool", default=True, meaning="whether each hidden layer but the first adds to the one before"
)
CATEGORIES = Parameter(
    "categories", "word", "one_hot", "how categories come in", words=("one_hot", "embedding")
)
WEIGHT_AVERAGING = Parameter(
    "weight_averaging",
    "float",
    0.0,
    "momentum of the weights' moving average, which they are set to after each epoch; 0 is off",
    low=0,
    high=1,
    open_high=True,
)
LABEL_SMOOTHING = Parameter(
    "label_smoothing", "float", 0.0, "share of a target that is spread over all classes", low=0, high=1,
    open_high=True, in_loss=True,
)  # fmt: skip
MIXUP = Parameter(
    "mixup",
    "float",
    0.0,
    "largest share of another row that is mixed into a row",
    low=0,
    high=1,
    in_loss=True,
)
CLASS_WEIGHTS = Parameter(
    "class_weights", "float", 1.0, "power of the rows' weights: 1 where classes count alike, 0 for none",
    low=0, in_loss=True,
)  # fmt: skip

_COMMON = (
    *techniques(optimizer="adamw", activation="relu"),
    UNITS,
    HIDDEN_LAYERS,
    SKIP,
    CATEGORIES,
    WEIGHT_AVERAGING,
    MIXUP,
)
_OF_CLASSES = (LABEL_SMOOTHING, CLASS_WEIGHTS)
_NUMBERS = (Metric("mse", "minimize", ANSWER), Metric("mae", "minimize", ANSWER))


def task(source: Source) -> Task:
    """The task of a table.

    Raises:
        UserError: the table cannot be used.
    """
    read = functools.cache(lambda size: tables.read(source, size))
    whole = read("full")
    for note in whole.notes:
        print(note, flush=True)
    return replace(
        of_data(whole.data, max(map(len, encoding.categories(whole.rules)), default=0)),
        load=lambda size: _data(read(size)),
        form=lambda data: TableForm(whole.rules, whole.example),
        raw=lambda split: tables.raw(source, split, whole.state),
        source=source,
    )


def of_data(data: Data, most: int = 0) -> Task:
    """The task of rows that are there: classes or a number by the columns of `encoding.encode`.

    most: categories of the column that has the most.
    """
    classes = bool(data.classes)
    return Task(
        name="table",
        parameters=_COMMON + (_OF_CLASSES if classes else ()),
        metrics=(BALANCED_LOG_LOSS, BALANCED_ACCURACY, ACCURACY, LOG_LOSS) if classes else _NUMBERS,
        load=lambda size: data,
        build=build,
        space="table" if classes else "table_number",
        idle=() if most > _ALIKE * _EMBEDDED else (CATEGORIES.name,),
    )


def _data(table: Table) -> Data:
    tokens = encoding.tokens(table.rules)
    return replace(table.data, words={encoding.CATEGORIES: tokens} if tokens else {})


def build(settings: Settings, data: Data) -> keras.Model:
    """Hidden layers of Dense, activation, BatchNormalization and Dropout, each added to the one before."""
    inputs, tensor = _encoded(settings, data)
    classes = len(data.classes)
    scale = 1.0 if classes else 1.0 / _spread(data)[1] ** 2
    tensor = Blend(
        mixup=float(settings["mixup"]),
        label_smoothing=float(settings["label_smoothing"]) if classes else 0.0,
        balance=float(settings["class_weights"]) if classes else 0.0,
        scale=scale,
        # Its shares are those of the loss.
        **blocks.wide(),
    )(tensor)
    for place in range(int(settings["hidden_layers"])):
        layers = [*blocks.dense(int(settings["units"]), settings), blocks.dropout(settings)]
        after = blocks.through(tensor, layers)
        # A gate in either case: with and without is one program to lanes.
        tensor = keras.layers.Add()([Gate(float(settings["skip"]))(tensor), after]) if place else after
    model = Cocktail(inputs, _answer(tensor, data), name="table")
    _compile(model, settings, data)
    return model


def _encoded(settings: Settings, data: Data) -> tuple[Any, Any]:
    """The inputs, and one vector of them."""
    given: Any = data.train.inputs
    if not isinstance(given, Mapping):
        given = {encoding.CATEGORIES if data.words else encoding.NUMBERS: given}
    inputs, parts = {}, []
    for name, rows in given.items():
        inputs[name] = keras.Input(rows.shape[1:], dtype=str(rows.dtype), name=name)
        parts += (
            [_categories(inputs[name], settings, data)] if name == encoding.CATEGORIES else [inputs[name]]
        )
    tensor = keras.layers.Concatenate()(parts) if len(parts) > 1 else parts[0]
    return (inputs if len(inputs) > 1 else next(iter(inputs.values()))), tensor


def _categories(place: Any, settings: Settings, data: Data) -> Any:
    tokens = data.words[encoding.CATEGORIES]
    if settings.get(CATEGORIES.name, CATEGORIES.default) == "embedding":
        return keras.layers.Flatten()(keras.layers.Embedding(tokens, _EMBEDDED)(place))
    return keras.layers.CategoryEncoding(tokens, output_mode="multi_hot")(place)


def _answer(tensor: Any, data: Data) -> Any:
    if data.classes:
        return blocks.answer(len(data.classes), "softmax")(tensor)
    mean, deviation = _spread(data)
    return blocks.rescaling(deviation, mean, name=ANSWER)(blocks.answer(1)(tensor))


def _spread(data: Data) -> tuple[float, float]:
    """Mean and standard deviation of the numbers to learn from; 1 where all are the same."""
    targets: Any = data.train.targets
    targets = targets[ANSWER]
    return float(np.mean(targets)), float(np.std(targets)) or 1.0


def _compile(model: keras.Model, settings: Settings, data: Data) -> None:
    optimizer = _averaging(blocks.optimizer(settings), settings, data)
    if data.classes:
        model.compile(
            optimizer=optimizer,
            loss="sparse_categorical_crossentropy",
            metrics=blocks.metrics_of(len(data.classes)),
            weighted_metrics=[
                keras.metrics.SparseCategoricalAccuracy(name="balanced_accuracy"),
                keras.metrics.SparseCategoricalCrossentropy(name="balanced_log_loss"),
            ],
        )
    else:
        model.compile(
            optimizer=optimizer,
            loss="mean_squared_error",
            metrics=[
                keras.metrics.MeanSquaredError(name="mse"),
                keras.metrics.MeanAbsoluteError(name="mae"),
            ],
        )


def _averaging(optimizer: Any, settings: Settings, data: Data) -> Any:
    """The same optimiser, with the weights' average at each epoch's end; of momentum 0 it is the weights."""
    steps = -(-data.train.rows // int(settings["batch_size"]))
    config = {
        **optimizer.get_config(),
        "learning_rate": float(settings["learning_rate"]),
        "use_ema": True,
        "ema_momentum": float(settings["weight_averaging"]),
        "ema_overwrite_frequency": steps,
    }
    return type(optimizer).from_config(config)
