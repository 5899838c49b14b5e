"""The sets of `keras.datasets`, downloaded by Keras, or read from a mirror folder.

`PIPELINE_DATA=<folder>` names a folder with the sets in Keras's own formats, for machines without a
network: `mnist.npz`, `fashion-mnist/*.gz`, `imdb.npz`, and for the words of a report
`imdb_word_index.json`. Whichever way they come, the arrays must have the published digests, so two machines
that report a score have learned from the same rows.
"""

import gzip
import io
import json
import logging
import os
import pickle
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy._core.multiarray import _reconstruct

from pipeline import forms
from pipeline.datasets import digests, splits
from pipeline.errors import UserError
from pipeline.forms import Form, Texts
from pipeline.values import Array, Data, Size, Split

Arrays = tuple[Array, Array, Array, Array]

_log = logging.getLogger(__name__)

IMDB_WORDS = 10_000
IMDB_SEQUENCE_WORDS, IMDB_SEQUENCE_LENGTH = 2_000, 500
# Keras's imdb.load_data: its seed, the number that opens a review, the one for rare words, and the shift
# of all others (https://keras.io/api/datasets/imdb).
_IMDB_SEED, _IMDB_START, _IMDB_RARE, _IMDB_SHIFT = 113, 1, 2, 3
IMDB_MARKS = ("<padding>", "<start>", "<rare>", "<unused>")
"""What the first numbers stand for, which are no words."""

# SHA-256 of (x_train, y_train, x_test, y_test) as keras.datasets gives them (see digests.of_arrays).
PUBLISHED = {
    "mnist": "52cd6c10ae77107af32269dd9d10ca19c1b749e83235a0c75e2f0729ebeaf141",
    "fashion_mnist": "51bad0352284eacba9865b8317af0b9281dae4f52f7f667217f2ee65f7069790",
    "imdb": "cb856dd34ed319dc834b2c71ba5df29a3c20694da8919ff5acf0f64f0ff4d7ee",
}
_NAMES = ("x_train", "y_train", "x_test", "y_test")
_FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def mnist(size: Size) -> Data:
    """70,000 hand-written digits, (rows, 28, 28, 1) uint8: 50,000 / 10,000 / 10,000 published test rows."""
    arrays, source = _arrays("mnist", "mnist.npz", _mnist_from_mirror)
    return _images("mnist", source, map(str, range(10)), arrays, size)


def fashion_mnist(size: Size) -> Data:
    """70,000 pictures of clothes, (rows, 28, 28, 1) uint8, split as MNIST."""
    arrays, source = _arrays("fashion_mnist", "fashion-mnist", _fashion_mnist_from_mirror)
    return _images("fashion_mnist", source, _FASHION_CLASSES, arrays, size)


def imdb(size: Size) -> Data:
    """50,000 film reviews as multi-hot words, (rows, 10000) uint8.

    20,000 / 5,000 of the training reviews, and the 25,000 published test reviews.
    """
    return _reviews("imdb", size, lambda reviews: multi_hot(reviews, IMDB_WORDS))


def imdb_sequences(size: Size) -> Data:
    """The rows of `imdb` as sequences, (rows, 500) int32: the last 500 words of each review, in order.

    Word numbers are below 2,000, the commonest words; 0 pads shorter reviews in front. The same as Keras's
    `pad_sequences(x, maxlen=500)` of its `imdb.load_data(num_words=2000)`.
    """
    return _reviews(
        "imdb_conv1d",
        size,
        lambda reviews: padded(reviews, IMDB_SEQUENCE_WORDS, IMDB_SEQUENCE_LENGTH),
        words={"": IMDB_SEQUENCE_WORDS},
    )


def imdb_words() -> tuple[str, ...] | None:
    """Each word by its number in `imdb` and `imdb_sequences`: four marks, then the commonest word first.

    Read from `imdb_word_index.json` in the mirror folder, or downloaded by Keras where there is no mirror.
    None, with a logged warning, where the words are not found: a report has no texts then.
    """
    folder = os.environ.get("PIPELINE_DATA", "")
    file = Path(folder, "imdb_word_index.json")
    try:
        ranks = json.loads(file.read_text(encoding="utf-8")) if folder else _downloaded_word_index()
        by_rank = {rank: word for word, rank in ranks.items()}
        return (*IMDB_MARKS, *(by_rank[n + 1] for n in range(len(ranks))))
    except Exception as error:
        # Keras raises a bare Exception when a download fails, and anything may stand in a file.
        _log.warning("the words of imdb's reviews are not known: %s: %s", type(error).__name__, error)
        return None


def imdb_texts(words: int, length: int = 0) -> Form:
    """Reviews as people write them, for a model of the commonest `words`.

    Arrays, where the words are not known.

    length: of the sequences that the model reads; 0 where it takes multi-hot words.
    """
    known = imdb_words()
    if known is None:
        return forms.Arrays({"": words} if length else {})
    example = "A wonderful film with a great cast: I loved every minute of it."
    return Texts(known[:words], len(IMDB_MARKS), _IMDB_START, _IMDB_RARE, example, length)


def multi_hot(reviews: Array, words: int) -> Array:
    """(rows, words) uint8 with a 1 for each word that a review holds."""
    out = np.zeros((len(reviews), words), dtype=np.uint8)
    for row, review in enumerate(reviews):
        out[row, review] = 1
    return out


def padded(reviews: Array, words: int, length: int) -> Array:
    """(rows, length) int32: the end of each review behind zeros, numbers from `words` on as the rare word."""
    out = np.zeros((len(reviews), length), dtype=np.int32)
    for row, review in enumerate(reviews):
        end = np.asarray(review[-length:])
        out[row, length - len(end) :] = np.where(end < words, end, _IMDB_RARE)
    return out


def _reviews(name: str, size: Size, encode: Callable[[Array], Array], **more: Any) -> Data:
    """The splits that all forms of imdb share, each part's reviews encoded; more: other fields of `Data`."""
    (x_train, y_train, x_test, y_test), source = _arrays("imdb", "imdb.npz", _imdb_from_mirror)
    # Cut before the words are expanded: a small study needs no 500 MB of them.
    rows = np.arange(len(y_train))
    train, validation = splits.hold_out(Split(rows, y_train.astype(np.int32)), 5_000)
    parts = (train, validation, Split(np.arange(len(y_test)), y_test.astype(np.int32)))
    if size == "small":
        parts = splits.small(*parts)
    encoded = tuple(
        # One column of targets, as the model's one sigmoid needs it.
        Split(encode(reviews[part.one_input]), part.labels[:, None])
        for reviews, part in zip((x_train, x_train, x_test), parts, strict=True)
    )
    return splits.data(name, source, ("negative", "positive"), (encoded[0], encoded[1], encoded[2]), **more)


def _images(name: str, source: str, classes: Iterable[str], arrays: Arrays, size: Size) -> Data:
    x_train, y_train, x_test, y_test = arrays
    published = Split(x_train[..., None], y_train.astype(np.int32))
    train, validation = splits.hold_out(published, 10_000)
    parts = (train, validation, Split(x_test[..., None], y_test.astype(np.int32)))
    if size == "small":
        parts = splits.small(*parts)
    return splits.data(name, source, classes, parts)


def _arrays(name: str, file: str, from_mirror: Callable[[Path], Arrays]) -> tuple[Arrays, str]:
    """The published arrays, checked, and where they came from."""
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


def _downloaded_word_index() -> dict[str, int]:
    import keras

    ranks: dict[str, int] = keras.datasets.imdb.get_word_index()
    return ranks


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
        words = np.asarray([_IMDB_START, *(rank + _IMDB_SHIFT for rank in review)])
        out[row] = np.where(words < IMDB_WORDS, words, _IMDB_RARE)
    return out
