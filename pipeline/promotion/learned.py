"""Which rows a model has learned from, in numbers that are kept with it.

Tonight's file often holds yesterday's rows, and its split is another one: what is a validation row now may
have been learned from by the model that is in use, whose score on it would say too much.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.datasets import fingerprints
from pipeline.forms import Form, described
from pipeline.tasks.task import Raw
from pipeline.values import Array, Data, Split


def of(raw: Raw, split: Split, data: Data, columns: Sequence[str]) -> Array:
    """A number for each row of a split, (rows,) uint64: 8 bytes a row.

    Args:
        raw: gives the rows as a person has them.
        split: of `data`.
        data: for the names of its classes.
        columns: of the raw rows, those that count.
    """
    targets = _texts(split, data)
    parts, begin = [], 0
    for some in raw(split):
        end = begin + len(some)
        parts.append(fingerprints.of_rows(some, columns, targets[begin:end]))
        begin = end
    return np.concatenate(parts)


def learned_from(raw: Raw, data: Data, form: Form) -> Array:
    """As `of`, of the rows to learn from, by the columns that models of the form take."""
    return of(raw, data.train, data, columns(described(form)))


def columns(form: Mapping[str, Any]) -> list[str]:
    """The columns that a form takes (`forms.described`), of a table, of texts or of pictures."""
    if form["kind"] == "table":
        return list(dict.fromkeys(str(rule["name"]) for rule in form["rules"]))
    return [str(form["column"])]


def _texts(split: Split, data: Data) -> list[str]:
    targets: Any = split.targets
    if isinstance(targets, Mapping):
        (targets,) = targets.values()
    if data.classes:
        return [data.classes[number] for number in split.labels.tolist()]
    return [f"{number:.7g}" for number in np.asarray(targets).reshape(-1).tolist()]
