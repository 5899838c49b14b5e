"""The ensemble of the top models: which members with which weights, and one Keras model of them.

Greedy selection with replacement: R. Caruana et al., "Ensemble Selection from Libraries of Models", ICML
2004; cut back to its best round, as later rounds overfit the validation rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from pipeline import answers
from pipeline.metrics import score_of
from pipeline.values import Answers, Array, Metric


@dataclass(frozen=True)
class Ensemble:
    """Members by trial number with their weights, which are positive and sum to one.

    value: the metric on the validation rows the members were chosen by.
    """

    weights: Mapping[int, float]
    value: float


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


def select(method: str, predictions: Mapping[int, Answers], judge: Judge, members: int) -> Ensemble:
    """Chooses members by their predictions of the validation rows.

    Args:
        method: `greedy`, or `uniform`: the first `members` at equal weights.
        predictions: what each trial's model answers, by its number; the best trial first.
        judge: what is optimised.
        members: how many at most, repeated ones counted each time (1 or more).
    """
    usable = {
        number: found
        for number, found in predictions.items()
        if all(np.all(np.isfinite(part)) for part in keras.tree.flatten(found))
    }
    if not usable:
        raise ValueError("no member's predictions are finite")
    chosen = list(usable)[:members] if method == "uniform" else _greedy(usable, judge, members)
    weights = _weights(chosen)
    return Ensemble(weights, judge.score(blend(usable, weights)))


def blend(predictions: Mapping[int, Answers], weights: Mapping[int, float]) -> Answers:
    """The weighted mean of the members' answers, in the form of each."""

    def mean(*parts: Array) -> Array:
        total: Array = np.sum([weight * part for weight, part in zip(shares, parts, strict=True)], axis=0)
        return total

    shares = list(weights.values())
    blended: Answers = keras.tree.map_structure(mean, *(predictions[number] for number in weights))
    return blended


def as_model(members: Sequence[tuple[keras.Model, float]], name: str = "ensemble") -> keras.Model:
    """One ordinary Keras model that answers with the weighted mean of its members' answers.

    Only layers of Keras's own are used, so the saved file opens wherever Keras is installed. The members
    become parts of it and take new names. Inputs and outputs have the members' names and structure; an output
    of logits becomes one of probabilities, as only those can be averaged.
    """
    first = members[0][0]
    given = first.inputs[0] if isinstance(first, keras.Sequential) else first.input
    inputs = keras.tree.map_structure(_input_like, given)
    parts: dict[str, list[Any]] = {}
    for place, (member, weight) in enumerate(members):
        # Trials of one task share one model name, and a model's parts must differ in theirs.
        member.name = f"member_{place}"
        answered = member(inputs, training=False)
        named = answers.by_name(member, answered)
        links = answers.links_of(member, named)
        for output, part in named.items():
            called = f"{place}_{output}" if output else str(place)
            parts.setdefault(output, []).append(_weighted(part, weight, links.get(output, ""), called))
    means = {output: _mean(column, output or "mean") for output, column in parts.items()}
    # By name where they have names: a tree flattens those in an order of its own.
    outputs = (
        means
        if isinstance(answered, Mapping)
        else keras.tree.pack_sequence_as(answered, list(means.values()))
    )
    return keras.Model(inputs, outputs, name=name)


def _input_like(tensor: Any) -> Any:
    return keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=tensor.name)


def _weighted(part: Any, weight: float, link: str, name: str) -> Any:
    if link:
        part = keras.layers.Activation(link, name=f"{link}_{name}")(part)
    return keras.layers.Rescaling(weight, name=f"weight_{name}")(part)


def _mean(weighted: list[Any], name: str) -> Any:
    if len(weighted) == 1:
        return keras.layers.Identity(name=name)(weighted[0])
    return keras.layers.Add(name=name)(weighted)


def _greedy(predictions: Mapping[int, Answers], judge: Judge, rounds: int) -> list[int]:
    chosen: list[int] = []
    flat = {number: keras.tree.flatten(found) for number, found in predictions.items()}
    some = next(iter(predictions.values()))
    total = [np.zeros_like(part, dtype=np.float64) for part in keras.tree.flatten(some)]
    for size in range(1, rounds + 1):
        ranks = {
            number: judge.rank(
                keras.tree.pack_sequence_as(
                    some, [(old + new) / size for old, new in zip(total, parts, strict=True)]
                )
            )
            for number, parts in flat.items()
        }
        # min keeps the first of equals, which is the better trial.
        chosen.append(min(ranks, key=lambda candidate: ranks[candidate]))
        total = [old + new for old, new in zip(total, flat[chosen[-1]], strict=True)]
    # Ranked as it will be served: where probabilities tie, the last bit of a sum decides the class.
    return min(
        (chosen[:size] for size in range(1, rounds + 1)),
        key=lambda prefix: judge.rank(blend(predictions, _weights(prefix))),
    )


def _weights(chosen: Sequence[int]) -> dict[int, float]:
    return {number: chosen.count(number) / len(chosen) for number in dict.fromkeys(chosen)}
