"""A person's texts: a column of a table as sequences of word numbers, and what is learned of them."""

import functools
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from pipeline.carried import words as carried
from pipeline.datasets import splits, table_files, targets
from pipeline.datasets.targets import Target
from pipeline.errors import UserError
from pipeline.forms import Texts
from pipeline.source import Source
from pipeline.values import Array, Data, Size, Split

_log = logging.getLogger(__name__)

NUMBER = "prediction"
"""The output of a model that answers with a number."""
MOST_WORDS, MOST_LENGTH = 10_000, 300
_MARKS = ("<padding>", "<start>", "<rare>")
_START, _RARE = 1, 2
# A word that one training text alone has tells nothing of others.
_LEAST_TEXTS = 2
_PERCENTILE = 95
_MOST_CHARACTERS = 200
_ROWS = 10_000


@dataclass(frozen=True)
class Column:
    """The texts that have a target, (n,), and what orders or groups them."""

    texts: Sequence[str]
    target: Target
    groups: Array | None
    times: Array | None


class Corpus:
    """A person's texts, read when they are first asked for, once.

    source: `data` is a table (see `table_files.read`), `text` and `target` are columns of it; `group` and
    `time` may be.
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    @functools.cached_property
    def column(self) -> Column:
        """The texts that have a target.

        Raises:
            UserError: the file cannot be used, or has no such column; or no text has a word.
        """
        source, file = self._source, self._source.data
        if source.text == source.target:
            raise UserError(f"text: must be another column than the target, but both are {source.text!r}")
        table = table_files.read(file)
        cells = {
            what: table_files.column(table, name, file, what)
            for what, name in vars(source).items()
            if what in ("text", "target", "group", "time") and name
        }
        target = targets.read(cells["target"], source.problem)
        texts = table_files.as_text(cells["text"]).iloc[target.rows].tolist()
        ordered = {what: read(cells[what])[target.rows] for what, read in _ORDERS.items() if what in cells}
        empty = sum(not text.strip() for text in texts)
        if target.left_out:
            _log.warning("data: %s: %d of %d rows are left out: no target", file, target.left_out, len(table))
        for note in target.notes:
            _log.warning("data: %s: %s", file, note)
        if empty:
            _log.warning("data: %s: %d of %d texts are empty", file, empty, len(texts))
        return Column(texts, target, ordered.get("group"), ordered.get("time"))

    @functools.cached_property
    def _encoded(self) -> tuple[tuple[Split, Split, Split], Texts]:
        """The three parts, and the form of their texts."""
        column = self.column
        numbers = np.arange(len(column.texts))
        values: Any = column.target.values
        if column.target.is_number:
            values = {NUMBER: values[:, None].astype(np.float32)}
        parts = splits.parted(
            Split(numbers, values, groups=column.groups, times=column.times, places=numbers)
        )
        # By a number for each word, as texts of words would take twenty times the memory.
        index: dict[str, int] = {}
        said = [
            np.array([index.setdefault(word, len(index)) for word in carried.words(text, "any")], np.int32)
            for text in column.texts
        ]
        form = _form([said[row] for row in parts[0].one_input], list(index), self._source, column.texts)
        known = {index[word]: number for number, word in enumerate(form.words) if number >= form.marks}
        sequences = np.zeros((len(said), form.length), np.int32)
        for out, words in zip(sequences, said, strict=True):
            carried.number(words.tolist(), known, form.start, form.rare, out)
        train, validation, test = (replace(part, inputs=sequences[part.one_input]) for part in parts)
        return (train, validation, test), form

    @property
    def form(self) -> Texts:
        """The words by their numbers, and the length of the sequences: both of the training rows alone.

        The words are those of at least two training texts, the commonest first, so many that with the marks
        there are at most `MOST_WORDS` numbers. The length is the 95th percentile of the training texts',
        their opening mark included, and at most `MOST_LENGTH`; of a longer text the last words count.
        """
        return self._encoded[1]

    def load(self, size: Size) -> Data:
        """(rows, length) int32 of word numbers, split by 60/20/20 (see `splits.parted`).

        Targets are class numbers, (rows,) int32; or of the output `NUMBER` (rows, 1) float32. The small size
        is a cut of the rows; the words and their numbers are the same.

        Raises:
            UserError: the file cannot be used.
        """
        parts, form = self._encoded
        if size == "small":
            parts = splits.small(*parts)
        classes = self.column.target.classes
        outputs = {} if classes else {NUMBER: ()}
        return splits.data(
            "text", self._source.data, classes, parts, outputs=outputs, words={"": len(form.words)}
        )

    def raw(self, split: Split) -> Iterator[pd.DataFrame]:
        """A split's texts, some thousands at a time."""
        places: Any = split.places
        for begin in range(0, len(places), _ROWS):
            texts = [self.column.texts[place] for place in places[begin : begin + _ROWS]]
            yield pd.DataFrame({self._source.text: pd.Series(texts, dtype=object)})

    def shown(self, inputs: Array) -> list[str]:
        """The words of each row in order, a dash for each that is too rare to be known."""
        words = ["", "", "–", *self.form.words[len(_MARKS) :]]
        return [" ".join(filter(None, (words[number] for number in row))) for row in inputs]


# By the parameter that names a column.
_ORDERS = {"group": targets.groups, "time": targets.times}


def _form(train: Sequence[Array], index: Sequence[str], source: Source, texts: Sequence[str]) -> Texts:
    """train: of each text the places of its words in the index."""
    counts, in_texts = (np.zeros(len(index), np.int64) for _ in range(2))
    for words in train:
        np.add.at(counts, words, 1)
        in_texts[np.unique(words)] += 1
    # By letters where they are as common: the same on every machine.
    common = sorted(
        (-int(counts[place]), index[place]) for place in np.flatnonzero(in_texts >= _LEAST_TEXTS).tolist()
    )
    if not common:
        raise UserError(
            f"text: no word of the column {source.text!r} is in two of the {len(train)} texts to learn from"
        )
    length = math.ceil(np.percentile([len(words) + 1 for words in train], _PERCENTILE))
    return Texts(
        words=(*_MARKS, *(word for _, word in common[: MOST_WORDS - len(_MARKS)])),
        marks=len(_MARKS),
        start=_START,
        rare=_RARE,
        example=next(text for text in texts if text.strip())[:_MOST_CHARACTERS],
        length=min(length, MOST_LENGTH),
        column=source.text,
        rule="any",
    )
