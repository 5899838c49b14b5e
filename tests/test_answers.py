"""Answers as scores read them: logits become what Keras's activations make of them, outputs go by name."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from pipeline import answers
from pipeline.datasets import splits
from pipeline.values import Data, Split

losses, layers = keras.losses, keras.layers
# Keras's activations calculate in float32 from the same logits: their last bits, relative to the answer.
ROUNDING = 4 * 2.0**-23
ROWS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def data_of(classes: int = 3, outputs: dict[str, tuple[str, ...]] | None = None) -> Data:
    rows = Split(ROWS, (np.arange(6) % 2).astype(np.int32))
    data = splits.data("made up", "made up", map(str, range(classes)), (rows, rows, rows))
    return replace(data, classes=(), outputs=outputs) if outputs else data


def one_output(units: int, loss: object, activation: str | None = None) -> keras.Model:
    keras.utils.set_random_seed(units)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(units, activation=activation, name="answer")])
    model.compile("adam", loss)
    # As after training: Keras warns when it loads an optimizer that has no variables yet.
    model.optimizer.build(model.trainable_variables)
    return model


def of_logits(model: keras.Model, logits: object, classes: int) -> np.ndarray:
    return answers.read(model, np.asarray(logits, np.float32), data_of(classes))


ONE = {
    "crossentropy": losses.BinaryCrossentropy(from_logits=True),
    "focal": losses.BinaryFocalCrossentropy(from_logits=True),
    "smoothed": losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.1),
}
MANY = {
    "sparse": losses.SparseCategoricalCrossentropy(from_logits=True),
    "categorical": losses.CategoricalCrossentropy(from_logits=True),
    "focal": losses.CategoricalFocalCrossentropy(from_logits=True),
}


class TestOneLogit:
    LOGITS = np.concatenate([np.linspace(-30, 30, 101), [0.0, 1e-3, -1e-3]])[:, None]

    @pytest.mark.parametrize("loss", ONE)
    def test_it_becomes_the_probabilities_of_two_classes_by_keras_sigmoid(self, loss):
        found = of_logits(one_output(1, ONE[loss]), self.LOGITS, 2)
        logits = self.LOGITS.astype(np.float32)
        sigmoid = keras.ops.convert_to_numpy(keras.activations.sigmoid(logits))
        assert found.shape == (len(logits), 2)
        np.testing.assert_allclose(found[:, 1:], sigmoid, rtol=ROUNDING)
        np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=0, atol=1e-15)

    @pytest.mark.parametrize("large", [100.0, 1e4, 3e38])
    def test_large_ones_overflow_nowhere(self, large):
        # Warnings are errors, and NumPy warns of an overflow.
        found = of_logits(one_output(1, ONE["crossentropy"]), [[large], [-large]], 2)
        # exp(-100) is a number in float64.
        np.testing.assert_allclose(found, [[0, 1], [1, 0]], rtol=0, atol=1e-43)


class TestManyLogits:
    @pytest.mark.parametrize("loss", MANY)
    @pytest.mark.parametrize("scale", [1.0, 20.0])
    def test_they_become_probabilities_by_keras_softmax(self, loss, scale):
        logits = (scale * np.random.default_rng(1).normal(size=(50, 5))).astype(np.float32)
        found = of_logits(one_output(5, MANY[loss]), logits, 5)
        softmax = keras.ops.convert_to_numpy(keras.activations.softmax(logits))
        # A logit of 60 is itself known to 60 * 2^-24, and so its exponential.
        np.testing.assert_allclose(found, softmax, rtol=ROUNDING * max(1.0, scale), atol=1e-37)
        np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=0, atol=1e-15)

    @pytest.mark.parametrize("large", [100.0, 1e4, 1e38])
    def test_large_ones_overflow_nowhere(self, large):
        found = of_logits(one_output(3, MANY["sparse"]), [[large, 0, -large], [-large, -large, -large]], 3)
        np.testing.assert_allclose(found, [[1, 0, 0], [1 / 3] * 3], rtol=1e-15, atol=1e-43)


@pytest.mark.parametrize(
    ("units", "activation", "loss"),
    [
        (1, "sigmoid", "binary_crossentropy"),
        (1, "sigmoid", losses.BinaryCrossentropy()),
        (3, "softmax", "sparse_categorical_crossentropy"),
        (3, "softmax", losses.CategoricalCrossentropy()),
        (3, "softmax", keras.losses.sparse_categorical_crossentropy),
    ],
)
def test_probabilities_stay_as_they_are(units: int, activation: str, loss: object) -> None:
    model = one_output(units, loss, activation)
    raw = model.predict(ROWS, verbose=0)
    found = answers.read(model, raw, data_of(max(2, units)))
    assert found.dtype == np.float64
    expected = np.hstack([1.0 - raw.astype(np.float64), raw]) if units == 1 else raw
    np.testing.assert_array_equal(found, expected)


# Several outputs: a logit, logits, probabilities and a number, in no order of the alphabet.

KINDS = {"yes": 1, "which": 3, "known": 2, "age": 1}
OUTPUTS = {"yes": ("no", "yes"), "which": ("a", "b", "c"), "known": ("n", "y"), "age": ()}
LOSSES = {
    "yes": losses.BinaryCrossentropy(from_logits=True),
    "which": losses.SparseCategoricalCrossentropy(from_logits=True),
    "known": "sparse_categorical_crossentropy",
    "age": "mse",
}


def several(structure: type, form_of_losses: Callable = dict) -> keras.Model:
    """form_of_losses: dict, or list in the order of the outputs."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((4,))
    made = {
        name: layers.Dense(units, "softmax" if name == "known" else None, name=name)(inputs)
        for name, units in KINDS.items()
    }
    model = keras.Model(inputs, made if structure is dict else structure(made.values()))
    model.compile("adam", LOSSES if form_of_losses is dict else list(LOSSES.values()))
    model.optimizer.build(model.trainable_variables)
    return model


def expected(model: keras.Model) -> dict[str, np.ndarray]:
    """Of the weights, by hand."""

    def logits(name: str) -> np.ndarray:
        kernel, bias = model.get_layer(name).get_weights()
        return ROWS.astype(np.float64) @ kernel + bias

    def softmax(name: str) -> np.ndarray:
        powers = np.exp(logits(name))
        return powers / powers.sum(axis=1, keepdims=True)

    yes = 1 / (1 + np.exp(-logits("yes")))
    return {
        "yes": np.hstack([1 - yes, yes]),
        "which": softmax("which"),
        "known": softmax("known"),
        "age": logits("age"),
    }


def assert_read(model: keras.Model, of_weights: dict[str, np.ndarray]) -> None:
    found = answers.read(model, model.predict(ROWS, verbose=0), data_of(outputs=OUTPUTS))
    assert set(found) == set(of_weights)
    for name, rows in of_weights.items():
        assert found[name].dtype == np.float64
        # Four products of numbers of about 1, in float32.
        np.testing.assert_allclose(found[name], rows, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("structure", "form_of_losses"), [(dict, dict), (list, dict), (tuple, dict), (list, list), (tuple, list)]
)
class TestSeveralOutputs:
    def test_each_is_read_by_its_name_and_its_own_loss(self, structure, form_of_losses):
        model = several(structure, form_of_losses)
        assert_read(model, expected(model))

    def test_a_number_is_left_alone(self, structure, form_of_losses):
        model = several(structure, form_of_losses)
        raw = model.predict(ROWS, verbose=0)
        found = answers.read(model, raw, data_of(outputs=OUTPUTS))["age"]
        as_predicted = raw["age"] if structure is dict else raw[list(KINDS).index("age")]
        assert found.shape == (6, 1)
        np.testing.assert_array_equal(found, as_predicted)

    def test_a_saved_model_is_read_as_before(self, structure, form_of_losses, tmp_path: Path):
        model = several(structure, form_of_losses)
        before = expected(model)
        model.save(tmp_path / "model.keras")
        assert_read(keras.models.load_model(tmp_path / "model.keras"), before)

    def test_parts_go_by_the_names_of_the_outputs(self, structure, form_of_losses):
        model = several(structure, form_of_losses)
        raw = model.predict(ROWS, verbose=0)
        named = answers.by_name(model, raw)
        assert set(named) == set(KINDS)
        for name, part in named.items():
            assert part.shape == (6, KINDS[name])

    def test_the_links_are_those_of_the_logits(self, structure, form_of_losses):
        model = several(structure, form_of_losses)
        assert answers.links_of(model, KINDS) == {"yes": "sigmoid", "which": "softmax"}


def test_one_loss_is_that_of_every_output() -> None:
    inputs = keras.Input((4,))
    both = {name: layers.Dense(1, name=name)(inputs) for name in ("one", "other")}
    model = keras.Model(inputs, both)
    model.compile("adam", losses.BinaryCrossentropy(from_logits=True))
    assert answers.links_of(model, both) == {"one": "sigmoid", "other": "sigmoid"}


def test_the_parts_of_one_output_go_by_no_name() -> None:
    model = one_output(3, MANY["sparse"])
    assert list(answers.by_name(model, ROWS)) == [""]
    assert answers.links_of(model, [""]) == {"": "softmax"}


def test_one_loss_by_name_is_that_of_the_only_output() -> None:
    model = one_output(1, {"answer": ONE["crossentropy"]})
    assert answers.links_of(model, [""]) == {"": "sigmoid"}


@pytest.mark.parametrize(
    ("units", "loss"), [(1, ONE["crossentropy"]), (1, ONE["focal"]), (3, MANY["sparse"])]
)
def test_a_saved_model_of_logits_is_read_as_before(units: int, loss: object, tmp_path: Path) -> None:
    model, data = one_output(units, loss), data_of(max(2, units))
    before = answers.read(model, model.predict(ROWS, verbose=0), data)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    after = answers.read(loaded, loaded.predict(ROWS, verbose=0), data)
    np.testing.assert_allclose(after, before, rtol=ROUNDING)
    assert not np.allclose(after, loaded.predict(ROWS, verbose=0))


def test_a_model_that_is_not_compiled_answers_with_probabilities() -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="softmax")])
    assert answers.links_of(model, [""]) == {}


@pytest.mark.parametrize("structure", [list, dict, None])
def test_a_model_of_one_number_is_read_by_its_name_however_it_answers(structure: type | None) -> None:
    inputs = keras.Input((4,))
    number = layers.Dense(1, name="price")(inputs)
    outputs = {list: [number], dict: {"price": number}, None: number}[structure]
    model = keras.Model(inputs, outputs)
    model.compile("sgd", "mse")
    data = splits.data(
        "made_up", "made up", (), (Split(ROWS, {"price": np.arange(6.0)}),) * 3, outputs={"price": ()}
    )
    raw = model.predict(ROWS, verbose=0)
    found = answers.read(model, raw, data)
    assert list(found) == ["price"]
    np.testing.assert_array_equal(found["price"], np.asarray(keras.tree.flatten(raw)[0], np.float64))
