"""Answers to a file, which is there only when all of them are in it."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import pandas as pd

from pipeline.errors import RunError, UserError

SUFFIXES = (".csv", ".tsv", ".parquet")
Write = Callable[[pd.DataFrame], None]


def check(file: Path) -> None:
    """Sees that the file can be written.

    Raises:
        UserError: its name ends in no known way, or its folder is not there or closed.
    """
    if file.suffix.lower() not in SUFFIXES:
        raise UserError(f"output: {file}: must end in one of {', '.join(SUFFIXES)}")
    if not file.parent.is_dir() or not os.access(file.parent, os.W_OK) or file.is_dir():
        raise UserError(f"output: {file}: there is no folder {file.parent} that can be written to")


@contextlib.contextmanager
def opened(file: Path | None) -> Iterator[Write]:
    """What writes rows, in batches with the same columns; to the terminal as CSV where no file is given."""
    if file is None:
        yield _as_text(sys.stdout, ",")
        return
    unfinished = file.with_name(f".{file.name}.{os.getpid()}.unfinished")
    try:
        with contextlib.ExitStack() as stack:
            if file.suffix.lower() == ".parquet":
                yield _as_parquet(unfinished, stack)
            else:
                text = stack.enter_context(unfinished.open("w", encoding="utf-8", newline=""))
                yield _as_text(text, "\t" if file.suffix.lower() == ".tsv" else ",")
        unfinished.replace(file)
    except OSError as error:
        raise RunError(f"output: {file}: cannot be written: {error.strerror or error}") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _as_text(stream: TextIO, separator: str) -> Write:
    first = True

    def write(rows: pd.DataFrame) -> None:
        nonlocal first
        rows.to_csv(stream, index=False, header=first, sep=separator, lineterminator="\n")
        first = False

    return write


def _as_parquet(file: Path, stack: contextlib.ExitStack) -> Write:
    import pyarrow
    from pyarrow import parquet

    writers: list[parquet.ParquetWriter] = []

    def write(rows: pd.DataFrame) -> None:
        schema = writers[0].schema if writers else None
        table = pyarrow.Table.from_pandas(rows, schema=schema, preserve_index=False)
        if not writers:
            writers.append(stack.enter_context(parquet.ParquetWriter(file, table.schema)))
        writers[0].write_table(table)

    return write
