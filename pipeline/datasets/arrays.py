"""Arrays that a person brings for a model of their own: read, checked, and brought to what it takes."""

import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.datasets import array_files, goals, splits
from pipeline.datasets.goals import PREDICTION, Goal
from pipeline.errors import UserError
from pipeline.forms import Form
from pipeline.values import Array, Data, Size, Split

Inputs = Array | Mapping[str, Array]
Pair = tuple[Inputs, Array]
"""Inputs and targets of some rows."""

_PARTS = ("train", "val", "test")
# Of the rows that are not for testing, where nobody says which to choose by.
_VALIDATION_SHARE = 0.2


@dataclass(frozen=True)
class Rows:
    """What somebody brought.

    parts: all rows; or those to learn from and to test on; or to learn from, to choose by and to test on.
    where: they come from, for messages and the record. classes: names of class numbers, where they are known.
    form: what a finished model is asked with.
    """

    parts: tuple[Pair, ...]
    where: str
    classes: tuple[str, ...] = ()
    form: Form | None = None


def read(file: Path) -> Rows:
    """Rows of an NPZ file: `x`, `y`; or `x_train`, `y_train`, `x_test`, `y_test`, perhaps `x_val`, `y_val`.

    Of several inputs `x_left`, or `x_train_left`, and so on, each by its input's name. `classes` may name the
    class numbers.

    Raises:
        UserError: it is no such file.
    """
    if file.suffix.lower() == ".npy":
        raise UserError(f"data: {file}: holds one array, but x and y are needed: numpy.savez(FILE, x=x, y=y)")
    arrays = _arrays(file)
    classes = tuple(map(str, _rows(arrays.pop("classes", np.array([])), "classes", f"data: {file}")))
    names = ("",) if "y" in arrays else tuple(part for part in _PARTS if f"y_{part}" in arrays)
    if not names or (names != ("",) and {"train", "test"} - {*names}):
        raise UserError(
            f"data: {file}: must hold x and y, or x_train, y_train, x_test and y_test (and perhaps x_val and"
            f" y_val), but holds {', '.join(arrays) or 'nothing'}"
        )
    parts = tuple(_pair(arrays, part, f"data: {file}") for part in names)
    if left := sorted(arrays):
        raise UserError(f"data: {file}: {', '.join(left)}: belongs to nothing; the parts are {_told(names)}")
    return Rows(parts, str(file), classes)


def of_value(value: object, where: str) -> Rows:
    """Rows of what a function gave: (x, y), or pairs of these to learn from, to choose by, and to test on.

    Raises:
        UserError: it is something else.
    """
    rule = f"{where} must give (x, y), or ((x_train, y_train), (x_val, y_val), (x_test, y_test))"
    if not isinstance(value, tuple | list) or len(value) not in (2, 3):
        raise UserError(f"{rule}, but gave {_shape(value)}")
    # Rows may be in lists, but not in a tuple.
    pairs_there = any(isinstance(part, tuple) for part in value) or all(
        isinstance(part, list) and len(part) == 2 for part in value
    )
    whole = len(value) == 2 and not pairs_there
    pairs = (value,) if whole else tuple(value)
    if not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
        raise UserError(f"{rule}, but gave {_shape(value)}")
    return Rows(tuple((_inputs(x, where), _rows(y, "y", where)) for x, y in pairs), where)


def data(name: str, rows: Rows, goal: Goal, size: Size = "full") -> Data:
    """The rows in three splits, as a model with that goal takes them.

    Without a split of their own, rows are parted by `splits.parted`; without rows to choose by, a fifth of
    those to learn from is taken for it.

    Raises:
        UserError: the rows and the model do not go together, or a number is not finite.
    """
    inputs = [_checked(x, goal, rows.where) for x, _ in rows.parts]
    for x, (_, y) in zip(inputs, rows.parts, strict=True):
        _check_length(x, y, rows.where)
    targets, classes = goals.targets([y for _, y in rows.parts], goal, rows.where, rows.classes)
    found = [Split(x, y) for x, y in zip(inputs, targets, strict=True)]
    if len(found) == 1:
        parts = splits.parted(found[0])
    elif len(found) == 2:
        held = math.ceil(_VALIDATION_SHARE * found[0].rows)
        parts = (*splits.hold_out(found[0], held), found[1])
    else:
        parts = (found[0], found[1], found[2])
    if size == "small":
        parts = splits.small(*parts)
    outputs: dict[str, tuple[str, ...]] = {PREDICTION: ()} if goal.kind == "numbers" else {}
    return splits.data(name, rows.where, classes, parts, outputs=outputs)


def classes_of(rows: Rows) -> int:
    """How many classes the targets have, as far as they tell."""
    targets = [y for _, y in rows.parts]
    if all(part.ndim == 2 and part.shape[1] > 1 for part in targets):
        return int(targets[0].shape[1])
    return len(rows.classes) or len(np.unique(np.concatenate([part.reshape(-1) for part in targets])))


def adapted(found: Data, goal: Goal) -> Data:
    """A named task's rows, whose targets are brought to a model with that goal; the digests stay theirs.

    Raises:
        UserError: the rows and the model do not go together.
    """
    where = f"data={found.name}"
    if found.outputs or goal.kind == "numbers":
        raise UserError(f"{where}: has classes of one output, which the model does not learn")

    def change(split: Split) -> Split:
        inputs = _checked(split.inputs, goal, where)
        (targets,), _ = goals.targets([split.labels], goal, where, found.classes)
        return replace(split, inputs=inputs, targets=targets)

    return replace(
        found,
        train=change(found.train),
        validation=change(found.validation),
        test=found.test.changed(change),
    )


def _arrays(file: Path) -> dict[str, Array]:
    try:
        with zipfile.ZipFile(file) as archive:
            found = {}
            for name, member in array_files.members(archive).items():
                with archive.open(member) as opened:
                    found[name] = array_files.opened(opened).whole()
            return found
    except FileNotFoundError:
        raise UserError(f"data: there is no such file: {file}") from None
    except array_files.FAULTS as error:
        first = (str(error).strip() or "out of memory").splitlines()[0]
        raise UserError(f"data: {file}: cannot be read as an NPZ file of plain arrays: {first}") from None


def _pair(arrays: dict[str, Array], part: str, where: str) -> Pair:
    """Takes a part's arrays out of all of them."""
    end = f"_{part}" if part else ""
    targets = _rows(arrays.pop(f"y{end}"), f"y{end}", where)
    if f"x{end}" in arrays:
        return _rows(arrays.pop(f"x{end}"), f"x{end}", where), targets
    names = [name for name in arrays if name.startswith(f"x{end}_")]
    if not names:
        raise UserError(f"{where}: y{end} has no x{end} beside it")
    return {name.removeprefix(f"x{end}_"): _rows(arrays.pop(name), name, where) for name in names}, targets


def _told(names: Sequence[str]) -> str:
    return ", ".join(f"x_{part} and y_{part}" if part else "x and y" for part in names)


def _shape(value: object) -> str:
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}: {', '.join(type(part).__name__ for part in value)}"
    return type(value).__name__


def _inputs(value: Any, where: str) -> Inputs:
    if isinstance(value, Mapping):
        if not value:
            raise UserError(f"{where}: x is an empty dict")
        return {str(name): _rows(part, f"x {name}", where) for name, part in value.items()}
    return _rows(value, "x", where)


def _rows(value: Any, what: str, where: str) -> Array:
    """An array of rows."""
    try:
        rows = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: {what} must be an array, but: {error}") from None
    if not rows.ndim:
        raise UserError(f"{where}: {what} must be an array of rows, but is a single {type(value).__name__}")
    return rows


def _checked(inputs: Inputs, goal: Goal, where: str) -> Inputs:
    """Inputs of the model's shapes, in types that Keras takes."""
    if not isinstance(inputs, Mapping):
        if len(goal.shapes) > 1:
            raise UserError(
                f"{where}: the model has the inputs {', '.join(goal.shapes)}, so x needs an array for each"
            )
        return _input(inputs, "x", next(iter(goal.shapes.values()), None), where)
    if len(goal.shapes) == 1 and len(inputs) == 1:
        return _input(next(iter(inputs.values())), "x", next(iter(goal.shapes.values())), where)
    if goal.shapes and inputs.keys() != goal.shapes.keys():
        raise UserError(
            f"{where}: the model has the inputs {', '.join(goal.shapes)}, but x has {', '.join(inputs)}"
        )
    return {name: _input(part, f"x {name}", goal.shapes.get(name), where) for name, part in inputs.items()}


def _input(array: Array, what: str, shape: tuple[int | None, ...] | None, where: str) -> Array:
    if array.dtype.kind not in "biuf":
        raise UserError(f"{where}: {what} must be numbers, but is {array.dtype}")
    if array.dtype.kind == "f" and (broken := int(np.count_nonzero(~np.isfinite(array)))):
        raise UserError(f"{where}: {what} must be finite, but {broken} of its numbers are not")
    if array.ndim == 1 and shape == (1,):
        array = array[:, None]
    fits = shape is None or (
        array.ndim == len(shape) + 1
        and all(asked in (None, there) for asked, there in zip(shape, array.shape[1:], strict=True))
    )
    if not fits:
        raise UserError(
            f"{where}: {what} has rows of the shape {array.shape[1:]}, but the model takes {shape}"
        )
    # As wide as Keras's own numbers are.
    return array.astype(np.float32, copy=False) if array.dtype.kind in "fb" else array


def _check_length(inputs: Inputs, targets: Array, where: str) -> None:
    first = next(iter(inputs.values())) if isinstance(inputs, Mapping) else inputs
    if targets.ndim == 0 or len(first) != len(targets):
        rows = len(targets) if targets.ndim else "no"
        raise UserError(f"{where}: x has {len(first)} rows, but y has {rows} rows")
    if len(first) == 0:
        raise UserError(f"{where}: x has no rows")
