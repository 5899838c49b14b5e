"""Arrays in numpy's files, read some rows at a time: also out of an archive that is larger than memory."""

import contextlib
import math
import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import IO

from pipeline.datasets import array_files
from pipeline.datasets.array_files import Stream
from pipeline.errors import UserError
from pipeline.values import Array

_ONLY = ""


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
    except array_files.FAULTS as error:
        said = str(error) or "out of memory"
        raise UserError(f"input: {file}: the arrays cannot be read: {said}") from None


def _batches(streams: Mapping[str, Stream], most_bytes: int) -> Iterator[dict[str, Array]]:
    rows = {name: stream.shape[0] for name, stream in streams.items()}
    if len(set(rows.values())) > 1:
        raise ValueError(
            f"they need the same rows, but {', '.join(f'{name}: {n}' for name, n in rows.items())}"
        )
    left = next(iter(rows.values()))
    row_bytes = sum(math.prod(one.shape[1:]) * one.dtype.itemsize for one in streams.values())
    size = max(1, most_bytes // max(row_bytes, 1))
    while left:
        taken = min(size, left)
        yield {name: stream.read(taken) for name, stream in streams.items()}
        left -= taken


def _streams(file: Path, names: list[str], open_files: contextlib.ExitStack) -> dict[str, Stream]:
    if file.suffix == ".npy":
        if names != [_ONLY]:
            raise ValueError(f"the model takes {', '.join(names)}: save them by name in one .npz")
        return {_ONLY: _opened(open_files.enter_context(file.open("rb")))}
    archive = open_files.enter_context(zipfile.ZipFile(file))
    members = array_files.members(archive)
    wanted = {name: name for name in names} if names != [_ONLY] else {_ONLY: _only(members)}
    if missing := [name for name in wanted.values() if name not in members]:
        raise ValueError(f"no array is named {', '.join(missing)}; it holds {', '.join(members)}")
    return {
        name: _opened(open_files.enter_context(archive.open(members[stem]))) for name, stem in wanted.items()
    }


def _only(members: Collection[str]) -> str:
    if len(members) == 1:
        return next(iter(members))
    for name in ("x", "inputs"):
        if name in members:
            return name
    raise ValueError(
        f"the model takes one array: the only one, or the one named x; it holds {', '.join(members)}"
    )


def _opened(file: IO[bytes]) -> Stream:
    found = array_files.opened(file)
    if not found.shape:
        raise ValueError("an array has no rows")
    if found.by_columns and len(found.shape) > 1:
        raise ValueError("an array lies column by column; save it by numpy.ascontiguousarray")
    return found
