"""Models as people write them: lanes train each as `model.fit` does, or refuse it, and nothing else."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from lanes_harness import (
    Build,
    blobs,
    budget,
    data_of,
    each,
    in_lanes,
    lanes_engine,
    one_by_one,
    relative,
    replayed,
)

from pipeline.values import Data, Settings, Split

LANES = 2
LIMITS = budget(epochs=3)
layers, ops, optimizers, regularizers = keras.layers, keras.ops, keras.optimizers, keras.regularizers
registered = keras.saving.register_keras_serializable("own")


@pytest.fixture(scope="module")
def rows() -> Data:
    return blobs(train=64, validation=32)


@pytest.fixture(scope="module")
def images() -> Data:
    rng = np.random.default_rng(0)

    def split(count: int) -> Split:
        numbers = rng.normal(size=(count, 8, 8, 3)).astype(np.float32)
        return Split(numbers, (np.arange(count) % 3).astype(np.int32))

    return data_of(split(40), split(22))


def classifier(
    place: Any, middle: Any, optimizer: keras.optimizers.Optimizer | None = None, loss: object = None
) -> keras.Model:
    flat = layers.Flatten()(middle) if len(middle.shape) > 2 else middle
    model = keras.Model(place, layers.Dense(3, activation="softmax")(flat))
    model.compile(optimizer or optimizers.SGD(0.05), loss or "sparse_categorical_crossentropy")
    return model


def between(operation: Callable[[Any, float], Any]) -> Build:
    """An operation of the functional API in the middle, with the trial's number."""

    def build(settings: Settings, data: Data) -> keras.Model:
        place = keras.Input((4,))
        return classifier(place, operation(layers.Dense(8)(place), settings["number"]))

    return build


def adapted(settings: Settings, data: Data) -> keras.Model:
    scaled = layers.Normalization()
    scaled.adapt(data.train.inputs * 3 + 1)
    place = keras.Input(data.train.inputs.shape[1:])
    hidden = layers.Dense(8, kernel_regularizer=regularizers.L2(settings["number"] / 10))(scaled(place))
    return classifier(place, hidden)


def sequence(made: Callable[[float], keras.Layer]) -> Build:
    def build(settings: Settings, data: Data) -> keras.Model:
        place = keras.Input((4,))
        return classifier(place, made(settings["number"])(layers.Reshape((2, 4))(layers.Dense(8)(place))))

    return build


def trained_with(made: Callable[[float], keras.optimizers.Optimizer]) -> Build:
    def build(settings: Settings, data: Data) -> keras.Model:
        place = keras.Input((4,))
        hidden = layers.BatchNormalization()(layers.Dense(8)(place))
        return classifier(place, hidden, made(settings["number"]))

    return build


def image(made: Callable[[], keras.Layer]) -> Build:
    def build(settings: Settings, data: Data) -> keras.Model:
        place = keras.Input((8, 8, 3))
        rate = optimizers.SGD(settings["number"] / 100)
        return classifier(place, made()(place), rate)

    return build


@registered
class Projection(layers.Layer):
    """A fixed random projection: its seed decides its arithmetic."""

    def __init__(self, seed: int, **more: object) -> None:
        super().__init__(**more)
        self.seed = seed

    def build(self, shape: tuple) -> None:
        self.numbers = np.random.default_rng(self.seed).normal(size=(shape[-1], 6)).astype(np.float32)

    def call(self, inputs: Any) -> Any:
        return inputs @ self.numbers

    def get_config(self) -> dict:
        return {**super().get_config(), "seed": self.seed}


@registered
class Table(layers.Layer):
    """Its configuration holds more numbers than NumPy prints."""

    def __init__(self, numbers: Any, **more: object) -> None:
        super().__init__(**more)
        self.numbers = np.asarray(numbers, np.float32)

    def call(self, inputs: Any) -> Any:
        return ops.tile(inputs, (1, 150)) * self.numbers

    def get_config(self) -> dict:
        return {**super().get_config(), "numbers": self.numbers}

    @classmethod
    def from_config(cls, config: dict) -> "Table":
        numbers = config.pop("numbers")
        if isinstance(numbers, dict):
            numbers = keras.saving.deserialize_keras_object(numbers)
        return cls(numbers, **config)


@registered
class Counting(layers.Layer):
    """Changes its state in validation, too."""

    def build(self, shape: tuple) -> None:
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, inputs: Any) -> Any:
        self.calls.assign(self.calls + 1.0)
        return inputs * ops.exp(-self.calls / 20)


def attended(hidden: Any, rule: object) -> Any:
    return layers.MultiHeadAttention(2, 3, kernel_regularizer=rule)(hidden, hidden)


def without_input(settings: Settings, data: Data) -> keras.Model:
    model = keras.Sequential([layers.Dense(6), layers.Dropout(0.0), layers.Dense(3, activation="softmax")])
    model.compile(optimizers.SGD(settings["number"] / 10), "sparse_categorical_crossentropy")
    return model


def used_twice(settings: Settings, data: Data) -> keras.Model:
    place = keras.Input((4,))
    twice = layers.Dense(4, kernel_regularizer=regularizers.L2(settings["number"]))
    return classifier(place, layers.Add()([twice(place), twice(twice(place))]))


def within(settings: Settings, data: Data) -> keras.Model:
    """An operation inside a model inside the model."""
    inner = keras.Input((8,))
    model = keras.Model(inner, ops.leaky_relu(inner, negative_slope=settings["number"]))
    place = keras.Input((4,))
    return classifier(place, model(layers.Dense(8)(place)))


TABLE = np.ones(1200)
EQUAL: dict[str, Build] = {
    "a slope": between(lambda hidden, number: ops.leaky_relu(hidden, negative_slope=number)),
    "a clipping": between(lambda hidden, number: ops.clip(hidden, -number, number)),
    "a factor": between(lambda hidden, number: hidden * number),
    "an axis": between(
        lambda hidden, number: ops.mean(layers.Reshape((2, 2, 2))(hidden), axis=1 if number < 1 else 2)
    ),
    "an operation in a model within": within,
    "a seed": between(lambda hidden, number: Projection(1 if number < 1 else 2)(hidden)),
    "a table": between(lambda hidden, number: Table(np.where(np.arange(1200) % 1197 > 3, number, 1))(hidden)),
    "a state": between(lambda hidden, number: Counting()(hidden)),
    "attention": between(
        lambda hidden, number: attended(layers.Reshape((2, 4))(hidden), regularizers.L2(number / 10))
    ),
    "a wrapped dropout of zero": sequence(lambda number: layers.TimeDistributed(layers.Dropout(0.0))),
    "a spectral norm": sequence(
        lambda number: layers.SpectralNormalization(
            layers.Dense(5, kernel_regularizer=regularizers.L2(number / 10))
        )
    ),
    "adapted to its rows": adapted,
    "no input layer": without_input,
    "a layer used twice": used_twice,
    "Adafactor": trained_with(lambda number: optimizers.Adafactor(number / 10, epsilon_1=1e-7)),
    "averaged weights": trained_with(
        lambda number: optimizers.SGD(number / 10, use_ema=True, ema_momentum=number / 3)
    ),
    "accumulated gradients": trained_with(
        lambda number: optimizers.SGD(
            number / 10, momentum=number / 3, clipnorm=0.1, gradient_accumulation_steps=3
        )
    ),
}
IMAGES: dict[str, Build] = {
    "groups": image(lambda: layers.Conv2D(6, 3, groups=3, padding="same", strides=2)),
    "groups, dilated": image(lambda: layers.Conv2D(6, 2, groups=3, dilation_rate=2)),
    "depthwise": image(lambda: layers.DepthwiseConv2D(3)),
    "depthwise, twice the channels": image(lambda: layers.DepthwiseConv2D(3, depth_multiplier=2)),
    "separable, twice the channels": image(lambda: layers.SeparableConv2D(4, 3, depth_multiplier=2)),
}
NUMBERS = ({"number": 0.3}, {"number": 2.0})


def assert_as_fit(build: Build, data: Data, folder: Path) -> None:
    candidates = each(*NUMBERS)
    ours = in_lanes(lanes_engine(build, data, LIMITS, folder, LANES), candidates)
    assert {trial.refused for trial in ours.values()} == {""}
    assert {trial.outcome.failure for trial in ours.values()} == {""}
    theirs = one_by_one(build, data, LIMITS, folder / "fit", replayed(candidates, ours))
    for number, trial in ours.items():
        # A few steps of float32; a wrong number is off by hundredths and more.
        assert max(relative(trial.curve, theirs[number].curve).values()) < 2e-5


def cases(every: dict, quick: tuple[str, ...]) -> list:
    """All of them, those that are not named as slow ones."""
    return [pytest.param(case, marks=[] if case in quick else pytest.mark.slow) for case in every]


@pytest.mark.parametrize(
    "case",
    cases(EQUAL, ("a slope", "an axis", "a seed", "a table", "a state", "attention", "adapted to its rows")),
)
def test_trains_as_fit_does(case: str, rows: Data, tmp_path: Path) -> None:
    assert_as_fit(EQUAL[case], rows, tmp_path)


@pytest.mark.parametrize("case", cases(IMAGES, ("groups", "depthwise, twice the channels")))
@pytest.mark.parametrize("form", ["measured", pytest.param("xla", marks=pytest.mark.slow)])
def test_a_convolution_in_groups_trains_as_fit_does(
    case: str, form: str, images: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if form != "measured":
        monkeypatch.setenv("PIPELINE_LOWERING", form)
    assert_as_fit(IMAGES[case], images, tmp_path)


def sequences(settings: Settings, data: Data) -> keras.Model:
    place = keras.Input((6,), dtype="int32")
    steps = layers.LSTM(4, return_sequences=True)(layers.Embedding(9, 4, mask_zero=True)(place))
    model = keras.Model(place, layers.Dense(2, activation="softmax")(steps))
    model.compile(optimizers.SGD(settings["number"]), "sparse_categorical_crossentropy")
    return model


def summed(settings: Settings, data: Data) -> keras.Model:
    place = keras.Input((4,))
    loss = keras.losses.SparseCategoricalCrossentropy(reduction="sum")
    return classifier(place, layers.Dense(4)(place), optimizers.SGD(settings["number"] / 1000), loss)


def test_masks_weigh_in_validation_as_they_do_in_fit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def split(count: int) -> Split:
        words = rng.integers(1, 9, (count, 6))
        # Long rows first, then short ones: batches that weigh differently.
        words[count // 2 :, 2:] = 0
        return Split(words.astype(np.int32), rng.integers(0, 2, (count, 6, 1)).astype(np.int32))

    assert_as_fit(sequences, data_of(split(64), split(400), 2), tmp_path)


def test_a_sum_as_loss_is_validated_as_in_fit(tmp_path: Path) -> None:
    assert_as_fit(summed, blobs(train=64, validation=400), tmp_path)


@registered
class PenaltyOfVariable(layers.Layer):
    """The usual way to write a penalty or a bound, which no attribute holds."""

    def __init__(self, number: float, *, bound: bool = False, **more: object) -> None:
        super().__init__(**more)
        self.number, self.bound = number, bound

    def build(self, shape: tuple) -> None:
        rule = {"constraint": keras.constraints.MaxNorm(self.number)}
        if not self.bound:
            rule = {"regularizer": regularizers.L2(self.number)}
        self.kernel = self.add_weight(shape=(shape[-1], 6), **rule)

    def call(self, inputs: Any) -> Any:
        return inputs @ self.kernel

    def get_config(self) -> dict:
        return {**super().get_config(), "number": self.number, "bound": self.bound}


@registered
class Halved(regularizers.Regularizer):
    """Derives its strength when it is made; small ones hide in the rounding of a step."""

    def __init__(self, strength: float) -> None:
        self.strength = strength
        self.half = strength / 2

    def __call__(self, weights: Any) -> Any:
        return self.half * ops.sum(ops.square(weights))

    def get_config(self) -> dict:
        return {"strength": self.strength}


@registered
class Block(layers.Layer):
    """Makes a layer of its number."""

    def __init__(self, factor: float, **more: object) -> None:
        super().__init__(**more)
        self.factor = factor
        self.inner = layers.Dense(6, kernel_regularizer=regularizers.OrthogonalRegularizer(factor))

    def build(self, shape: tuple) -> None:
        self.inner.build(shape)

    def call(self, inputs: Any) -> Any:
        return self.inner(inputs)

    def get_config(self) -> dict:
        return {**super().get_config(), "factor": self.factor}


def made_anew(settings: Settings, data: Data) -> keras.Model:
    number = settings["number"]

    class Scaled(layers.Layer):
        def call(self, inputs: Any) -> Any:
            return inputs * number

    place = keras.Input((4,))
    return classifier(place, Scaled()(place))


def changed_later(settings: Settings, data: Data) -> keras.Model:
    model = between(lambda hidden, number: hidden)(settings, data)
    model.layers[1].kernel.regularizer = regularizers.L2(settings["number"])
    return model


def one_frozen(settings: Settings, data: Data) -> keras.Model:
    model = between(lambda hidden, number: hidden)(settings, data)
    model.layers[1].bias.trainable = False
    return model


def undecayed(number: float) -> keras.optimizers.Optimizer:
    optimizer = optimizers.AdamW(0.01, weight_decay=number)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


REFUSED: dict[str, tuple[Build, str]] = {
    "a variable's penalty": (
        between(lambda hidden, number: PenaltyOfVariable(number)(hidden)),
        "regularizer",
    ),
    "a variable's bound": (
        between(lambda hidden, number: PenaltyOfVariable(number, bound=True)(hidden)),
        "constraint",
    ),
    "a penalty given later": (changed_later, "regularizer"),
    "a small derived penalty": (
        between(lambda hidden, number: layers.Dense(6, kernel_regularizer=Halved(number * 1e-4))(hidden)),
        "one step of its twin differs",
    ),
    "a layer made of a number": (
        between(lambda hidden, number: Block(number * 1e-4)(hidden)),
        "the layers would differ",
    ),
    "a class made anew": (made_anew, "Scaled is a class that is made anew"),
    "one frozen variable": (one_frozen, "the trainable variables would differ"),
    "variables without decay": (trained_with(undecayed), "excludes variables from weight decay"),
    "a scaled loss": (
        trained_with(lambda number: optimizers.LossScaleOptimizer(optimizers.SGD(number))),
        "LossScaleOptimizer",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_is_refused(case: str, rows: Data, tmp_path: Path) -> None:
    build, reason = REFUSED[case]
    for numbers in (NUMBERS, NUMBERS[::-1]):
        trials = in_lanes(lanes_engine(build, rows, LIMITS, tmp_path, LANES), each(*numbers))
        for trial in trials.values():
            assert re.search(reason, trial.refused)


def test_a_layer_called_as_an_activation_is_not_mistaken_for_it(rows: Data, tmp_path: Path) -> None:
    """Keras calls the first softmax layer of a process as the activation is called."""

    def build(settings: Settings, data: Data) -> keras.Model:
        keras.backend.clear_session()
        place = keras.Input((4,))
        return classifier(place, layers.Softmax()(layers.Dense(4)(place)))

    assert_as_fit(build, rows, tmp_path)


class Reused:
    """The numbers of a layer's losses, where Python gives those of an earlier trace to the next losses."""

    def __init__(self) -> None:
        self._trace: object = None
        self._numbers: set[int] = set()

    def add(self, number: int) -> None:
        self._trace = keras.src.backend.common.stateless_scope.get_stateless_scope()
        self._numbers.add(number)

    def clear(self) -> None:
        self._numbers.clear()

    def __contains__(self, number: int) -> bool:
        now = keras.src.backend.common.stateless_scope.get_stateless_scope()
        return bool(self._numbers) and (now is not self._trace or number in self._numbers)


@registered
class Forgetful(layers.Dense):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._loss_ids = Reused()


@pytest.mark.parametrize("engine", ["lanes", "fit"])
def test_no_penalty_of_an_activity_is_left_out(engine: str, tmp_path: Path) -> None:
    """An epoch is traced for full batches and for the last one, in training and in validation."""

    def build_with(second: type[keras.Layer]) -> Build:
        def build(settings: Settings, data: Data) -> keras.Model:
            place, penalty = keras.Input((4,)), regularizers.L1(settings["number"])
            hidden = layers.Dense(8, activity_regularizer=penalty)(place)
            return classifier(place, second(8, activity_regularizer=penalty)(hidden))

        return build

    candidates, rows = each({"number": 0.5, "batch_size": 24}), blobs(train=64, validation=33)
    kinds = (Forgetful, layers.Dense) if engine == "lanes" else (layers.Dense, Forgetful)
    ours = in_lanes(lanes_engine(build_with(kinds[0]), rows, LIMITS, tmp_path, LANES), candidates)
    again = replayed(candidates, ours)
    theirs = one_by_one(build_with(kinds[1]), rows, LIMITS, tmp_path / "fit", again)
    assert max(relative(ours[0].curve, theirs[0].curve).values()) < 1e-5


def _uncompiled(settings: Settings, data: Data) -> keras.Model:
    return keras.Sequential([keras.Input((4,)), layers.Dense(3)])


def _nothing(settings: Settings, data: Data) -> None:
    return None


MISTAKES: dict[str, tuple[Any, dict, str]] = {
    "no model": (_nothing, {}, "build gave NoneType, which is not a Keras model"),
    "not compiled": (_uncompiled, {}, "not compiled"),
    "no rows in a batch": (without_input, {"batch_size": 0}, "batch_size is 0"),
    "half a row in a batch": (without_input, {"batch_size": 1.5}, "batch_size is 1.5"),
}


@pytest.mark.parametrize("case", MISTAKES)
@pytest.mark.parametrize("engine", ["lanes", "fit"])
def test_a_mistake_fails_its_trial_with_a_reason(case: str, engine: str, rows: Data, tmp_path: Path) -> None:
    build, settings, reason = MISTAKES[case]
    candidates = each({"number": 1.0, **settings})
    if engine == "lanes":
        trials = in_lanes(lanes_engine(build, rows, LIMITS, tmp_path, LANES), candidates)
    else:
        trials = one_by_one(build, rows, LIMITS, tmp_path, candidates)
    assert reason in trials[0].outcome.failure


# Keras says so, too, and trains on.
@pytest.mark.filterwarnings("ignore:.*conditioned on metric:UserWarning")
@pytest.mark.parametrize("engine", ["lanes", "fit"])
def test_what_is_not_logged_can_steer_nothing(engine: str, rows: Data, tmp_path: Path) -> None:
    limits = budget(epochs=2, monitor="val_acc")
    candidates = each({"number": 1.0})
    if engine == "lanes":
        trials = in_lanes(lanes_engine(without_input, rows, limits, tmp_path, LANES), candidates)
    else:
        trials = one_by_one(without_input, rows, limits, tmp_path, candidates)
    assert "does not log val_acc; it logs" in trials[0].outcome.failure


def test_a_model_that_cannot_be_saved_fails_its_trial_alone(
    rows: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.engines.lanes.predictor import Predictor

    predict = Predictor.predict

    def sometimes(self: Predictor, values: Any, split: Split) -> Any:
        if float(values.optimizer[1]) == pytest.approx(0.2):
            raise OSError(28, "No space left on device")
        return predict(self, values, split)

    monkeypatch.setattr(Predictor, "predict", sometimes)
    candidates = each({"number": 1.0}, {"number": 2.0}, {"number": 3.0})
    trials = in_lanes(lanes_engine(without_input, rows, LIMITS, tmp_path, LANES), candidates)
    assert "No space left on device" in trials[1].outcome.failure
    assert [trials[number].outcome.failure for number in (0, 2)] == ["", ""]
