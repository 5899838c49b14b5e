"""An Optuna distribution as one of KerasTuner's hyperparameters."""

import json
from collections.abc import Sequence
from typing import Any

from keras_tuner import HyperParameters
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from pipeline.values import Setting


def ask(hp: HyperParameters, name: str, drawn: BaseDistribution, default: Setting) -> Setting | None:
    """A value of the hyperparameter; None where its conditions do not hold.

    KerasTuner's choices are of one type: whole numbers among others become such, and words among numbers make
    all of them words.

    Args:
        hp: is asked.
        name: of the hyperparameter.
        drawn: from what.
        default: KerasTuner's first value, if it can be drawn.
    """
    if isinstance(drawn, CategoricalDistribution):
        return _choice(hp, name, drawn, default)
    if not isinstance(drawn, IntDistribution | FloatDistribution):
        raise TypeError(f"{name}: KerasTuner has no {type(drawn).__name__}")
    inside = isinstance(default, int | float) and drawn.low <= default <= drawn.high
    ask_range = hp.Int if isinstance(drawn, IntDistribution) else hp.Float
    value: Setting | None = ask_range(
        name,
        drawn.low,
        drawn.high,
        step=None if drawn.log else drawn.step,
        sampling="log" if drawn.log else "linear",
        default=default if inside else None,
    )
    return value


def as_asked(drawn: BaseDistribution, values: Sequence[Setting]) -> list[Any]:
    """Those of the values that can be drawn, as KerasTuner has them."""
    if not isinstance(drawn, CategoricalDistribution):
        return list(values)
    told = _told(drawn)
    return [told[place] for place, choice in enumerate(drawn.choices) if choice in values]


def _choice(
    hp: HyperParameters, name: str, drawn: CategoricalDistribution, default: Setting
) -> Setting | None:
    told = _told(drawn)
    place = drawn.choices.index(default) if default in drawn.choices else 0
    value = hp.Boolean(name, told[place]) if _is_switch(drawn) else hp.Choice(name, told, default=told[place])
    if value is None:
        return None
    found: Setting = drawn.choices[told.index(value)]  # type: ignore[assignment]  # a space has no None
    return found


def _is_switch(drawn: CategoricalDistribution) -> bool:
    return len(drawn.choices) == 2 and all(isinstance(choice, bool) for choice in drawn.choices)


def _told(drawn: CategoricalDistribution) -> list[Any]:
    """The choices as KerasTuner has them, in their order."""
    kinds = {type(choice) for choice in drawn.choices}
    if kinds == {int, float}:
        return [float(choice) for choice in drawn.choices]  # type: ignore[arg-type]  # just looked
    if len(kinds) == 1 and (kinds != {bool} or _is_switch(drawn)):
        return list(drawn.choices)
    return [json.dumps(choice) for choice in drawn.choices]
