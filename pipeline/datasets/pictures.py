"""A person's pictures: class folders, or a CSV of paths and labels, as 8-bit arrays of one size."""

import logging
import math
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from pipeline.carried import pictures as carried
from pipeline.datasets import splits, table_files, targets
from pipeline.errors import RunError, UserError
from pipeline.source import Source
from pipeline.values import Array, Data, Size, Split

_log = logging.getLogger(__name__)

MOST_SIDE = {"full": 64, "small": 32}
"""Pixels of the longer side at most, by a task's size."""
WHITE = 255.0
FORM = {"white": WHITE, "drawing": None}
"""What `carried/pictures.py` reads of the form of these pictures."""

_COLUMNS = ("file", "path", "image", "filename", "filepath", "picture")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
_GREY = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F")
# EXIF's orientations that lay a picture on its side.
_ORIENTATION, _ON_ITS_SIDE = 0x0112, (5, 6, 7, 8)
_MOST_BYTES = 256 * 2**20
_HELD_BYTES = 64 * 2**20
_LISTED = 10


@dataclass(frozen=True)
class Listed:
    """Pictures to read: their files; the class number of each, (n,); class names; groups or None."""

    files: Sequence[Path]
    values: Array
    classes: tuple[str, ...]
    groups: Array | None = None


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
    listed, left_out = _of_folder(place, source) if place.is_dir() else _of_table(place, source)
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
    return "image" if place.is_dir() else str(_paths(table_files.read(place), source, place).name)


def _of_folder(place: Path, source: Source) -> tuple[Listed, list[str]]:
    for name, value in (("target", source.target), ("group", source.group)):
        if value:
            raise UserError(f"{name}: is a column of a CSV of paths, but data is the folder {place}")
    folders = sorted(folder for folder in place.iterdir() if folder.is_dir() and not _is_hidden(folder))
    if not folders:
        raise UserError(f"data: {place}: must hold a folder for each class, but holds no folder")
    found = {_name(folder): _files(folder) for folder in folders}
    empty = [f"{name}: the folder holds no file" for name, files in found.items() if not files]
    beside = [
        f"{file.name}: is in no class's folder"
        for file in sorted(place.iterdir())
        if file.is_file() and not _is_hidden(file)
    ]
    classes = tuple(sorted((name for name, files in found.items() if files), key=_by_number(found)))
    if len(classes) < 2:
        there = repr(classes[0]) if classes else "none"
        raise UserError(f"data: {place}: must hold files in at least two class folders, but has {there}")
    files = [file for name in classes for file in found[name]]
    values = np.repeat(np.arange(len(classes), dtype=np.int32), [len(found[name]) for name in classes])
    shown = [os.path.relpath(file, place) for file in files]
    once, again = _once(Listed(files, values, classes), shown, place)
    return once, empty + beside + again


def _is_hidden(file: Path) -> bool:
    return file.name.startswith(".") or file.name in ("Thumbs.db", "desktop.ini", "__MACOSX")


def _name(folder: Path) -> str:
    try:
        folder.name.encode()
    except UnicodeEncodeError:
        raise UserError(f"data: {os.fsencode(folder)!r}: a class's name must be UTF-8") from None
    return folder.name


def _files(folder: Path) -> list[Path]:
    """All files of a folder, at any depth, by their names; links to folders are not followed."""
    found = [
        Path(inside, name)
        for inside, _, names in os.walk(folder)
        for name in names
        if not _is_hidden(Path(inside, name))
    ]
    return sorted(found)


def _by_number(names: Any) -> Any:
    """What orders the names: by their numbers where all are some, else by letters."""
    return (lambda name: (int(name), name)) if all(name.isdecimal() for name in names) else str


def _of_table(file: Path, source: Source) -> tuple[Listed, list[str]]:
    if not source.target:
        raise UserError(f"target: must name a column of {file}")
    table = table_files.read(file)
    target = targets.read(table_files.column(table, source.target, file, "target"), "classification")
    paths = table_files.as_text(_paths(table, source, file)).iloc[target.rows]
    groups = None
    if source.group:
        cells = table_files.column(table, source.group, file, "group")
        groups = targets.groups(cells)[target.rows]
    folder = file.parent.resolve()
    files = []
    for row, path in zip(target.rows, paths, strict=True):
        if "\0" in path:
            raise UserError(f"data: {file}: row {row + 1}: {path[:80]!r} is no path, as it holds a zero byte")
        named = Path(os.path.normpath(folder / path))
        if not named.is_relative_to(folder) or not named.resolve().is_relative_to(folder):
            raise UserError(f"data: {file}: row {row + 1}: {path[:80]!r} leads out of the file's folder")
        files.append(named)
    left_out = [f"{target.left_out} rows have no target"] if target.left_out else []
    shown = [f"row {row + 1}, {path[:80]!r}" for row, path in zip(target.rows, paths, strict=True)]
    once, again = _once(Listed(files, target.values, target.classes, groups), shown, file)
    return once, left_out + again


def _once(listed: Listed, shown: Sequence[str], place: Path) -> tuple[Listed, list[str]]:
    """Each file once, at its first place, and what is said of the others: a copy may not come to test.

    shown: for each file what it is called in messages.

    Raises:
        UserError: a file has several labels.
    """
    first: dict[object, int] = {}
    kept, faults = [], []
    for number, file in enumerate(listed.files):
        there = first.setdefault(_identity(file), number)
        if there == number:
            kept.append(number)
        elif listed.values[there] != listed.values[number]:
            one, other = (listed.classes[listed.values[at]] for at in (there, number))
            faults.append(f"{shown[there]} is {one!r}, and {shown[number]} is {other!r}")
    if faults:
        more = f"; and {len(faults) - _LISTED} more" if len(faults) > _LISTED else ""
        raise UserError(
            f"data: {place}: a picture must have one label, but the same file is there with two:"
            f" {'; '.join(faults[:_LISTED])}{more}"
        )
    again = len(listed.files) - len(kept)
    if not again:
        return listed, []
    groups = None if listed.groups is None else listed.groups[kept]
    once = Listed([listed.files[number] for number in kept], listed.values[kept], listed.classes, groups)
    return once, [f"{again} of a file that is there before, under its own or another name"]


def _identity(file: Path) -> object:
    """What is the same for all names of a file, links among them."""
    try:
        found = file.stat()
    except (OSError, ValueError):
        # Told when it is to be read.
        return file
    return found.st_dev, found.st_ino


def _paths(table: pd.DataFrame, source: Source, file: Path) -> Any:
    others = [name for name in table.columns if name not in (source.target, source.group)]
    named = [name for name in others if name.lower() in _COLUMNS]
    if named:
        return table[named[0]]
    for name in others:
        cells = table_files.as_text(table[name].iloc[:_LISTED])
        if len(cells) and all(cell.lower().endswith(_SUFFIXES) for cell in cells):
            return table[name]
    raise UserError(
        f"data: {file}: must have a column of paths to pictures, called {', '.join(_COLUMNS)} or"
        f" of names that end as pictures do, but its columns are {', '.join(map(str, table.columns[:20]))}"
    )


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
        more = [f"and {len(left_out) - _LISTED} more"] if len(left_out) > _LISTED else []
        lines = (" ".join(fault.split()) for fault in (*left_out[:_LISTED], *more))
        said = "".join(f"\n  {line}" for line in lines)
        _log.warning("data: %s: %d pictures read, %d left out:%s", place, read, len(left_out), said)


def _check_classes(listed: Listed, kept: Array, place: Path) -> None:
    counts = Counter(listed.values[kept].tolist())
    few = [
        f"{name!r} has {counts[number]}" for number, name in enumerate(listed.classes) if counts[number] < 2
    ]
    if few:
        more = f" and {len(few) - _LISTED} more" if len(few) > _LISTED else ""
        raise UserError(
            f"data: {place}: each class must have at least two pictures that can be read, but"
            f" {', '.join(few[:_LISTED])}{more}"
        )
