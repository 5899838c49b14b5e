"""What an evaluation finds, as frozen values."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.values import Array, Metric


@dataclass(frozen=True)
class Score:
    """A score of the test rows and its 95 % bootstrap interval (percentiles, rows resampled).

    All three are NaN where the score is not defined: the model's answers are not finite, no row has what the
    score needs. The interval is of those resamples in which it is defined.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """What a model scores minus what the other does, both on the same resamples.

    model, other: their names. metric: what is scored.
    """

    model: str
    other: str
    metric: Metric
    score: Score


@dataclass(frozen=True)
class ClassScore:
    """One class by one model.

    rows: that are of the class. said: rows that the model says are. precision: of those it says, the share
    that are; NaN for a class that it never says. recall: of those that are, the share it says; NaN for a
    class that no row has.
    """

    name: str
    rows: int
    said: int
    precision: Score
    recall: Score


@dataclass(frozen=True)
class Bin:
    """Rows whose top class has a probability above low and at most high.

    confidence: the mean of those probabilities; accuracy: the share of the rows that are right; both NaN
    without rows.
    """

    low: float
    high: float
    rows: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Classified:
    """What a model took for what, in one output.

    confusion: (classes, classes), rows that are of the first and said to be of the second.
    """

    by_class: tuple[ClassScore, ...]
    confusion: Array
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Estimated:
    """The numbers of one output and what a model answered, (rows,) each."""

    targets: Array
    answers: Array


Detail = Classified | Estimated


@dataclass(frozen=True)
class Evaluation:
    """All that the test rows say.

    own: names of the task's own metrics. metrics: all that is scored, by its name; those first. scores: by
    model, then by the name of the metric. differences: ensemble - champion and champion - baseline, by each
    metric. details: by output ("" of the only one), then by model; without models that have an answer there
    that is not finite.
    """

    own: tuple[str, ...]
    metrics: Mapping[str, Metric]
    scores: Mapping[str, Mapping[str, Score]]
    differences: tuple[Difference, ...]
    details: Mapping[str, Mapping[str, Detail]]
