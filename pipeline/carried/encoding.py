"""From a table's cells to the numbers that a model takes, by rules that were fitted on rows to learn from.

A row is encoded when it is asked about as rows were when they were learned from.

A rule is a mapping of JSON values: `name` of the column, `kind`, and what the kind needs:

number: `fill` for missing cells, `centre` and `scale`, `marked` whether missing cells have a column of their
own, `strays`, texts that count as missing, `comma` what one is in a text: `point`, `thousands`, which it
parts, or "", no part of a number. date: the same in days, without `comma`, and `format` as of `strptime`, or
ISO8601. category: `values`, each a text, or of `whole` numbers as they are written without a fraction, with
`comma`; code 0 is any other. words: `words`, each with a column that is 1 where the cell holds it.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

NUMBERS, CATEGORIES = "numbers", "categories"
"""The names of what `encode` makes, and of a model's inputs."""

MISSING = frozenset(
    {"", "na", "n/a", "nan", "null", "none", "nil", "?", "-", "#n/a", "<na>", "nat", "missing"}
)
"""Texts that say that a cell is missing, in any case of letters."""

THOUSANDS = re.compile(r"-?[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]+)?")
"""A number whose thousands are parted by commas."""

_WORD = re.compile(r"\w+")
_DAY = 86_400.0
# Beyond three scales from the centre a number hardly counts: D. Holzmüller et al., "Better by Default: Strong
# Pre-Tuned MLPs and Boosted Trees on Tabular Data", NeurIPS 2024, section 3.
_CLIP = 3.0
# Further away than this all numbers are alike, and none overflows.
_FAR = 1e6
# No float is so large.
_BEYOND = 2**1024
_TRUTHS = ("true", "false")
_WHOLE = re.compile(r"-?[0-9]+\.0+")


class CellError(ValueError):
    """A cell that cannot be what its column is. row: its label in the table's index."""

    def __init__(self, fault: str, row: object) -> None:
        super().__init__(fault)
        self.row = row


def encode(rules: Sequence[Mapping[str, Any]], table: pd.DataFrame) -> dict[str, Any]:
    """The table's rows as a model's inputs.

    Args:
        rules: of the columns that are used; others are not looked at.
        table: cells are texts, or what a file or a request has them as.

    Returns:
        `numbers`, (rows, features) of float32, each about -3 to 3; `categories`, (rows, columns) of int32,
        each column's codes after those of the columns before it. Either is left out where there is none.

    Raises:
        CellError: a cell is no number or date, where its column was one; or is nothing that a file can hold:
            a list, a text with half a character, or a whole number beyond floats.
        KeyError: a column is missing.
    """
    numbers: list[Any] = []
    codes: list[Any] = []
    begin = 0
    for rule in rules:
        cells = table[rule["name"]]
        _check_sent(cells)
        match rule["kind"]:
            case "category":
                codes.append(_codes(cells, rule) + begin)
                begin += len(rule["values"]) + 1
            case "words":
                numbers.append(_words(cells, rule["words"]))
            case kind:
                number = kind == "number"
                found = as_numbers(cells, comma=rule["comma"]) if number else as_dates(cells, rule["format"])
                _check(cells, found, rule)
                numbers += _features(found, rule)
    made: dict[str, Any] = {}
    if numbers:
        made[NUMBERS] = np.column_stack(numbers).astype(np.float32, copy=False)
    if codes:
        made[CATEGORIES] = np.column_stack(codes).astype(np.int32, copy=False)
    return made


def categories(rules: Sequence[Mapping[str, Any]]) -> list[Sequence[str]]:
    """The categories of each column that has some."""
    return [rule["values"] for rule in rules if rule["kind"] == "category"]


def tokens(rules: Sequence[Mapping[str, Any]]) -> int:
    """How many codes of categories there are."""
    return sum(len(values) + 1 for values in categories(rules))


def is_missing(cells: "pd.Series[Any]") -> Any:
    """Which cells are missing, (rows,) of bool: nothing, NaN, or a text that says so."""
    missing = cells.isna().to_numpy(dtype=bool)
    if cells.dtype.kind == "f":
        # Arrow knows NaN beside what is missing.
        return missing | np.isnan(cells.to_numpy(dtype=np.float64, na_value=np.nan))
    if cells.dtype.kind in "biuM":
        return missing
    texts = cells.astype("str").str.strip().str.lower()
    said: Any = texts.isin(MISSING).fillna(value=True).to_numpy(dtype=bool)
    return missing | said


def as_numbers(cells: "pd.Series[Any]", *, comma: str = "") -> Any:
    """Each cell as float64, (rows,); NaN where it is missing, infinite or no number.

    comma: what one is in a text: `point`, `thousands`, or "".
    """
    if cells.dtype == object:
        cells = cells.map(lambda cell: plain_number(cell, comma) if isinstance(cell, str) else cell)
    elif not pd.api.types.is_numeric_dtype(cells.dtype) or pd.api.types.is_bool_dtype(cells.dtype):
        cells = cells.astype("str").str.strip()
        if comma:
            cells = cells.map(lambda cell: plain_number(cell, comma), na_action="ignore")
    found = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isfinite(found), found, np.nan)


def plain_number(text: str, comma: str) -> str:
    """A number's text without its commas; any other text stays what it is."""
    text = text.strip()
    if comma == "point":
        return text.replace(",", ".")
    return text.replace(",", "") if comma == "thousands" and THOUSANDS.fullmatch(text) else text


def as_dates(cells: "pd.Series[Any]", written: str) -> Any:
    """Each cell as days since 1970, float64, (rows,); NaN where it is missing or not written so."""
    if pd.api.types.is_datetime64_any_dtype(cells.dtype):
        dates = pd.to_datetime(cells, utc=True)
    else:
        dates = pd.to_datetime(cells.astype("str").str.strip(), format=written, errors="coerce", utc=True)
    # In microseconds, as nanoseconds end in the year 2262.
    since = dates.dt.as_unit("us") - pd.Timestamp(0, tz="UTC").as_unit("us")
    return since.dt.total_seconds().to_numpy(dtype=np.float64, na_value=np.nan) / _DAY


def as_texts(cells: "pd.Series[Any]") -> Any:
    """Each cell as a text, (rows,) of object, "" where it is missing.

    However a file or a request has it, it is one text: 3.0 is `3`, and a truth `true` or `false`.
    """
    texts = cells.map(_text) if cells.dtype == object else _texts_of(cells)
    found = texts.to_numpy(dtype=object, copy=True)
    found[is_missing(cells)] = ""
    return found


def words_of(text: str) -> set[str]:
    """The words of a text, in lower case."""
    return set(_WORD.findall(text.lower()))


def _check_sent(cells: "pd.Series[Any]") -> None:
    """Sees that cells of a request are such that a file could hold them, too."""
    if cells.dtype != object:
        return
    for row, cell in cells.items():
        if not pd.api.types.is_scalar(cell):
            # As a category, a list would be one that is not known.
            raise CellError(f"{cells.name}: must be one value, but is {_shown(cell)}", row)
        if isinstance(cell, str) and not _is_unicode(cell):
            raise CellError(f"{cells.name}: must be Unicode, but is {_shown(cell)}", row)
        if isinstance(cell, int) and abs(cell) >= _BEYOND:
            raise CellError(f"{cells.name}: must be less than 2^1024, but has {cell.bit_length()} bits", row)


def _is_unicode(text: str) -> bool:
    """Whether no half of a pair of surrogates stands alone, as JSON's escapes may have it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(cell: Any) -> str:
    text = repr(cell.item() if isinstance(cell, np.generic) else cell)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _texts_of(cells: "pd.Series[Any]") -> "pd.Series[Any]":
    if pd.api.types.is_bool_dtype(cells.dtype) or pd.api.types.is_float_dtype(cells.dtype):
        return cells.astype(object).map(_text)
    return cells.astype("str").map(_text).astype(object)


def _text(cell: Any) -> str:
    if isinstance(cell, bool | np.bool_):
        return "true" if cell else "false"
    if isinstance(cell, float | np.floating) and float(cell).is_integer():
        return str(int(cell))
    text = str(cell).strip()
    if text.lower() in _TRUTHS:
        return text.lower()
    return text.partition(".")[0] if _WHOLE.fullmatch(text) else text


def _check(cells: "pd.Series[Any]", found: Any, rule: Mapping[str, Any]) -> None:
    bad = np.isnan(found) & ~is_missing(cells)
    if bad.any():
        bad &= ~np.isin(as_texts(cells).astype(str), rule["strays"])
    if bad.any():
        place = int(bad.argmax())
        shown = _shown(cells.iloc[place])
        raise CellError(f"{rule['name']}: must be a {rule['kind']}, but is {shown}", cells.index[place])


def _features(found: Any, rule: Mapping[str, Any]) -> list[Any]:
    """The columns of a number or date: its size, of a date its season, and whether it is missing."""
    missing = np.isnan(found)
    filled = np.where(missing, rule["fill"], found)
    with np.errstate(over="ignore"):
        # Of no scale all are alike, also those whose difference is infinite.
        sized = (filled - rule["centre"]) * rule["scale"] if rule["scale"] else np.zeros_like(filled)
        far = np.clip(sized, -_FAR, _FAR)
    made = [far / np.sqrt(1.0 + np.square(far / _CLIP))]
    if rule["kind"] == "date":
        for days in (7.0, 365.2425):
            made += [np.sin(filled * 2 * np.pi / days), np.cos(filled * 2 * np.pi / days)]
    if rule["marked"]:
        made.append(missing.astype(np.float64))
    return made


def _codes(cells: "pd.Series[Any]", rule: Mapping[str, Any]) -> Any:
    if rule["whole"]:
        known = np.array([int(value) for value in rule["values"]], dtype=np.float64)
        numbers = as_numbers(cells, comma=rule["comma"])
        place = np.clip(np.searchsorted(known, numbers), 0, len(known) - 1)
        return np.where(known[place] == numbers, place + 1, 0)
    return pd.Index(rule["values"], dtype=object).get_indexer(as_texts(cells)) + 1


def _words(cells: "pd.Series[Any]", words: Sequence[str]) -> Any:
    place = {word: number for number, word in enumerate(words)}
    made = np.zeros((len(cells), len(words)), np.float32)
    for row, text in enumerate(as_texts(cells)):
        made[row, [place[word] for word in words_of(text) if word in place]] = 1.0
    return made
