"""What each column of a table is, and the rules by which `encoding.encode` makes numbers of it.

Whether a column has numbers, dates or texts is a matter of all its cells; all that is fitted, what is rare,
typical or missing, is of the rows to learn from.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeline.carried import encoding
from pipeline.datasets import commas
from pipeline.datasets.commas import STRAY_SHARE, Comma
from pipeline.errors import UserError
from pipeline.values import Array

Rule = dict[str, Any]

# Whole numbers with few values may be codes or sizes: they are taken as both.
_FEW = 12
# Values of a category, and of a text column's words, at most; the commonest.
_VALUES, _WORDS = 256, 200
# A value that one row has tells nothing of others.
_SEEN = 2
# Different cells that are no numbers in a column of numbers, at most.
_STRAYS = 20
# A text column has so many words a cell, and so many of its rows differ.
_TEXT_WORDS, _TEXT_SHARE = 3.0, 0.3
FORMATS = (
    "ISO8601", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%Y/%m/%d",
    "%d.%m.%Y %H:%M", "%m/%d/%Y %H:%M", "%d/%m/%Y %H:%M",
)  # fmt: skip
_DIGIT = re.compile(r"\d")
_SHOWN = 5
# Arrow's types of cells that are no values.
_NESTED = (
    "binary", "large_binary", "fixed_size_binary", "binary_view", "list", "large_list", "fixed_size_list",
    "list_view", "large_list_view", "struct", "map", "null",
)  # fmt: skip


@dataclass(frozen=True)
class Fitted:
    """rules: of the columns that are used. notes: what a person should know of the others, for people."""

    rules: tuple[Rule, ...]
    notes: tuple[str, ...]


def fit(table: pd.DataFrame, learn: Array | None = None) -> Fitted:
    """The rules of a table's columns.

    Args:
        table: all rows, (rows, columns), without the target.
        learn: the places of the rows to learn from; of all if not given.

    Raises:
        UserError: no column tells rows apart, or a cell is infinite.
    """
    rules: list[Rule] = []
    notes: list[str] = []
    left_out: dict[str, list[str]] = {}
    for name in table.columns:
        cells = table[name]
        found, note = _of_column(str(name), cells, cells if learn is None else cells.iloc[learn])
        rules += found
        if note and not found:
            left_out.setdefault(note, []).append(name)
        elif note:
            notes.append(f"column {name}: {note}")
    for reason, names in left_out.items():
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        notes.append(f"left out, as {reason}: {', '.join(names[:_SHOWN])}{more}")
    if not rules:
        said = f" ({'; '.join(notes)})" if notes else ""
        raise UserError(f"data: has no column to learn from{said}")
    return Fitted(tuple(rules), tuple(notes))


def _of_column(name: str, every: "pd.Series[Any]", cells: "pd.Series[Any]") -> tuple[list[Rule], str]:
    """The column's rules, none if it is left out; and what is to be said of it.

    every: all cells. cells: of the rows to learn from.
    """
    if not _has_values(every):
        return [], "they hold no single values"
    missing = encoding.is_missing(cells)
    if missing.all():
        return [], "every cell is missing"
    texts = encoding.as_texts(cells[~missing])
    counts = Counter(texts.tolist())
    if len(counts) == 1 and not missing.any():
        return [], "every row has the same"
    there = every[~encoding.is_missing(every)]
    comma = commas.read(there)
    strays = _strays(name, there, comma=comma)
    numbers = encoding.as_numbers(cells, comma=comma)
    known = ~np.isnan(numbers)
    if strays is not None and known.any():
        rules = _numbers(name, numbers[known], marked=not known.all(), strays=strays, comma=comma)
        shown = ", ".join(map(repr, strays[:_SHOWN]))
        odd = f"cells that are no numbers count as missing: {shown}" if strays else ""
        return rules, "; ".join(filter(None, (commas.told(there, comma), odd)))
    if written := _date_format(there):
        days = encoding.as_dates(cells[~missing], written)
        rule = _scaled(name, "date", days, marked=bool(missing.any()), strays=[])
        return [{**rule, "format": written}], _order_told(there, written)
    return _texts(name, texts, counts, len(cells), marked=bool(missing.any()))


def _has_values(cells: "pd.Series[Any]") -> bool:
    """Whether cells are numbers, texts, truths or times, and not lists or bytes, as Parquet may have them."""
    kind = str(cells.dtype).partition("[")[0].partition("<")[0]
    return kind not in _NESTED


def _strays(name: str, cells: "pd.Series[Any]", *, comma: Comma) -> list[str] | None:
    """What stands among a column's numbers and is none; None where the column is not of numbers."""
    bad = np.isnan(encoding.as_numbers(cells, comma=comma))
    if not bad.any():
        return []
    infinite = _infinite(cells, bad)
    found = sorted(set(encoding.as_texts(cells[bad & ~infinite]).tolist()))
    if (bad & ~infinite).mean() > STRAY_SHARE or len(found) > _STRAYS:
        return None
    if infinite.any():
        # A fault of whatever wrote the file.
        place = int(infinite.argmax())
        raise UserError(
            f"data: row {cells.index[place] + 1}, {name}: must be finite, but is {str(cells.iloc[place])!r}"
        )
    return found


def _infinite(cells: "pd.Series[Any]", bad: Array) -> Array:
    """Which of the cells are infinite, (rows,)."""
    found = np.zeros(len(cells), bool)
    texts = pd.Series(encoding.as_texts(cells[bad]))
    found[bad] = np.isinf(pd.to_numeric(texts, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan))
    return found


def _numbers(name: str, numbers: Array, *, marked: bool, strays: Sequence[str], comma: Comma) -> list[Rule]:
    rules: list[Rule] = [{**_scaled(name, "number", numbers, marked=marked, strays=strays), "comma": comma}]
    different = np.unique(numbers)
    if 2 < len(different) <= _FEW and (different == np.round(different)).all():
        values = [str(int(number)) for number in different]
        rules.append({"name": name, "kind": "category", "values": values, "whole": True, "comma": comma})
    return rules


def _scaled(name: str, kind: str, numbers: Array, *, marked: bool, strays: Sequence[str]) -> Rule:
    """Median and quartiles, which outliers do not move; the range where the quartiles are equal."""
    # By halves, which do not overflow, and are exact.
    low, middle, high = np.quantile(numbers / 2.0, (0.25, 0.5, 0.75))
    with np.errstate(over="ignore", divide="ignore"):
        spread = 2.0 * (high - low)
        if not spread:
            spread = numbers.max() / 2.0 - numbers.min() / 2.0
        scale = np.float64(1.0) / spread
    middle = float(2.0 * middle)
    return {
        "name": name,
        "kind": kind,
        "fill": middle,
        "centre": middle,
        # Nothing is told of numbers that are all alike, or further apart than floats are.
        "scale": float(scale) if np.isfinite(scale) else 0.0,
        "marked": marked,
        "strays": list(strays),
    }


def _date_format(cells: "pd.Series[Any]") -> str:
    """How the column's dates are written; empty if they are none."""
    if pd.api.types.is_datetime64_any_dtype(cells.dtype):
        return FORMATS[0]
    first = cells.iloc[:100]
    if not all(_DIGIT.search(text) for text in encoding.as_texts(first)):
        return ""
    for written in FORMATS:
        # The first ones are soon looked at.
        if all(not np.isnan(encoding.as_dates(some, written)).any() for some in (first, cells)):
            return written
    return ""


def _order_told(cells: "pd.Series[Any]", written: str) -> str:
    """That days and months may be the other way round, for people; "" where they cannot."""
    other = written.replace("%m/%d", "%d/%m")
    if other == written:
        return ""
    days, others = encoding.as_dates(cells, written), encoding.as_dates(cells, other)
    if np.isnan(others).any() or (days == others).all():
        return ""
    place = int((days != others).argmax())
    read = np.datetime64(int(days[place] // 1), "D")
    return (
        "the month is taken to stand before the day, as no cell tells:"
        f" {cells.iloc[place].strip()!r} is read as {read}; write dates so if it does not"
    )


def _texts(
    name: str, texts: Array, counts: Counter[str], rows: int, *, marked: bool
) -> tuple[list[Rule], str]:
    words = [encoding.words_of(text) for text in texts.tolist()]
    mean = float(np.mean([len(one) for one in words]))
    if mean >= _TEXT_WORDS and len(counts) > _TEXT_SHARE * len(texts):
        often = Counter(word for one in words for word in one)
        kept = [word for word, times in often.most_common(_WORDS) if _SEEN <= times < rows]
        if kept:
            return [{"name": name, "kind": "words", "words": kept}], "taken as text, by its words"
    common = [value for value, times in counts.most_common(_VALUES) if times >= _SEEN]
    if not common:
        return [], "hardly two rows have the same"
    values = sorted([*common, *([""] if marked else [])])
    rare = sum(times for value, times in counts.items() if value not in set(values))
    note = f"{rare} rows of rare values count as one value" if rare > 0.5 * len(texts) else ""
    return [{"name": name, "kind": "category", "values": values, "whole": False}], note
