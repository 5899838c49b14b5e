"""Models that differ in lane numbers, seeds and counted names alone share a program; others do not."""

from collections.abc import Callable

import keras
import numpy as np
import pytest

from pipeline.engines.lanes import signature

layers, optimizers = keras.layers, keras.optimizers

NUMBERS = {
    "dropout": 0.1,
    "momentum": 0.9,
    "epsilon": 1e-3,
    "l1": 0.0,
    "l2": 1e-3,
    "max_norm": 2.0,
    "rate": 0.01,
    "beta": 0.9,
    "clip": 1.0,
    "smoothing": 0.0,
    "weight": 1.0,
    "noise": 0.1,
}
# Other numbers, most of them zero where that means off.
OTHERS = {
    "dropout": 0.0,
    "momentum": 0.5,
    "epsilon": 1e-2,
    "l1": 0.1,
    "l2": 0.0,
    "max_norm": 0.3,
    "rate": 0.5,
    "beta": 0.5,
    "clip": 0.0,
    "smoothing": 0.2,
    "weight": 0.0,
    "noise": 0.0,
}
STRUCTURE = {
    "units": 8,
    "activation": "relu",
    "bounded": True,
    "trainable": True,
    "loss": "categorical",
    "optimizer": optimizers.Adam,
    "shape": 4,
    "metrics": ("accuracy",),
    "clipped": "clipnorm",
    "use_bias": True,
    "penalty": "l1_l2",
    "named": "dense_of_mine",
    "noise_shape": None,
    "axis": 0,
    "batch_normalization": True,
}


def model(seed: int = 0, **changed: object) -> keras.Model:
    """Two paths, a shared layer, and every kind of number."""
    it = {**NUMBERS, **STRUCTURE, **changed}
    keras.utils.set_random_seed(seed)
    place = keras.Input((it["shape"],))
    penalties = {
        "l1_l2": lambda: keras.regularizers.L1L2(it["l1"], it["l2"]),
        "l2": lambda: keras.regularizers.L2(it["l2"]),
        "none": lambda: None,
    }
    shared = layers.Dense(
        it["units"],
        activation=it["activation"],
        use_bias=it["use_bias"],
        kernel_regularizer=penalties[it["penalty"]](),
        kernel_constraint=keras.constraints.MaxNorm(it["max_norm"], axis=it["axis"])
        if it["bounded"]
        else None,
        name=it["named"],
    )
    shared.trainable = it["trainable"]
    inner = keras.Sequential([layers.Dense(it["shape"]), layers.Dropout(it["dropout"], seed=seed)])
    hidden = layers.Add()([shared(place), shared(inner(layers.GaussianNoise(it["noise"])(place)))])
    if it["batch_normalization"]:
        hidden = layers.BatchNormalization(momentum=it["momentum"], epsilon=it["epsilon"])(hidden)
    hidden = layers.Dropout(it["dropout"], noise_shape=it["noise_shape"])(hidden)
    made = keras.Model(place, layers.Dense(3, activation="softmax")(hidden))
    losses = {
        "categorical": lambda: keras.losses.CategoricalCrossentropy(label_smoothing=it["smoothing"]),
        "error": keras.losses.MeanSquaredError,
    }
    clip = {it["clipped"]: it["clip"]} if it["clipped"] else {}
    first = {"beta_1": it["beta"]} if it["optimizer"] is not optimizers.SGD else {"momentum": it["beta"]}
    made.compile(
        it["optimizer"](it["rate"], **first, **clip),
        losses[it["loss"]](),
        loss_weights=[it["weight"]],
        metrics=list(it["metrics"]),
    )
    return made


def digest(**changed: object) -> str:
    return signature.of_model(model(**changed), own_tables=False).digest


@pytest.mark.parametrize("number", NUMBERS)
def test_a_lane_number_makes_no_other_program(number: str) -> None:
    assert digest(**{number: OTHERS[number]}) == digest()


def test_seeds_and_counted_names_make_no_other_program() -> None:
    first = digest()
    for _ in range(3):
        model()  # counts Keras's names up
    assert digest(seed=5, **OTHERS) == first
    assert digest(optimizer=optimizers.SGD) == digest(optimizer=optimizers.SGD, beta=0.0)


@pytest.mark.parametrize(
    "changed",
    [
        {"units": 9},
        {"activation": "tanh"},
        {"bounded": False},
        {"trainable": False},
        {"loss": "error"},
        {"optimizer": optimizers.Nadam},
        {"optimizer": optimizers.SGD},
        {"shape": 5},
        {"metrics": ()},
        {"clipped": ""},
        {"clipped": "clipvalue"},
        {"use_bias": False},
        {"penalty": "l2"},
        {"penalty": "none"},
        {"named": "other_dense"},
        {"noise_shape": (None, 1)},
        {"axis": 1},
        {"batch_normalization": False},
    ],
    ids=str,
)
def test_anything_else_makes_another_program(changed: dict) -> None:
    assert digest(**changed) != digest()


def small(*middle: keras.Layer, loss: object = "mse", optimizer: object = None) -> str:
    made = keras.Sequential([keras.Input((6, 4)), *middle, layers.Flatten(), layers.Dense(1)])
    made.compile(optimizer or optimizers.SGD(0.1), loss)
    return signature.of_model(made, own_tables=False).digest


SAME: dict[str, Callable[[int], keras.Layer]] = {
    "Dense": lambda n: layers.Dense(3),
    "LSTM": lambda n: layers.LSTM(3, return_sequences=True, kernel_regularizer=keras.regularizers.L2(n / 10)),
    "Bidirectional": lambda n: layers.Bidirectional(layers.LSTM(3, return_sequences=True)),
    "TimeDistributed": lambda n: layers.TimeDistributed(layers.Dense(3)),
    "Orthogonal": lambda n: layers.Dense(3, kernel_initializer=keras.initializers.Orthogonal(gain=1.0 + n)),
    "seed": lambda n: layers.SpatialDropout1D(n / 10, seed=n),
    "LayerNormalization": lambda n: layers.LayerNormalization(epsilon=1e-3 * (n + 1)),
    "GroupNormalization": lambda n: layers.GroupNormalization(2, epsilon=1e-3 * (n + 1)),
    "activity": lambda n: layers.ActivityRegularization(l1=0.1 * n, l2=0.1),
    "MinMaxNorm": lambda n: layers.Dense(
        3, kernel_constraint=keras.constraints.MinMaxNorm(0.1 * n, 1.0 + n, rate=1.0 - 0.1 * n)
    ),
    "dtype": lambda n: layers.Conv1D(3, 2, dtype="float32"),
}


@pytest.mark.parametrize("name", SAME)
def test_layers_that_share_a_program(name: str) -> None:
    assert len({small(SAME[name](number)) for number in (0, 1, 2, 3)}) == 1


@pytest.mark.parametrize(
    "kinds",
    [
        (layers.UnitNormalization(), layers.LayerNormalization()),
        (layers.LeakyReLU(0.1), layers.LeakyReLU(0.2)),
        (layers.Dropout(0.1), layers.AlphaDropout(0.1)),
        (layers.BatchNormalization(scale=False), layers.BatchNormalization(center=False)),
        (layers.LSTM(3, return_sequences=True), layers.LSTM(3, return_sequences=True, dropout=0.1)),
        (layers.Conv1D(3, 2, padding="same"), layers.Conv1D(3, 2, padding="causal")),
        (
            layers.Dense(3, kernel_regularizer=keras.regularizers.L1(0.1)),
            layers.Dense(3, bias_regularizer="l1"),
        ),
    ],
    ids=lambda kinds: type(kinds[0]).__name__,
)
def test_layers_that_do_not(kinds: tuple) -> None:
    one, other = kinds
    assert small(one) != small(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}),
        ({}, {"weight_decay": 0.1}),
        ({}, {"use_ema": True}),
        ({}, {"gradient_accumulation_steps": 2}),
    ],
    ids=str,
)
def test_optimisers_that_do_not(one: dict, other: dict) -> None:
    assert small(optimizer=optimizers.SGD(0.1, **one)) != small(optimizer=optimizers.SGD(0.1, **other))


def test_tables_count_unless_each_lane_has_its_own() -> None:
    def of(mean: float, *, own: bool) -> str:
        made = keras.Sequential(
            [keras.Input((4,)), layers.Normalization(mean=mean, variance=1.0), layers.Dense(1)]
        )
        made.compile("sgd", "mse")
        return signature.of_model(made, own_tables=own).digest

    assert of(0.0, own=False) != of(1.0, own=False)
    assert of(0.0, own=True) == of(1.0, own=True)


def test_weights_make_no_other_program() -> None:
    one, other = model(), model()
    other.set_weights([np.ones_like(weight) for weight in other.get_weights()])
    digests = {signature.of_model(made, own_tables=False).digest for made in (one, other)}
    assert len(digests) == 1


def test_a_frozen_variable_makes_another_program() -> None:
    def of(*, frozen: bool) -> str:
        made = keras.Sequential([keras.Input((4,)), layers.Dense(2), layers.Dense(1)])
        made.layers[0].bias.trainable = not frozen
        made.compile("sgd", "mse")
        return signature.of_model(made, own_tables=False).digest

    assert of(frozen=True) != of(frozen=False)
