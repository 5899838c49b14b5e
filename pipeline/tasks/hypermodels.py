"""A KerasTuner HyperModel as a task, as it is: its hyperparameters are the settings, its `build` is used."""

import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras_tuner import HyperModel, HyperParameters

from pipeline.datasets.goals import Goal
from pipeline.errors import UserError
from pipeline.source import Source
from pipeline.tasks import brought, compiled, exploring, space_texts, user_code
from pipeline.tasks.hyperparameters import Vocabulary, vocabulary
from pipeline.tasks.task import Task
from pipeline.values import Data, Settings, Size

_log = logging.getLogger(__name__)

_EPOCHS, _PATIENCE = 50, 10


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
    space, model = exploring.explored(name, hypermodel)
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
        space, untaken = exploring.tried_fit(name, hypermodel, space, found.load("small", goal), goal)
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
        model = exploring.checked(self._hypermodel.build(values))
        self._tell_new(values)
        return compiled.with_metrics(model, self._goal.kind)

    def fit(
        self, settings: Settings, model: keras.Model, arguments: Mapping[str, Any]
    ) -> Mapping[str, float]:
        """Trains as the HyperModel does; the numbers that it gave back, of a number alone `val_returned`."""
        values = self._words.filled(settings)
        returned = exploring.called(self._hypermodel, values, model, arguments, self._untaken)
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
