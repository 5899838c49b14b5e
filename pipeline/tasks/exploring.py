"""What a HyperModel asks for, found before a search, which must know its space from the start.

That is what KerasTuner itself finds, and what is asked for with other values of whole numbers, choices and
switches.
"""

import inspect
import logging
import re
import tempfile
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras_tuner import HyperModel, HyperParameters, Oracle
from keras_tuner.engine import hyperparameters as kinds
from keras_tuner.engine.base_tuner import BaseTuner

from pipeline.datasets.goals import Goal
from pipeline.errors import UserError
from pipeline.tasks import compiled, user_code
from pipeline.values import Data

_log = logging.getLogger(__name__)

# Builds beyond KerasTuner's own, at most; none of a model with more numbers than this, as each takes seconds.
_MOST_BUILDS, _LARGE = 100, 5_000_000
# Of what a `fit` is called with, what it may do without, as it may say it itself.
_OPTIONAL = ("batch_size", "epochs", "shuffle", "verbose", "sample_weight")
_UNTAKEN = re.compile(r"got (?:an unexpected|multiple values for) (?:keyword )?argument '(\w+)'")


def explored(name: str, hypermodel: HyperModel) -> tuple[HyperParameters, keras.Model]:
    """All hyperparameters that are found, and the model of the defaults."""
    watched = _Watched(name, hypermodel)
    with tempfile.TemporaryDirectory() as folder:
        # KerasTuner looks through the conditions when a tuner is made.
        space = BaseTuner(Oracle("val_loss"), watched, directory=folder).oracle.get_space()
    if watched.first is None:
        raise UserError(f"task: {name}: has no model")
    if not space.space:
        raise UserError(f"task: {name}: asks for no hyperparameters, so there is nothing to search")
    if watched.first.built and watched.first.count_params() > _LARGE:
        return space, watched.first
    _look_further(name, hypermodel, space)
    return space, watched.first


def _look_further(name: str, hypermodel: HyperModel, space: HyperParameters) -> None:
    """Adds what is asked for when one value is another, beside those that an entry itself appeared under."""
    under: dict[str, dict[str, Any]] = {}
    tried: set[tuple[str, Any]] = set()
    while len(tried) < _MOST_BUILDS and (other := _untried(space, tried)):
        tried.add(other)
        wanted = {**under.get(other[0], {}), other[0]: other[1]}
        values = _with(space, wanted)
        try:
            hypermodel.build(values)
        except (Exception, SystemExit) as error:
            # A trial with this value would say so, and fail.
            _log.info("%s: build with %s: %r", name, wanted, error)
        known = {entry.name for entry in space.space}
        under |= {entry.name: wanted for entry in values.space if entry.name not in known}
        space.merge(values.space, overwrite=False)


def _untried(space: HyperParameters, tried: set[tuple[str, Any]]) -> tuple[str, Any] | None:
    """An entry's name and a value that may let `build` ask for more."""
    for entry in space.space:
        if isinstance(entry, kinds.Int):
            values: tuple[Any, ...] = (entry.max_value, entry.min_value)
        else:
            values = tuple(entry.values) if isinstance(entry, kinds.Choice | kinds.Boolean) else ()
        for value in values:
            if value != entry.default and (entry.name, value) not in tried:
                return entry.name, value
    return None


def _with(space: HyperParameters, wanted: Mapping[str, Any]) -> HyperParameters:
    """The defaults with other values, and what the conditions of those ask for."""
    values = HyperParameters.from_config({**space.get_config(), "values": {}})
    there = dict(wanted)
    for entry in space.space:
        if entry.name in wanted:
            for condition in entry.conditions:
                there.setdefault(condition.name, condition.values[0])
    for entry in values.space:
        if values.is_active(entry):
            values.values[entry.name] = there.get(entry.name, entry.default)
    return values


def tried_fit(
    name: str, hypermodel: HyperModel, space: HyperParameters, data: Data, goal: Goal
) -> tuple[HyperParameters, frozenset[str]]:
    """What `fit` asks for beyond `build`, and which arguments it does not take; on a few rows."""
    few = np.arange(min(32, data.train.rows))
    train = data.train.take(few)
    targets = next(iter(train.targets.values())) if isinstance(train.targets, Mapping) else train.targets
    pair = (train.inputs if isinstance(train.inputs, np.ndarray) else dict(train.inputs), targets)
    arguments: dict[str, Any] = {
        "x": pair[0],
        "y": pair[1],
        "validation_data": pair,
        "callbacks": [],
        "batch_size": 32,
        "epochs": 1,
        "shuffle": True,
        "verbose": 0,
    }
    untaken: frozenset[str] = frozenset()
    while True:
        values = HyperParameters.from_config({**space.get_config(), "values": {}})
        for entry in values.space:
            if values.is_active(entry):
                values.values[entry.name] = entry.default
        model = compiled.with_metrics(checked(hypermodel.build(values)), goal.kind)
        model.fit = _reached
        try:
            called(hypermodel, values, model, arguments, untaken)
        except _Reached:
            pass
        except TypeError as error:
            match = _UNTAKEN.search(str(error))
            if match is None or match[1] in untaken:
                raise UserError(f"task: {name}: {user_code.described(error, 'fit')}") from error
            if match[1] not in _OPTIONAL:
                raise UserError(
                    f"task: {name}: its fit must take x, y, validation_data and callbacks, as KerasTuner"
                    f" gives them, but: {error}"
                ) from None
            untaken |= {match[1]}
            continue
        except (Exception, SystemExit) as error:
            raise UserError(f"task: {name}: {user_code.described(error, 'fit')}") from error
        space.merge(values.space, overwrite=False)
        return space, untaken


class _Reached(BaseException):
    """A `fit` has come to its training: no error of it, and nothing that it should catch."""


def _reached(*arguments: Any, **named: Any) -> None:
    inspect.signature(keras.Model.fit).bind(None, *arguments, **named)
    raise _Reached


def called(
    hypermodel: HyperModel,
    values: HyperParameters,
    model: keras.Model,
    arguments: Mapping[str, Any],
    untaken: frozenset[str],
) -> Any:
    """What a HyperModel's `fit` gave back, called as KerasTuner does, less what it does not take."""
    named = {
        name: value
        for name, value in arguments.items()
        if name not in ("x", "y") and name not in untaken and value is not None
    }
    return hypermodel.fit(values, model, arguments["x"], arguments["y"], **named)


def checked(model: object) -> keras.Model:
    """What a `build` gave; raises ValueError unless it is a compiled model."""
    if not isinstance(model, keras.Model):
        raise ValueError(f"build gave {type(model).__name__}, which is not a Keras model")
    if not model.compiled:
        raise ValueError("build gave a model that is not compiled")
    return model


class _Watched(HyperModel):  # type: ignore[misc]  # KerasTuner has no types
    """A HyperModel whose first model is kept, and whose faults are told."""

    def __init__(self, name: str, watched: HyperModel) -> None:
        self.first: keras.Model | None = None
        self._task, self._watched = name, watched
        super().__init__()

    def declare_hyperparameters(self, hp: HyperParameters) -> None:
        """What the watched one declares."""
        self._watched.declare_hyperparameters(hp)

    def build(self, hp: HyperParameters) -> keras.Model:
        """What the watched one builds."""
        values = "its defaults" if self.first is None else str(hp.values)
        with user_code.told(self._task, f"build with {values}"):
            model = checked(self._watched.build(hp))
        self.first = self.first or model
        return model
