"""Learning rates that follow a plan, epoch by epoch, instead of the plateau's rule.

Every plan leads from the model's own rate at the first epoch to a share of it, `schedule_final`, over
`schedule_epochs` epochs, and stays there. They are Keras's ExponentialDecay, CosineDecay (with `alpha`) and
PiecewiseConstantDecay, by epochs (https://keras.io/api/optimizers/learning_rate_schedules/).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.settings import SCHEDULE, SCHEDULE_EPOCHS, SCHEDULE_FINAL
from pipeline.values import Array, Settings

PLATEAU, _CONSTANT, _EXPONENTIAL, _COSINE, _STEP = range(len(SCHEDULE.words))
"""The numbers of the kinds, in the order of the setting's words; PLATEAU is no plan."""
SIZE = 5
# A step schedule falls so many times, by equal factors, and so has one more level.
_FALLS = 3


def plan(settings: Settings, first: float, epochs: int, exactly: int = 0) -> Array:
    """A training's plan as `SIZE` numbers: kind, first rate, final share, length in epochs, exact epochs.

    Args:
        settings: `schedule`, `schedule_final` and `schedule_epochs`; their defaults where there are none.
        first: the rate of the first epoch.
        epochs: of the training, at most.
        exactly: how many epochs it has, see `Candidate.epochs`.
    """
    kind = SCHEDULE.words.index(str(settings.get(SCHEDULE.name, SCHEDULE.default)))
    final = settings.get(SCHEDULE_FINAL.name, SCHEDULE_FINAL.default)
    length = settings.get(SCHEDULE_EPOCHS.name, SCHEDULE_EPOCHS.default)
    return np.array([kind, first, final, epochs if length == "epochs" else length, exactly], np.float64)


def as_it_fell(settings: Settings, rates: Sequence[float]) -> Settings:
    """A training's settings with a plan in place of the plateau's rule, which leads the rate down as far.

    For a training on all rows: what the rule would watch is learned from there, and goes on falling.

    Args:
        settings: of the training.
        rates: that it had, an entry an epoch.
    """
    words = SCHEDULE.words
    if not rates or words.index(str(settings.get(SCHEDULE.name, SCHEDULE.default))) != PLATEAU:
        return settings
    share = rates[-1] / rates[0]
    kind = words[_STEP] if share < 1 else words[_CONSTANT]
    return {
        **settings,
        SCHEDULE.name: kind,
        SCHEDULE_FINAL.name: share,
        SCHEDULE_EPOCHS.name: len(rates),
    }


def rate(planned: Any, epoch: Any, xp: Any = np) -> Any:
    """The rate of an epoch, from 0; of a plan that is no plateau's.

    Args:
        planned: from `plan`, (SIZE,).
        epoch: its number.
        xp: numpy, or what takes its place where this is traced.
    """
    kind, first, final, length = (planned[place] for place in range(SIZE - 1))
    done = xp.minimum(epoch / length, 1.0)
    fallen = xp.minimum(xp.floor(done * (_FALLS + 1)) / _FALLS, 1.0)
    share = xp.where(kind == _EXPONENTIAL, final**done, 1.0)
    share = xp.where(kind == _COSINE, final + (1.0 - final) * (1.0 + xp.cos(np.pi * done)) / 2.0, share)
    return first * xp.where(kind == _STEP, final**fallen, share)
