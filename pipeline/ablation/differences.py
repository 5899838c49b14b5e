"""Differences of test scores between two arms, paired by seed, with their intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from pipeline.ablation.plan import Group

_CONFIDENCE = 0.95

Scores = Mapping[str, Mapping[int, Mapping[str, float]]]
"""Test scores by arm, by the number of the seed, by metric."""


@dataclass(frozen=True)
class Difference:
    """A metric of an arm minus that of the arm it is compared with.

    mean: over the seeds that both finished with. low, high: of its 95 % interval over seeds (Student's t, as
    differences of pairs; NaN for a single seed). score: the arm's own mean.
    """

    arm: str
    against: str
    metric: str
    mean: float
    low: float
    high: float
    score: float
    seeds: int

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def of_group(group: Group, scores: Scores, metrics: Sequence[str]) -> list[Difference]:
    """Every comparison of a group by every metric; none for an arm that no seed finished."""
    return [
        _difference(arm.name, arm.against, metric, scores)
        for arm in group.arms
        for metric in metrics
        if arm.against and scores[arm.name].keys() & scores[arm.against].keys()
    ]


def _difference(arm: str, against: str, metric: str, scores: Scores) -> Difference:
    seeds = sorted(scores[arm].keys() & scores[against].keys())
    own = np.array([scores[arm][seed][metric] for seed in seeds])
    pairs = own - np.array([scores[against][seed][metric] for seed in seeds])
    mean, half = float(pairs.mean()), math.nan
    if len(seeds) > 1:
        error = float(pairs.std(ddof=1)) / math.sqrt(len(seeds))
        half = float(stats.t.ppf((1 + _CONFIDENCE) / 2, len(seeds) - 1)) * error
    return Difference(arm, against, metric, mean, mean - half, mean + half, float(own.mean()), len(seeds))
