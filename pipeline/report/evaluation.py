"""What the test rows say, as sections of a report: scores, differences, classes, confusions, calibration."""

import math
from collections.abc import Mapping
from pathlib import Path

from pipeline.evaluation.findings import Classified, Detail, Difference, Estimated, Evaluation, Score
from pipeline.evaluation.record import safe_names
from pipeline.report import figures, verdicts
from pipeline.report.figures import Span
from pipeline.report.page import Section
from pipeline.values import Direction

MOST_CLASSES = 30
"""Of an output with more classes, tables and confusions would not be readable."""

_BETTER = {"maximize": "more", "minimize": "less"}
_SCORES = (
    "Every score with its 95\u00a0% interval: percentiles of 2,000 resamples of the test rows, the same for"
    " all models. ece is the expected calibration error, in 15 bins."
)
_DIFFERENCES = (
    "What one model scores minus what another does on the same resamples. So a difference may be clear, its"
    " interval without zero, where the two models' own intervals overlap. Green is clearly better."
)
_CLASSES = (
    "Precision: of the rows that a model says are of the class, the share that are. Recall: of the rows of"
    " the class, the share that it says are."
)
_CALIBRATION = (
    "Rows in 15 bins by the probability of their top class: the share that is right against the mean"
    " probability. Below the diagonal a model is too sure of itself. A bin of few rows says little."
)
_CONFUSION = (
    "Test rows by their class and by the class they are said to be of; darker is a larger share of a class."
)
_NUMBERS = "A point is a test row; on the diagonal a prediction is right."
_MANY = (
    f"More than {MOST_CLASSES} classes: what became of each one is in evaluation/per_class.csv and"
    " evaluation/confusion_matrix.csv."
)


def sections(evaluation: Evaluation, folder: Path) -> list[Section]:
    """The sections, whose pictures are drawn into the folder."""
    found = [Section("Scores on the test rows", _SCORES, _score_table(evaluation))]
    if evaluation.differences:
        picture = figures.save(figures.spans(_spans(evaluation)), folder / "differences.png")
        found.append(
            Section("Differences between models", _DIFFERENCES, _difference_table(evaluation), picture)
        )
    names = safe_names(list(evaluation.details))
    for (output, by_model), name in zip(evaluation.details.items(), names, strict=True):
        found += _of_output(output, by_model, folder, f"_{name}.png" if output else ".png")
    return found


def estimates(picture: Path, output: str) -> Section:
    """What models answer to single test rows, of an output that is a number."""
    return Section(_headed("Predicted against true", output), _NUMBERS, picture=picture)


def _of_output(output: str, by_model: Mapping[str, Detail], folder: Path, end: str) -> list[Section]:
    """end: of the names of its pictures."""
    classified = {model: found for model, found in by_model.items() if isinstance(found, Classified)}
    estimated = {model: found for model, found in by_model.items() if isinstance(found, Estimated)}
    if estimated:
        picture = figures.save(verdicts.estimates(estimated), folder / f"predicted_and_true{end}")
        return [estimates(picture, output)]
    if not classified:
        return []
    bins = {model: found.bins for model, found in classified.items()}
    picture = figures.save(verdicts.calibration(bins), folder / f"calibration{end}")
    return [
        *_of_classes(output, classified, folder, end),
        Section(_headed("Calibration", output), _CALIBRATION, picture=picture),
    ]


def _of_classes(output: str, by_model: Mapping[str, Classified], folder: Path, end: str) -> list[Section]:
    """Tables of the classes, and the confusion matrix of the last model, which is the ensemble."""
    model, last = list(by_model.items())[-1]
    if len(last.by_class) > MOST_CLASSES:
        return [Section(_headed("Classes", output), _MANY)]
    picture = figures.save(verdicts.confusion(last), folder / f"confusion_matrix{end}")
    return [
        Section(_headed("Classes", output), _CLASSES, _class_table(by_model)),
        Section(_headed(f"Confusion matrix of the {model}", output), _CONFUSION, picture=picture),
    ]


def _score_table(evaluation: Evaluation) -> list[list[str]]:
    rows = [
        [name, _BETTER[metric.direction], *(_told(scores[name]) for scores in evaluation.scores.values())]
        for name, metric in evaluation.metrics.items()
    ]
    return [["score", "better", *evaluation.scores], *rows]


def _difference_table(evaluation: Evaluation) -> list[list[str]]:
    """A row a score, a column a pair of models."""
    by_pair = _by_pair(evaluation)
    rows = [
        [name, _BETTER[metric.direction], *(_told(found[name].score, "+") for found in by_pair.values())]
        for name, metric in evaluation.metrics.items()
    ]
    return [["score", "better", *by_pair], *rows]


def _class_table(by_model: Mapping[str, Classified]) -> list[list[str]]:
    head = [f"{kind} of {model}" for model in by_model for kind in ("precision", "recall")]
    rows = []
    for places in zip(*(found.by_class for found in by_model.values()), strict=True):
        told = [_told(score) for one in places for score in (one.precision, one.recall)]
        rows.append([places[0].name, str(places[0].rows), *told])
    return [["class", "test rows", *head], *rows]


def _spans(evaluation: Evaluation) -> dict[str, tuple[Direction, list[Span]]]:
    by_pair = _by_pair(evaluation)
    return {
        name: (
            metric.direction,
            [
                Span(pair, found[name].score.value, found[name].score.low, found[name].score.high)
                for pair, found in by_pair.items()
            ],
        )
        for name, metric in evaluation.metrics.items()
    }


def _by_pair(evaluation: Evaluation) -> dict[str, dict[str, Difference]]:
    """The differences by the names of both models, then by the score."""
    found: dict[str, dict[str, Difference]] = {}
    for one in evaluation.differences:
        found.setdefault(f"{one.model} − {one.other}", {})[one.metric.name] = one
    return found


def _told(score: Score, sign: str = "") -> str:
    if not math.isfinite(score.value):
        return "not defined"
    return f"{score.value:{sign}.4f} [{score.low:{sign}.4f}, {score.high:{sign}.4f}]"


def _headed(heading: str, output: str) -> str:
    return f"{heading}: {output}" if output else heading
