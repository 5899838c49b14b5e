"""A candidate's model as every engine builds it."""

import threading
from collections.abc import Callable

import keras

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
