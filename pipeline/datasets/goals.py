"""What a compiled model learns, and targets that are brought to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pipeline.datasets.targets import check_numbers
from pipeline.errors import UserError
from pipeline.values import Array

Kind = Literal["classes", "one_hot", "sigmoid", "numbers"]

PREDICTION = "prediction"
"""What an output that is a number is called."""


@dataclass(frozen=True)
class Goal:
    """What a compiled model learns.

    kind: of its targets: class numbers (rows,), one-hot (rows, classes), one sigmoid's (rows, 1), or numbers
    (rows, 1). units: of its output. shapes: of its inputs without the axis of rows, by name, of the only
    input by the name ""; None where any length will do.
    """

    kind: Kind
    units: int
    shapes: Mapping[str, tuple[int | None, ...]]


def targets(
    parts: list[Array], goal: Goal, where: str, classes: tuple[str, ...] = ()
) -> tuple[list[Any], tuple[str, ...]]:
    """Each part's targets as the model takes them, and the names of the classes.

    Args:
        parts: arrays of class numbers, names or one-hot rows, or of numbers.
        goal: of the model.
        where: they come from, for messages.
        classes: names of class numbers, where they are known.

    Raises:
        UserError: they do not go with the model.
    """
    if goal.kind == "numbers":
        numbers = [_numbers(part, goal, where) for part in parts]
        # Of all together, as a part may have few rows.
        check_numbers(np.concatenate(numbers), f"{where}: y")
        return [{PREDICTION: part.astype(np.float32)} for part in numbers], ()
    labels, names = _labels(parts, goal, where, classes)
    if goal.kind == "one_hot":
        eye = np.eye(len(names), dtype=np.float32)
        return [eye[part] for part in labels], names
    column = goal.kind == "sigmoid"
    return [part[:, None] if column else part for part in labels], names


def _numbers(targets: Array, goal: Goal, where: str) -> Array:
    """(rows, 1), as wide as they are given."""
    if goal.units != 1:
        raise UserError(
            f"{where}: a model that learns numbers must have one output unit here, but has {goal.units}; a"
            " task of your own may give its own Data"
        )
    if targets.dtype.kind not in "biuf" or targets.size != len(targets):
        raise UserError(f"{where}: y must be one number a row, but is {targets.dtype} of {targets.shape}")
    if not np.isfinite(targets).all():
        raise UserError(f"{where}: y must be finite, but {np.count_nonzero(~np.isfinite(targets))} are not")
    return targets.reshape(-1, 1)


def _labels(
    parts: list[Array], goal: Goal, where: str, classes: tuple[str, ...]
) -> tuple[list[Array], tuple[str, ...]]:
    """Class numbers, (rows,) of int32, and a name for each class."""
    count = 2 if goal.kind == "sigmoid" else goal.units
    flat = [_one_column(part, count, where) for part in parts]
    there = np.unique(np.concatenate(flat))
    if there.dtype.kind == "f":
        if not np.isfinite(there).all() or (there != np.rint(there)).any():
            raise UserError(
                f"{where}: y must be classes, as the model's loss asks for, but has numbers with"
                " fractions or that are not finite"
            )
        there, flat = there.astype(np.int64), [part.astype(np.int64) for part in flat]
    if len(there) < 2:
        raise UserError(f"{where}: y must have two classes at least, but all rows are {there[0]!s}")
    if there.dtype.kind in "iu" and there.min() >= 0 and there.max() < count:
        names = classes or tuple(map(str, range(count)))
        labels = flat
    elif len(there) == count:
        names = tuple(map(str, there))
        labels = [np.searchsorted(there, part) for part in flat]
    else:
        shown = ", ".join(map(str, there[:5])) + (" …" if len(there) > 5 else "")
        raise UserError(f"{where}: the model tells {count} classes apart, but y has {len(there)}: {shown}")
    if len(names) != count:
        raise UserError(f"{where}: the model tells {count} classes apart, but {len(names)} are named")
    return [part.astype(np.int32) for part in labels], names


def _one_column(targets: Array, count: int, where: str) -> Array:
    """(rows,) of class numbers or names, of one-hot rows the place of the one."""
    if targets.dtype.kind not in "biufUS":
        raise UserError(f"{where}: y must be numbers or texts, but is {targets.dtype}")
    if targets.ndim == 2 and targets.shape[1] > 1:
        ones = targets.dtype.kind in "biuf" and bool(
            (((targets == 0) | (targets == 1)).all()) and (targets.sum(axis=1) == 1).all()
        )
        if not ones or targets.shape[1] != count:
            raise UserError(
                f"{where}: y of the shape {targets.shape} must have a 1 and else 0 in each row's {count}"
                " columns, or be one class a row"
            )
        places: Array = targets.argmax(axis=1)
        return places
    if targets.size != len(targets):
        raise UserError(f"{where}: y must be one class a row, but has the shape {targets.shape}")
    flat: Array = targets.reshape(-1)
    return flat.astype(np.int64) if flat.dtype.kind == "b" else flat
