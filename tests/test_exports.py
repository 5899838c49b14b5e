"""The ensemble in other formats: each answers as the Keras file does, or is not kept."""

import importlib.util
import json
import logging
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from pipeline import ensemble, exports
from pipeline.engines import exporting, precision

LAYERS = keras.layers
FORMATS = ["saved_model", *(["onnx"] if importlib.util.find_spec("tf2onnx") else [])]


def table() -> keras.Model:
    """With what is kept as plain tensors in layers: a Normalization's numbers, an activity penalty."""
    model = keras.Sequential(
        [
            keras.Input((4,)),
            LAYERS.Normalization(mean=[1.0, 2.0, 3.0, 4.0], variance=[1.0, 4.0, 9.0, 16.0]),
            LAYERS.Dense(8, "relu", activity_regularizer=keras.regularizers.L1(0.1)),
            LAYERS.BatchNormalization(),
            LAYERS.Dense(3, "softmax"),
        ]
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def pictures() -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((12, 12, 1), dtype="uint8"),
            LAYERS.Rescaling(1 / 255),
            LAYERS.Conv2D(4, 3, activation="tanh"),
            LAYERS.BatchNormalization(),
            LAYERS.AveragePooling2D(2),
            LAYERS.SeparableConv2D(4, 3, activation="relu"),
            LAYERS.Flatten(),
            LAYERS.Dense(1),
        ]
    )
    model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
    return model


def texts() -> keras.Model:
    """Two inputs, two outputs, an LSTM."""
    inputs = {name: keras.Input((6,), dtype="int32", name=name) for name in ("text", "question")}
    read = [LAYERS.LSTM(4)(LAYERS.Embedding(10, 3)(part)) for part in inputs.values()]
    joined = LAYERS.Concatenate()(read)
    outputs = {
        "which": LAYERS.Dense(3, "softmax", name="which")(joined),
        "age": LAYERS.Dense(1, name="age")(joined),
    }
    model = keras.Model(inputs, outputs)
    model.compile("sgd", {"which": "sparse_categorical_crossentropy", "age": "mse"})
    return model


def rows_of(model: keras.Model) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    given = {
        tensor.name: rng.integers(0, 10, (5, *tensor.shape[1:])).astype(tensor.dtype)
        for tensor in model.inputs
    }
    return given if len(given) > 1 else {"": next(iter(given.values()))}


def exported(
    model: keras.Model, folder: Path, answers: list[np.ndarray] | None = None
) -> list[exports.Export]:
    rows = rows_of(model)
    file = folder / "ensemble.keras"
    model.save(file)
    answered = model.predict(rows.get("", rows), verbose=0)
    parts = answers or [np.asarray(part) for part in keras.tree.flatten(answered)]
    return list(exports.begin(file, FORMATS, rows, parts, folder / "exports").finished())


@pytest.mark.parametrize("made", [table, pictures, texts])
def test_every_format_answers_as_the_keras_file_does(
    made: Callable[[], keras.Model], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = ensemble.as_model([(made(), 0.25), (made(), 0.75)])
    found = {export.name: export for export in exported(model, tmp_path)}
    assert not caplog.records
    assert list(found) == FORMATS
    for export in found.values():
        # Float32 sums of some dozen products in another order.
        assert export.difference < 1e-5
        assert export.place.exists()
    assert (found["saved_model"].place / "saved_model.pb").exists()


def test_answers_that_differ_are_said_and_not_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert exported(table(), tmp_path, [np.full((5, 3), 0.5, np.float32)]) == []
    assert "exports: saved_model: its answers differ by" in caplog.text


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "broken.keras"
    file.write_bytes(b"no model")
    with caplog.at_level(logging.WARNING):
        begun = exports.begin(
            file, ["saved_model"], {"": np.ones((2, 4))}, [np.ones((2, 3))], tmp_path / "exports"
        )
        assert list(begun.finished()) == []
    assert "exports: failed: " in caplog.text


def test_a_layer_that_has_no_such_form_fails_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise NotImplementedError("no such\nform")

    exported(table(), tmp_path)
    monkeypatch.setattr(exporting, "_onnx", fails)
    (tmp_path / "exports" / "saved_model").rename(tmp_path / "before")
    assert exporting.main(tmp_path / "exports", ["onnx", "saved_model"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["onnx"] == {"failure": "NotImplementedError: no such"}
    assert said["saved_model"]["file"] == "saved_model"


def test_what_computes_with_16_bits_is_exported_with_32(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = precision.building(lambda settings, data: table(), "bfloat16")({}, None)  # type: ignore[arg-type]
    file = tmp_path / "ensemble.keras"
    model.save(file)
    rows = {"": np.random.default_rng(0).normal(size=(8, *model.input_shape[1:])).astype(np.float32)}
    answered = model.predict(rows[""], verbose=0).astype(np.float32)
    begun = exports.begin(file, FORMATS, rows, [answered], tmp_path / "exports", narrow=True)
    assert [export.name for export in begun.finished()] == FORMATS
    assert not caplog.records
