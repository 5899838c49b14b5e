"""What a contender found, and when."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.benchmark.speed import shown, table
from pipeline.values import Direction

# Shares of the time at which the table shows the best score so far.
_SHARES = (0.25, 0.5, 1.0)


@dataclasses.dataclass(frozen=True)
class Curve:
    """A contender's search.

    points: of each trial that ended in time, when (seconds from the start of the process) and its validation
    score. trained: when its last epoch ended, seconds: when its process did, both likewise. test: the test
    score of its best model, and of an ensemble if it has one.
    """

    contender: str
    points: tuple[tuple[float, float], ...]
    trained: float
    test: Mapping[str, float]
    seconds: float = 0.0

    def best(self, direction: Direction) -> list[tuple[float, float]]:
        """The best score so far, and since when, a point for each improvement."""
        found: list[tuple[float, float]] = []
        for moment, score in sorted(self.points):
            last = found[-1][1] if found else None
            if last is None or (score > last if direction == "maximize" else score < last):
                found.append((moment, score))
        return found

    def at(self, seconds: float, direction: Direction) -> float | None:
        """The best score at that time; None before the first trial ended."""
        there = [score for moment, score in self.best(direction) if moment <= seconds]
        return there[-1] if there else None


def of_json(told: Mapping[str, Any]) -> Curve:
    """A curve as its `dataclasses.asdict` and JSON have it."""
    points = tuple((float(moment), float(score)) for moment, score in told["points"])
    return Curve(**{**told, "points": points})


def report(curves: Sequence[Curve], metric: str, direction: Direction, seconds: float) -> str:
    """The table of all contenders.

    Args:
        curves: of the contenders.
        metric: the score's name.
        direction: in which it gets better.
        seconds: that each had.
    """
    heads = [
        "contender",
        "trials",
        *(f"{metric} at {share * seconds:.0f} s" for share in _SHARES),
        "test score",
        "of an ensemble",
        "last epoch at (s)",
        "all in all (s)",
    ]
    lines = [
        [
            curve.contender,
            str(len(curve.points)),
            *(_score(curve.at(share * seconds, direction)) for share in _SHARES),
            _score(curve.test.get("best")),
            _score(curve.test.get("ensemble")),
            shown(curve.trained),
            shown(curve.seconds),
        ]
        for curve in curves
    ]
    return table(heads, lines)


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
