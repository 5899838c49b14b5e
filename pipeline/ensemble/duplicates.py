"""Near-duplicates: models that answer the validation rows nearly as a better one does.

They add nothing to an ensemble but their cost, and take the places of others. Models that differ in no more
than their seed are none: of iris such were seen 0.0064 apart and more, of digits 0.0127.
"""

from collections.abc import Hashable, Mapping
from typing import TypeVar

import numpy as np

from pipeline.values import Answers, Array

Key = TypeVar("Key", bound=Hashable)

NEAR = 1e-3
"""Models that lie less apart are near-duplicates: a tenth of a percent of each row's probability."""


def without(
    predictions: Mapping[Key, Answers], targets: Array | Mapping[str, Array]
) -> tuple[dict[Key, Answers], tuple[Key, ...]]:
    """The models that differ from every better one, and those that do not.

    Args:
        predictions: what each model answers, by its key, the best first.
        targets: of the same rows.
    """
    kept: dict[Key, Answers] = {}
    for key, found in predictions.items():
        if all(distance(found, better, targets) >= NEAR for better in kept.values()):
            kept[key] = found
    return kept, tuple(key for key in predictions if key not in kept)


def distance(one: Answers, other: Answers, targets: Array | Mapping[str, Array]) -> float:
    """How far the answers of two models lie apart, in the mean of the rows; of several outputs, the largest.

    Of classes it is the probability that lies elsewhere (half the sum of absolute differences), from 0 to 1,
    however many classes there are; of numbers the absolute difference, in standard deviations of the targets.
    """
    if isinstance(one, Mapping) and isinstance(other, Mapping) and isinstance(targets, Mapping):
        return max(_distance(one[name], other[name], targets[name]) for name in one)
    return _distance(np.asarray(one), np.asarray(other), np.asarray(targets))


def _distance(one: Array, other: Array, targets: Array) -> float:
    apart = float(np.abs(one - other).sum(axis=-1).mean())
    if one.shape[-1] > 1:
        return apart / 2.0
    # Targets that are all the same have no spread to compare with.
    return apart / (float(targets.std()) or 1.0)
