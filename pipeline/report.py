"""The report: one page that opens anywhere, with its pictures inside."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.values import Objective

_PAGE = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{{ title }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #222; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; }
td:not(:last-child) { white-space: nowrap; }
th, td { text-align: left; padding: .3rem 1rem .3rem 0; border-bottom: 1px solid #ccc; }
img { max-width: 100%; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<p>Scores on the test rows, opened once after every choice, with 95&nbsp;% bootstrap intervals.</p>
<table>
<tr>{% for cell in rows[0] %}<th>{{ cell }}</th>{% endfor %}</tr>
{% for row in rows[1:] %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table>
{% for heading, picture in pictures %}
<h2>{{ heading }}</h2>
<img alt="{{ heading }}" src="data:image/png;base64,{{ picture }}">
{% endfor %}
</body>
</html>
""")

_BLUE, _ORANGE, _GREY = "#1f6fb4", "#d9722e", "#9aa3ab"


def draw(
    folder: Path,
    study: str,
    table: Sequence[Sequence[str]],
    history: Sequence[tuple[int, float]],
    objective: Objective,
    curves: Mapping[str, Sequence[float]],
) -> list[Path]:
    """Draws `report.html` and its pictures into the folder; their paths, the page first.

    Args:
        folder: exists.
        study: the title.
        table: a header, then rows.
        history: (trial, objective value) of the completed trials, in order.
        objective: what the values are of.
        curves: the champion's loss, val_loss, accuracy and val_accuracy, an entry an epoch.
    """
    pictures = {
        "Every trial, and the best so far": _save(_history(history, objective), folder / "history.png"),
        "The champion's learning curves": _save(_curves(curves), folder / "champion_curves.png"),
    }
    page = folder / "report.html"
    page.write_text(
        _PAGE.render(
            title=f"Study {study}",
            rows=table,
            pictures=[
                (heading, base64.b64encode(file.read_bytes()).decode()) for heading, file in pictures.items()
            ],
        ),
        encoding="utf-8",
    )
    return [page, *pictures.values()]


def _history(history: Sequence[tuple[int, float]], objective: Objective) -> Figure:
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.add_subplot()
    numbers = [number for number, _ in history]
    values = [value for _, value in history]
    pick = max if objective.direction == "maximize" else min
    best = [pick(values[: place + 1]) for place in range(len(values))]
    axes.plot(numbers, values, "o", color=_GREY, label="trial")
    axes.step(numbers, best, where="post", color=_BLUE, label="best so far")
    if objective.direction == "minimize" and min(values) > 0 and max(values) > 10 * min(values):
        # One diverging trial would flatten all others.
        axes.set_yscale("log")
    axes.set(xlabel="trial", ylabel=objective.metric)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def _curves(curves: Mapping[str, Sequence[float]]) -> Figure:
    figure = Figure(figsize=(9, 4), layout="constrained")
    left = figure.add_subplot()
    right = left.twinx()
    # A line of one point is not drawn.
    marker = "o" if len(curves["loss"]) == 1 else ""
    for axes, metric, colour in ((left, "loss", _BLUE), (right, "accuracy", _ORANGE)):
        axes.plot(curves[metric], color=colour, linestyle="--", marker=marker, label=f"{metric}, training")
        axes.plot(curves[f"val_{metric}"], color=colour, marker=marker, label=f"{metric}, validation")
        axes.set_ylabel(metric, color=colour)
    left.set_xlabel("epoch")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    lines = [*left.get_lines(), *right.get_lines()]
    labels = [str(line.get_label()) for line in lines]
    figure.legend(lines, labels, loc="outside upper center", ncols=4, frameon=False)
    return figure


def _save(figure: Figure, file: Path) -> Path:
    # No screen and no state: figures are drawn without pyplot.
    figure.savefig(file, dpi=120)
    return file
