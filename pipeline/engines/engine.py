"""What an engine is: it trains candidates and knows neither Optuna nor MLflow.

It works like an inference server. The search loop admits trials while there is room, steps what is running,
and drops what a pruner gave up:

    while engine.free():
        engine.add(candidate)
    for event in engine.step():
        ...
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pipeline.values import Candidate, FoldScore, Outcome, Progress

MODEL_FILE = "model.keras"
PREDICTIONS_FILE, SEVERAL_PREDICTIONS_FILE = "validation_predictions.npy", "validation_predictions.npz"
"""What an Outcome's files are called; the record keeps the names. The last is of several outputs, by name."""

CHECKPOINT_FILE = "checkpoint.keras"
"""What Keras's ModelCheckpoint leaves, in an Outcome's folder, where it is asked for."""

EVENTS_FOLDER = "tensorboard"
"""Event files, in an Outcome's folder or in what the record adds to it."""


@dataclass(frozen=True)
class Interrupted:
    """A trial that the engine had to end, and that is trained once more, from its last checkpoint if any."""

    number: int
    reason: str


@dataclass(frozen=True)
class Resumed:
    """A training, of a trial on a fold, goes on from a checkpoint. before: its epochs up to there."""

    number: int
    fold: int
    before: tuple[Progress, ...]


Event = Progress | FoldScore | Outcome | Interrupted | Resumed


@dataclass(frozen=True)
class Times:
    """Where the time of a training went; points are of `time.monotonic()`, in seconds.

    first: when the first epoch began, infinite before it. last: when the last one ended so far. metrics: what
    else is shown on the parent run, by name.
    """

    first: float = math.inf
    last: float = math.inf
    metrics: Mapping[str, float] = field(default_factory=dict)


class Engine(Protocol):
    """Trains candidates."""

    def free(self) -> int:
        """How many more trials can be admitted now."""

    def add(self, candidate: Candidate) -> None:
        """Admits a trial. Only while `free()` > 0."""

    def step(self) -> Sequence[Event]:
        """Advances what is running by about an epoch; what happened meanwhile, in order.

        An Outcome or Interrupted is a trial's last event and frees its place.
        """

    def drop(self, number: int) -> None:
        """Ends a running trial without an Outcome and frees its place.

        A trial that it does not have is no error: it may have ended in a step that raised.
        """

    def times(self) -> Times:
        """Where its time went so far."""

    def close(self) -> None:
        """Drops what is running and frees what the engine holds."""
