"""A candidate's model is built from its seed alone, whoever else builds; what is kept of its answers."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from pipeline import answers
from pipeline.engines.models import built, save_predictions
from pipeline.values import Data, SealedSplit, Settings, Split

ROWS = Split(np.zeros((4, 3), np.float32), np.zeros(4, np.int32))
DATA = Data("made up", "made up", ("0", "1"), ROWS, ROWS, SealedSplit(ROWS), {})


def slowly(settings: Settings, data: Data) -> keras.Model:
    layers = [keras.Input((3,))]
    for _ in range(4):
        layers.append(keras.layers.Dense(3))
        time.sleep(0.02)
    model = keras.Sequential(layers)
    model.compile("sgd", "mse")
    return model


def weights(seed: int) -> list[np.ndarray]:
    return built(slowly, {"batch_size": 2}, DATA, seed).get_weights()


def test_two_engines_that_build_at_once_disturb_no_initial_weights() -> None:
    alone = [weights(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(weights, range(4)))
    for one, other in zip(alone, together, strict=True):
        for mine, its in zip(one, other, strict=True):
            assert np.array_equal(mine, its)


# What is kept of a model's answers

OUTPUTS = {"which": ("a", "b", "c"), "yes": ("no", "yes"), "age": ()}


def several(structure: type) -> keras.Model:
    """Logits, a logit and a number, in no order of the alphabet."""
    inputs = keras.Input((3,))
    made = {
        name: keras.layers.Dense(units, name=name)(inputs)
        for name, units in (("which", 3), ("yes", 1), ("age", 1))
    }
    model = keras.Model(inputs, made if structure is dict else structure(made.values()))
    sparse = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    binary = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile("sgd", {"which": sparse, "yes": binary, "age": "mse"})
    return model


@pytest.mark.parametrize("structure", [dict, list, tuple])
def test_answers_of_several_outputs_are_kept_by_name(structure: type, tmp_path: Path) -> None:
    model, data = several(structure), replace(DATA, classes=(), outputs=OUTPUTS)
    inputs = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    raw = model.predict(inputs, verbose=0)
    file = save_predictions(model, raw, data, tmp_path)
    assert file == tmp_path / "validation_predictions.npz"
    kept, read = np.load(file), answers.read(model, raw, data)
    assert set(kept.files) == set(OUTPUTS)
    for name, classes in OUTPUTS.items():
        assert kept[name].dtype == np.float32
        assert kept[name].shape == (4, len(classes) or 1)
        np.testing.assert_array_equal(kept[name], read[name].astype(np.float32))
        if classes:
            # A logit is kept as probabilities.
            np.testing.assert_allclose(kept[name].sum(axis=1), 1, atol=1e-6)


def test_answers_of_several_outputs_that_nothing_tells_are_not_kept(tmp_path: Path) -> None:
    for structure in (dict, list):
        model = several(structure)
        assert save_predictions(model, model.predict(ROWS.inputs, verbose=0), DATA, tmp_path) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("units", [1, 3])
def test_answers_of_one_output_are_kept_as_probabilities(units: int, tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(units)])
    loss = keras.losses.BinaryCrossentropy if units == 1 else keras.losses.SparseCategoricalCrossentropy
    model.compile("sgd", loss(from_logits=True))
    inputs = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    raw = model.predict(inputs, verbose=0)
    file = save_predictions(model, raw, DATA, tmp_path)
    assert file == tmp_path / "validation_predictions.npy"
    kept = np.load(file)
    assert (kept.shape, kept.dtype) == ((4, max(units, 2)), np.float32)
    link = keras.ops.sigmoid if units == 1 else keras.ops.softmax
    np.testing.assert_allclose(kept[:, -1], np.asarray(link(raw))[:, -1], rtol=1e-6)
