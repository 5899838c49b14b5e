"""Tables of rows, batch by batch: CSV, TSV and Parquet."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.datasets import table_files
from pipeline.errors import UserError

SUFFIXES = (".csv", ".tsv", ".parquet")
_ROWS = 10_000
_BYTES = 64 * 2**20


def batches(file: Path, columns: Sequence[str], kind: str) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """The rows that a model takes, and beside them the columns that it does not, as they are written.

    Both are numbered from 1, as people count the rows under a heading. A text file is read by the rules of
    `table_files.read`.

    Args:
        file: ends in one of `SUFFIXES`.
        columns: what the model takes.
        kind: what they hold: `columns` of numbers, `texts`, or `pictures`, which are files' bytes or names of
            files in the table's folder.

    Raises:
        UserError: the file is damaged, lacks a column or rows, or a cell is not what it should be.
    """
    begin = 1
    for table in _read(file):
        missing = [name for name in columns if name not in table]
        if missing:
            has = ", ".join(map(str, table.columns))
            raise UserError(f"input: {file}: has no column {', '.join(missing)}; its columns are {has}")
        table.index = pd.RangeIndex(begin, begin + len(table))
        rows, kept = table[list(columns)].astype(object), table.drop(columns=list(columns))
        if kind == "columns":
            yield pd.DataFrame({name: _numbers(rows[name], file) for name in columns}), kept
        elif kind == "pictures":
            for some in _pictured(rows, file):
                yield some, kept.loc[some.index]
        else:
            yield rows, kept
        begin += len(table)
    if begin == 1:
        raise UserError(f"input: {file}: has no rows")


def _pictured(rows: pd.DataFrame, file: Path) -> Iterator[pd.DataFrame]:
    """The rows with their pictures' bytes, as many at a time as memory should hold."""
    held: list[list[bytes]] = []
    size = 0
    for end, cells in enumerate(rows.itertuples(index=False), start=1):
        held.append([_picture(cell, file, rows.index[end - 1]) for cell in cells])
        size += sum(map(len, held[-1]))
        if size >= _BYTES or end == len(rows):
            yield pd.DataFrame(held, columns=rows.columns, index=rows.index[end - len(held) : end])
            held, size = [], 0


def _read(file: Path) -> Iterator[pd.DataFrame]:
    if file.suffix.lower() != ".parquet":
        yield from table_files.batches(file, _ROWS, "input")
        return
    import pyarrow

    try:
        yield from _parquet(file)
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"input: {file}: cannot be read as parquet: {said[0]}") from None


def _parquet(file: Path) -> Iterator[pd.DataFrame]:
    """Columns in their own types, which pandas would change where a value is missing."""
    import pyarrow
    from pyarrow import parquet

    with parquet.ParquetFile(file) as opened:
        for batch in opened.iter_batches(batch_size=_rows_of(opened)):
            table = table_files.without_views(pyarrow.Table.from_batches([batch]))
            yield table.to_pandas(types_mapper=pd.ArrowDtype)


def _rows_of(opened: Any) -> int:
    """As many rows of a Parquet file as memory should hold: pictures may be in it."""
    groups = [opened.metadata.row_group(place) for place in range(opened.metadata.num_row_groups)]
    bytes_of_row = max((group.total_byte_size / max(group.num_rows, 1) for group in groups), default=1)
    return int(min(_ROWS, max(1, _BYTES // max(bytes_of_row, 1))))


def _numbers(column: "pd.Series[Any]", file: Path) -> "pd.Series[float]":
    numbers = pd.to_numeric(column, errors="coerce").astype("float64")
    bad = column.index[numbers.isna()]
    if len(bad):
        raise UserError(
            f"input: {file}: row {bad[0]}, {column.name}: must be a number, but is {str(column[bad[0]])!r}"
        )
    return numbers


def _picture(cell: Any, file: Path, row: object) -> bytes:
    """A picture's bytes: the cell itself, or the file in the table's folder that it names."""
    if isinstance(cell, dict) and isinstance(cell.get("bytes"), bytes):
        # As Hugging Face's data sets keep pictures in Parquet.
        cell = cell["bytes"]
    if isinstance(cell, bytes):
        return cell
    folder = file.parent.resolve()
    try:
        named = (folder / str(cell)).resolve()
        if named.is_relative_to(folder) and named.is_file():
            return named.read_bytes()
    except (OSError, ValueError):
        # No path at all: too long, or with a zero byte; or closed to us.
        pass
    raise UserError(f"input: {file}: row {row}: {str(cell)[:80]!r} is no picture in its folder") from None
