"""What a measurement says, as it goes from one process to another; imports neither Keras nor a backend."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Speed:
    """How fast trials trained side by side.

    Attributes:
        lanes: how many trials; 1 for `model.fit`.
        seconds: of an epoch of all of them, with its validation; measured several times, at full speed.
        ready_seconds: what came before training at full speed: tracing and compiling.
        total_seconds: of everything from the first model's build to the last epoch's end.
        facts: what else was found, by name.
    """

    lanes: int
    seconds: Sequence[float]
    ready_seconds: float
    total_seconds: float
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Trial-epochs a second, by the median epoch."""
        return self.lanes / statistics.median(self.seconds)

    def as_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Speed":
        return cls(**json.loads(text))


def together(speeds: Sequence[Speed]) -> Speed:
    """Several measurements of one thing as one: all their epochs, and the median of the rest."""
    return Speed(
        speeds[0].lanes,
        [seconds for speed in speeds for seconds in speed.seconds],
        statistics.median(speed.ready_seconds for speed in speeds),
        statistics.median(speed.total_seconds for speed in speeds),
        speeds[0].facts,
    )


def table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    rows = [heads, ["---"] * len(heads), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def shown(number: float | None) -> str:
    """Three digits that count; a dash for what was not measured."""
    if number is None:
        return "–"
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"
