"""A file of a person's rows, batch by batch, in the form that a model takes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.errors import UserError
from pipeline.prediction import arrays, tables
from pipeline.values import Array

PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp")
_ARRAYS = (".npz", ".npy")
_FILES = 1024
_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Batch:
    """Some rows.

    rows: as the model takes them. kept: columns that go to the output beside the answers.
    """

    rows: Any
    kept: pd.DataFrame


def is_picture(file: Path) -> bool:
    """Whether it is one picture."""
    return file.is_file() and file.suffix.lower() in PICTURES


def batches(file: Path, told: Mapping[str, Any]) -> Iterator[Batch]:
    """The rows of a file or of a folder of pictures.

    Args:
        file: CSV, TSV, Parquet, NPZ, NPY, a picture or a folder.
        told: what the model says of its form and inputs (`Served.told`).

    Raises:
        UserError: the file is none of these, is damaged, or holds no rows for such a model.
    """
    form, names = told["form"], [one["name"] for one in told["inputs"]]
    suffix = file.suffix.lower()
    if not file.exists():
        raise UserError(f"input: {file}: there is no such file")
    if file.is_dir() or suffix in PICTURES:
        if form["kind"] != "pictures" or len(names) > 1:
            raise UserError(f"input: {file}: the model takes {_wanted(told)}, no single pictures")
        yield from _pictures(file, names[0] or form["column"])
    elif suffix in tables.SUFFIXES:
        if form["kind"] == "arrays":
            raise UserError(f"input: {file}: the model takes {_wanted(told)}")
        for rows, kept in tables.batches(file, _columns(told), form["kind"]):
            yield Batch(rows, kept)
    elif suffix in _ARRAYS:
        # Rows count from 1, as those of tables do.
        begin = 1
        for found in arrays.batches(file, names, _BYTES):
            rows = len(next(iter(found.values())))
            index = pd.RangeIndex(begin, begin + rows)
            yield Batch(_as_rows(found, told, index, f"{file}, rows from {begin}"), pd.DataFrame(index=index))
            begin += rows
        if begin == 1:
            raise UserError(f"input: {file}: has no rows")
    else:
        known = ", ".join((*tables.SUFFIXES, *_ARRAYS, *PICTURES))
        raise UserError(f"input: {file}: must be a folder of pictures, or end in one of {known}")


def _columns(told: Mapping[str, Any]) -> list[str]:
    form = told["form"]
    if form["kind"] == "columns":
        return list(form["names"])
    if form["kind"] == "table":
        return list(dict.fromkeys(rule["name"] for rule in form["rules"]))
    return [one["name"] or form["column"] for one in told["inputs"]]


def _wanted(told: Mapping[str, Any]) -> str:
    if told["form"]["kind"] != "arrays":
        return f"the columns {', '.join(_columns(told))}"
    inputs = [f"{one['name'] or 'one'} of {tuple(one['shape'])}" for one in told["inputs"]]
    return f"an .npz file with the arrays {', '.join(inputs)}"


def _pictures(place: Path, column: str) -> Iterator[Batch]:
    """One picture, or all of a folder and its folders, by their names in the folder."""
    files = [place]
    if place.is_dir():
        # Links that lead nowhere, too: they are told as pictures that cannot be read.
        named = (file for file in place.rglob("*") if file.suffix.lower() in PICTURES)
        files = sorted(file for file in named if not file.is_dir())
        if not files:
            raise UserError(f"input: {place}: holds no picture ({', '.join(PICTURES)})")
    names = [file.name if file == place else file.relative_to(place).as_posix() for file in files]
    held: list[bytes] = []
    for end, file in enumerate(files, start=1):
        held.append(_content(file, place))
        if end == len(files) or len(held) == _FILES or sum(map(len, held)) >= _BYTES:
            begin = end - len(held)
            rows = pd.DataFrame({column: held}, index=names[begin:end])
            yield Batch(rows, pd.DataFrame({"file": rows.index}, index=rows.index))
            held = []


def _content(file: Path, place: Path) -> bytes:
    """A file's bytes; none of one of a folder's that cannot be read, which is no picture then."""
    try:
        return file.read_bytes()
    except OSError as error:
        if file != place:
            return b""
        raise UserError(f"input: {file}: cannot be read: {error.strerror}") from None


def _as_rows(found: Mapping[str, Array], told: Mapping[str, Any], index: pd.Index, place: str) -> Any:
    form, inputs = told["form"], {one["name"]: one for one in told["inputs"]}
    match form["kind"]:
        case "columns":
            table, names = found[""], form["names"]
            if table.ndim != 2 or table.shape[1] != len(names) or table.dtype.kind not in "biuf":
                raise UserError(
                    f"input: {place}: must be numbers, (rows, {len(names)}),"
                    f" but is {table.dtype} {table.shape}"
                )
            return pd.DataFrame(table.astype(np.float64), columns=names, index=index)
        case "arrays":
            return _cast_all(found, inputs, place)
        case _:
            columns = {name or form["column"]: list(array) for name, array in found.items()}
            return pd.DataFrame(
                {name: pd.Series(cells, index, dtype=object) for name, cells in columns.items()}
            )


def _cast_all(found: Mapping[str, Array], inputs: Mapping[str, Any], place: str) -> Any:
    """Arrays of the types that the model was trained with; MLflow takes no others."""
    made = {}
    for name, array in found.items():
        shape, dtype = tuple(inputs[name]["shape"]), np.dtype(inputs[name]["dtype"])
        what = f"input: {place}: {name or 'the array'}"
        if array.shape[1:] != shape or array.dtype.kind not in "biuf":
            wanted = ", ".join(map(str, shape))
            raise UserError(f"{what} must be numbers, (rows, {wanted}), but is {array.dtype} {array.shape}")
        with np.errstate(invalid="ignore"):
            made[name] = array.astype(dtype)
        if dtype.kind in "iu" and not np.array_equal(made[name], array):
            raise UserError(f"{what} must be whole numbers that fit {dtype}, but is not")
    return made.get("", made)
