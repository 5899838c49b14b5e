"""The report of a study."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.report import figures
from pipeline.report.page import Section, write
from pipeline.values import Objective

NOTE = "Scores on the test rows, opened once after every choice, with 95\u00a0% bootstrap intervals."


def draw(
    folder: Path,
    study: str,
    table: Sequence[Sequence[str]],
    history: Sequence[tuple[int, float]],
    objective: Objective,
    curves: Mapping[str, Sequence[float]] | None,
    more: Sequence[Section] = (),
    note: str = NOTE,
) -> list[Path]:
    """Draws `report.html` and its pictures into the folder; their paths, the page first.

    Args:
        folder: exists.
        study: the title.
        table: a header, then rows.
        history: (trial, objective value) of the completed trials, in order.
        objective: what the values are of.
        curves: the champion's loss and another metric, and both of validation as `val_…`, an entry an epoch;
            None where there are none.
        more: sections that follow.
        note: stands above the table.
    """
    drawn = {
        "Every trial, and the best so far": figures.save(
            figures.history(history, objective), folder / "history.png"
        )
    }
    if curves:
        file = figures.save(figures.curves(curves), folder / "champion_curves.png")
        drawn["The champion's learning curves"] = file
    sections = [
        Section(note=note, rows=table),
        *(Section(heading, picture=file) for heading, file in drawn.items()),
        *more,
    ]
    return [write(folder / "report.html", f"Study {study}", sections), *drawn.values()]
