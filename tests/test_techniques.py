"""Each technique that a setting names is really in the model, by the numbers it has, or really not there."""

import json
from collections.abc import Mapping
from functools import cache

import keras
import numpy as np
import pytest
from test_tasks import (
    Case,
    answering,
    bound,
    case_of,
    hidden_of,
    kinds,
    normalizations,
    of_kind,
    penalties,
    structure,
)

from pipeline import settings, tasks
from pipeline.datasets import splits
from pipeline.engines import rows, schedules
from pipeline.settings import Parameter
from pipeline.tasks import blocks
from pipeline.values import Candidate, Setting, Settings, Split

layers, optimizers = keras.layers, keras.optimizers
# By task: optimiser, activation of the hidden layers and scaling, as published; none where nothing is said.
PUBLISHED = {
    "iris": ("adam", "relu", "standardise"),
    "digits": ("adam", "tanh", "min_max"),
    "mnist": ("adam", "tanh", "min_max"),
    "fashion_mnist": ("adam", "linear", "min_max"),
    "imdb": ("rmsprop", "relu", None),
    "imdb_conv1d": ("rmsprop", "relu", None),
    "question_answering": ("rmsprop", None, None),
    "posts": ("rmsprop", "relu", None),
    "sentence_similarity": ("rmsprop", None, None),
    "dual_camera": ("rmsprop", None, None),
    "separable_images": ("rmsprop", "relu", "min_max"),
    "inception_residual": ("rmsprop", "relu", "min_max"),
}
ACTIVATED = tuple(name for name, (_, activation, _) in PUBLISHED.items() if activation)
SCALED = tuple(name for name, (_, _, scaling) in PUBLISHED.items() if scaling)
# An Xception takes seconds to build, and some others a second, of which there are many here.
SLOW = ("dual_camera",)
SLOW_TOGETHER = (*SLOW, "mnist", "posts", "separable_images", "inception_residual")


def by_task(names: tuple[str, ...]) -> pytest.MarkDecorator:
    marked = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in names]
    return pytest.mark.parametrize("name", marked)


@by_task(tuple(PUBLISHED))
def test_models_with_and_without_dropout_begin_with_the_same_weights(name: str) -> None:
    """Otherwise the arms of an ablation that share a seed would share nothing."""
    case = case_of(name)
    found = []
    for rate, on in ((0.0, True), (0.3, True), (0.3, False)):
        keras.utils.set_random_seed(7)
        found.append(case.build(dropout=rate, dropout_on=on).trainable_variables)
    for first, second, third in zip(*found, strict=True):
        np.testing.assert_array_equal(first, second, err_msg=first.path)
        np.testing.assert_array_equal(first, third, err_msg=first.path)


def defaults(case: Case) -> dict[str, Setting]:
    return {parameter.name: parameter.default for parameter in case.task.parameters}


def build(name: str, **changes: Setting) -> keras.Model:
    """A task's model at its defaults, with some settings changed."""
    case = case_of(name)
    assert changes.keys() <= defaults(case).keys()
    return case.task.build({**defaults(case), **changes}, case.data)


@by_task(tasks.NAMES)
def test_the_defaults_of_a_task_are_the_published_ones(name: str) -> None:
    found = defaults(case_of(name))
    assert (found["optimizer"], found.get("activation"), found.get("scaling")) == PUBLISHED[name]
    # Whatever else: Keras's own numbers, nothing against overfitting, and the plateau's rule.
    keras_own = {
        "learning_rate": 0.001,
        "bn_momentum": 0.99,
        "bn_epsilon": 0.001,
        "bn_gamma": 1.0,
        "initializer": "glorot_uniform",
        "weight_decay": optimizers.AdamW().weight_decay,
    }
    off = {"dropout": 0.0, "l1": 0.0, "l2": 0.0, "max_norm": "none", "bn_beta_stddev": 0.0}
    trained = {"schedule": "plateau", "shuffle": True, "batch_size": 32}
    for expected in (keras_own, off, trained):
        assert {key: found[key] for key in expected} == expected
    assert found.get("activity_l1", 0.0) == 0.0
    assert found.get("bn_position", "after") == "after"


@pytest.mark.parametrize("kind", [layers.Dense, layers.Conv2D, layers.BatchNormalization])
def test_at_the_defaults_a_hidden_layer_is_keras_own(kind: type) -> None:
    model = build("digits")
    found = (layer for layer in model.layers if type(layer) is kind and layer not in answering(model))
    for layer in found:
        given = {"filters": 6, "kernel_size": 5} if kind is layers.Conv2D else {}
        given |= {"units": 84} if kind is layers.Dense else {}
        theirs, ours = kind(**given).get_config(), layer.get_config()
        # Penalties of zero are there, and the gamma of one by its number.
        for key in ("name", "filters", "activation", "kernel_regularizer", "activity_regularizer"):
            theirs.pop(key, None)
            ours.pop(key, None)
        if kind is layers.BatchNormalization:
            assert ours.pop("gamma_initializer")["config"] == {"value": 1.0}
            theirs.pop("gamma_initializer")
        assert ours == theirs


# Every parameter does something

# What a parameter needs to be on, so that it can be seen.
ON = {
    "dropout": 0.1,
    "l1": 0.1,
    "l2": 0.1,
    "max_norm": 1.0,
    "activity_l1": 0.1,
    "bn_beta_stddev": 0.05,
}
CONTEXT: Mapping[str, Settings] = {
    "momentum": {"optimizer": "sgd"},
    "weight_decay": {"optimizer": "adamw"},
    "schedule_final": {"schedule": "cosine"},
    "schedule_epochs": {"schedule": "cosine"},
}


def other(parameter: Parameter, value: Setting) -> Setting:
    """A legal value that is not this one."""
    numbers = {"int": 7, "float": 0.375}
    choices = [True, False] if parameter.kind == "bool" else [numbers.get(parameter.kind), *parameter.words]
    found = next(one for one in choices if one is not None and one != value)
    assert parameter.fault(found) is None
    return found


def asked(name: str, **more: Setting) -> dict[str, Setting]:
    case = case_of(name)
    on = {key: value for key, value in ON.items() if key in defaults(case)}
    return {**defaults(case), **on, **more}


def fingerprint(name: str, wanted: Settings) -> str:
    """Everything that the model and its training are made of."""
    case = case_of(name)
    keras.utils.clear_session(free_memory=False)
    model = case.task.build(wanted, case.data)
    candidate = Candidate(0, 0, wanted)
    training, _ = rows.for_fit(case.data.train, model, candidate, 0, alone=True)
    fitted = {key: training[key] for key in ("batch_size", "shuffle")}
    plan = schedules.plan(wanted, float(model.optimizer.learning_rate), 50).tolist()
    # Without a plan its numbers mean nothing.
    engine = [fitted, plan if plan[0] != schedules.PLATEAU else None]
    return json.dumps([model.get_config(), model.get_compile_config(), engine], sort_keys=True, default=repr)


@cache
def before(name: str, context: tuple[tuple[str, Setting], ...]) -> str:
    return fingerprint(name, asked(name, **dict(context)))


PARAMETERS = [
    pytest.param(name, parameter.name, marks=pytest.mark.slow if name in SLOW_TOGETHER else ())
    for name in tasks.NAMES
    for parameter in tasks.find(name).parameters
]


@pytest.mark.parametrize(("name", "changed"), PARAMETERS)
def test_every_parameter_of_every_task_changes_the_model_or_its_training(name: str, changed: str) -> None:
    parameter = next(one for one in case_of(name).task.parameters if one.name == changed)
    context = CONTEXT.get(changed, {})
    wanted = asked(name, **context)
    wanted[changed] = other(parameter, wanted[changed])
    assert fingerprint(name, wanted) != before(name, tuple(context.items()))


@by_task(tasks.NAMES)
def test_models_of_the_same_settings_are_the_same(name: str) -> None:
    """So that what differs above is the setting."""
    assert fingerprint(name, asked(name)) == before(name, ())


# Optimisers


@pytest.mark.parametrize(
    ("word", "kind", "numbers"),
    [
        ("adam", optimizers.Adam, {}),
        ("adamw", optimizers.AdamW, {"weight_decay": 0.25}),
        ("rmsprop", optimizers.RMSprop, {}),
        ("sgd", optimizers.SGD, {"momentum": 0.625}),
    ],
)
def test_the_optimizer_is_keras_own_with_its_number(word: str, kind: type, numbers: dict) -> None:
    model = build("iris", optimizer=word, learning_rate=0.5, weight_decay=0.25, momentum=0.625)
    assert type(model.optimizer) is kind
    ours, theirs = model.optimizer.get_config(), kind(0.5, **numbers).get_config()
    for key in ("name",):
        del ours[key], theirs[key]
    assert ours == theirs
    assert set(settings.OPTIMIZER.words) == {"adam", "adamw", "rmsprop", "sgd"}


def test_a_momentum_and_a_decay_of_zero_are_legal() -> None:
    assert build("iris", optimizer="sgd", momentum=0.0).optimizer.momentum == 0.0
    assert build("iris", optimizer="adamw", weight_decay=0.0).optimizer.weight_decay == 0.0


# Activations and initialisers


def assert_activation(name: str, word: str) -> None:
    found = hidden_of(build(name, activation=word))
    assert found
    # A projection past a residual block is no hidden layer of its own.
    projections = [layer for layer in found if layer.activation is keras.activations.linear]
    assert len(projections) == (name == "inception_residual") or word == "linear"
    assert {layer.activation for layer in found if layer not in projections} <= {keras.activations.get(word)}


@pytest.mark.parametrize("word", settings.ACTIVATION.words)
def test_the_activation_is_that_of_every_hidden_layer(word: str) -> None:
    assert_activation("iris", word)


@by_task(ACTIVATED)
def test_the_activation_of_every_task_can_be_chosen(name: str) -> None:
    assert_activation(name, "leaky_relu")


@by_task(ACTIVATED)
def test_the_answer_keeps_its_own_activation(name: str) -> None:
    own = [layer.activation for layer in answering(build(name))]
    assert [layer.activation for layer in answering(build(name, activation="softplus"))] == own


def assert_initializer(name: str, word: str) -> None:
    kind, model = type(keras.initializers.get(word)), build(name, initializer=word)
    assert hidden_of(model)
    for layer in hidden_of(model):
        separable = isinstance(layer, layers.SeparableConv2D)
        for part in ("depthwise", "pointwise") if separable else ("kernel",):
            assert type(getattr(layer, f"{part}_initializer")) is kind
    # What answers, and what recurs, is left as published.
    for layer in answering(model):
        assert type(layer.kernel_initializer) is keras.initializers.GlorotUniform
    for layer in of_kind(model, layers.LSTM):
        assert type(layer.recurrent_initializer) is keras.initializers.Orthogonal


@pytest.mark.parametrize("word", settings.INITIALIZER.words)
def test_the_initializer_draws_the_kernels_of_every_hidden_layer(word: str) -> None:
    assert_initializer("iris", word)


@by_task(tasks.NAMES)
def test_the_initializer_of_every_task_can_be_chosen(name: str) -> None:
    assert_initializer(name, "lecun_normal")


def test_an_orthogonal_kernel_is_one() -> None:
    for layer in hidden_of(build("iris", initializer="orthogonal")):
        kernel = np.asarray(layer.kernel)
        few_first = kernel if kernel.shape[0] <= kernel.shape[1] else kernel.T
        # Products of 128 numbers in float32.
        np.testing.assert_allclose(few_first @ few_first.T, np.eye(len(few_first)), atol=1e-5)


# Scaling


def scaled(model: keras.Model, inputs: np.ndarray) -> np.ndarray:
    """The inputs behind the model's own scaling."""
    first = next(layer for layer in model.layers if not isinstance(layer, layers.InputLayer))
    is_scaling = isinstance(first, layers.Normalization | layers.Rescaling)
    return np.asarray(first(inputs)) if is_scaling else inputs


def by_numpy(word: str, train: np.ndarray, inputs: np.ndarray, white: float | None) -> np.ndarray:
    wide, axes = train.astype(np.float64), tuple(range(train.ndim - 1))
    if word == "none":
        return inputs.astype(np.float64)
    if word == "standardise":
        return (inputs - wide.mean(axes)) / wide.std(axes)
    if white:
        return inputs / white
    low, high = wide.min(axes), wide.max(axes)
    return (inputs - low) / (high - low)


WHITE = {"iris": None, "digits": 16.0, "mnist": 255.0, "fashion_mnist": 255.0}
WHITE |= {"separable_images": 255.0, "inception_residual": 255.0}


@pytest.mark.parametrize("word", settings.SCALING.words)
@by_task(SCALED)
def test_inputs_are_scaled_by_the_training_rows(name: str, word: str) -> None:
    data = case_of(name).data
    model = build(name, scaling=word)
    for part in (data.train, data.validation):
        expected = by_numpy(word, data.train.one_input, part.one_input, WHITE[name])
        # Numbers of some units, in float32, from means and variances in float32.
        np.testing.assert_allclose(scaled(model, part.one_input), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("word", settings.SCALING.words)
@by_task(SCALED)
def test_what_is_scaled_is_a_float(name: str, word: str) -> None:
    model = build(name, scaling=word)
    found = scaled(model, case_of(name).data.train.one_input[:4])
    assert found.dtype == np.float32
    assert model(case_of(name).data.train.one_input[:4]).shape == (4, len(case_of(name).data.classes))


def split_of(inputs: np.ndarray) -> Split:
    return Split(inputs, np.zeros(len(inputs), np.int32))


def through_blocks(
    word: str, train: np.ndarray, inputs: np.ndarray, white: float | None = None
) -> np.ndarray:
    found = inputs
    for layer in blocks.scaling({"scaling": word}, split_of(train), white):
        found = np.asarray(layer(found))
    return found


class TestScalingOfTables:
    TABLE = np.array([[1.0, 5.0, -2.0], [3.0, 5.0, 0.0], [2.0, 5.0, 6.0]], np.float32)

    def test_min_max_leads_from_0_to_1(self):
        found = through_blocks("min_max", self.TABLE, self.TABLE)
        np.testing.assert_allclose(found, [[0, 0, 0], [1, 0, 0.25], [0.5, 0, 1]], atol=1e-6)

    @pytest.mark.parametrize("word", ["min_max", "standardise"])
    def test_a_constant_feature_is_0(self, word):
        np.testing.assert_array_equal(through_blocks(word, self.TABLE, self.TABLE)[:, 1], 0)

    def test_rows_beyond_the_training_rows_lie_beyond_0_and_1(self):
        found = through_blocks("min_max", self.TABLE, np.array([[5.0, 5.0, -10.0]], np.float32))
        np.testing.assert_allclose(found, [[2, 0, -1]], atol=1e-6)

    def test_none_leaves_floats_to_themselves(self):
        assert blocks.scaling({"scaling": "none"}, split_of(self.TABLE)) == []

    @pytest.mark.parametrize("dtype", [np.uint8, np.int32])
    @pytest.mark.parametrize("word", settings.SCALING.words)
    def test_whole_numbers_become_floats(self, word, dtype):
        whole = np.array([[0, 200], [100, 250]], dtype)
        found = through_blocks(word, whole, whole)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, by_numpy(word, whole, whole, None), rtol=1e-6, atol=1e-6)

    def test_a_large_offset_is_taken_off_before_numbers_are_float32(self):
        # A mean in float32 of a million such rows would be off by the width of the numbers.
        rng = np.random.default_rng(0)
        inputs = (1e4 + rng.normal(size=(100_000, 1))).astype(np.float32)
        found = through_blocks("standardise", inputs, inputs)
        assert abs(found.mean(dtype=np.float64)) < 1e-3
        assert found.std(dtype=np.float64) == pytest.approx(1, abs=1e-3)

    def test_pictures_are_standardised_by_channel(self):
        pictures = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3)).astype(np.uint8)
        pictures[..., 1] //= 4
        found = through_blocks("standardise", pictures, pictures, white=255.0)
        np.testing.assert_allclose(found.mean((0, 1, 2)), 0, atol=1e-5)
        np.testing.assert_allclose(found.std((0, 1, 2)), 1, atol=1e-5)

    def test_pictures_become_0_to_1_by_their_white_and_not_by_what_they_show(self):
        dark = np.full((2, 2, 2, 1), 51, np.uint8)
        np.testing.assert_allclose(through_blocks("min_max", dark, dark, white=255.0), 0.2, rtol=1e-6)


def test_a_fold_is_scaled_by_its_own_training_rows() -> None:
    whole = case_of("iris").data
    for fold in splits.folds(whole, 3):
        found = scaled(case_of("iris").task.build(defaults(case_of("iris")), fold), fold.train.one_input)
        np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-5)


# BatchNormalization

DENSE, SEPARABLE = ("iris", "Dense"), ("separable_images", "SeparableConv2D")


@pytest.mark.parametrize(
    ("name", "layer"), [DENSE, SEPARABLE, ("digits", "Conv2D"), ("imdb_conv1d", "Conv1D")]
)
class TestPosition:
    def around(self, name: str, layer: str, position: str) -> list[list[str]]:
        found = kinds(build(name, bn_position=position, activation="elu"))
        return [found[place : place + 3] for place, kind in enumerate(found[:-1]) if kind == layer]

    def test_after_the_activation_it_follows_the_layer(self, name, layer):
        for kind, following, _ in self.around(name, layer, "after")[:-1]:
            assert (kind, following) == (layer, "BatchNormalization")
        assert "Activation" not in kinds(build(name, bn_position="after"))

    def test_before_the_activation_it_stands_between(self, name, layer):
        for found in self.around(name, layer, "before")[:-1]:
            assert found == [layer, "BatchNormalization", "Activation"]

    def test_the_layer_is_linear_then_and_the_activation_behind(self, name, layer):
        model = build(name, bn_position="before", activation="elu", activity_l1=0.25)
        normal = normalizations(model)
        activations = of_kind(model, layers.Activation)
        assert len(activations) == len(normal) > 0
        for one in activations:
            assert one.activation is keras.activations.elu
            assert float(one.activity_regularizer.l1) == 0.25
        linear = [one for one in hidden_of(model) if one.activation is keras.activations.linear]
        assert len(linear) == len(normal)
        assert {one.activity_regularizer for one in linear} == {None}

    def test_without_normalization_the_position_means_nothing(self, name, layer):
        del layer
        found = [
            structure(build(name, bn_position=position, batch_normalization=False))
            for position in ("after", "before")
        ]
        assert found[0] == found[1]
        model = build(name, bn_position="before", batch_normalization=False, activation="elu")
        assert {one.activation for one in hidden_of(model)} == {keras.activations.elu}

    def test_both_have_the_same_weights(self, name, layer):
        del layer
        counts = [build(name, bn_position=position).count_params() for position in ("after", "before")]
        assert counts[0] == counts[1]


@by_task(tuple(name for name in tasks.NAMES if name != "iris"))
def test_beta_and_gamma_start_as_asked(name: str) -> None:
    keras.utils.set_random_seed(0)
    drawn = of_kind(build(name, bn_beta_stddev=0.25, bn_gamma=0.5), layers.BatchNormalization)
    plain = of_kind(build(name), layers.BatchNormalization)
    assert len(drawn) == len(plain) > 0
    betas = np.concatenate([np.asarray(layer.beta) for layer in drawn])
    # Of some dozens of numbers or more.
    assert betas.std() == pytest.approx(0.25, rel=4 / np.sqrt(2 * len(betas)))
    assert abs(betas.mean()) < 4 * 0.25 / np.sqrt(len(betas))
    # Of many thousands of float32 numbers two may be the same.
    assert len(np.unique(betas)) > 0.999 * len(betas), "each layer draws its own"
    for layer, other_layer in zip(drawn, plain, strict=True):
        np.testing.assert_array_equal(layer.gamma, 0.5)
        np.testing.assert_array_equal(other_layer.gamma, 1.0)
        np.testing.assert_array_equal(other_layer.beta, 0.0)


def test_the_last_ones_of_iris_keep_their_own_start() -> None:
    *first, last = of_kind(build("iris", bn_beta_stddev=0.25, bn_gamma=0.5), layers.BatchNormalization)
    for layer in first:
        np.testing.assert_array_equal(layer.gamma, 0.5)
        assert layer.beta_initializer.stddev == 0.25
    np.testing.assert_allclose(last.gamma, 0.9, rtol=1e-6)
    assert last.beta_initializer.stddev == 0.05


# Switches

EVERYTHING = {"dropout": 0.25, "l1": 0.5, "l2": 0.125, "max_norm": 1.5}


def activity(model: keras.Model) -> set[float]:
    rules = [getattr(layer, "activity_regularizer", None) for layer in hidden_of(model)]
    return {float(rule.l1) for rule in rules if rule is not None}


@by_task(tasks.NAMES)
class TestSwitches:
    def build(self, name: str, **switches: bool) -> keras.Model:
        more = {"activity_l1": 0.0625} if name in ACTIVATED else {}
        return build(name, **EVERYTHING, **more, **switches)

    def test_on_is_the_number(self, name):
        model = self.build(name)
        assert {layer.rate for layer in of_kind(model, layers.Dropout)} == {0.25}
        for layer in hidden_of(model):
            assert penalties(layer) == {(0.5, 0.125)}
            assert bound(layer).max_value == 1.5
        assert activity(model) <= {0.0625}

    @pytest.mark.parametrize("off", ["dropout_on", "l1_on", "l2_on", "max_norm_on"])
    def test_off_is_nothing_and_leaves_the_others(self, name, off):
        model = self.build(name, **{off: False})
        assert {layer.rate for layer in of_kind(model, layers.Dropout)} == {0.25 * (off != "dropout_on")}
        for layer in hidden_of(model):
            assert penalties(layer) == {(0.5 * (off != "l1_on"), 0.125 * (off != "l2_on"))}
            assert (bound(layer) is None) == (off == "max_norm_on")

    @pytest.mark.parametrize("off", ["dropout_on", "l1_on", "l2_on"])
    def test_numbers_that_are_off_keep_the_structure(self, name, off):
        assert structure(self.build(name, **{off: False})) == structure(self.build(name))

    def test_a_bound_that_is_none_stays_none(self, name):
        for on in (True, False):
            model = build(name, max_norm="none", max_norm_on=on)
            assert {bound(layer) for layer in hidden_of(model)} == {None}


@by_task(ACTIVATED)
def test_the_penalty_of_outputs_is_that_of_every_hidden_layer_and_can_be_off(name: str) -> None:
    model = build(name, activity_l1=0.25)
    # A projection past a residual block is no hidden layer of its own.
    assert activity(model) == {0.25}
    off = build(name, activity_l1=0.25, activity_l1_on=False)
    assert activity(off) == {0.0}
    assert structure(off) == structure(model)
    for layer in answering(model):
        assert layer.activity_regularizer is None


# Legal values


@pytest.mark.parametrize(
    ("parameter", "legal", "illegal"),
    [
        (settings.MOMENTUM, [0.0, 0.999], [1.0, -0.1, "none", True]),
        (settings.WEIGHT_DECAY, [0.0, 3.0], [-1e-9, float("nan"), float("inf")]),
        (settings.SCHEDULE_FINAL, [1e-9, 1.0], [0.0, 1.5, -1.0]),
        (settings.SCHEDULE_EPOCHS, [1, 500, "epochs"], [0, 1.5, "all"]),
        (settings.SCHEDULE, ["plateau", "constant", "exponential", "cosine", "step"], ["linear", 1, True]),
        (settings.BN_BETA_STDDEV, [0.0, 2.0], [-0.1]),
        (settings.BN_GAMMA, [0.0, -1.0, 2.0], ["one", float("nan")]),
        (settings.BN_POSITION, ["after", "before"], ["between", False]),
        (settings.ACTIVITY_L1, [0.0, 1.0], [-1.0]),
        (settings.OPTIMIZER, ["adam", "adamw", "rmsprop", "sgd"], ["lion", "Adam"]),
        *(
            (switch, [True, False], [1, "true", 0.0])
            for switch in (
                settings.DROPOUT_ON,
                settings.L1_ON,
                settings.L2_ON,
                settings.MAX_NORM_ON,
                settings.ACTIVITY_L1_ON,
            )
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Parameter) else "",
)
def test_values_are_legal_or_not(parameter: Parameter, legal: list, illegal: list) -> None:
    assert [parameter.fault(value) for value in legal] == [None] * len(legal)
    assert None not in [parameter.fault(value) for value in illegal]


@pytest.mark.parametrize("parameter", [settings.ACTIVATION, settings.INITIALIZER], ids=lambda p: p.name)
def test_every_word_is_one_that_keras_knows(parameter: Parameter) -> None:
    module = {"activation": keras.activations, "initializer": keras.initializers}[parameter.name]
    assert len({repr(module.get(word)) for word in parameter.words}) == len(parameter.words)
    for word in parameter.words:
        assert word in (getattr(module.get(word), "__name__", ""), keras_name(module.get(word)))


def keras_name(found: object) -> str:
    """`glorot_uniform` of a GlorotUniform."""
    letters = type(found).__name__
    return "".join(f"_{one.lower()}" if one.isupper() else one for one in letters).lstrip("_")
