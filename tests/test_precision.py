"""Models whose layers compute with 16 bits: what stays float32, and what a study keeps of it."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from optuna.storages import InMemoryStorage
from test_study import ORIGIN, PARAMETERS, TEXT, opened
from test_tasks import SOME_SLOW, case_of

from pipeline import space as spaces
from pipeline.engines import backend, precision
from pipeline.errors import UserError
from pipeline.metrics import CLASSIFICATION
from pipeline.study_opening import origin_of

ROOT = Path(__file__).parent.parent
_WIDE_LAYERS = (keras.layers.Normalization, keras.layers.Rescaling)
backend.load()


def narrow(make: Callable[[], keras.Model]) -> keras.Model:
    return precision.building(lambda settings, data: make(), "bfloat16")({}, None)  # type: ignore[arg-type]


# What is built


@pytest.mark.parametrize("name", SOME_SLOW)
def test_a_tasks_model_keeps_weights_and_answers_with_32_bits(name: str) -> None:
    case = case_of(name)
    model = narrow(case.searched)
    assert {str(weight.dtype) for weight in model.weights} <= {"float32", "uint32", "int64"}
    assert {output.dtype for output in keras.tree.flatten(model.outputs)} == {"float32"}
    layers = model._flatten_layers(include_self=False)
    assert any(layer.compute_dtype == "bfloat16" for layer in layers)
    assert all(layer.compute_dtype == "float32" for layer in layers if isinstance(layer, _WIDE_LAYERS))
    # Its weights begin as those of the same seed do with 32 bits.
    keras.utils.set_random_seed(0)
    ours = narrow(case.searched)
    keras.utils.set_random_seed(0)
    for one, other in zip(ours.trainable_weights, case.searched().trainable_weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_policy_holds_for_the_built_model_alone() -> None:
    def failing() -> keras.Model:
        raise ValueError("none today")

    with pytest.raises(ValueError, match="none today"):
        narrow(failing)
    assert keras.layers.Dense(1).compute_dtype == "float32"
    assert narrow(dense).layers[0].compute_dtype == "bfloat16"
    assert keras.layers.Dense(1).compute_dtype == "float32"


def test_float32_leaves_a_build_as_it_is() -> None:
    def build(settings: Any, data: Any) -> keras.Model:
        return dense()

    assert precision.building(build, "float32") is build


def dense(**more: Any) -> keras.Model:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax", **more)])
    losses = keras.metrics.SparseCategoricalCrossentropy(name="log_loss")
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=[losses])
    return model


# What is measured


def test_metrics_of_answers_with_16_bits_are_calculated_with_32() -> None:
    """A model of a user's own, whose last layer computes as the others do."""
    model = narrow(dense)
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(64, 4)).astype(np.float32), np.arange(64, dtype=np.int32) % 3
    answers = np.asarray(model(inputs, training=False)).astype(np.float64)
    picked = answers[np.arange(64), targets] / answers.sum(axis=1)
    measured = model.evaluate(inputs, targets, batch_size=64, verbose=0, return_dict=True)
    for value in measured.values():
        # 64 sums in float32; in bfloat16 the third digit would differ.
        assert value == pytest.approx(-np.log(picked).mean(), rel=1e-5)


def test_a_penalty_on_activities_is_added_up_with_32_bits() -> None:
    activity = keras.regularizers.L1(0.01)
    model = narrow(
        lambda: keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activity_regularizer=activity)])
    )
    inputs = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    outputs = np.asarray(model(inputs)).astype(np.float64)
    (penalty,) = model.losses
    assert keras.backend.standardize_dtype(penalty.dtype) == "float32"
    assert float(penalty) == pytest.approx(0.01 * np.abs(outputs).sum() / 50, rel=1e-5)


def test_statistics_of_normalisation_have_32_bits() -> None:
    model = narrow(
        lambda: keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization(momentum=0.0)])
    )
    # Numbers that bfloat16 holds, and whose mean it does not.
    inputs = np.array([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0], [1.03125, 2.0]], np.float32)
    model(inputs, training=True)
    np.testing.assert_allclose(model.layers[0].moving_mean, [1.0078125, 2.0], rtol=1e-6)


# What a study is tied to


def test_a_study_goes_on_only_with_its_precision() -> None:
    space = spaces.parse(TEXT, Path("blobs.toml"), PARAMETERS, CLASSIFICATION)
    store = InMemoryStorage()
    narrow_origin = replace(ORIGIN, precision="bfloat16")
    opened(store, space, narrow_origin).ask()
    opened(store, space, narrow_origin)
    assert origin_of("blobs", store).precision == "bfloat16"
    with pytest.raises(UserError, match="precision: was bfloat16, now float32"):
        opened(store, space)


def test_a_study_of_before_had_32_bits() -> None:
    space = spaces.parse(TEXT, Path("blobs.toml"), PARAMETERS, CLASSIFICATION)
    store = InMemoryStorage()
    study = opened(store, space)
    study.ask()
    assert "precision" not in study._study.user_attrs["identity"]
    before = {name: value for name, value in study._study.user_attrs["origin"].items() if name != "precision"}
    study._study.set_user_attr("origin", before)
    assert origin_of("blobs", store).precision == "float32"
    with pytest.raises(UserError, match="precision: was float32, now bfloat16"):
        opened(store, space, replace(ORIGIN, precision="bfloat16"))


# Devices


def printed(program: str, **environment: str) -> str:
    command = [sys.executable, "-c", program]
    given = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": "2", **environment}
    return subprocess.run(command, capture_output=True, text=True, env=given, check=True).stdout


def test_beside_keras_on_jax_tensorflow_is_kept_from_gpus() -> None:
    # TensorFlow looks at its devices when it is told which it may see, and not before.
    program = """
from pipeline.engines import backend, choice
backend.load()
print(choice.described("lanes"), "|", choice.described("fit", "bfloat16"))
import tensorflow
from tensorflow.python.eager import context
print(context.context()._physical_devices is not None, tensorflow.config.get_visible_devices("GPU"))
"""
    assert printed(program, KERAS_BACKEND="jax").splitlines() == [
        "lanes on jax, 2 x cpu | fit on jax, CPU, bfloat16",
        "True []",
    ]


def test_beside_keras_on_tensorflow_jax_is_kept_from_gpus_and_memory_grows() -> None:
    program = """
import tensorflow as tf
asked = []
tf.config.list_physical_devices = lambda kind: [f"{kind}:0", f"{kind}:1"]
tf.config.experimental.set_memory_growth = lambda gpu, enable: asked.append((gpu, enable))
from pipeline.engines import backend, choice
backend.load()
import jax
print(asked, jax.config.jax_platforms)
print(choice.described("auto"))
"""
    assert printed(program, KERAS_BACKEND="tensorflow").splitlines() == [
        "[('GPU:0', True), ('GPU:1', True)] cpu",
        "fit on tensorflow, CPU, as lanes need jax",
    ]
