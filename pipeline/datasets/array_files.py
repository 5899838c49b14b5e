"""Arrays in numpy's files, `.npy` and `.npz`, which may be damaged or lie about their size."""

import math
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from pipeline.values import Array

FAULTS = (OSError, EOFError, ValueError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)
"""What a file that is damaged, encrypted or too large raises while it is read."""

_PIECE = 16 * 2**20
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclass(frozen=True)
class Stream:
    """An array in an open file, behind its header. by_columns: whether it lies column by column."""

    file: IO[bytes]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    by_columns: bool

    def read(self, rows: int) -> Array:
        """The next rows of an array that lies row by row, (rows, ...).

        Raises:
            ValueError: the file ends before.
        """
        return self._read((rows, *self.shape[1:]))

    def whole(self) -> Array:
        """All of an array, whatever its shape.

        Raises:
            ValueError: the file ends before, or does not end there.
        """
        shape = self.shape[::-1] if self.by_columns else self.shape
        array = self._read(shape)
        # What is compressed is compared with its checksum where it ends.
        if self.file.read(1):
            raise ValueError("there is more behind its last row")
        return array.transpose() if self.by_columns else array

    def _read(self, shape: tuple[int, ...]) -> Array:
        # Of Python's numbers, which a shape that is no true one cannot make too large.
        wanted = math.prod(shape) * self.dtype.itemsize
        content = bytearray()
        # In pieces: the memory for what a header says that there were may be more than a machine has.
        while len(content) < wanted and (piece := self.file.read(min(_PIECE, wanted - len(content)))):
            content += piece
        if len(content) < wanted:
            raise ValueError("it ends within a row")
        return np.frombuffer(content, self.dtype).reshape(shape) if wanted else np.zeros(shape, self.dtype)


def members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The arrays of an `.npz` file by their names.

    Raises:
        ValueError: one is no array, or packed as numpy does not.
    """
    found = {}
    for info in archive.infolist():
        name = Path(info.filename)
        if name.suffix != ".npy":
            raise ValueError(f"it holds {info.filename}, which is no array")
        if info.compress_type not in _COMPRESSIONS:
            raise ValueError(f"{info.filename} is packed in a way that numpy's files are not")
        found[name.stem] = info
    return found


def opened(file: IO[bytes]) -> Stream:
    """An array's file behind its header.

    Raises:
        ValueError: it is no array, or one of Python objects.
    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, by_columns, dtype = read(file)
    except FAULTS:
        raise
    except Exception as error:
        # It is read as Python's text, where anything may stand.
        raise ValueError(f"an array's header is damaged: {error}") from None
    if min(shape, default=0) < 0:
        raise ValueError(f"an array's header is damaged: its shape is {shape}")
    if dtype.hasobject:
        raise ValueError("an array holds Python objects, which could run any program")
    return Stream(file, shape, dtype, by_columns)
