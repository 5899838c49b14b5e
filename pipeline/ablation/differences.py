"""Differences of test scores between two arms, paired by seed, with their intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from pipeline.ablation.plan import Arm, Group
from pipeline.values import Settings

_CONFIDENCE = 0.95

Scores = Mapping[str, Mapping[int, Mapping[str, float]]]
"""Test scores by arm, by the number of the seed, by metric."""


@dataclass(frozen=True)
class Difference:
    """A metric of an arm minus that of the arm it is compared with.

    mean: over the seeds that both finished with. low, high: of its 95 % interval over seeds (Student's t, as
    differences of pairs; NaN for a single seed). score: the arm's own mean. change: the settings in which the
    arm differs, with its values.
    """

    arm: str
    against: str
    metric: str
    mean: float
    low: float
    high: float
    score: float
    seeds: int
    change: str


def of_group(group: Group, scores: Scores, metrics: Sequence[str]) -> list[Difference]:
    """Every comparison of a group by every metric; none for an arm that no seed finished."""
    arms = {arm.name: arm for arm in group.arms}
    return [
        _difference(arm, arms[arm.against], metric, scores)
        for arm in group.arms
        for metric in metrics
        if arm.against and scores[arm.name].keys() & scores[arm.against].keys()
    ]


def _change(before: Settings, after: Settings) -> str:
    return ", ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in after.items()
        if value != before[name]
    )


def _difference(arm: Arm, against: Arm, metric: str, scores: Scores) -> Difference:
    ours, theirs = scores[arm.name], scores[against.name]
    seeds = sorted(ours.keys() & theirs.keys())
    own = np.array([ours[seed][metric] for seed in seeds])
    pairs = own - np.array([theirs[seed][metric] for seed in seeds])
    mean, half = float(pairs.mean()), math.nan
    if len(seeds) > 1:
        error = float(pairs.std(ddof=1)) / math.sqrt(len(seeds))
        half = float(stats.t.ppf((1 + _CONFIDENCE) / 2, len(seeds) - 1)) * error
    return Difference(
        arm.name,
        against.name,
        metric,
        mean,
        mean - half,
        mean + half,
        float(own.mean()),
        len(seeds),
        _change(against.settings, arm.settings),
    )
