"""Fingerprints of a person's rows: whether two files hold the same row, whatever else they hold."""

import hashlib
from collections.abc import Sequence
from typing import Any

import pandas as pd

from pipeline.carried import encoding
from pipeline.values import Array


def of_rows(rows: pd.DataFrame, columns: Sequence[str], targets: Sequence[str]) -> Array:
    """A number for each row, (rows,) uint64: equal for equal cells, and hardly ever for others.

    Args:
        rows: with these columns; a cell counts as its text (see `encoding.as_texts`), of a file as its bytes.
        columns: those that count, in this order; their names do not.
        targets: of each row, as a text.
    """
    cells = {place: _texts(rows[name]) for place, name in enumerate(columns)}
    told = pd.DataFrame(
        {**cells, len(cells): pd.Series(list(targets), dtype=object).to_numpy()}, dtype=object
    )
    found: Array = pd.util.hash_pandas_object(told, index=False).to_numpy()
    return found


def _texts(cells: "pd.Series[Any]") -> Any:
    if len(cells) and isinstance(cells.iloc[0], bytes):
        return cells.map(lambda cell: hashlib.blake2b(cell, digest_size=16).hexdigest()).to_numpy(object)
    return encoding.as_texts(cells)
