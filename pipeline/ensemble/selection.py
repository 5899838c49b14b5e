"""Which members an ensemble has, and with which weights, chosen on the validation rows.

Greedy selection with replacement: R. Caruana et al., "Ensemble Selection from Libraries of Models", ICML
2004; cut back to its best round, as later rounds overfit the validation rows.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import keras
import numpy as np

from pipeline.ensemble import duplicates, simplex
from pipeline.metrics import score_of
from pipeline.values import Answers, Array, Metric

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Curve:
    """The metric on the validation rows against the number of members, an entry for 1, 2, … of them.

    greedy: after each round of greedy selection, repeated members counted each time. uniform: of the best
    models at equal weights, up to as many as there are.
    """

    greedy: tuple[float, ...]
    uniform: tuple[float, ...]


@dataclass(frozen=True)
class Ensemble(Generic[Key]):
    """Members with their weights, which are positive and sum to one.

    value: the metric on the validation rows the members were chosen by. size: how many members, by greedy
    selection repeated ones counted each time. left_out: models that nearly answer as a better one does.
    """

    weights: Mapping[Key, float]
    value: float
    size: int
    curve: Curve
    left_out: tuple[Key, ...] = ()


@dataclass(frozen=True)
class Judge:
    """What ranks blends: targets of the validation rows, the metric, and one that decides between equals."""

    targets: Array | Mapping[str, Array]
    metric: Metric
    tie: Metric

    def score(self, blended: Answers) -> float:
        return score_of(self.metric, self.targets, blended)

    def rank(self, blended: Answers) -> tuple[float, float]:
        """Lower is better; log loss decides where many blends have one accuracy."""
        first, second = (
            (-1.0 if metric.direction == "maximize" else 1.0) * score_of(metric, self.targets, blended)
            for metric in (self.metric, self.tie)
        )
        return first, second


def select(
    method: str | Sequence[float], predictions: Mapping[Key, Answers], judge: Judge, members: int
) -> Ensemble[Key]:
    """Chooses members by their predictions of the validation rows.

    Models with answers that are not finite, and near-duplicates of better ones, are left out before.

    Args:
        method: `greedy`; `uniform`: the best `members` at equal weights; `simplex`: the weights of the least
            loss, see `simplex.weights`; or weights by hand, 0 or more, of the first predictions in their
            order, at most as many, all of them finite: only their sum is made one.
        predictions: what each model answers, by its key; where two rank the same, the first counts as better.
        judge: what is optimised.
        members: how many at most, repeated ones counted each time (1 or more); not by hand.
    """
    pool, left_out = duplicates.without(_best_first(predictions, judge), judge.targets)
    path = _greedy(pool, judge, members)
    ranks = [judge.rank(blend(pool, _equal(path[:size]))) for size in range(1, len(path) + 1)]
    best = ranks.index(min(ranks)) + 1
    if method == "greedy":
        weights = _equal(path[:best])
    elif method == "uniform":
        weights = _equal(list(pool)[:members])
    elif method == "simplex":
        weights = simplex.weights(pool, judge.targets, judge.metric, members)
    else:
        weights, left_out = _by_hand([float(weight) for weight in method], predictions), ()
    value, size = judge.score(blend(predictions, weights)), best if method == "greedy" else len(weights)
    return Ensemble(weights, value, size, _curve(ranks, pool, judge, members), left_out)


def blend(predictions: Mapping[Key, Answers], weights: Mapping[Key, float]) -> Answers:
    """The weighted mean of the members' answers, in the form of each."""

    def mean(*parts: Array) -> Array:
        total: Array = np.sum([weight * part for weight, part in zip(shares, parts, strict=True)], axis=0)
        return total

    shares = list(weights.values())
    blended: Answers = keras.tree.map_structure(mean, *(predictions[key] for key in weights))
    return blended


def _best_first(predictions: Mapping[Key, Answers], judge: Judge) -> dict[Key, Answers]:
    finite = [
        key
        for key, found in predictions.items()
        if all(np.all(np.isfinite(part)) for part in keras.tree.flatten(found))
    ]
    if not finite:
        raise ValueError("no member's predictions are finite")
    return {key: predictions[key] for key in sorted(finite, key=lambda key: judge.rank(predictions[key]))}


def _greedy(pool: Mapping[Key, Answers], judge: Judge, rounds: int) -> list[Key]:
    """The member that each round takes."""
    chosen: list[Key] = []
    flat = {key: keras.tree.flatten(found) for key, found in pool.items()}
    some = next(iter(pool.values()))
    total = [np.zeros_like(part, dtype=np.float64) for part in keras.tree.flatten(some)]
    for size in range(1, rounds + 1):
        ranks = {
            key: judge.rank(
                keras.tree.pack_sequence_as(
                    some, [(old + new) / size for old, new in zip(total, parts, strict=True)]
                )
            )
            for key, parts in flat.items()
        }
        # min keeps the first of equals, which is the better model.
        chosen.append(min(ranks, key=lambda candidate: ranks[candidate]))
        total = [old + new for old, new in zip(total, flat[chosen[-1]], strict=True)]
    return chosen


def _equal(chosen: Sequence[Key]) -> dict[Key, float]:
    return {key: chosen.count(key) / len(chosen) for key in dict.fromkeys(chosen)}


def _by_hand(weights: Sequence[float], predictions: Mapping[Key, Answers]) -> dict[Key, float]:
    whole = sum(weights)
    # A weight of 0 only keeps its place among the others.
    return {key: weight / whole for key, weight in zip(predictions, weights, strict=False) if weight}


def _curve(
    ranks: Sequence[tuple[float, float]], pool: Mapping[Key, Answers], judge: Judge, members: int
) -> Curve:
    sign = -1.0 if judge.metric.direction == "maximize" else 1.0
    best = list(pool)[:members]
    uniform = (judge.score(blend(pool, _equal(best[:size]))) for size in range(1, len(best) + 1))
    return Curve(tuple(sign * value for value, _ in ranks), tuple(uniform))
