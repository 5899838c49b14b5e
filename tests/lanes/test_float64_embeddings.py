"""Lanes of word convolutions equal `model.fit` on JAX in float64, with one batch for all and with folds."""

from pathlib import Path

import keras
import numpy as np
import pytest
from lanes_harness import budget, data_of, each, in_lanes, lanes_engine, one_by_one, relative, replayed

from pipeline.datasets import splits
from pipeline.engines.lanes.lowering import embeddings
from pipeline.values import Data, Settings, Split

# See `test_float64`: what rounding by 1.1e-16 becomes in some epochs, with much to spare.
LIMIT = 1e-9
BASE = {"batch_size": 16, "shuffle": False, "rate": 0.01, "penalty": 0.0}
LANES = ({}, {"rate": 0.03, "penalty": 0.01}, {"rate": 0.005})


def build(settings: Settings, data: Data) -> keras.Model:
    layers, penalty = keras.layers, keras.regularizers.L2(settings["penalty"])
    model = keras.Sequential(
        [
            keras.Input((14,), dtype="int32"),
            layers.Embedding(11, 6, embeddings_regularizer=penalty),
            layers.Conv1D(8, 3, activation="tanh", kernel_regularizer=penalty),
            layers.MaxPooling1D(5),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(settings["rate"]), "sparse_categorical_crossentropy")
    return model


def rows(count: int, seed: int) -> Split:
    random = np.random.default_rng(seed)
    inputs = random.integers(0, 11, (count, 14)).astype(np.int32)
    return Split(inputs, (inputs.sum(1) % 3).astype(np.int32))


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The pairs that are looked up from now on."""
    monkeypatch.setenv("PIPELINE_LOWERING", "the first")
    found: list[object] = []
    passing = embeddings.passing
    monkeypatch.setattr(embeddings, "passing", lambda pair: found.append(pair) or passing(pair))
    return found


def test_lanes_with_one_batch_for_all(tmp_path: Path, looked_up: list[object]) -> None:
    # The last batch of an epoch is smaller than the others.
    data, limits = data_of(rows(40, 0), rows(21, 1)), budget(epochs=3)
    candidates = each(*LANES, base={**BASE, "shuffle": True})
    ours = in_lanes(lanes_engine(build, data, limits, tmp_path, 4), candidates)
    assert len(looked_up) == 1
    theirs = one_by_one(build, data, limits, tmp_path / "fit", replayed(candidates, ours))
    for number, trial in theirs.items():
        assert max(relative(ours[number].curve, trial.curve).values()) <= LIMIT
        weights = [keras.models.load_model(one.outcome.model_file).weights for one in (ours[number], trial)]
        for mine, its in zip(*weights, strict=True):
            np.testing.assert_allclose(mine.numpy(), its.numpy(), rtol=0, atol=100 * LIMIT)


def test_lanes_with_folds(tmp_path: Path, looked_up: list[object]) -> None:
    whole = data_of(rows(50, 0), rows(20, 1))
    folds, limits = splits.folds(whole, 2), budget(epochs=2)
    candidates = each(*LANES[:2], base=BASE)
    ours = in_lanes(lanes_engine(build, folds, limits, tmp_path, 4, whole=whole.train), candidates)
    assert len(looked_up) == 1
    theirs = one_by_one(build, folds, limits, tmp_path / "fit", candidates)
    for number, trial in theirs.items():
        for fold, curve in trial.curves.items():
            assert max(relative(ours[number].curves[fold], curve).values()) <= LIMIT
