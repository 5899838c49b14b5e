"""The best validation score against time, a line for each contender."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.peers.curve import Curve
from pipeline.values import Direction


def draw(
    curves: Sequence[Curve], metric: str, direction: Direction, seconds: float, title: str, file: Path
) -> None:
    """Draws a PNG file."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for curve in curves:
        best = curve.best(direction)
        if not best:
            continue
        moments = [*(moment for moment, _ in best), max(seconds, best[-1][0])]
        scores = [*(score for _, score in best), best[-1][1]]
        axes.step(moments, scores, where="post", label=f"{curve.contender} ({len(curve.points)} trials)")
    axes.set(xlabel="seconds from the start of the process", ylabel=f"best {metric} so far", title=title)
    axes.set_xlim(0, seconds)
    axes.legend()
    figure.savefig(file, dpi=120)
