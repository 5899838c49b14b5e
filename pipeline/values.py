"""The frozen values that flow between the rooms, checked when they are built.

space file -> Candidate -> engine -> Progress, FoldScore, Outcome -> tracking and study -> ensemble -> report
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Setting = bool | int | float | str
Settings = Mapping[str, Setting]
Direction = Literal["minimize", "maximize"]
Size = Literal["full", "small"]


@dataclass(frozen=True)
class Split:
    """Rows that belong together.

    inputs: (rows, ...) as the model takes them. targets: class numbers from 0, (rows,), or (rows, 1) for a
    model that answers with one sigmoid.
    """

    inputs: Array
    targets: Array

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.targets):
            raise ValueError(f"inputs have {len(self.inputs)} rows, targets {len(self.targets)}")
        if len(self.inputs) == 0:
            raise ValueError("a split needs at least one row")

    @property
    def rows(self) -> int:
        return len(self.targets)

    @property
    def labels(self) -> Array:
        """The class numbers, (rows,)."""
        return self.targets.reshape(-1)

    def take(self, rows: Array) -> "Split":
        """The split of these rows, given by their numbers."""
        return Split(self.inputs[rows], self.targets[rows])


class SealedSplit:
    """The test rows. Only `evaluation.py` unseals them, once a command, after every choice is made."""

    def __init__(self, split: Split) -> None:
        self._split = split

    @property
    def rows(self) -> int:
        return self._split.rows

    def unseal(self) -> Split:
        return self._split


@dataclass(frozen=True)
class Data:
    """A task's rows in three disjoint splits.

    classes: a name for each class number. source: where the rows come from, for the record.
    digests: of each split's arrays, by the names train, validation and test (see `datasets/digests.py`).
    """

    name: str
    source: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: SealedSplit
    digests: Mapping[str, str]

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise ValueError(f"{self.name}: at least two classes are needed, but classes = {self.classes}")


@dataclass(frozen=True)
class Metric:
    """A score of predictions that needs no model: its name, and which way is better."""

    name: str
    direction: Direction


@dataclass(frozen=True)
class Objective:
    """What the study optimises: a validation metric at a trial's best epoch, such as `val_accuracy`."""

    metric: str
    direction: Direction


@dataclass(frozen=True)
class Budget:
    """How long a trial may train, and what ends or slows it earlier.

    epochs: at most (1 or more). monitor: what early stopping and plateau watch, `val_loss` or a
    validation metric; mode says which way it gets better. patience and min_delta: of Keras's
    EarlyStopping, in epochs and in units of the monitor. plateau_*: factor (0..1), patience and
    cooldown (epochs), min_delta and floor (smallest learning rate) of Keras's ReduceLROnPlateau.
    """

    epochs: int
    monitor: str
    mode: Literal["min", "max"]
    patience: int
    min_delta: float
    plateau_factor: float
    plateau_patience: int
    plateau_min_delta: float
    plateau_cooldown: int
    plateau_floor: float


@dataclass(frozen=True)
class Candidate:
    """A trial to train: its number in the study, its own seed, and every setting the task reads."""

    number: int
    seed: int
    settings: Settings


@dataclass(frozen=True)
class Progress:
    """One epoch of one trial is done. epoch counts from 0, fold too; metrics as Keras logs them."""

    number: int
    fold: int
    epoch: int
    metrics: Mapping[str, float]
    objective: float


@dataclass(frozen=True)
class FoldScore:
    """One fold of a trial with folds is done; value is the objective at its best epoch."""

    number: int
    fold: int
    value: float


@dataclass(frozen=True)
class Outcome:
    """The end of a trial.

    failure: empty if it completed, else the reason. value: the objective at `best_epoch` (over folds: the
    mean; best_epoch then is the mean too, rounded). metrics: all logged values at that epoch.
    model_file: the ordinary `.keras` file with the best epoch's weights. predictions_file: `.npy`,
    (validation rows, classes). Both are None for a failed trial and for one with several folds.
    detail: a traceback, where the failure has one.
    """

    number: int
    failure: str = ""
    detail: str = ""
    value: float = float("nan")
    best_epoch: int = -1
    epochs: int = 0
    seconds: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    model_file: Path | None = None
    predictions_file: Path | None = None

    def __post_init__(self) -> None:
        if not self.failure and not np.isfinite(self.value):
            raise ValueError(f"trial {self.number} completed with the value {self.value}")
