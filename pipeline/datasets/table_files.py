"""A person's file of rows as a table: CSV in its usual kinds, and Parquet; every fault is one clear error."""

import codecs
import collections
import contextlib
import csv
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from pipeline.errors import UserError

SUFFIXES = (".csv", ".tsv", ".parquet")
SEPARATORS = (",", ";", "\t", "|")

# Bytes that are looked at together; a row must fit.
_BLOCK = 16 * 2**20
# A row of nothing but this is put behind the last one: a quote that is never closed would swallow it.
_END = "\ufdd0"
# The index that pandas writes where it has no name.
_INDEX = re.compile(r"__index_level_\d+__")
# Types that hardly any calculation takes yet, and what they are held as instead.
_VIEWS = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}


def read(file: str | Path, what: str = "data") -> pd.DataFrame:
    """All rows of a file, at least one, numbered from 0.

    Of a text file each cell is there as it is written, as pandas's `str` that Arrow holds: `007` and `NA` are
    texts, an empty cell is the text "", and there is no missing value. The file is UTF-8, with or without the
    mark that Excel writes in front; its first row has the columns' names, none twice, as they are written. Of
    `SEPARATORS` the one counts that parts the most names (of `.tsv` the tab). A cell in double quotes may
    hold separators, line breaks, and quotes written twice. Empty lines count for nothing; every other row
    has as many cells as there are names.

    Of a Parquet file the columns have their own types, as `pd.ArrowDtype`, with `pd.NA` where a value is
    missing; categories are their values. See `as_text`.

    Memory: the cells' bytes, 8 more a cell, and twice that for a moment.

    Args:
        file: ends in one of `SUFFIXES`.
        what: the parameter that named it, for the errors.

    Raises:
        UserError: there is no such file, or it is not as told here.
    """
    place = Path(file)
    if not place.exists():
        raise UserError(f"{what}: {place}: there is no such file")
    if place.is_dir():
        raise UserError(f"{what}: {place}: must be a file, but is a folder")
    suffix = place.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"{what}: {place}: must end in one of {', '.join(SUFFIXES)}")
    with _told_faults(place, what):
        table = _parquet(place) if suffix == ".parquet" else _text(place)
    if not len(table):
        raise UserError(f"{what}: {place}: has no rows")
    return table


def batches(file: Path, rows: int, what: str = "data") -> Iterator[pd.DataFrame]:
    """The rows of a CSV or TSV file as `read` has them, by the same rules, at most so many at a time.

    Memory: a few blocks of 16 MiB, however long the file is.

    Args:
        file: exists.
        rows: 1 or more.
        what: the parameter that named it, for the errors.

    Raises:
        UserError: the file is not as `read` tells; of what is wrong with a row, when it is come to.
    """
    with _told_faults(file, what):
        for block in _blocks(file):
            for begin in range(0, block.num_rows, rows):
                yield block.slice(begin, rows).to_pandas()


def state(file: str | Path) -> tuple[int, int]:
    """What is another once a file is written anew: the time, in nanoseconds, and its bytes.

    Raises:
        OSError: there is no such file.
    """
    told = os.stat(file)
    return told.st_mtime_ns, told.st_size


def heading(file: Path) -> tuple[str, list[str]]:
    """The separator of a CSV or TSV file, and the columns' names.

    Raises:
        ValueError: it has none.
    """
    separators = ("\t",) if file.suffix.lower() == ".tsv" else SEPARATORS
    found = []
    for separator in separators:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            rows = csv.reader(opened, delimiter=separator)
            try:
                found.append((separator, next((row for row in rows if row), [])))
            except csv.Error as error:
                raise _Fault(f"its first row has no columns' names: {error}") from None
    separator, names = max(found, key=lambda one: len(one[1]))
    if not names:
        raise _Fault("is empty: all its lines are")
    return separator, names


def column(table: pd.DataFrame, name: str, file: str | Path, what: str) -> "pd.Series[Any]":
    """The column of that name.

    what: the parameter that named it.

    Raises:
        UserError: the table has none.
    """
    if name not in table:
        names = list(map(str, table.columns[:20]))
        more = f" and {len(table.columns) - 20} more" if len(table.columns) > 20 else ""
        raise UserError(f"{what}: {file} has no column {name!r}; its columns are {', '.join(names)}{more}")
    return table[name]


def without_views(table: Any) -> Any:
    """An Arrow table whose texts and bytes are of the types that Arrow and pandas calculate with."""
    for place, field in enumerate(table.schema):
        if field.type in _VIEWS:
            table = table.set_column(place, field.name, table.column(place).cast(_VIEWS[field.type]))
    return table


def as_text(cells: "pd.Series[Any]") -> "pd.Series[str]":
    """A column as texts, whatever its type: numbers as one writes them (3.0 is 3), "" where one is missing.

    Raises:
        UserError: it holds lists or other things that are no values.
    """
    if cells.dtype == "str":
        return cells
    array = pa.chunked_array(pa.array(cells, from_pandas=True))
    try:
        texts = array.cast(pa.large_string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise UserError(
            f"column {cells.name!r}: must hold texts or numbers, but holds {array.type}"
        ) from None
    found: pd.Series[str] = pd.Series(texts.to_pandas(), index=cells.index, name=cells.name, dtype="str")
    return found.fillna("")


class _Fault(ValueError):
    """What is wrong with the file."""


@contextlib.contextmanager
def _told_faults(file: Path, what: str) -> Iterator[None]:
    """Tells whatever is wrong with a file in one way."""
    try:
        if not file.stat().st_size:
            raise _Fault("is empty: it has 0 bytes")
        yield
    except _Fault as fault:
        raise UserError(f"{what}: {file}: {fault}") from None
    except (OSError, pa.ArrowException, csv.Error) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{what}: {file}: cannot be read as {file.suffix[1:].lower()}: {said}") from None


def _text(file: Path) -> pd.DataFrame:
    return pa.Table.from_batches([*_blocks(file)]).to_pandas()


def _blocks(file: Path) -> Iterator[Any]:
    """The rows of a text file, one block at least, and perhaps no row."""
    _check_encoding(file)
    separator, names = heading(file)
    _check_names(names)
    bad: list[Any] = []

    def is_no_row(row: Any) -> str:
        if not row.text.strip():
            return "skip"
        bad.append(row)
        return "error"

    # One behind: the last one ends with the row that was put there.
    last: Any = None
    try:
        with (
            file.open("rb") as opened,
            arrow_csv.open_csv(
                io.BufferedReader(_Ended(opened, separator.join([_END] * len(names))), _BLOCK),
                # One thread: several do not tell the row that is wrong.
                arrow_csv.ReadOptions(
                    use_threads=False, block_size=_BLOCK, column_names=names, skip_rows_after_names=1
                ),
                arrow_csv.ParseOptions(
                    delimiter=separator, newlines_in_values=True, invalid_row_handler=is_no_row
                ),
                arrow_csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.large_string()), strings_can_be_null=False
                ),
            ) as blocks,
        ):
            for block in blocks:
                if not block.num_rows:
                    continue
                if last is not None:
                    yield last
                last = block
    except pa.ArrowInvalid as error:
        raise _Fault(_told(bad[0], len(names)) if bad else _first_line(error)) from None
    if last is None or last.column(0)[-1].as_py() != _END:
        raise _Fault("a double quote is never closed; the file may be cut off")
    yield last.slice(0, last.num_rows - 1)


def _told(row: Any, names: int) -> str:
    if _END in row.text:
        return "a double quote is never closed; the file may be cut off"
    # Its first row has the names.
    number = row.number - 1
    text = row.text if len(row.text) <= 60 else f"{row.text[:57]}..."
    few = "; the file may be cut off" if row.actual_columns < names else ""
    return f"row {number} has {row.actual_columns} cells, but there are {names} names{few}: {text!r}"


def _first_line(error: Exception) -> str:
    if "straddl" in str(error):
        return f"a row is longer than {_BLOCK // 2**20} MiB; a double quote may never be closed"
    return f"cannot be read: {str(error).splitlines()[0]}"


class _Ended(io.RawIOBase):
    """A file with one more line."""

    def __init__(self, file: Any, line: str) -> None:
        self._parts: Iterator[Any] = iter((file, io.BytesIO(f"\n{line}\n".encode())))
        self._part: Any = next(self._parts)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not (count := self._part.readinto(buffer)):
            following = next(self._parts, None)
            if following is None:
                return 0
            self._part = following
        return int(count)


def _check_encoding(file: Path) -> None:
    """Sees that all of it is UTF-8 text."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    begin, line, held = 0, 1, 0
    with file.open("rb") as opened:
        while True:
            block = opened.read(_BLOCK)
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                before = error.object[: error.start]
                at, number = begin - held + error.start, line + before.count(b"\n")
                raise _Fault(
                    f"is not UTF-8: byte {at} (line {number}) is 0x{error.object[error.start]:02x}; save it"
                    " as UTF-8"
                ) from None
            if "\0" in text:
                raise _Fault("is no text file: it holds a zero byte")
            if not block:
                return
            begin, line, held = begin + len(block), line + text.count("\n"), len(decoder.getstate()[0])


def _parquet(file: Path) -> pd.DataFrame:
    with parquet.ParquetFile(file) as opened:
        _check_names(opened.schema_arrow.names)
        table = opened.read()
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(place, field.name, table.column(place).cast(field.type.value_type))
        elif pa.types.is_decimal(field.type) or pa.types.is_float16(field.type):
            # Types that pandas calculates with in part only.
            table = table.set_column(place, field.name, table.column(place).cast(pa.float64()))
    table = table.drop_columns([name for name in table.schema.names if _INDEX.fullmatch(name)])
    return without_views(table).to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True)


def _check_names(names: list[str]) -> None:
    twice = [name for name, times in collections.Counter(names).items() if times > 1]
    if twice:
        raise _Fault(f"has several columns of the name {', '.join(map(repr, twice[:10]))}")
