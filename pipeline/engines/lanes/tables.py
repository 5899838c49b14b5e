"""The tables of a Keras model: arrays that are neither variables nor configuration, but come from the data.

Keras's Normalization computes its mean and variance from rows (or is given them), and keeps them beside its
variables. Models of one data set share them; with folds each lane has its own.
"""

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from pipeline.values import Array

_OF_NORMALIZATION = ("mean", "variance")


def of_model(model: keras.Model) -> list[Array]:
    """The tables, in the order of the layers."""
    return [np.asarray(getattr(layer, name)) for layer, name in _places(model)]


def copy(plain: keras.Model, clone: keras.Model) -> None:
    """Gives a model that was made of another's configuration its tables, too.

    What Normalization has adapted to is not in its configuration.
    """
    for (layer, name), (its, _) in zip(_places(clone), _places(plain), strict=True):
        setattr(layer, name, getattr(its, name))


def digest(arrays: Sequence[Array]) -> str:
    """Equal for equal tables."""
    content = hashlib.sha256()
    for array in arrays:
        content.update(f"{array.dtype} {array.shape} ".encode() + array.tobytes())
    return content.hexdigest()


@contextlib.contextmanager
def bound(model: keras.Model, values: Sequence[Any]) -> Iterator[None]:
    """Other tables in place of the model's own while its functions are traced."""
    places = _places(model)
    own = [getattr(layer, name) for layer, name in places]
    for (layer, name), value in zip(places, values, strict=True):
        setattr(layer, name, value)
    try:
        yield
    finally:
        for (layer, name), value in zip(places, own, strict=True):
            setattr(layer, name, value)


def _places(model: keras.Model) -> list[tuple[Any, str]]:
    return [
        (layer, name)
        for layer in model._flatten_layers(include_self=False)
        if isinstance(layer, keras.layers.Normalization)
        for name in _OF_NORMALIZATION
    ]
