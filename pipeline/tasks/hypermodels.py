"""A KerasTuner HyperModel as a task, as it is: its hyperparameters are the settings, its `build` is used.

Its space is what KerasTuner itself finds of it before a search, and what it asks for with other values of
whole numbers, choices and switches, as a search must know its space from the start.
"""

import inspect
import logging
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras_tuner import HyperModel, HyperParameters, Oracle
from keras_tuner.engine import hyperparameters as kinds
from keras_tuner.engine.base_tuner import BaseTuner

from pipeline.datasets.goals import Goal
from pipeline.errors import UserError
from pipeline.source import Source
from pipeline.tasks import brought, compiled, space_texts, user_code
from pipeline.tasks.hyperparameters import Vocabulary, vocabulary
from pipeline.tasks.task import Task
from pipeline.values import Data, Settings, Size

_log = logging.getLogger(__name__)

# Builds beyond KerasTuner's own, at most; none of a model with more numbers than this, as each takes seconds.
_MOST_BUILDS, _LARGE = 100, 5_000_000
_EPOCHS, _PATIENCE = 50, 10
# Of what a `fit` is called with, what it may do without, as it may say it itself.
_OPTIONAL = ("batch_size", "epochs", "shuffle", "verbose", "sample_weight")
_UNTAKEN = re.compile(r"got (?:an unexpected|multiple values for) (?:keyword )?argument '(\w+)'")


def is_one(value: object) -> bool:
    """Whether it is a HyperModel, or a class of them."""
    return isinstance(value, HyperModel) or (isinstance(value, type) and issubclass(value, HyperModel))


def task(
    name: str,
    value: Any,
    source: Source,
    load: Callable[[], object] | None,
    named: Callable[[str], Task | None],
) -> Task:
    """The task of a HyperModel, of a class of them, or of a function `build(hp)`.

    Args:
        name: of the task.
        value: the HyperModel.
        source: where its rows come from.
        load: what gives them where `source` does not, or None.
        named: finds a named task, whose rows `source` may name; None if there is no such task.

    Raises:
        UserError: it cannot be built with its defaults, its rows cannot be used, or they do not go together.
    """
    hypermodel = _instance(name, value)
    space, model = _explored(name, hypermodel)
    with user_code.told(name, "its model"):
        numbers = compiled.learns_numbers(model, source.problem)
    found = brought.find(name, source, load, named, numbers=numbers)
    with user_code.told(name, "its model cannot take the rows:"):
        any_shape = compiled.built_by(model, found.some)
    with user_code.told(name, ""):
        goal = compiled.goal_of(model, source.problem, any_shape=any_shape)
        compiled.check_kept(compiled.with_metrics(model, goal.kind))
    untaken: frozenset[str] = frozenset()
    own_fit = type(hypermodel).fit is not HyperModel.fit
    if own_fit:
        space, untaken = _tried(name, hypermodel, space, found.load("small", goal), goal)
    keras.utils.clear_session()
    words = vocabulary(space)
    model_of = _Models(hypermodel, words, goal, untaken)

    def rows(size: Size) -> Data:
        return replace(found.load(size, goal), name=name)

    return Task(
        name=name,
        parameters=words.parameters,
        metrics=compiled.metrics_of(goal.kind),
        load=rows,
        build=model_of.build,
        fit=model_of.fit if own_fit else None,
        form=lambda data: found.form,
        space_text=_space_text(name, words, goal),
        source=source,
    )


class _Models:
    """Builds and trains the models of a HyperModel.

    untaken: the arguments that its `fit` does not take, or gives itself.
    """

    def __init__(
        self, hypermodel: HyperModel, words: Vocabulary, goal: Goal, untaken: frozenset[str]
    ) -> None:
        self._hypermodel, self._words, self._goal, self._untaken = hypermodel, words, goal, untaken
        self._known = {entry.name for entry in words.space.space}

    def build(self, settings: Settings, data: Data) -> keras.Model:
        """A compiled model; `data` says nothing to it."""
        del data
        values = self._words.filled(settings)
        model = _checked(self._hypermodel.build(values))
        self._tell_new(values)
        return compiled.with_metrics(model, self._goal.kind)

    def fit(
        self, settings: Settings, model: keras.Model, arguments: Mapping[str, Any]
    ) -> Mapping[str, float]:
        """Trains as the HyperModel does; the numbers that it gave back, of a number alone `val_returned`."""
        values = self._words.filled(settings)
        returned = _called(self._hypermodel, values, model, arguments, self._untaken)
        self._tell_new(values)
        # It may have compiled the model anew.
        compiled.with_metrics(model, self._goal.kind)
        return _numbers(returned)

    def _tell_new(self, values: HyperParameters) -> None:
        for entry in values.space:
            if entry.name not in self._known:
                self._known.add(entry.name)
                _log.warning(
                    "hyperparameter %r was not asked for before the search, so it is not searched: %r",
                    entry.name,
                    values.values.get(entry.name),
                )


class _Watched(HyperModel):  # type: ignore[misc]  # KerasTuner has no types
    """A HyperModel whose first model is kept, and whose user_code are told."""

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
            model = _checked(self._watched.build(hp))
        self.first = self.first or model
        return model


class _Function(HyperModel):  # type: ignore[misc]  # KerasTuner has no types
    """A function `build(hp)`."""

    def __init__(self, function: Callable[[HyperParameters], keras.Model]) -> None:
        self._function = function
        super().__init__()

    def build(self, hp: HyperParameters) -> keras.Model:
        """What the function builds."""
        return self._function(hp)


def _instance(name: str, value: Any) -> HyperModel:
    if isinstance(value, HyperModel):
        return value
    if not isinstance(value, type):
        return _Function(value)
    needed = [
        argument.name
        for argument in inspect.signature(value).parameters.values()
        if argument.default is argument.empty
        and argument.kind not in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD)
    ]
    if needed:
        raise UserError(
            f"task: {name}: the class needs {', '.join(needed)}; make a HyperModel of it in the file, and"
            " give the name of that"
        )
    with user_code.told(name, "making it"):
        return value()


def _checked(model: object) -> keras.Model:
    if not isinstance(model, keras.Model):
        raise ValueError(f"build gave {type(model).__name__}, which is not a Keras model")
    if not model.compiled:
        raise ValueError("build gave a model that is not compiled")
    return model


def _explored(name: str, hypermodel: HyperModel) -> tuple[HyperParameters, keras.Model]:
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


def _tried(
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
        model = compiled.with_metrics(_checked(hypermodel.build(values)), goal.kind)
        model.fit = _reached
        try:
            _called(hypermodel, values, model, arguments, untaken)
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


def _called(
    hypermodel: HyperModel,
    values: HyperParameters,
    model: keras.Model,
    arguments: Mapping[str, Any],
    untaken: frozenset[str],
) -> Any:
    named = {
        name: value
        for name, value in arguments.items()
        if name not in ("x", "y") and name not in untaken and value is not None
    }
    return hypermodel.fit(values, model, arguments["x"], arguments["y"], **named)


def _numbers(returned: object) -> dict[str, float]:
    """The numbers that a `fit` gave back; what a history has, the training has logged."""
    if isinstance(returned, Mapping):
        return {
            str(name): float(value)
            for name, value in returned.items()
            if isinstance(value, int | float | np.number)
        }
    if isinstance(returned, int | float | np.number):
        return {"val_returned": float(returned)}
    if returned is None or isinstance(returned, list | keras.callbacks.History):
        return {}
    raise ValueError(f"fit gave {type(returned).__name__}, which is no history, number or dict of numbers")


def _space_text(name: str, words: Vocabulary, goal: Goal) -> str:
    head = [f"{name}, as its HyperModel asks for it."]
    head += [f"{entry}: sampling reverse_log, which is drawn evenly here." for entry in words.even]
    for line in head[1:]:
        _log.warning("%s: %s", name, line)
    return space_texts.text(
        {
            "objective": {"metric": "val_mse" if goal.kind == "numbers" else "val_accuracy"},
            "budget": {"epochs": _EPOCHS, "patience": _PATIENCE},
            "space": words.specs,
            "baseline": words.defaults,
        },
        "\n".join(head),
    )
