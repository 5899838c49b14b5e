"""What is learned: a column of cells as class numbers with names, or as numbers."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeline.carried import encoding
from pipeline.datasets import commas
from pipeline.datasets.commas import Comma
from pipeline.datasets.table_files import as_text
from pipeline.errors import UserError
from pipeline.source import Problem
from pipeline.values import Array

MOST_CLASSES = 20
"""Whole numbers of more different values than these are numbers, not classes, unless it is said."""

# What programs write where a value is missing, in small letters; and what people write among numbers.
_MISSING = ("", "nan", "<na>", "#n/a", "n/a", "null")
_AMONG_NUMBERS = (*_MISSING, "na", "none", "?", "-", ".")
_TRUTHS = ("true", "false")
_LISTED = 10
# Of numbers: the size that may still be squared in 32 bits, and how much larger than their spread it may be.
_LARGEST, _DIGITS = 1e15, 1e5


@dataclass(frozen=True)
class Target:
    """The column that is learned.

    rows: the numbers of the rows that have a target, in order, (n,). values: class numbers from 0, (n,)
    int32, or numbers, (n,) float64, all finite. classes: a name for each class number, by numbers where they
    all are some, else by letters; none for numbers. left_out: how many rows have no target. notes: what a
    person should know of it, for people.
    """

    rows: Array
    values: Array
    classes: tuple[str, ...]
    left_out: int
    notes: tuple[str, ...] = ()

    @property
    def is_number(self) -> bool:
        return not self.classes


def read(cells: "pd.Series[Any]", problem: Problem = "auto") -> Target:
    """The target of a column.

    A row has no target where its cell is empty or says `NaN`, `<NA>`, `#N/A`, `N/A` or `null`; among numbers
    also `NA`, `None`, `?`, `-` or a point. Spaces round a cell count for nothing.

    `auto`: a column in which all else are numbers is one of numbers if a number has a fraction, or if there
    are more than `MOST_CLASSES` different ones; any other column is one of classes. Numbers that are equal
    are one class, `1` and `1.0`; so are truths, `True` and `TRUE`, whose names are `true` and `false`. A
    comma in numbers is read as in a column of any table (see `commas.read`).

    Raises:
        UserError: no row has a target, all have the same, or a class has one row; of numbers, one is not
            finite or is none, or 32 bits cannot tell them (see `check_numbers`).
    """
    column = cells.name
    texts = as_text(cells).str.strip()
    small = texts.str.lower()
    texts = texts.where(~small.isin(_TRUTHS), small)
    missing = small.isin(_MISSING).to_numpy(bool)
    if missing.all():
        raise UserError(f"target: the column {column!r} is empty in all of the {len(cells)} rows")
    among = small.isin(_AMONG_NUMBERS).to_numpy(bool)
    # Whatever is no number is told below.
    comma = commas.read(texts[~among], most_strays=1.0)
    numbers = _as_numbers(texts, comma)
    strange = np.isnan(numbers) & ~among
    all_numbers = not strange.any() and not np.isnan(numbers).all()
    if problem == "regression" or (problem == "auto" and all_numbers and _is_measured(numbers)):
        if strange.any():
            row = int(np.argmax(strange))
            raise UserError(
                f"target: the column {column!r} must have numbers with problem=regression, but row {row + 1}"
                f" is {texts.iloc[row][:60]!r}"
            )
        told = commas.told(texts[~among], comma)
        return _numbers(numbers, str(column), (f"target {column}: {told}",) if told else ())
    if all_numbers:
        _check_finite(numbers, str(column))
    # Beyond 2^53 different whole numbers are one float.
    if all_numbers and not (np.abs(numbers[~np.isnan(numbers)]) >= 2**53).any():
        return _classes_of_numbers(texts, numbers, str(column))
    return _classes(texts, ~missing, str(column))


def groups(cells: "pd.Series[Any]") -> Array:
    """A number for each different cell, (rows,) int64: what no split parts.

    Raises:
        UserError: a cell is empty.
    """
    texts = as_text(cells).str.strip()
    _check_all(texts == "", cells, "group")
    found: Array = pd.factorize(texts)[0].astype(np.int64)
    return found


def times(cells: "pd.Series[Any]") -> Array:
    """What orders the rows, (rows,): numbers as float64, or dates as microseconds of UTC, int64.

    Dates are written by ISO 8601, `2024-03-31` or `2024-03-31T12:00:00`, as others can be read in two ways.

    Raises:
        UserError: a cell is empty, or neither.
    """
    texts = as_text(cells).str.strip()
    _check_all(texts == "", cells, "time")
    numbers = _as_numbers(texts)
    is_number = np.isfinite(numbers)
    if is_number.all():
        return numbers
    dates = pd.to_datetime(texts, format="ISO8601", utc=True, errors="coerce")
    is_date = dates.notna().to_numpy(bool)
    if not is_date.all():
        # A year may be both. Where each row is one or the other, the odd one is told.
        neither = ~is_number & ~is_date
        odd = neither if neither.any() else ~is_number if is_number[0] else ~is_date
        row = int(odd.argmax())
        raise UserError(
            f"time: the column {cells.name!r} must have finite numbers, or dates such as 2024-03-31, in all"
            f" rows, but row {row + 1} is {texts.iloc[row][:60]!r}"
        )
    # In microseconds, as nanoseconds end in the year 2262.
    found: Array = dates.dt.as_unit("us").astype("int64").to_numpy()
    return found


def check_numbers(values: Array, what: str) -> None:
    """Sees that 32 bits can tell numbers apart, which is about seven digits: so models calculate.

    Args:
        values: finite, of any shape.
        what: has them, for the error.

    Raises:
        UserError: one is beyond 1e15, or they differ by less than 1e-5 of their size.
    """
    values = np.asarray(values, np.float64)
    offset = float(np.abs(values).max())
    if offset > _LARGEST:
        raise UserError(f"{what} must have numbers up to {_LARGEST:g}, but has {offset:g}")
    spread = float(np.std(values))
    # Equal ones are told apart by nobody.
    if offset > _DIGITS * spread and values.min() < values.max():
        raise UserError(
            f"{what} has numbers up to {offset:g} that differ by {spread:g} only, which 32 bits cannot tell:"
            " subtract an offset from them"
        )


def _as_numbers(texts: "pd.Series[str]", comma: Comma = "") -> Array:
    """(rows,) float64, NaN for what is no number."""
    if comma:
        texts = texts.map(lambda text: encoding.plain_number(text, comma))
    found: Array = pd.to_numeric(texts.astype(object), errors="coerce").to_numpy(np.float64)
    return found


def _check_all(missing: Any, cells: "pd.Series[Any]", what: str) -> None:
    if missing.any():
        row = int(missing.to_numpy(bool).argmax())
        raise UserError(
            f"{what}: the column {cells.name!r} must have a value in each row, but row {row + 1} has none"
        )


def _is_measured(numbers: Array) -> bool:
    there = np.unique(numbers[~np.isnan(numbers)])
    return len(there) > MOST_CLASSES or bool((np.rint(there) != there).any())


def _check_finite(numbers: Array, column: str) -> None:
    infinite = np.isinf(numbers)
    if infinite.any():
        row = int(np.argmax(infinite))
        raise UserError(
            f"target: the column {column!r} must have finite numbers, but row {row + 1} is {numbers[row]}"
        )


def _numbers(numbers: Array, column: str, notes: tuple[str, ...]) -> Target:
    _check_finite(numbers, column)
    rows = np.flatnonzero(~np.isnan(numbers))
    if len(rows) == 0:
        raise UserError(f"target: the column {column!r} is empty in all of the {len(numbers)} rows")
    _check_several(np.unique(numbers[rows])[:2], column)
    check_numbers(numbers[rows], f"target: the column {column!r}")
    return Target(rows, numbers[rows], (), len(numbers) - len(rows), notes)


def _classes_of_numbers(texts: "pd.Series[str]", numbers: Array, column: str) -> Target:
    """Classes in the order of their numbers, by the name that all of a number's cells have, if it is one."""
    there = ~np.isnan(numbers)
    values, place = np.unique(numbers[there], return_inverse=True)
    written = texts[there].groupby(place).agg(["first", "nunique"])
    names = [
        str(first) if different == 1 else f"{value:.17g}"
        for value, first, different in zip(values, written["first"], written["nunique"], strict=True)
    ]
    return _target(np.flatnonzero(there), place, names, column, len(numbers))


def _classes(texts: "pd.Series[str]", there: Array, column: str) -> Target:
    place, names = pd.factorize(texts[there], sort=True)
    return _target(np.flatnonzero(there), place, names, column, len(texts))


def _target(rows: Array, place: Array, names: Iterable[Any], column: str, count: int) -> Target:
    classes = tuple(map(str, names))
    _check_several(classes, column)
    counts = np.bincount(place)
    if len(classes) == len(rows):
        raise UserError(
            f"target: the column {column!r} has another value in each of the {count} rows; nothing of it can"
            " be learned"
        )
    single = [_shown(classes[number]) for number in np.flatnonzero(counts == 1)]
    if single:
        more = f" and {len(single) - _LISTED} more" if len(single) > _LISTED else ""
        raise UserError(
            f"target: each class must have at least two rows, but in the column {column!r} one row alone has"
            f" {', '.join(single[:_LISTED])}{more}; leave such rows out, or give them another class"
        )
    return Target(rows, place.astype(np.int32), classes, count - len(rows))


def _check_several(values: Any, column: str) -> None:
    if len(values) < 2:
        raise UserError(
            f"target: the column {column!r} must have at least two different values, but all are"
            f" {_shown(str(values[0]))}"
        )


def _shown(name: str) -> str:
    return repr(name if len(name) <= 60 else f"{name[:57]}...")
