"""A candidate's model as every engine builds it."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from pipeline import answers
from pipeline.engines.engine import PREDICTIONS_FILE, SEVERAL_PREDICTIONS_FILE
from pipeline.values import Data, Settings

# Keras draws its layers' seeds from numbers of the whole process; two engines may build at the same time.
_seeding = threading.Lock()


def built(
    build: Callable[[Settings, Data], keras.Model], settings: Settings, data: Data, seed: int
) -> keras.Model:
    """A compiled model whose initial weights derive from the seed alone.

    Raises:
        ValueError: what `build` gave is no compiled model, or the batch size cannot be used.
    """
    size = settings["batch_size"]
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"batch_size is {size!r}, which is not a whole number of 1 or more")
    with _seeding:
        keras.utils.set_random_seed(seed)
        model = build(settings, data)
    if not isinstance(model, keras.Model):
        raise ValueError(f"build gave {type(model).__name__}, which is not a Keras model")
    if not model.compiled:
        raise ValueError("build gave a model that is not compiled")
    return model


def check_logged(names: list[str], needed: list[str]) -> None:
    """Checks that a model logs what scores and steers its training.

    Raises:
        ValueError: it does not.
    """
    for name in needed:
        if name not in names:
            raise ValueError(f"the model does not log {name}; it logs {', '.join(sorted(names))}")


def save_predictions(model: keras.Model, raw: Any, data: Data, folder: Path) -> Path | None:
    """Keeps what a model answers to the validation rows; None where nothing says what several outputs are.

    Args:
        model: compiled.
        raw: what its `predict` gave.
        data: what it was trained on.
        folder: exists.
    """
    if not isinstance(raw, np.ndarray) and not data.outputs:
        return None
    found = answers.read(model, raw, data)
    if isinstance(found, Mapping):
        parts: dict[str, Any] = {name: part.astype(np.float32) for name, part in found.items()}
        np.savez(folder / SEVERAL_PREDICTIONS_FILE, **parts)
        return folder / SEVERAL_PREDICTIONS_FILE
    np.save(folder / PREDICTIONS_FILE, found.astype(np.float32))
    return folder / PREDICTIONS_FILE
