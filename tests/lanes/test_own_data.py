"""The models of a person's pictures and texts train in lanes as `model.fit` trains them on JAX."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lanes_harness import budget, data_of, each, in_lanes, lanes_engine, one_by_one, relative, replayed

from pipeline.datasets.texts import NUMBER
from pipeline.source import Source
from pipeline.tasks import images, text
from pipeline.values import Data, Setting, Settings, Split

LANES = 2
# One step of a deep model, in float32: see LOSS and VALIDATION_LOSS in test_equality.py.
LOSS, VALIDATION_LOSS = 2e-5, 2e-4


@pytest.fixture(autouse=True)
def _prescribed_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares the measurements of the convolutions' forms."""
    monkeypatch.setenv("PIPELINE_LOWERING", "patches")


def _pictures(rows: int, seed: int) -> Split:
    rng = np.random.default_rng(seed)
    return Split(
        rng.integers(0, 256, (rows, 8, 8, 1)).astype(np.uint8), (np.arange(rows) % 3).astype(np.int32)
    )


def _sequences(rows: int, seed: int, *, number: bool = False) -> Split:
    rng = np.random.default_rng(seed)
    words = rng.integers(0, 30, (rows, 25)).astype(np.int32)
    if number:
        return Split(words, {NUMBER: rng.normal(50, 9, (rows, 1)).astype(np.float32)})
    return Split(words, (np.arange(rows) % 3).astype(np.int32))


def _texts(*, number: bool = False) -> Data:
    made = data_of(_sequences(24, 0, number=number), _sequences(9, 1, number=number))
    outputs = {NUMBER: ()} if number else {}
    return replace(made, classes=() if number else made.classes, outputs=outputs, words={"": 30})


def _settings(parameters: object, **own: Setting) -> Settings:
    base = {parameter.name: parameter.default for parameter in parameters}  # type: ignore[attr-defined]
    return {**base, "batch_size": 12, "max_norm": 3.0, **own}


def _assert_equal(build: object, data: Data, base: Settings, folder: Path) -> None:
    """Two lanes of numbers of their own, for an epoch of two steps."""
    candidates = each({"l2": 1e-3, "bn_momentum": 0.9}, {"l1": 1e-4, "max_norm": 1.0}, base=dict(base))
    limits = budget(epochs=1)
    lanes = in_lanes(lanes_engine(build, data, limits, folder, LANES), candidates)
    assert {(trial.refused, trial.outcome.failure) for trial in lanes.values()} == {("", "")}
    alone = one_by_one(build, data, limits, folder / "fit", replayed(candidates, lanes))
    for number, trial in lanes.items():
        found = relative(trial.curve, alone[number].curve)
        assert found["loss"] < LOSS, (number, found)
        assert found["val_loss"] < VALIDATION_LOSS, (number, found)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["residual", "separable"])
def test_pictures(tmp_path: Path, network: str) -> None:
    made = images.task(Source(data=str(tmp_path)))
    data = data_of(_pictures(24, 0), _pictures(9, 1))
    _assert_equal(images.build, data, _settings(made.parameters, network=network, filters=4), tmp_path)


@pytest.mark.slow
def test_augmentation_is_that_of_the_same_seeds(tmp_path: Path) -> None:
    # Each lane draws from its own model's seeds, as it does alone.
    made = images.task(Source(data=str(tmp_path)))
    data = data_of(_pictures(24, 0), _pictures(9, 1))
    own = {
        "network": "residual",
        "filters": 4,
        "flip": True,
        "translation": 0.2,
        "rotation": 0.1,
        "zoom": 0.2,
    }
    _assert_equal(images.build, data, _settings(made.parameters, **own), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["multi_hot", "conv1d", "lstm"])
def test_texts(tmp_path: Path, network: str) -> None:
    _assert_equal(text.build, _texts(), _settings(text.PARAMETERS, network=network), tmp_path)


@pytest.mark.slow
def test_numbers_of_texts(tmp_path: Path) -> None:
    base = _settings(text.PARAMETERS, network="multi_hot")
    _assert_equal(text.build, _texts(number=True), base, tmp_path)
