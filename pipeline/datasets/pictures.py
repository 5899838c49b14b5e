"""A person's pictures: class folders, or a CSV of paths and labels, as 8-bit arrays of one size."""

import logging
import math
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from pipeline.carried import pictures as carried
from pipeline.datasets import splits, table_files
from pipeline.datasets.picture_lists import LISTED, Listed, of_folder, of_table, paths_of
from pipeline.errors import RunError, UserError
from pipeline.source import Source
from pipeline.values import Array, Data, Size, Split

_log = logging.getLogger(__name__)

MOST_SIDE = {"full": 64, "small": 32}
"""Pixels of the longer side at most, by a task's size."""
WHITE = 255.0
FORM = {"white": WHITE, "drawing": None}
"""What `carried/pictures.py` reads of the form of these pictures."""

_GREY = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F")
# EXIF's orientations that lay a picture on its side.
_ORIENTATION, _ON_ITS_SIDE = 0x0112, (5, 6, 7, 8)
_MOST_BYTES = 256 * 2**20
_HELD_BYTES = 64 * 2**20


class Album:
    """A person's pictures: their pixels, and their files as they were when those were read."""

    def __init__(self, source: Source) -> None:
        self._source = source
        # Of the pictures that were read, each with its state.
        self._files: list[tuple[Path, tuple[int, int]]] = []

    def load(self, size: Size) -> Data:
        """As `load`."""
        data, self._files = _read_all(self._source, size)
        return data

    def raw(self, split: Split) -> Iterator[pd.DataFrame]:
        """The files' bytes of a split that `load` gave, as many at a time as memory should hold.

        Raises:
            RunError: a file is another one now.
        """
        name = column(self._source)
        held: list[bytes] = []
        places: Any = split.places
        for end, place in enumerate(places.tolist(), start=1):
            held.append(_as_it_was(*self._files[place]))
            if end == len(places) or sum(map(len, held)) >= _HELD_BYTES:
                yield pd.DataFrame({name: pd.Series(held, dtype=object)})
                held = []


def load(source: Source, size: Size) -> Data:
    """A person's pictures, (rows, height, width, channels) uint8, split by 60/20/20 (see `splits.parted`).

    source: `data` is a folder, in which each folder is a class, with pictures at any depth; or a CSV or
    Parquet file with a `target` column and a column of paths in its folder, which is called file, path,
    image, filename, filepath or picture, or else is the first one whose cells end as pictures do. `group`
    names a column of the file.

    Pictures of one size keep it; others are brought to the median height and the median width. Both are
    made smaller alike, if the longer one is more than `MOST_SIDE` pixels. The channel is one where every
    picture is grey, else there are three. See `carried/pictures.py` for how a picture gets there.

    What cannot be read, and pictures of one pixel, is left out; the first ten are named in a warning, and all
    are counted.

    Raises:
        UserError: the folder or file cannot be used, a path leads out of its folder, a class has fewer than
            two pictures, or all would need more memory than the machine has.
    """
    return Album(source).load(size)


def _read_all(source: Source, size: Size) -> tuple[Data, list[tuple[Path, tuple[int, int]]]]:
    """The pictures, and the files that were read, by the splits' places."""
    place = Path(source.data)
    if not place.exists():
        raise UserError(f"data: {place}: there is no such file or folder")
    listed, left_out = of_folder(place, source) if place.is_dir() else of_table(place, source)
    with warnings.catch_warnings(action="ignore"):
        # Pillow warns of damaged tags; whatever matters is an error.
        shape = _shape(listed.files, MOST_SIDE[size])
        _check_memory(len(listed.files), shape, place)
        pixels, kept, states = _read(listed.files, shape, place, left_out)
    _tell(left_out, len(kept), place)
    _check_classes(listed, kept, place)
    groups = None if listed.groups is None else listed.groups[kept]
    parts = splits.parted(Split(pixels, listed.values[kept], groups=groups, places=np.arange(len(kept))))
    if size == "small":
        parts = splits.small(*parts)
    files = [(listed.files[number], state) for number, state in zip(kept, states, strict=True)]
    return splits.data("images", str(place), listed.classes, parts), files


def _as_it_was(file: Path, state: tuple[int, int]) -> bytes:
    try:
        if table_files.state(file) == state:
            return file.read_bytes()
    except OSError as error:
        raise RunError(f"data: {file}: cannot be read again: {error.strerror}") from None
    raise RunError(f"data: {file}: is not the file any more that was read")


def column(source: Source) -> str:
    """The column that names a picture: the file's own, or `image`."""
    place = Path(source.data)
    return "image" if place.is_dir() else str(paths_of(table_files.read(place), source, place).name)


def _shape(files: Sequence[Path], most: int) -> tuple[int, int, int]:
    """Height, width and channels that the pictures are brought to."""
    sizes, grey = [], True
    for file in files:
        try:
            with carried.head(file) as opened:
                turned = opened.getexif().get(_ORIENTATION) in _ON_ITS_SIDE
                # Colours are looked for until some are found.
                grey = grey and _is_grey(opened)
                sizes.append(opened.size if turned else opened.size[::-1])
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            # Told when it is to be read.
            continue
    if not sizes:
        return 1, 1, 1
    height, width = map(float, np.median(sizes, axis=0))
    scale = min(1.0, most / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale)), 1 if grey else 3


def _is_grey(picture: Any) -> bool:
    if picture.mode in _GREY:
        return True
    channels = np.asarray(carried.flat(picture, "RGB"))
    return bool((channels == channels[..., :1]).all())


def _check_memory(rows: int, shape: tuple[int, int, int], place: Path) -> None:
    # Once all together, once in three splits.
    needed = 2 * rows * math.prod(shape)
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise UserError(
            f"data: {place}: {rows:,} pictures of {shape[0]} x {shape[1]} pixels need"
            f" {needed / 2**30:.1f} GiB, but the machine has {there / 2**30:.1f}; leave some out"
        )


def _read(
    files: Sequence[Path], shape: tuple[int, int, int], place: Path, left_out: list[str]
) -> tuple[Array, Array, list[tuple[int, int]]]:
    """The pixels of those that can be read, their numbers and states; the others are added to `left_out`."""
    pixels = np.empty((len(files), *shape), np.uint8)
    kept: list[int] = []
    states: list[tuple[int, int]] = []
    base = place if place.is_dir() else place.parent
    for number, file in enumerate(files):
        try:
            state = table_files.state(file)
            made = carried.picture(_content(file), FORM, {"shape": shape})
        except (OSError, ValueError) as error:
            said = error.strerror if isinstance(error, OSError) and error.strerror else error
            left_out.append(f"{os.path.relpath(file, base)}: {said}")
        else:
            pixels[len(kept)] = carried.cast(made, "uint8")
            kept.append(number)
            states.append(state)
    return pixels[: len(kept)], np.array(kept, np.int64), states


def _content(file: Path) -> bytes:
    if file.stat().st_size > _MOST_BYTES:
        raise ValueError(f"the file is larger than {_MOST_BYTES // 2**20} MiB")
    return file.read_bytes()


def _tell(left_out: Sequence[str], read: int, place: Path) -> None:
    if left_out:
        more = [f"and {len(left_out) - LISTED} more"] if len(left_out) > LISTED else []
        lines = (" ".join(fault.split()) for fault in (*left_out[:LISTED], *more))
        said = "".join(f"\n  {line}" for line in lines)
        _log.warning("data: %s: %d pictures read, %d left out:%s", place, read, len(left_out), said)


def _check_classes(listed: Listed, kept: Array, place: Path) -> None:
    counts = Counter(listed.values[kept].tolist())
    few = [
        f"{name!r} has {counts[number]}" for number, name in enumerate(listed.classes) if counts[number] < 2
    ]
    if few:
        more = f" and {len(few) - LISTED} more" if len(few) > LISTED else ""
        raise UserError(
            f"data: {place}: each class must have at least two pictures that can be read, but"
            f" {', '.join(few[:LISTED])}{more}"
        )
