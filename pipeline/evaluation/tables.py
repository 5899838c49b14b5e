"""An evaluation as CSV files: all of it, a number a cell, NaN where a score is not defined."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple

from pipeline.evaluation.findings import Classified, Evaluation


def files(evaluation: Evaluation) -> dict[str, str]:
    """The text of each file by its name; `output` is empty where a model has only one.

    scores.csv: every score of every model. differences.csv: of two models on the same resamples. Of outputs
    that are classes, where there are such: per_class.csv; confusion_matrix.csv, a row a cell, without those
    that are 0; calibration.csv.
    """
    found = {"scores.csv": _scores(evaluation), "differences.csv": _differences(evaluation)}
    if list(_classified(evaluation)):
        found |= {
            "per_class.csv": _per_class(evaluation),
            "confusion_matrix.csv": _confusions(evaluation),
            "calibration.csv": _calibration(evaluation),
        }
    return found


def _scores(evaluation: Evaluation) -> str:
    rows = (
        (model, evaluation.metrics[name].output, name, *astuple(score))
        for model, scores in evaluation.scores.items()
        for name, score in scores.items()
    )
    return _text(("model", "output", "score", "value", "low", "high"), rows)


def _differences(evaluation: Evaluation) -> str:
    rows = (
        (one.model, one.other, one.metric.output, one.metric.name, *astuple(one.score))
        for one in evaluation.differences
    )
    return _text(("model", "minus", "output", "score", "difference", "low", "high"), rows)


def _per_class(evaluation: Evaluation) -> str:
    rows = (
        (model, output, one.name, one.rows, one.said, *astuple(one.precision), *astuple(one.recall))
        for model, output, found in _classified(evaluation)
        for one in found.by_class
    )
    spans = [f"{kind}{end}" for kind in ("precision", "recall") for end in ("", "_low", "_high")]
    return _text(("model", "output", "class", "rows", "predicted_rows", *spans), rows)


def _confusions(evaluation: Evaluation) -> str:
    rows = (
        (model, output, true.name, said.name, int(count))
        for model, output, found in _classified(evaluation)
        for true, counts in zip(found.by_class, found.confusion, strict=True)
        for said, count in zip(found.by_class, counts, strict=True)
        if count
    )
    return _text(("model", "output", "class", "predicted_class", "rows"), rows)


def _calibration(evaluation: Evaluation) -> str:
    rows = (
        (model, output, one.low, one.high, one.rows, one.confidence, one.accuracy)
        for model, output, found in _classified(evaluation)
        for one in found.bins
    )
    head = ("model", "output", "above", "up_to", "rows", "mean_probability", "accuracy")
    return _text(head, rows)


def _classified(evaluation: Evaluation) -> Iterator[tuple[str, str, Classified]]:
    for output, by_model in evaluation.details.items():
        for model, found in by_model.items():
            if isinstance(found, Classified):
                yield model, output, found


def _text(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue()
