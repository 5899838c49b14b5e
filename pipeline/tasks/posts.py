"""Posts: what somebody writes tells three things about them, their age, income group and gender."""

import math

import keras

from pipeline.datasets import generated
from pipeline.settings import Parameter, techniques
from pipeline.tasks import blocks
from pipeline.tasks.task import Task
from pipeline.values import Data, Metric, Settings

_VECTOR, _SIZE, _POOL, _DENSE = 256, 5, 5, 128
# Filters of the convolutions between two poolings.
_STAGES = ((128,), (256, 256), (256, 256))

_WEIGHTS = tuple(
    Parameter(
        f"{output}_weight", "float", weight, f"of the loss of {output}", low=0, open_low=True, in_loss=True
    )
    for output, weight in (("age", 0.25), ("income", 1.0), ("gender", 10.0))
)
_AGE = Metric("age_mse", "minimize", "age")
_INCOME = Metric("income_log_loss", "minimize", "income")
_GENDER = Metric("gender_log_loss", "minimize", "gender")
# Each output's loss counts a third, in units of what a guess loses: a variance of 1, ln 10 and ln 2.
_SCORE = Metric(
    "score",
    "minimize",
    parts=(
        (_AGE, 1 / 3),
        (_INCOME, 1 / (3 * math.log(10))),
        (_GENDER, 1 / (3 * math.log(2))),
    ),
)


def build(settings: Settings, data: Data) -> keras.Model:
    """Embedding 256, a stack of Conv1D with MaxPool 5 between, Dense 128, three outputs; RMSprop.

    BatchNormalization after each convolution and the Dense layer, Dropout before the outputs.
    """
    texts = keras.Input((data.train.one_input.shape[1],), dtype="int32", name="text")
    layers = [keras.layers.Embedding(data.words[""], _VECTOR)]
    for place, stage in enumerate(_STAGES):
        layers += [keras.layers.MaxPooling1D(_POOL)] if place else []
        for filters in stage:
            layers += blocks.convolution(filters, _SIZE, settings, rank=1)
    layers.append(keras.layers.GlobalAveragePooling1D())
    layers += [*blocks.dense(_DENSE, settings), blocks.dropout(settings)]
    read = blocks.through(texts, layers)
    groups = len(data.outputs["income"])
    outputs = {
        "age": blocks.answer(1, name="age")(read),
        "income": blocks.answer(groups, "softmax", name="income")(read),
        "gender": blocks.answer(1, "sigmoid", name="gender")(read),
    }
    model = keras.Model(texts, outputs, name="posts")
    numbers = [
        keras.metrics.MeanSquaredError(name="mse"),
        keras.metrics.MeanAbsoluteError(name="mae"),
    ]
    model.compile(
        optimizer=blocks.optimizer(settings),
        loss={"age": "mse", "income": blocks.loss_of(groups), "gender": blocks.loss_of(1)},
        loss_weights={output: settings[f"{output}_weight"] for output in outputs},
        metrics={"age": numbers, "income": blocks.metrics_of(groups), "gender": blocks.metrics_of(1)},
    )
    return model


TASK = Task(
    name="posts",
    parameters=(*techniques(optimizer="rmsprop", activation="relu"), *_WEIGHTS),
    metrics=(
        _AGE,
        Metric("age_mae", "minimize", "age"),
        Metric("income_accuracy", "maximize", "income"),
        _INCOME,
        Metric("gender_accuracy", "maximize", "gender"),
        _GENDER,
        _SCORE,
    ),
    load=generated.posts,
    build=build,
)
