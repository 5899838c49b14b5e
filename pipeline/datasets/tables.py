"""A table of a person's own: columns of any kind and a target -> `Data` that a model takes.

Rows are split by the protocol of Kadra et al. 2021 (see `splits.py`). What a column is, is found out from the
rows to learn from.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.carried import encoding
from pipeline.datasets import columns, splits, table_files, targets
from pipeline.datasets.columns import Rule
from pipeline.errors import RunError, UserError
from pipeline.source import Source
from pipeline.values import Data, Size, Split

_EXAMPLE = 3
_ROWS = 10_000
ANSWER = "prediction"
"""The name of the only output of a model that answers with a number."""


@dataclass(frozen=True)
class Table:
    """A table that was read.

    data: its rows as a model takes them. rules: of its columns. example: a few rows, cells by column. notes:
    for people. state: of the file when it was read (see `table_files.state`).
    """

    data: Data
    rules: tuple[Rule, ...]
    example: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...]
    state: tuple[int, int]


def read(source: Source, size: Size) -> Table:
    """Reads, splits and encodes a table.

    Rows without a target are left out.

    Raises:
        UserError: the file, a column or the target cannot be used.
    """
    file = Path(source.data)
    # Before it is read: what is written meanwhile is seen.
    state = table_files.state(file) if file.is_file() else (0, 0)
    table = table_files.read(file)
    by_role = {
        role: table_files.column(table, name, file, role)
        for role in ("target", "group", "time")
        if (name := getattr(source, role))
    }
    asked = targets.read(by_role["target"], source.problem)
    groups = targets.groups(by_role["group"])[asked.rows] if source.group else None
    times = targets.times(by_role["time"])[asked.rows] if source.time else None
    # Rows go by their numbers until the rules are there, which need those to learn from.
    values: Any = {ANSWER: asked.values[:, None]} if asked.is_number else asked.values
    parts = splits.parted(Split(asked.rows, values, groups=groups, times=times, places=asked.rows))
    if size == "small":
        parts = splits.small(*parts)
    # pandas writes its index under no name.
    unnamed = [""] if "" in table else []
    features = table.drop(columns=[*unnamed, *(str(cells.name) for cells in by_role.values())])
    fitted = columns.fit(features, parts[0].one_input)
    train, validation, test = (_encoded(fitted.rules, features, part) for part in parts)
    if asked.classes:
        _check_classes(train, asked.classes)
        train, validation = train.balanced(), validation.balanced()
    data = splits.data(
        file.stem,
        f"{file.name}, target {source.target}",
        asked.classes,
        (train, validation, test),
        outputs={} if asked.classes else {ANSWER: ()},
        balanced=bool(asked.classes),
    )
    example = _example(features.iloc[parts[0].one_input[:_EXAMPLE]], fitted.rules)
    missing = (f"{asked.left_out} rows without a target are left out",) if asked.left_out else ()
    nameless = ("the column without a name is left out",) if unnamed else ()
    return Table(data, fitted.rules, example, (*missing, *nameless, *asked.notes, *fitted.notes), state)


def raw(source: Source, split: Split, state: tuple[int, int]) -> Iterator[pd.DataFrame]:
    """A split's rows as the file has them, some thousands at a time: all columns but the target.

    Their index has the rows' numbers in the file, from 1.

    state: of the file when the split was read.

    Raises:
        RunError: the file is another one now.
    """
    try:
        now = table_files.state(source.data)
    except OSError:
        now = (0, 0)
    if now != state:
        raise RunError(f"data: {source.data}: is not the file any more that was read")
    table = table_files.read(source.data)
    places: Any = split.places
    rows = table.drop(columns=[source.target])
    rows.index = pd.RangeIndex(1, len(rows) + 1)
    for begin in range(0, len(places), _ROWS):
        yield rows.iloc[places[begin : begin + _ROWS]]


def _check_classes(train: Split, classes: tuple[str, ...]) -> None:
    missing = set(range(len(classes))) - set(np.unique(train.labels).tolist())
    if missing:
        names = ", ".join(repr(classes[number]) for number in sorted(missing))
        raise UserError(
            f"target: no row to learn from is of the class {names}; group or time keep them apart"
        )


def _encoded(rules: tuple[Rule, ...], table: pd.DataFrame, part: Split) -> Split:
    inputs: Any = encoding.encode(rules, table.iloc[part.one_input])
    if len(inputs) == 1:
        (inputs,) = inputs.values()
    return replace(part, inputs=inputs, targets=part.targets)


def _example(rows: pd.DataFrame, rules: tuple[Rule, ...]) -> tuple[Mapping[str, Any], ...]:
    """The rows as JSON has them: numbers, texts, and nothing for a missing cell."""
    commas = {rule["name"]: rule["comma"] for rule in rules if rule["kind"] == "number"}
    cells: dict[str, list[Any]] = {}
    for name in dict.fromkeys(rule["name"] for rule in rules):
        if name in commas:
            read = encoding.as_numbers(rows[name], comma=commas[name])
            cells[name] = [None if math.isnan(number) else float(number) for number in read]
        else:
            cells[name] = [text or None for text in encoding.as_texts(rows[name])]
    return tuple({name: column[row] for name, column in cells.items()} for row in range(len(rows)))
