"""A model's answer to one row, as a person reads it."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

_MOST_CLASSES = 20
_BAR = 40


def in_words(name: str, answers: pd.DataFrame, outputs: Sequence[Mapping[str, Any]]) -> str:
    """What the model says, then the probability of each class, the likeliest first.

    Args:
        name: of the row.
        answers: one row, as `Served.predict` gives it.
        outputs: name and classes of each output, as the model tells them.
    """
    return "\n\n".join(
        _number(name, answers, output) if not output["classes"] else _classes(name, answers, output)
        for output in outputs
    )


def _number(name: str, answers: pd.DataFrame, output: Mapping[str, Any]) -> str:
    column = output["name"] or "prediction"
    return f"{name}: {column} {answers[column].iloc[0]:.6g}"


def _classes(name: str, answers: pd.DataFrame, output: Mapping[str, Any]) -> str:
    begin = f"{output['name']}_" if output["name"] else ""
    found = {one: float(answers[f"{begin}probability_{one}"].iloc[0]) for one in output["classes"]}
    ranked = sorted(found.items(), key=lambda pair: -pair[1])
    best, surely = ranked[0]
    what = f"{output['name']} " if output["name"] else ""
    width = max(len(one) for one, _ in ranked[:_MOST_CLASSES])
    lines = [
        f"  {one:<{width}}  {share:6.1%}  {'█' * round(share * _BAR)}".rstrip()
        for one, share in ranked[:_MOST_CLASSES]
    ]
    if len(ranked) > _MOST_CLASSES:
        lines.append(f"  and {len(ranked) - _MOST_CLASSES} more")
    return "\n".join([f"{name}: {what}{best} ({surely:.1%})", "", *lines])
