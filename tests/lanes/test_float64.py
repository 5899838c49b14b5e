"""Lanes equal `model.fit` on JAX in float64, where rounding hides nothing: tasks, and random models."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pytest
from lanes_harness import (
    Build,
    Trial,
    budget,
    data_of,
    each,
    in_lanes,
    lanes_engine,
    one_by_one,
    relative,
    replayed,
)
from test_equality import MARKS, PATIENCE_SECONDS, judged, lanes_of, named, prescribe

from pipeline import tasks
from pipeline.values import Candidate, Data, Settings, Split

__all__ = ["prescribe"]

layers, optimizers, regularizers, constraints = (
    keras.layers,
    keras.optimizers,
    keras.regularizers,
    keras.constraints,
)
# A number is rounded by 1.1e-16, and sums of thousands of terms make that 1e-14. Training amplifies it as any
# change: some ten thousand times, at most a million, in 30 epochs (see the design: 1e-7 becomes 15 % in
# float32 after 20 epochs of iris at ten times this rate). A gradient that is nothing but rounding moves
# nothing here, as the optimisers' epsilon of 1e-7 is far above it.
EPOCH, LONG = 1e-9, 1e-8


def assert_equal(
    build: Build,
    data: Data,
    candidates: list[Candidate],
    epochs: int,
    folder: Path,
    limit: float,
    again: list[Candidate] | None = None,
) -> None:
    """The candidates share one program, and equal `model.fit` in every metric of every epoch.

    again: those of them that `model.fit` trains too; all by default.
    """
    limits = budget(epochs=epochs)
    ours = in_lanes(lanes_engine(build, data, limits, folder, 4, seed=3), candidates, PATIENCE_SECONDS)
    assert {trial.refused or trial.outcome.failure for trial in ours.values()} == {""}
    assert len({trial.outcome.replay for trial in ours.values()}) == 1, "they shared one program"
    theirs = one_by_one(build, data, limits, folder / "fit", replayed(again or candidates, ours))
    for number, trial in theirs.items():
        _assert_same(ours[number], trial, limit)


def _assert_same(ours: Trial, theirs: Trial, limit: float) -> None:
    assert theirs.outcome.failure == ""
    for name, difference in relative(ours.curve, theirs.curve).items():
        assert difference <= limit, name
    weights = [keras.models.load_model(one.outcome.model_file).weights for one in (ours, theirs)]
    for mine, its in zip(*weights, strict=True):
        if "seed" not in mine.path:
            np.testing.assert_allclose(mine.numpy(), its.numpy(), rtol=0, atol=100 * limit, err_msg=mine.path)


# Not dual_camera: in 64 bits Keras's gradient of its depthwise convolutions takes 14 GB and half an hour on
# two cores. separable_images has such layers, and test_equality.py has dual_camera itself.
EPOCHS = {
    "iris": 30,
    "fashion_mnist": 10,
    "imdb": 5,
    "digits": 2,
    "mnist": 2,
    "imdb_conv1d": 2,
    "question_answering": 2,
    "posts": 2,
    "sentence_similarity": 5,
    "separable_images": 2,
    "inception_residual": 2,
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=MARKS.get(name, pytest.mark.slow)) for name in EPOCHS]
)
def test_epochs_of_a_task_equal_model_fit(
    name: str, tmp_path: Path, prescribe: Callable[[str], None]
) -> None:
    prescribe(name)
    candidates = [Candidate(n, 50 + n, settings) for n, settings in enumerate(lanes_of(name))]
    again = judged(name, candidates)
    assert_equal(tasks.find(name).build, named(name), candidates, EPOCHS[name], tmp_path, LONG, again)


# Models drawn at random: the structure by one generator, the numbers of each lane by another.


@dataclass
class Draw:
    """structure: the same for every lane. lane: 1 has zeros where they are legal, the others any numbers."""

    structure: np.random.Generator
    numbers: np.random.Generator
    lane: int
    dropout: float
    kind: str

    def number(self, low: float, high: float, *, zero: bool = True) -> float:
        found = float(self.numbers.uniform(low, high))
        return 0.0 if zero and self.lane == 1 else found

    def some(self, *choices: object) -> object:
        return choices[self.structure.integers(len(choices))]

    def penalty(self) -> object:
        kind = self.some("none", "l1", "l2", "l1_l2")
        values = self.number(0, 0.02), self.number(0, 0.02)
        made = {
            "none": lambda: None,
            "l1": lambda: regularizers.L1(values[0]),
            "l2": lambda: regularizers.L2(values[1]),
            "l1_l2": lambda: regularizers.L1L2(*values),
        }
        return made[kind]()

    def bound(self, axis: object = 0) -> object:
        kind = self.some("none", "max", "min_max")
        low, more, rate = self.number(0, 0.3), self.number(0.2, 2, zero=False), self.number(0.2, 1)
        made = {
            "none": lambda: None,
            "max": lambda: constraints.MaxNorm(low + more, axis=axis),
            "min_max": lambda: constraints.MinMaxNorm(low, low + more, rate=rate, axis=axis),
        }
        return made[kind]()

    def rules(self, axis: object = 0) -> dict[str, object]:
        return {
            "kernel_regularizer": self.penalty(),
            "bias_regularizer": self.penalty(),
            "activity_regularizer": self.penalty(),
            "kernel_constraint": self.bound(axis),
            # The sign of a gradient that is nothing but rounding is Lion's whole step.
            "use_bias": self.kind != "Lion",
        }

    def normal(self) -> keras.Layer:
        momentum, epsilon = self.number(0.3, 0.99), self.number(1e-4, 1e-1, zero=False)
        kind = self.some(layers.BatchNormalization, layers.LayerNormalization)
        more = {"momentum": momentum} if kind is layers.BatchNormalization else {}
        return kind(epsilon=epsilon, **more)

    def after(self, hidden: object) -> object:
        """What comes after a layer with weights: a normalisation, noise, a penalty, in some order."""
        for part in self.structure.permutation(4):
            if part == 0:
                hidden = self.normal()(hidden)
            elif part == 1:
                hidden = layers.Dropout(self.dropout)(hidden)
            elif part == 2 and self.some(False, True):
                hidden = layers.ActivityRegularization(self.number(0, 0.01), self.number(0, 0.01))(hidden)
            elif part == 3 and self.some(False, True):
                hidden = layers.GaussianNoise(self.dropout)(hidden)
        return hidden

    def activation(self) -> str:
        return self.some("relu", "tanh", "elu", "sigmoid")

    def optimizer(self) -> keras.optimizers.Optimizer:
        rate, clip = self.number(1e-3, 1e-2, zero=False), self.number(0.05, 0.5)
        half, most = self.number(0.3, 0.9), self.number(0.5, 0.99, zero=False)
        clipping = self.some({}, {"clipnorm": clip}, {"global_clipnorm": clip}, {"clipvalue": clip / 10})
        nesterov = self.some(False, True)
        kinds: dict[str, Callable[[], keras.optimizers.Optimizer]] = {
            "Adam": lambda: optimizers.Adam(rate, beta_1=half, beta_2=most, amsgrad=nesterov, **clipping),
            "AdamW": lambda: optimizers.AdamW(rate, weight_decay=clip, beta_1=half, **clipping),
            "RMSprop": lambda: optimizers.RMSprop(
                rate, rho=most, momentum=half, centered=nesterov, **clipping
            ),
            "SGD": lambda: optimizers.SGD(rate, momentum=half, nesterov=nesterov, **clipping),
            "Nadam": lambda: optimizers.Nadam(rate, beta_1=half, beta_2=most, **clipping),
            "Adagrad": lambda: optimizers.Adagrad(rate, initial_accumulator_value=most, **clipping),
            "Adadelta": lambda: optimizers.Adadelta(100 * rate, rho=most, **clipping),
            "Lion": lambda: optimizers.Lion(rate, beta_1=most, beta_2=most / 2, **clipping),
            "Adamax": lambda: optimizers.Adamax(rate, beta_1=half, beta_2=most, **clipping),
            "Ftrl": lambda: optimizers.Ftrl(
                rate,
                l1_regularization_strength=clip / 100,
                l2_regularization_strength=clip,
                beta=half,
                **clipping,
            ),
        }
        return kinds[self.kind]()


def dense(draw: Draw) -> object:
    """A stack with a nested model and a shared layer."""
    place = keras.Input((5,), name="rows")
    shared = layers.Dense(5, activation=draw.activation(), **draw.rules())
    inner = keras.Sequential([layers.Dense(6, draw.activation(), **draw.rules()), layers.Dense(5)])
    hidden = draw.after(shared(place))
    hidden = layers.Add()([hidden, draw.after(shared(inner(place)))])
    return place, hidden


def image(draw: Draw) -> object:
    place = keras.Input((7, 6, 2), name="rows")
    spatial = [0, 1, 2]
    hidden = place
    for filters in (3, 4):
        size = draw.some(1, 2, 3, (3, 2))
        padding = draw.some("same", "valid") if filters == 3 else "same"
        hidden = layers.Conv2D(
            filters, size, draw.some(1, 1, 2), padding, activation=draw.activation(), **draw.rules(spatial)
        )(hidden)
        hidden = draw.after(hidden)
    pooling = draw.some(layers.MaxPooling2D, layers.AveragePooling2D)
    hidden = pooling(2, padding="same")(hidden)
    return place, draw.some(layers.Flatten, layers.GlobalAveragePooling2D)()(hidden)


def waves(draw: Draw) -> object:
    place = keras.Input((9, 3), name="rows")
    padding = draw.some("same", "valid", "causal")
    hidden = layers.Conv1D(4, 3, padding=padding, activation=draw.activation(), **draw.rules([0, 1]))(place)
    hidden = draw.some(layers.MaxPooling1D, layers.AveragePooling1D)(2)(draw.after(hidden))
    hidden = layers.SeparableConv1D(3, 2, padding="same")(hidden)
    return place, layers.GlobalAveragePooling1D()(draw.after(hidden))


def words(draw: Draw) -> object:
    place = keras.Input((6,), dtype="int32", name="rows")
    hidden = layers.Embedding(9, 4, mask_zero=draw.some(False, True), embeddings_regularizer=draw.penalty())(
        place
    )
    recurrent = draw.some(layers.LSTM, layers.GRU)
    rules = {"kernel_regularizer": draw.penalty(), "recurrent_regularizer": draw.penalty()}
    first = recurrent(4, return_sequences=True, kernel_constraint=draw.bound(), **rules)
    hidden = draw.some(layers.Bidirectional, lambda layer: layer)(first)(hidden)
    return place, draw.after(recurrent(3, bias_regularizer=draw.penalty())(hidden))


FAMILIES = {"dense": dense, "image": image, "waves": waves, "words": words}
SHAPES = {"dense": (5,), "image": (7, 6, 2), "waves": (9, 3)}
KINDS = ("Adam", "AdamW", "RMSprop", "SGD", "Nadam", "Adagrad", "Adadelta", "Lion", "Adamax", "Ftrl")


def build(settings: Settings, data: Data) -> keras.Model:
    """One or two outputs, for the family, the structure and the lane in the settings."""
    structure, lane = settings["structure"], settings["lane"]
    draw = Draw(
        np.random.default_rng(structure),
        np.random.default_rng([structure, lane]),
        lane,
        settings["dropout"],
        settings["kind"],
    )
    place, hidden = FAMILIES[settings["family"]](draw)
    inputs = [place]
    if "beside" in data.train.inputs:
        beside = keras.Input((2,), name="beside")
        inputs.append(beside)
        hidden = layers.Concatenate()([hidden, layers.Dense(3, draw.activation(), **draw.rules())(beside)])
    hidden = layers.Dense(5, activation=draw.activation(), **draw.rules())(hidden)
    outputs = [layers.Dense(3, activation="softmax", name="kind")(hidden)]
    smoothing = draw.number(0.05, 0.3)
    losses: dict[str, object] = {"kind": keras.losses.CategoricalCrossentropy(label_smoothing=smoothing)}
    metrics: dict[str, list] = {"kind": [keras.metrics.CategoricalCrossentropy(name="log_loss")]}
    weights = {"kind": draw.number(0.5, 2, zero=False)}
    if "flag" in data.train.targets:
        outputs.append(layers.Dense(1, activation="sigmoid", name="flag")(hidden))
        losses["flag"] = keras.losses.BinaryCrossentropy(label_smoothing=smoothing)
        weights["flag"] = draw.number(0.2, 3)
    model = keras.Model(inputs, outputs)
    more = {"weighted_metrics": {name: [] for name in losses}}
    model.compile(draw.optimizer(), losses, loss_weights=weights, metrics=metrics, **more)
    return model


def rows_of(family: str, structure: int) -> Data:
    """18 and 10 rows, with a second input, a second target and row weights in some structures."""
    rng = np.random.default_rng([structure, 99])
    two_inputs, two_targets, weighted = structure % 2 == 1, structure % 3 == 1, structure % 4 >= 2

    def split(rows: int) -> Split:
        shape = SHAPES.get(family)
        first = rng.normal(size=(rows, *shape)) if shape else rng.integers(0, 9, (rows, 6)).astype(np.int32)
        inputs = {"rows": first, **({"beside": rng.normal(size=(rows, 2))} if two_inputs else {})}
        targets = {"kind": np.eye(3)[rng.integers(0, 3, rows)]}
        if two_targets:
            targets["flag"] = rng.integers(0, 2, (rows, 1)).astype(np.float64)
        return Split(inputs, targets, rng.integers(0, 4, rows) / 2 if weighted else None)

    return data_of(split(18), split(10))


# Every optimiser and every family, then more of them.
_QUICK = [(0, "dense", "SGD")]
_MORE = [
    (1, "image", "RMSprop"),
    (2, "waves", "Nadam"),
    (4, "words", "Adam"),
]
_MORE += [(10 + number, list(FAMILIES)[number % len(FAMILIES)], kind) for number, kind in enumerate(KINDS)]
MODELS = [*_QUICK, *(pytest.param(*which, marks=pytest.mark.slow) for which in _MORE)]


@pytest.mark.parametrize(("structure", "family", "kind"), MODELS)
def test_an_epoch_of_a_drawn_model_equals_model_fit(
    structure: int, family: str, kind: str, tmp_path: Path
) -> None:
    base = {"batch_size": 7, "shuffle": True, "structure": structure, "family": family, "kind": kind}
    # The last one is there to be a neighbour: Keras's bits of dropout are others.
    lanes = [{"lane": lane, "dropout": 0.0} for lane in range(3)] + [{"lane": 3, "dropout": 0.4}]
    candidates = each(*lanes, base=base)
    # A fit costs seconds of compiling: of these lanes, the zeros and the others say most.
    assert_equal(build, rows_of(family, structure), candidates, 1, tmp_path, EPOCH, candidates[1:3])


@pytest.mark.slow
def test_thirty_epochs_of_a_drawn_model_equal_model_fit(tmp_path: Path) -> None:
    base = {
        "batch_size": 7,
        "shuffle": True,
        "structure": 1,
        "family": "dense",
        "kind": "Adam",
        "dropout": 0.0,
    }
    candidates = each(*({"lane": lane} for lane in range(3)), base=base)
    assert_equal(build, rows_of("dense", 1), candidates, 30, tmp_path, LONG, candidates[1:])


def test_numbers_have_64_bits() -> None:
    data = rows_of("dense", 0)
    settings = {"structure": 0, "family": "dense", "kind": "SGD", "lane": 0, "dropout": 0.0}
    assert {weight.dtype for weight in build(settings, data).weights} == {"float64"}
    assert data.train.inputs["rows"].dtype == np.float64
