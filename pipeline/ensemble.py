"""The ensemble of the top models: which members with which weights, and one Keras model of them.

Greedy selection with replacement: R. Caruana et al., "Ensemble Selection from Libraries of Models", ICML
2004; cut back to its best round, as later rounds overfit the validation rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from pipeline.metrics import LOG_LOSS, score
from pipeline.values import Array, Metric


@dataclass(frozen=True)
class Ensemble:
    """Members by trial number with their weights, which are positive and sum to one.

    value: the metric on the validation rows the members were chosen by.
    """

    weights: Mapping[int, float]
    value: float


def select(
    method: str, predictions: Mapping[int, Array], labels: Array, metric: Metric, members: int
) -> Ensemble:
    """Chooses members by their predictions of the validation rows.

    Args:
        method: `greedy`, or `uniform`: the first `members` at equal weights.
        predictions: probabilities by trial number, (rows, classes) each; the best trial first.
        labels: class numbers, (rows,).
        metric: what is optimised; of equal scores the lower log loss wins.
        members: how many at most, repeated ones counted each time (1 or more).
    """
    usable = {number: rows for number, rows in predictions.items() if np.all(np.isfinite(rows))}
    if not usable:
        raise ValueError("no member's predictions are finite")
    chosen = list(usable)[:members] if method == "uniform" else _greedy(usable, labels, metric, members)
    weights = _weights(chosen)
    return Ensemble(weights, score(metric.name, labels, blend(usable, weights)))


def blend(predictions: Mapping[int, Array], weights: Mapping[int, float]) -> Array:
    """The weighted mean of the members' predictions, (rows, classes)."""
    mean: Array = np.sum([weight * predictions[number] for number, weight in weights.items()], axis=0)
    return mean


def as_model(members: Sequence[tuple[keras.Model, float]], name: str = "ensemble") -> keras.Model:
    """One ordinary Keras model that answers with the weighted mean of its members' answers.

    Only layers of Keras's own are used, so the saved file opens wherever Keras is installed. The members
    become parts of it and take new names.
    """
    inputs = keras.Input(members[0][0].input_shape[1:], dtype=members[0][0].inputs[0].dtype)
    weighted = []
    for place, (member, weight) in enumerate(members):
        # Trials of one task share one model name, and a model's parts must differ in theirs.
        member.name = f"member_{place}"
        scaled = keras.layers.Rescaling(weight, name=f"weight_{place}")(member(inputs, training=False))
        weighted.append(scaled)
    outputs = weighted[0] if len(weighted) == 1 else keras.layers.Add(name="mean")(weighted)
    return keras.Model(inputs, outputs, name=name)


def _greedy(predictions: Mapping[int, Array], labels: Array, metric: Metric, rounds: int) -> list[int]:
    chosen: list[int] = []
    total = np.zeros_like(next(iter(predictions.values())), dtype=np.float64)
    for size in range(1, rounds + 1):
        ranks = {number: _rank(metric, labels, (total + rows) / size) for number, rows in predictions.items()}
        # min keeps the first of equals, which is the better trial.
        chosen.append(min(ranks, key=lambda candidate: ranks[candidate]))
        total += predictions[chosen[-1]]
    # Ranked as it will be served: where probabilities tie, the last bit of a sum decides the class.
    return min(
        (chosen[:size] for size in range(1, rounds + 1)),
        key=lambda prefix: _rank(metric, labels, blend(predictions, _weights(prefix))),
    )


def _weights(chosen: Sequence[int]) -> dict[int, float]:
    return {number: chosen.count(number) / len(chosen) for number in dict.fromkeys(chosen)}


def _rank(metric: Metric, labels: Array, probabilities: Array) -> tuple[float, float]:
    """Lower is better; log loss decides where many blends have one accuracy."""
    sign = -1.0 if metric.direction == "maximize" else 1.0
    return sign * score(metric.name, labels, probabilities), score(LOG_LOSS.name, labels, probabilities)
