"""Run as a program of its own, on TensorFlow: makes other formats of a `.keras` file, and tries them.

    python -m pipeline.engines.exporting FOLDER saved_model onnx

FOLDER holds `model.keras`, `modules.json` with the names of the user's modules that it needs, and `rows.npz`
with some inputs and what the model answered to them. The last line that is printed says in JSON, of each
format, its file and the largest difference of its answers, or why there is none. TensorFlow makes both
formats, whatever the model was trained on.
"""

import functools
import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

MODEL_FILE, ROWS_FILE, MODULES_FILE = "model.keras", "rows.npz", "modules.json"
INPUT, ANSWER = "input:", "answer:"


def main(folder: Path, names: Sequence[str]) -> int:
    """Makes what can be made; its exit code."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    import keras
    import numpy as np

    for name in json.loads((folder / MODULES_FILE).read_text()):
        # Of the user's own, with layers that the model has.
        members = vars(importlib.import_module(name))
        keras.saving.get_custom_objects().update(
            {key: value for key, value in members.items() if getattr(value, "__module__", "") == name}
        )
    # The process that started this one has made it.
    model = _wide(keras.saving.load_model(folder / MODEL_FILE, compile=False, safe_mode=False))
    rows = np.load(folder / ROWS_FILE)
    inputs = {key.removeprefix(INPUT): rows[key] for key in rows.files if key.startswith(INPUT)}
    expected = [rows[key] for key in rows.files if key.startswith(ANSWER)]
    makers: dict[str, Callable[[Any, dict[str, Any], Path], tuple[Path, Any]]] = {
        "saved_model": _saved_model,
        "onnx": _onnx,
    }
    found = {name: _tried(functools.partial(makers[name], model, inputs, folder), expected) for name in names}
    print(json.dumps(found))
    return 0


def _wide(model: Any) -> Any:
    """The same model, computing with 32 bits where it does with 16: for those, few libraries have kernels."""
    from keras.src.saving.serialization_lib import SafeModeScope

    from pipeline.engines import precision

    if not precision.is_narrow(model):
        return model
    with SafeModeScope(safe_mode=False):
        wide = type(model).from_config(precision.widened(model.get_config()))
    wide.set_weights(model.get_weights())
    return wide


def _end_with(parent: int) -> None:
    """Ends this process when its parent is gone: nobody waits for it then."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _tried(make: Callable[[], tuple[Path, Any]], expected: list[Any]) -> dict[str, Any]:
    import keras
    import numpy as np

    try:
        file, answered = make()
        parts = [np.asarray(part) for part in keras.tree.flatten(answered)]
        # Of numbers above one, as shares of the largest.
        differences = [
            np.abs(part - other).max() / max(1.0, np.abs(other).max())
            for part, other in zip(parts, expected, strict=True)
        ]
        return {"file": file.name, "difference": float(max(differences))}
    except Exception as error:  # of TensorFlow, of the converter, of a layer that has no such form
        said = str(error).strip().splitlines() or ["no reason given"]
        return {"failure": f"{type(error).__name__}: {said[0]}"}


def _saved_model(model: Any, inputs: dict[str, Any], folder: Path) -> tuple[Path, Any]:
    import tensorflow as tf

    place = folder / "saved_model"
    model.export(place, format="tf_saved_model", verbose=False)
    # Kept, as its variables go with it.
    loaded = tf.saved_model.load(place)
    return place, loaded.serve(_given(inputs))


def _onnx(model: Any, inputs: dict[str, Any], folder: Path) -> tuple[Path, Any]:
    import onnxruntime

    file = folder / "model.onnx"
    _without_eager_tensors(model)
    model.export(file, format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    asked = {one.name: one.type for one in session.get_inputs()}
    fed = inputs if "" not in inputs else {next(iter(asked)): inputs[""]}
    # Keras takes whole numbers where its input is one of floats, and ONNX does not.
    rows = {
        name: fed[name].astype("float32") if kind == "tensor(float)" else fed[name]
        for name, kind in asked.items()
    }
    return file, session.run(None, rows)


def _without_eager_tensors(model: Any) -> None:
    """Takes from layers what was computed when they were made, which tf2onnx 1.17 takes for inputs."""
    import tensorflow as tf

    layers = [model]
    while layers:
        layer = layers.pop()
        layers += getattr(layer, "layers", [])
        # Their losses are of training alone.
        layer.activity_regularizer = None
        for name, value in list(vars(layer).items()):
            if isinstance(value, tf.Tensor):
                setattr(layer, name, value.numpy())


def _given(inputs: dict[str, Any]) -> Any:
    return inputs.get("", inputs)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
