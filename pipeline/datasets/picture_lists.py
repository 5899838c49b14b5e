"""Which pictures a person brings: those of class folders, or those that a table names; each file once."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.datasets import table_files, targets
from pipeline.errors import UserError
from pipeline.source import Source
from pipeline.values import Array

LISTED = 10
"""Faults that are listed, of many."""

_COLUMNS = ("file", "path", "image", "filename", "filepath", "picture")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm")


@dataclass(frozen=True)
class Listed:
    """Pictures to read: their files; the class number of each, (n,); class names; groups or None."""

    files: Sequence[Path]
    values: Array
    classes: tuple[str, ...]
    groups: Array | None = None


def of_folder(place: Path, source: Source) -> tuple[Listed, list[str]]:
    """The pictures of a folder of class folders, and what of it is left out.

    Raises:
        UserError: the source names columns, there are no two classes, or a file is in two.
    """
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


def of_table(file: Path, source: Source) -> tuple[Listed, list[str]]:
    """The pictures that a table's column of paths names, and what of it is left out.

    Raises:
        UserError: a column is missing, a path leads out of the table's folder, or a file has two labels.
    """
    if not source.target:
        raise UserError(f"target: must name a column of {file}")
    table = table_files.read(file)
    target = targets.read(table_files.column(table, source.target, file, "target"), "classification")
    paths = table_files.as_text(paths_of(table, source, file)).iloc[target.rows]
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
        more = f"; and {len(faults) - LISTED} more" if len(faults) > LISTED else ""
        raise UserError(
            f"data: {place}: a picture must have one label, but the same file is there with two:"
            f" {'; '.join(faults[:LISTED])}{more}"
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


def paths_of(table: pd.DataFrame, source: Source, file: Path) -> Any:
    """The column of paths.

    Raises:
        UserError: there is none.
    """
    others = [name for name in table.columns if name not in (source.target, source.group)]
    named = [name for name in others if name.lower() in _COLUMNS]
    if named:
        return table[named[0]]
    for name in others:
        cells = table_files.as_text(table[name].iloc[:LISTED])
        if len(cells) and all(cell.lower().endswith(_SUFFIXES) for cell in cells):
            return table[name]
    raise UserError(
        f"data: {file}: must have a column of paths to pictures, called {', '.join(_COLUMNS)} or"
        f" of names that end as pictures do, but its columns are {', '.join(map(str, table.columns[:20]))}"
    )
