"""The sets of `keras.datasets` as the tasks learn from them: split, and reviews in two forms."""

import logging
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from pipeline import forms
from pipeline.datasets import published, splits
from pipeline.forms import Form, Texts
from pipeline.values import Array, Data, Size, Split

_log = logging.getLogger(__name__)

IMDB_SEQUENCE_WORDS, IMDB_SEQUENCE_LENGTH = 2_000, 500
IMDB_MARKS = ("<padding>", "<start>", "<rare>", "<unused>")
"""What the first numbers stand for, which are no words."""

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
    return _images("mnist", map(str, range(10)), size)


def fashion_mnist(size: Size) -> Data:
    """70,000 pictures of clothes, (rows, 28, 28, 1) uint8, split as MNIST."""
    return _images("fashion_mnist", _FASHION_CLASSES, size)


def imdb(size: Size) -> Data:
    """50,000 film reviews as multi-hot words, (rows, 10000) uint8.

    20,000 / 5,000 of the training reviews, and the 25,000 published test reviews.
    """
    return _reviews("imdb", size, lambda reviews: multi_hot(reviews, published.IMDB_WORDS))


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
    try:
        ranks = published.imdb_ranks()
        by_rank = {rank: word for word, rank in ranks.items()}
        return (*IMDB_MARKS, *(by_rank[n + 1] for n in range(len(ranks))))
    except Exception as error:
        # Anything may stand in a file.
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
    return Texts(known[:words], len(IMDB_MARKS), published.IMDB_START, published.IMDB_RARE, example, length)


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
        out[row, length - len(end) :] = np.where(end < words, end, published.IMDB_RARE)
    return out


def _reviews(name: str, size: Size, encode: Callable[[Array], Array], **more: Any) -> Data:
    """The splits that all forms of imdb share, each part's reviews encoded; more: other fields of `Data`."""
    (x_train, y_train, x_test, y_test), source = published.arrays_of("imdb")
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


def _images(name: str, classes: Iterable[str], size: Size) -> Data:
    (x_train, y_train, x_test, y_test), source = published.arrays_of(name)
    train, validation = splits.hold_out(Split(x_train[..., None], y_train.astype(np.int32)), 10_000)
    parts = (train, validation, Split(x_test[..., None], y_test.astype(np.int32)))
    if size == "small":
        parts = splits.small(*parts)
    return splits.data(name, source, classes, parts)
