"""Arrays in numpy's files, read some rows at a time: also out of an archive that is larger than memory."""

import contextlib
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from pipeline.errors import UserError
from pipeline.values import Array

_ONLY = ""


@dataclass(frozen=True)
class _Stream:
    """An array in an open file, behind its header."""

    file: IO[bytes]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def read(self, rows: int) -> Array:
        """The next rows, (rows, ...)."""
        shape = (rows, *self.shape[1:])
        wanted = int(np.prod(shape)) * self.dtype.itemsize
        content = self.file.read(wanted)
        if len(content) < wanted:
            raise ValueError("it ends within a row")
        return np.frombuffer(content, self.dtype).reshape(shape)


def batches(file: Path, names: list[str], most_bytes: int) -> Iterator[dict[str, Array]]:
    """Rows of a `.npy` or `.npz` file, each of its arrays by the input's name.

    Args:
        file: of arrays with the same number of rows.
        names: the model's inputs, which the archive names; "" is the only one, and may have any name.
        most_bytes: of a batch, which has at least one row.

    Raises:
        UserError: the file is damaged, or holds no such arrays.
    """
    try:
        with contextlib.ExitStack() as open_files:
            yield from _batches(_streams(file, names, open_files), most_bytes)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"input: {file}: the arrays cannot be read: {error}") from None


def _batches(streams: Mapping[str, _Stream], most_bytes: int) -> Iterator[dict[str, Array]]:
    rows = {name: stream.shape[0] for name, stream in streams.items()}
    if len(set(rows.values())) > 1:
        raise ValueError(
            f"they need the same rows, but {', '.join(f'{name}: {n}' for name, n in rows.items())}"
        )
    left = next(iter(rows.values()))
    row_bytes = sum(int(np.prod(one.shape[1:])) * one.dtype.itemsize for one in streams.values())
    size = max(1, most_bytes // max(row_bytes, 1))
    while left:
        taken = min(size, left)
        yield {name: stream.read(taken) for name, stream in streams.items()}
        left -= taken


def _streams(file: Path, names: list[str], open_files: contextlib.ExitStack) -> dict[str, _Stream]:
    if file.suffix == ".npy":
        if names != [_ONLY]:
            raise ValueError(f"the model takes {', '.join(names)}: save them by name in one .npz")
        return {_ONLY: _opened(open_files.enter_context(file.open("rb")))}
    archive = open_files.enter_context(zipfile.ZipFile(file))
    members = {Path(member).stem: member for member in archive.namelist()}
    wanted = {name: name for name in names} if names != [_ONLY] else {_ONLY: _only(members)}
    if missing := [name for name in wanted.values() if name not in members]:
        raise ValueError(f"no array is named {', '.join(missing)}; it holds {', '.join(members)}")
    return {
        name: _opened(open_files.enter_context(archive.open(members[stem]))) for name, stem in wanted.items()
    }


def _only(members: Mapping[str, str]) -> str:
    if len(members) == 1:
        return next(iter(members))
    for name in ("x", "inputs"):
        if name in members:
            return name
    raise ValueError(
        f"the model takes one array: the only one, or the one named x; it holds {', '.join(members)}"
    )


def _opened(file: IO[bytes]) -> _Stream:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("an array holds Python objects, which could run any program")
    if not shape:
        raise ValueError("an array has no rows")
    if fortran and len(shape) > 1:
        raise ValueError("an array lies column by column; save it by numpy.ascontiguousarray")
    return _Stream(file, shape, dtype)
