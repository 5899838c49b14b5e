"""Weights that are free on the simplex: 0 or more, with the sum one.

Log loss and squared error of a blend are convex in its weights, so there is one least value, and SLSQP finds
it from equal weights with the exact gradient. What is no smooth function of the weights (accuracy, absolute
error) has one that stands for it: the log loss of an output of classes, the squared error of numbers; of a
fixed mean of scores each part has its own, with its share.

Free weights fit the validation rows more closely than greedy selection, whose few rounds hold them back, and
may overfit few rows: L. Purucker and J. Beel, "CMA-ES for Post Hoc Ensembling in AutoML: A Great Success and
Salvageable Failure", AutoML 2023.
"""

import logging
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy.optimize import minimize

from pipeline.values import Answers, Array, Metric

_log = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)

SMALLEST = 1e-3
"""Members of a smaller share are left out: they cost a whole model each, and change next to nothing."""

# Keras clips probabilities there; added instead, it leaves the loss smooth.
_FUZZ = 1e-7
_TOLERANCE, _ROUNDS = 1e-12, 1000
# Of the loss at equal weights: what the weights may be from the best without a word.
_GAP = 1e-4


def weights(
    predictions: Mapping[Key, Answers],
    targets: Array | Mapping[str, Array],
    metric: Metric,
    members: int,
) -> dict[Key, float]:
    """The weights of the least loss, those of `SMALLEST` and more.

    Args:
        predictions: what each model answers, by its key; finite.
        targets: of the same rows.
        metric: what the loss stands for.
        members: how many have weights at most (1 or more). While there are more, the one of the least weight
            is left out, and the others are weighed again.
    """
    keys = list(predictions)
    losses = [
        _loss(part, share, [predictions[key] for key in keys], targets) for part, share in _parts(metric)
    ]
    chosen = np.arange(len(keys))
    shares = _least(losses, chosen)
    while np.count_nonzero(shares >= SMALLEST) > members:
        chosen = chosen[shares >= SMALLEST]
        shares = shares[shares >= SMALLEST]
        chosen = np.delete(chosen, shares.argmin())
        shares = _least(losses, chosen)
    kept = {
        keys[place]: float(share) for place, share in zip(chosen, shares, strict=True) if share >= SMALLEST
    }
    whole = sum(kept.values())
    return {key: share / whole for key, share in kept.items()}


@dataclass(frozen=True)
class _Loss:
    """A smooth loss of a blend. columns: (rows, models). share: how much it counts.

    of_classes: columns hold the probability of each row's class, and the loss is the log loss; otherwise they
    hold errors, and the loss is the squared error.
    """

    columns: Array
    share: float
    of_classes: bool

    def at(self, chosen: Array, shares: Array) -> tuple[float, Array]:
        """The loss of a blend of the chosen models, and its slope by each share."""
        columns = self.columns[:, chosen]
        blended = columns @ shares
        if self.of_classes:
            value, slopes = -np.log(blended + _FUZZ).mean(), -1.0 / (blended + _FUZZ)
        else:
            value, slopes = np.square(blended).mean(), 2.0 * blended
        return self.share * float(value), self.share * (slopes @ columns) / len(columns)


def _parts(metric: Metric, share: float = 1.0) -> Iterator[tuple[Metric, float]]:
    if not metric.parts:
        yield metric, share
    for part, its_share in metric.parts:
        yield from _parts(part, share * abs(its_share))


def _loss(
    metric: Metric, share: float, answers: Sequence[Answers], targets: Array | Mapping[str, Array]
) -> _Loss:
    parts = [np.asarray(found[metric.output] if isinstance(found, Mapping) else found) for found in answers]
    wanted = (targets[metric.output] if isinstance(targets, Mapping) else targets).reshape(-1)
    if parts[0].shape[-1] > 1:
        rows = np.arange(len(wanted))
        columns = [part[rows, wanted.astype(np.int64)] for part in parts]
        return _Loss(np.stack(columns, axis=1).astype(np.float64), share, of_classes=True)
    # As the weights sum to one, the blend's error is the blend of the errors.
    columns = [part.reshape(-1).astype(np.float64) - wanted for part in parts]
    return _Loss(np.stack(columns, axis=1), share, of_classes=False)


def _least(losses: Sequence[_Loss], chosen: Array) -> Array:
    """The shares of the chosen models that make the losses' sum least."""

    def loss(shares: Array) -> tuple[float, Array]:
        found = [one.at(chosen, shares) for one in losses]
        return sum(value for value, _ in found), np.sum([slope for _, slope in found], axis=0)

    start = np.full(len(chosen), 1.0 / len(chosen))
    if len(chosen) == 1:
        return start
    # So that one tolerance suits losses of any size.
    scale = loss(start)[0] or 1.0

    def scaled(shares: Array) -> tuple[float, Array]:
        value, slope = loss(shares)
        return value / scale, slope / scale

    found = minimize(
        scaled,
        start,
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * len(start),
        constraints={
            "type": "eq",
            "fun": lambda shares: shares.sum() - 1.0,
            "jac": np.ones_like,
        },
        options={"ftol": _TOLERANCE, "maxiter": _ROUNDS},
    )
    clipped = np.clip(found.x, 0.0, 1.0)
    shares: Array = clipped / clipped.sum()
    # Of a convex function on the simplex, the least value is at most so much below.
    slope = scaled(shares)[1]
    gap = float(slope @ shares - slope.min())
    if not gap <= _GAP:
        _log.warning("simplex: the loss may be %.2g of itself from the least (%s)", gap, found.message)
    return shares
