"""The reports' pictures; drawn without a screen and without state."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.values import Direction, Objective

_BLUE, _ORANGE, _GREY, _GREEN = "#1f6fb4", "#d9722e", "#9aa3ab", "#2f8f4e"

# Metrics beside each other; more of them follow below.
_ACROSS = 3


@dataclass(frozen=True)
class Span:
    """A difference with its interval, by its label; low and high may be NaN."""

    label: str
    mean: float
    low: float
    high: float


def history(history: Sequence[tuple[int, float]], objective: Objective) -> Figure:
    """Every trial's value, and the best so far."""
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


def curves(curves: Mapping[str, Sequence[float]]) -> Figure:
    """Learning curves of the loss and of one other metric, of training and as `val_…` of validation."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    left = figure.add_subplot()
    right = left.twinx()
    # A line of one point is not drawn.
    marker = "o" if len(curves["loss"]) == 1 else ""
    other = next(name for name in curves if name != "loss" and not name.startswith("val_"))
    for axes, metric, colour in ((left, "loss", _BLUE), (right, other, _ORANGE)):
        axes.plot(curves[metric], color=colour, linestyle="--", marker=marker, label=f"{metric}, training")
        axes.plot(curves[f"val_{metric}"], color=colour, marker=marker, label=f"{metric}, validation")
        axes.set_ylabel(metric, color=colour)
    left.set_xlabel("epoch")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    lines = [*left.get_lines(), *right.get_lines()]
    labels = [str(line.get_label()) for line in lines]
    figure.legend(lines, labels, loc="outside upper center", ncols=4, frameon=False)
    return figure


def ensemble_curve(
    greedy: Sequence[float], uniform: Sequence[float], chosen: tuple[int, float], metric: str
) -> Figure:
    """A validation metric against the number of members, an entry for 1, 2, … of them.

    Args:
        greedy: after each round of greedy selection.
        uniform: of the best models at equal weights.
        chosen: members of the ensemble that was made, and its value.
        metric: the name.
    """
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.add_subplot()
    # Of each method, one member is the best single model.
    axes.axhline(greedy[0], color=_GREY, linestyle=":", label="best single model")
    for values, colour, line, label in (
        (uniform, _ORANGE, "--", "best models, equal weights"),
        (greedy, _BLUE, "-", "greedy selection"),
    ):
        axes.plot(
            range(1, len(values) + 1), values, line, color=colour, marker="o", markersize=4, label=label
        )
    axes.plot(
        *chosen,
        "o",
        color=_GREEN,
        markersize=12,
        fillstyle="none",
        markeredgewidth=2,
        label="chosen ensemble",
    )
    axes.set(xlabel="members, repeated ones counted", ylabel=f"validation {metric}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    return figure


def spans(by_metric: Mapping[str, tuple[Direction, Sequence[Span]]]) -> Figure:
    """Differences with their intervals, a metric beside the other, a line a label; the same labels in each.

    Green is clearly better, orange clearly worse, grey neither.
    """
    lines = max(len(found) for _, found in by_metric.values())
    across = min(len(by_metric), _ACROSS)
    down = math.ceil(len(by_metric) / across)
    figure = Figure(figsize=(4 + 4 * across, down * (1.6 + 0.34 * lines)), layout="constrained")
    places = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
    for axes in places[len(by_metric) :]:
        axes.set_axis_off()
    for axes, (metric, (direction, found)) in zip(places, by_metric.items(), strict=False):
        axes.axvline(0.0, color="black", linewidth=0.8)
        for place, span in enumerate(found):
            colour = _colour(span, direction)
            axes.plot([span.mean], [place], "o", color=colour)
            if math.isfinite(span.low):
                axes.plot([span.low, span.high], [place, place], color=colour, linewidth=2)
        axes.set_yticks(range(len(found)), [span.label for span in found])
        better = "more" if direction == "maximize" else "less"
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel(f"difference in test {metric} ({better} is better)")
    places[0].set_ylim(lines - 0.5, -0.5)
    return figure


def _colour(span: Span, direction: Direction) -> str:
    if not (span.low > 0 or span.high < 0):
        return _GREY
    return _GREEN if (span.mean > 0) == (direction == "maximize") else _ORANGE


def save(figure: Figure, file: Path) -> Path:
    """Writes the picture; its file."""
    with warnings.catch_warnings():
        # A sign that no font has, in a class's name say, is a box.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure.savefig(file, dpi=120)
    return file
