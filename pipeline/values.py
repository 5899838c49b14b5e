"""The frozen values that flow between the rooms, checked when they are built.

space file -> Candidate -> engine -> Progress, FoldScore, Outcome -> tracking and study -> ensemble -> report
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Answers = Array | Mapping[str, Array]
"""What a model answers: (rows, classes) of probabilities or (rows, 1) of numbers; several outputs by name."""
Setting = bool | int | float | str
Settings = Mapping[str, Setting]
Direction = Literal["minimize", "maximize"]
Size = Literal["full", "small"]

# Numbers that are held in 64 bits at once: 256 MiB of them.
_MOST_WIDE = 2**25


@dataclass(frozen=True)
class Split:
    """Rows that belong together.

    inputs: (rows, ...) as the model takes them; of a model with several inputs, each by its input's name.
    targets: class numbers from 0, (rows,), or (rows, 1) for a model that answers with one sigmoid, or one-hot
    (rows, classes); of a model with several outputs, each by its output's name. weights: how much each row
    counts in the loss, Keras's `sample_weight`, (rows,), finite and 0 or more; without them each row counts
    1. groups: a number a row, (rows,): no split parts rows of one number. times: likewise, what orders the
    rows: none is learned from that is later than one that is validated or tested on. places: likewise, which
    of its source's rows it is, from 0, where a task can read those again (`Task.raw`).
    """

    inputs: Array | Mapping[str, Array]
    targets: Array | Mapping[str, Array]
    weights: Array | None = None
    groups: Array | None = None
    times: Array | None = None
    places: Array | None = None

    def __post_init__(self) -> None:
        for what, part in (("inputs", self.inputs), ("targets", self.targets)):
            if isinstance(part, Mapping) and not part:
                raise ValueError(f"a split needs {what}, but has none")
        rows = {" ".join(place): len(array) for place, array in self.arrays.items()}
        if len(set(rows.values())) > 1:
            # Each place, as any of them may be the one that is wrong.
            raise ValueError(
                f"a split's arrays need the same rows, but {', '.join(f'{p}: {n}' for p, n in rows.items())}"
            )
        if self.rows == 0:
            raise ValueError("a split needs at least one row")
        if self.weights is not None:
            if self.weights.ndim != 1:
                raise ValueError(f"weights: must be (rows,), but have the shape {self.weights.shape}")
            if not np.all(np.isfinite(self.weights) & (self.weights >= 0)):
                raise ValueError("weights: must be finite and 0 or more")

    @property
    def arrays(self) -> Mapping[tuple[str, ...], Array]:
        """Every array by its place: `("inputs",)`, or `("inputs", name)` where they go by name; and so on."""
        found: dict[tuple[str, ...], Array] = {}
        for what, part in (("inputs", self.inputs), ("targets", self.targets), ("weights", self.weights)):
            if isinstance(part, Mapping):
                found |= {(what, name): array for name, array in part.items()}
            elif part is not None:
                found[what,] = part
        return found

    @property
    def rows(self) -> int:
        return len(next(iter(self.arrays.values())))

    @property
    def one_input(self) -> Array:
        """The inputs of a model that takes one, (rows, ...).

        Raises:
            TypeError: the inputs go by name.
        """
        if isinstance(self.inputs, Mapping):
            raise TypeError(f"one input is needed, but the inputs are {', '.join(self.inputs)}")
        return self.inputs

    @property
    def labels(self) -> Array:
        """The class numbers, (rows,).

        Raises:
            TypeError: there are several targets, or the target is no class a row.
        """
        target = self._one_target()
        if target.ndim > 2:
            raise TypeError(f"labels are one class number a row, but the targets' shape is {target.shape}")
        return class_numbers(target)

    @functools.cached_property
    def moments(self) -> tuple[Array, Array]:
        """Mean and variance of the only input by its last axis, (features,) of float64 each."""
        inputs = self.one_input
        axes = tuple(range(inputs.ndim - 1))
        mean: Array = inputs.mean(axes, dtype=np.float64)
        return mean, _variance(inputs, mean, axes)

    @functools.cached_property
    def extremes(self) -> tuple[Array, Array]:
        """Smallest and largest number of the only input by its last axis, (features,) of float64 each."""
        inputs = self.one_input
        axes = tuple(range(inputs.ndim - 1))
        return inputs.min(axes).astype(np.float64), inputs.max(axes).astype(np.float64)

    def take(self, rows: Array) -> "Split":
        """The split of these rows, given by their numbers."""
        beside = {
            name: None if part is None else part[rows]
            for name, part in (
                ("weights", self.weights),
                ("groups", self.groups),
                ("times", self.times),
                ("places", self.places),
            )
        }
        return Split(_take(self.inputs, rows), _take(self.targets, rows), **beside)

    def balanced(self) -> "Split":
        """The split with weights of which each class has the same sum, their mean one."""
        return replace(self, weights=balance(self.labels))

    def joined(self, other: "Split") -> "Split":
        """The rows of both, these first."""
        beside = {
            name: None if one is None or two is None else np.concatenate([one, two])
            for name, one, two in (
                ("weights", self.weights, other.weights),
                ("groups", self.groups, other.groups),
                ("times", self.times, other.times),
                ("places", self.places, other.places),
            )
        }
        return Split(_joined(self.inputs, other.inputs), _joined(self.targets, other.targets), **beside)

    def weighted(self, by_class: Mapping[int, float]) -> "Split":
        """The split with the weight of its class on each row, as Keras's `class_weight`.

        A class that is not named weighs 1. Weights that the rows have already are multiplied. Of targets in
        several columns, (rows, classes), a row's class is the column with the largest number.

        Raises:
            TypeError: there are several targets.
        """
        classes = np.rint(class_numbers(self._one_target()))
        weights = np.array([by_class.get(int(number), 1.0) for number in classes], dtype=np.float32)
        return replace(self, weights=weights if self.weights is None else self.weights * weights)

    def _one_target(self) -> Array:
        if isinstance(self.targets, Mapping):
            raise TypeError(f"one target is needed, but the targets are {', '.join(self.targets)}")
        return self.targets


def balance(labels: Array) -> Array:
    """A weight for each row, (rows,): the same sum for each class that is there, their mean one."""
    _, place, counts = np.unique(labels, return_inverse=True, return_counts=True)
    weights: Array = len(labels) / (len(counts) * counts[place])
    return weights


def class_numbers(target: Array) -> Array:
    """A target as one number a row, (rows,): of (rows, classes), the number of the largest column."""
    several = target.ndim == 2 and target.shape[1] > 1
    numbers: Array = target.argmax(axis=1) if several else target.reshape(-1)
    return numbers


def _variance(array: Array, mean: Array, axes: tuple[int, ...]) -> Array:
    """Of float64. NumPy's own has all numbers in 64 bits at once: eight times the size of 8-bit pictures."""
    parts = -(-array.size // _MOST_WIDE)
    if parts <= 1:
        found: Array = array.var(axes, dtype=np.float64)
        return found
    rows = -(-len(array) // parts)
    total = np.zeros_like(mean)
    for first in range(0, len(array), rows):
        total += np.square(array[first : first + rows] - mean).sum(axes)
    return total / (array.size // max(mean.size, 1))


def _joined(one: Any, two: Any) -> Any:
    if isinstance(one, Mapping):
        return {name: np.concatenate([array, two[name]]) for name, array in one.items()}
    return np.concatenate([one, two])


def _take(part: Array | Mapping[str, Array], rows: Array) -> Array | Mapping[str, Array]:
    if isinstance(part, Mapping):
        return {name: array[rows] for name, array in part.items()}
    taken: Array = part[rows]
    return taken


class SealedSplit:
    """The test rows. Only `evaluation/` unseals them, once a command, after every choice is made."""

    def __init__(self, split: Split) -> None:
        self._split = split

    @property
    def rows(self) -> int:
        return self._split.rows

    def unseal(self) -> Split:
        return self._split

    def changed(self, change: Callable[[Split], Split]) -> "SealedSplit":
        """The same rows in another form, still sealed. change: looks at no score."""
        return SealedSplit(change(self._split))


@dataclass(frozen=True)
class Fold:
    """The row numbers in the whole training split of one fold of a cross-validation.

    learn: of the rows that are trained on. check: of the rows that are validated on.
    """

    learn: Array
    check: Array


@dataclass(frozen=True)
class Data:
    """A task's rows in three disjoint splits.

    classes: a name for each class number; empty where the targets go by name. source: where the rows come
    from, for the record. digests: of each split's arrays, by the names train, validation and test (see
    `datasets/digests.py`). fold: where train and validation are a fold of a cross-validation, the row numbers
    that they came from. outputs: of a model with several outputs, by each one's name its classes, none where
    it answers with a number. words: of inputs that hold word numbers, by their names ("" of the only input),
    how many there are. best: the best possible expected score by the name of a metric, where it is known.
    balanced: whether the rows' weights are such that each class has the same sum, in every part.
    """

    name: str
    source: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: SealedSplit
    digests: Mapping[str, str]
    fold: Fold | None = None
    outputs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    words: Mapping[str, int] = field(default_factory=dict)
    best: Mapping[str, float] = field(default_factory=dict)
    balanced: bool = False

    def __post_init__(self) -> None:
        if self.outputs and self.classes:
            raise ValueError(f"{self.name}: its outputs have their own classes, but classes = {self.classes}")
        for name, classes in (self.outputs or {"": self.classes}).items():
            # An output without classes is a number.
            if len(classes) == 1 or not (name or classes):
                what = f"the classes of {name}" if name else "classes"
                raise ValueError(f"{self.name}: at least two classes are needed, but {what} = {classes}")
        if self.fold:
            numbered = (len(self.fold.learn), len(self.fold.check))
            rows = (self.train.rows, self.validation.rows)
            if numbered != rows:
                raise ValueError(f"{self.name}: the fold numbers {numbered} rows, but its splits have {rows}")


@dataclass(frozen=True)
class Metric:
    """A score of predictions that needs no model: its name, and which way is better.

    The name is the one in Keras's logs. output: the name of the output that it scores, where a model has
    several. parts: of a fixed mean of scores, which Keras does not log: the scores, and how much each counts.
    """

    name: str
    direction: Direction
    output: str = ""
    parts: tuple[tuple["Metric", float], ...] = ()


@dataclass(frozen=True)
class Objective:
    """What the study optimises: a validation metric at a trial's best epoch, such as `val_accuracy`.

    means: fixed means of logged metrics that Keras does not log itself: of each the name, and the names of
    the metrics with how much each counts.
    """

    metric: str
    direction: Direction
    means: tuple[tuple[str, tuple[tuple[str, float], ...]], ...] = ()

    def with_means(self, logs: Mapping[str, Any]) -> dict[str, Any]:
        """What an epoch logged, with the means of training and of validation."""
        found = dict(logs)
        for name, parts in self.means:
            for prefix in ("", "val_"):
                if all(prefix + part in logs for part, _ in parts):
                    found[prefix + name] = sum(logs[prefix + part] * share for part, share in parts)
        return found


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
class Replay:
    """The row orders that a trial was trained in, when it was admitted to a running program.

    seed: of the orders. program: its number. first_epoch: the program's epoch that was the trial's first,
    from 0. lanes: how many the program had, on which the last bits of the result depend, and nothing else.
    turns: of a trial that went on from checkpoints, each time the first epoch of the trial that it trained
    then, and the program's epoch that this was.
    """

    seed: int
    program: int
    first_epoch: int
    lanes: int
    turns: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        # A record gives lists.
        turns = tuple((int(epoch), int(of_program)) for epoch, of_program in self.turns)
        object.__setattr__(self, "turns", turns)

    def of_program(self, epoch: int) -> int:
        """The program's epoch that an epoch of the trial was."""
        begun, first = 0, self.first_epoch
        for turn, of_program in self.turns:
            if turn <= epoch:
                begun, first = turn, of_program
        return first + epoch - begun


@dataclass(frozen=True)
class Candidate:
    """A trial to train: its number in the study, its own seed, and every setting the task reads.

    replay: the row orders to train in, where they are not the trial's own. epochs: how many it trains
    exactly, to have the last one's weights; 0 where the budget ends it, to have the best one's.
    """

    number: int
    seed: int
    settings: Settings
    replay: Replay | None = None
    epochs: int = 0


@dataclass(frozen=True, order=True)
class Member:
    """A model that an ensemble may take.

    trial: the trial with its settings. copy: 0 for the trial's own seed, from 1 for further ones.
    """

    trial: int
    copy: int = 0

    @classmethod
    def of(cls, label: str) -> "Member":
        """The member with that label, `12` or `12-1`."""
        trial, _, copy = label.partition("-")
        return cls(int(trial), int(copy or 0))

    def __str__(self) -> str:
        return f"{self.trial}-{self.copy}" if self.copy else str(self.trial)

    @property
    def described(self) -> str:
        return f"trial {self.trial} seed {self.copy}" if self.copy else f"trial {self.trial}"


@dataclass(frozen=True)
class Progress:
    """One epoch of one trial is done.

    epoch counts from 0, fold too; metrics as Keras logs them. steps: what the optimiser counts, so far.
    """

    number: int
    fold: int
    epoch: int
    metrics: Mapping[str, float]
    objective: float
    steps: int = 0


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
    (validation rows, classes); of a model with several outputs `.npz`, each by its name. Both are None for a
    failed trial and for one with several folds.
    detail: a traceback, where the failure has one. replay: the row orders of a trial that shared a program's.
    folder: what else the trial keeps, by the names that the record gives it; None for nothing.
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
    replay: Replay | None = None
    folder: Path | None = None

    def __post_init__(self) -> None:
        if not self.failure and not np.isfinite(self.value):
            raise ValueError(f"trial {self.number} completed with the value {self.value}")
