"""The model that is in use answers rows that were encoded by other rules than its own.

It is asked as whoever uses it asks: with a person's rows. Its answers are brought to the study's classes by
their names.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.errors import RunError
from pipeline.promotion.learned import columns
from pipeline.tracking.answering import Answering, RowError
from pipeline.values import Answers, Array, Data


def fault(told: Mapping[str, Any], mine: Mapping[str, Any]) -> str:
    """Why no rows can compare two models, by what they tell (`Servable.told`); empty if some can."""
    kinds = [one["form"]["kind"] for one in (told, mine)]
    if kinds[0] != kinds[1]:
        return f"it takes {kinds[0]}, but the rows are {kinds[1]}"
    if len(told["outputs"]) > 1 or (len(told["inputs"]) > 1 and kinds[0] != "table"):
        return "it has several inputs or outputs"
    its, wanted = (one["outputs"][0]["classes"] for one in (told, mine))
    if bool(its) != bool(wanted):
        return (
            f"it answers with a {'class' if its else 'number'}, not with a {'class' if wanted else 'number'}"
        )
    if wanted and not set(its) & set(wanted):
        return f"it knows none of the classes {', '.join(wanted[:10])}, but {', '.join(its[:10])}"
    return ""


def answers(rival: Answering, rows: Iterable[Any], data: Data) -> Answers:
    """What it says to rows, as the study's metrics take it.

    A class that it does not know has the probability 0; those that the study does not know come last.

    Args:
        rival: of which `fault` tells nothing.
        rows: tables of some rows each, as a person has them.
        data: the study's, for its classes.

    Raises:
        RunError: a column is missing, or it cannot read a row.
    """
    ((name, classes),) = (data.outputs or {"": data.classes}).items()
    (output,) = rival.told["outputs"]
    form = rival.told["form"]
    parts = []
    for some in rows:
        try:
            found = rival.answer(_taken(some, form))
        except RowError as error:
            raise RunError(str(error)) from None
        parts.append(_matched(found, output, classes))
    whole = np.concatenate(parts)
    return {name: whole} if name else whole


def _taken(rows: Any, form: Mapping[str, Any]) -> Any:
    """The columns that it takes, in its order."""
    names = columns(form)
    if form["kind"] == "pictures":
        # There is one, whatever it is called.
        return rows.set_axis(names, axis=1)
    if missing := [name for name in names if name not in rows]:
        raise RunError(f"it takes the column {', '.join(map(repr, missing))}, which the rows do not have")
    return rows[names].astype(object)


def _matched(found: Any, output: Mapping[str, Any], classes: Sequence[str]) -> Array:
    """(rows, classes) of probabilities, or (rows, 1) of numbers."""
    if not classes:
        numbers: Array = found[output["name"] or "prediction"].to_numpy(np.float64)[:, None]
        return numbers
    begin = f"{output['name']}_" if output["name"] else ""
    its = {name: found[f"{begin}probability_{name}"].to_numpy(np.float64) for name in output["classes"]}
    others = [part for name, part in its.items() if name not in classes]
    return np.column_stack([*(its.get(name, np.zeros(len(found))) for name in classes), *others])
