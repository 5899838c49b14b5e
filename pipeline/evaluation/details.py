"""What stands behind the scores of an output's classes: confusions, each class, calibration."""

import numpy as np

from pipeline.evaluation.classes import BINS, bins_of, right
from pipeline.evaluation.findings import Bin, Classified, ClassScore, Score
from pipeline.values import Array


def classified(
    labels: Array,
    probabilities: Array,
    classes: tuple[str, ...],
    precision: list[Score],
    recall: list[Score],
) -> Classified:
    """What a model took for what.

    Args:
        labels: class numbers, (rows,).
        probabilities: finite, (rows, classes).
        classes: their names; a class that the model has beyond these goes by its number.
        precision: of each class.
        recall: of each class.
    """
    said, many = probabilities.argmax(axis=1), probabilities.shape[1]
    names = [*classes, *map(str, range(len(classes), many))]
    confusion = np.bincount(labels * many + said, minlength=many * many).reshape(many, many)
    by_class = tuple(
        ClassScore(name, int(confusion[number].sum()), int(confusion[:, number].sum()), *scores)
        for number, (name, *scores) in enumerate(zip(names, precision, recall, strict=True))
    )
    return Classified(by_class, confusion, _bins(labels, probabilities))


def _bins(labels: Array, probabilities: Array) -> tuple[Bin, ...]:
    top, hits, bins = probabilities.max(axis=1), right(labels, probabilities), bins_of(probabilities)
    found = []
    for number in range(BINS):
        inside = bins == number
        rows = int(inside.sum())
        means = (float(top[inside].mean()), float(hits[inside].mean())) if rows else (np.nan, np.nan)
        found.append(Bin(number / BINS, (number + 1) / BINS, rows, *means))
    return tuple(found)
