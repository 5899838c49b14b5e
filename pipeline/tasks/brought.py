"""The rows for a model of a person's own, wherever `data` says that they are."""

import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.datasets import arrays, table_files, targets
from pipeline.datasets.arrays import Inputs, Pair, Rows
from pipeline.datasets.goals import Goal
from pipeline.errors import UserError
from pipeline.forms import Arrays, Columns, Form
from pipeline.source import Source
from pipeline.tasks import user_code
from pipeline.tasks.task import Task
from pipeline.values import Array, Data, Size

# Enough to build a model and to try its training with.
_SOME = 32


@dataclass(frozen=True)
class Brought:
    """Rows that were found.

    some: inputs of a few. classes: how many there seem to be, where they are not numbers. load: (size, goal)
    -> the rows as a model with that goal takes them. form: what a finished model is asked with.
    """

    some: Inputs
    classes: Callable[[], int]
    load: Callable[[Size, Goal], Data]
    form: Form

    def before(self, size: Size, *, numbers: bool) -> Data:
        """The rows for a model that is still to be seen: with class numbers, or numbers."""
        return self.load(size, Goal("numbers", 1, {}) if numbers else Goal("classes", self.classes(), {}))


def find(
    name: str,
    source: Source,
    load: Callable[[], object] | None,
    named: Callable[[str], Task | None],
    *,
    numbers: bool,
) -> Brought:
    """The rows of `data`: an NPZ file, a table of numbers, a folder of pictures, or a named task's.

    Args:
        name: of the task.
        source: what of it the person gave.
        load: what gives the rows where `data` does not, or None.
        named: finds a named task; None if there is none of that name.
        numbers: whether the model learns numbers, and no classes.

    Raises:
        UserError: there are none, or they cannot be read.
    """
    if source.target and Path(source.data).suffix.lower() not in table_files.SUFFIXES:
        there = f"{source.data} is no table" if source.data else "no table is given"
        raise UserError(f"target: names a column of data, but {there}")
    if not source.data:
        if load is None:
            raise UserError(
                f"data: must be given with task={name}, or the file must have a function load() that gives"
                " (x, y)"
            )
        return of_value(name, loaded(name, load))
    place = Path(source.data)
    if place.is_dir():
        return _of_task(_pictures(source), "full")
    if place.suffix.lower() in table_files.SUFFIXES:
        return of_rows(name, _table(source, numbers=numbers))
    if place.suffix.lower() == ".npz" or place.exists():
        return of_rows(name, arrays.read(place))
    task = named(source.data)
    if task is None:
        raise UserError(
            f"data: must be an NPZ file, a table, a folder of pictures or the name of a task, but there is no"
            f" {source.data!r} here"
        )
    return _of_task(task, "small")


def loaded(name: str, load: Callable[..., object], **given: object) -> object:
    """What the user's own `load` gives.

    Raises:
        UserError: it is no function, or it fails.
    """
    check_function(name, load)
    with user_code.told(name, "load"):
        return load(**given)


def check_function(name: str, load: object) -> None:
    """Raises UserError for a `load` of the user's own that is a value, and no function that gives one."""
    if not callable(load):
        raise UserError(f"task: {name}: load must be a function, but is a {type(load).__name__}")


def of_value(name: str, value: object) -> Brought:
    """Rows that the user's own `load` has given."""
    return of_rows(name, arrays.of_value(value, f"load of {name}"))


def of_rows(name: str, rows: Rows) -> Brought:
    """Rows that were read."""

    def load(size: Size, goal: Goal) -> Data:
        return arrays.data(name, rows, goal, size)

    classes = functools.partial(arrays.classes_of, rows)
    return Brought(_first(rows.parts[0]), classes, load, rows.form or Arrays())


def _first(pair: Pair) -> Inputs:
    inputs, _ = pair
    if isinstance(inputs, Mapping):
        return {name: part[:_SOME] for name, part in inputs.items()}
    few: Array = inputs[:_SOME]
    return few


def _of_task(task: Task, looked_at: Size) -> Brought:
    """Rows of another task."""
    some = task.load(looked_at)

    def load(size: Size, goal: Goal) -> Data:
        return arrays.adapted(task.load(size), goal)

    few = some.train.take(np.arange(min(_SOME, some.train.rows)))
    return Brought(few.inputs, lambda: len(some.classes), load, task.form(some))


def _table(source: Source, *, numbers: bool) -> Rows:
    """A table whose columns are all numbers but for the target."""
    if not source.target:
        raise UserError(f"target: must name the column of {source.data} that is learned")
    table = table_files.read(source.data)
    cells = table_files.column(table, source.target, source.data, "target")
    found = targets.read(cells, "regression" if numbers else "classification")
    names = [name for name in table.columns if name != source.target]
    if not names:
        raise UserError(f"data: {source.data}: has no column but the target")
    columns = [_numbers(table_files.as_text(table[name]).tolist(), name, source.data) for name in names]
    inputs = np.stack(columns, axis=1)[found.rows]
    if found.left_out:
        print(f"{found.left_out} rows have no {source.target}, and are left out", flush=True)
    for note in found.notes:
        print(note, flush=True)
    return Rows(((inputs, found.values),), source.data, found.classes, Columns(tuple(map(str, names))))


def _numbers(cells: list[str], name: str, file: str) -> Array:
    numbers = np.empty(len(cells), np.float32)
    for row, cell in enumerate(cells):
        try:
            numbers[row] = float(cell)
        except ValueError:
            raise UserError(
                f"data: {file}: a model of your own takes numbers only, but the column {name!r} has"
                f" {cell[:40]!r} in row {row + 1}; task=table takes every kind of column"
            ) from None
    return numbers


def _pictures(source: Source) -> Task:
    """The task of a folder of pictures, whose rows and form are what is wanted of it."""
    # Late, as it imports what other rows do not need.
    task: Task = importlib.import_module("pipeline.tasks.images").task(Source(data=source.data))
    return task
