"""The arrays of `keras.datasets` as they are published, downloaded by Keras or read from a mirror folder.

`PIPELINE_DATA=<folder>` names a folder with the sets in Keras's own formats, for machines without a
network: `mnist.npz`, `fashion-mnist/*.gz`, `imdb.npz`, and for the words of a report
`imdb_word_index.json`. Whichever way they come, the arrays must have the published digests, so two machines
that report a score have learned from the same rows.
"""

import gzip
import io
import json
import os
import pickle
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy._core.multiarray import _reconstruct

from pipeline.datasets import digests
from pipeline.errors import UserError
from pipeline.values import Array

Arrays = tuple[Array, Array, Array, Array]

IMDB_WORDS = 10_000
"""How many of the commonest words the reviews are published with."""
# Keras's imdb.load_data: its seed, the number that opens a review, the one for rare words, and the shift
# of all others (https://keras.io/api/datasets/imdb).
_IMDB_SEED, IMDB_START, IMDB_RARE, _IMDB_SHIFT = 113, 1, 2, 3

# SHA-256 of (x_train, y_train, x_test, y_test) as keras.datasets gives them (see digests.of_arrays).
PUBLISHED = {
    "mnist": "52cd6c10ae77107af32269dd9d10ca19c1b749e83235a0c75e2f0729ebeaf141",
    "fashion_mnist": "51bad0352284eacba9865b8317af0b9281dae4f52f7f667217f2ee65f7069790",
    "imdb": "cb856dd34ed319dc834b2c71ba5df29a3c20694da8919ff5acf0f64f0ff4d7ee",
}
_NAMES = ("x_train", "y_train", "x_test", "y_test")


def arrays_of(name: str) -> tuple[Arrays, str]:
    """The arrays (x_train, y_train, x_test, y_test) of a set, checked, and where they came from.

    Raises:
        UserError: they cannot be read or downloaded, or are not the published ones.
    """
    file, from_mirror = _MIRRORED[name]
    folder = os.environ.get("PIPELINE_DATA", "")
    if folder:
        place = f"{Path(folder) / file} (PIPELINE_DATA)"
        arrays = _mirrored(Path(folder) / file, from_mirror)
        advice = "replace the file by the published one, or unset PIPELINE_DATA to download it"
    else:
        place = f"keras.datasets.{name}"
        arrays = _downloaded(name)
        advice = "delete Keras's copy in ~/.keras/datasets and run again"
    found = digests.of_arrays(*arrays)
    if found != PUBLISHED[name]:
        raise UserError(
            f"{place}: the arrays are not the published ones (SHA-256 {found[:12]}…, published"
            f" {PUBLISHED[name][:12]}…); {advice}"
        )
    return arrays, "PIPELINE_DATA mirror" if folder else place


def imdb_ranks() -> dict[str, int]:
    """How common each word of the reviews is, 1 for the commonest.

    Raises:
        Exception: whatever reading or downloading them raises; Keras raises a bare one.
    """
    if folder := os.environ.get("PIPELINE_DATA", ""):
        found: dict[str, int] = json.loads(Path(folder, "imdb_word_index.json").read_text(encoding="utf-8"))
        return found
    import keras

    downloaded: dict[str, int] = keras.datasets.imdb.get_word_index()
    return downloaded


def _mirrored(place: Path, from_mirror: Callable[[Path], Arrays]) -> Arrays:
    try:
        return from_mirror(place)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(
            f"{error.filename}: there is no such file, and PIPELINE_DATA names its folder as the mirror of"
            " the Keras sets; put the file there, or unset PIPELINE_DATA to download it"
        ) from None
    except (
        OSError,
        EOFError,
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        # Everything that reading a damaged archive, array or pickle may raise.
        raise UserError(
            f"{place}: the file is damaged ({error}); replace it by the published one, or unset"
            " PIPELINE_DATA to download it"
        ) from None


def _downloaded(name: str) -> Arrays:
    import keras

    try:
        # Keras raises a bare Exception when a download fails, and ValueError for a wrong hash.
        if name == "imdb":
            (x_train, y_train), (x_test, y_test) = keras.datasets.imdb.load_data(num_words=IMDB_WORDS)
        else:
            (x_train, y_train), (x_test, y_test) = getattr(keras.datasets, name).load_data()
    except Exception as error:
        raise UserError(
            f"keras.datasets.{name}: the download failed ({error}); on a machine without a network set"
            " PIPELINE_DATA to a folder that holds Keras's files"
        ) from error
    return x_train, y_train, x_test, y_test


def _mnist_from_mirror(file: Path) -> Arrays:
    x_train, y_train, x_test, y_test = _npz(file)
    return x_train, y_train, x_test, y_test


def _fashion_mnist_from_mirror(folder: Path) -> Arrays:
    def images(part: str) -> Array:
        # The idx format: a header of 16 bytes, then a byte a pixel.
        with gzip.open(folder / f"{part}-images-idx3-ubyte.gz") as file:
            return np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)

    def labels(part: str) -> Array:
        with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz") as file:
            return np.frombuffer(file.read(), np.uint8, offset=8)

    return images("train"), labels("train"), images("t10k"), labels("t10k")


def _imdb_from_mirror(file: Path) -> Arrays:
    """The raw word ranks with Keras's shuffle, start number, shift and cut to the commonest words."""
    arrays = dict(zip(_NAMES, _npz(file), strict=True))
    shuffled: list[Array] = []
    state = np.random.RandomState(_IMDB_SEED)
    for part in ("train", "test"):
        order = np.arange(len(arrays[f"x_{part}"]))
        state.shuffle(order)
        shuffled += [arrays[f"x_{part}"][order], arrays[f"y_{part}"][order]]
    x_train, y_train, x_test, y_test = shuffled
    return _as_keras(x_train), y_train, _as_keras(x_test), y_test


def _npz(file: Path) -> list[Array]:
    with zipfile.ZipFile(file) as archive:
        return [_npy(archive.read(f"{name}.npy")) for name in _NAMES]


def _npy(content: bytes) -> Array:
    """An array in numpy's file format; reviews have many lengths, so theirs are pickled lists."""
    stream = io.BytesIO(content)
    np.lib.format.read_magic(stream)
    _, _, dtype = np.lib.format.read_array_header_1_0(stream)
    if not dtype.hasobject:
        return np.asarray(np.load(io.BytesIO(content), allow_pickle=False))
    array = _ArrayUnpickler(stream).load()
    if not isinstance(array, np.ndarray):
        raise ValueError("it holds no array")
    return array


class _ArrayUnpickler(pickle.Unpickler):
    """Makes arrays and nothing else: a pickle from a stranger could run any program."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return np.dtype
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return _reconstruct
        raise ValueError(f"its pickle asks for {module}.{name}, which no array needs")


def _as_keras(reviews: Array) -> Array:
    out = np.empty(len(reviews), dtype=object)
    for row, review in enumerate(reviews):
        words = np.asarray([IMDB_START, *(rank + _IMDB_SHIFT for rank in review)])
        out[row] = np.where(words < IMDB_WORDS, words, IMDB_RARE)
    return out


# What stands in the mirror folder, and what reads it.
_MIRRORED: dict[str, tuple[str, Callable[[Path], Arrays]]] = {
    "mnist": ("mnist.npz", _mnist_from_mirror),
    "fashion_mnist": ("fashion-mnist", _fashion_mnist_from_mirror),
    "imdb": ("imdb.npz", _imdb_from_mirror),
}
