"""A task as a KerasTuner HyperModel: its search space, its rows, and how it trains."""

from collections.abc import Iterable, Mapping
from typing import Any

import keras
from keras_tuner import HyperModel, HyperParameters

from pipeline import tasks
from pipeline.engines import fitting, own_fits, rows
from pipeline.kerastuner import asking
from pipeline.settings import Parameter
from pipeline.source import Source
from pipeline.space import Space
from pipeline.tasks.task import Task
from pipeline.values import Candidate, Data, Setting, Settings, Size


class TaskHyperModel(HyperModel):  # type: ignore[misc]  # KerasTuner has no types
    """Any task for any KerasTuner tuner.

    `build` asks for the settings that the task's space searches, in its ranges; one that is read only where
    another has some value is asked for under that condition. Defaults are the published settings where those
    lie in the ranges. `fit` trains by the settings' batch size, shuffle and schedule, and ends as the space's
    budget says; `tuner.search()` needs no arguments, as the task has its rows.

    Args:
        task: its name, as for `search`, or the task itself.
        size: `full` or `small`.
        space: a search-space file; the task's own if empty.
        source: where the rows come from, for a task whose rows a person brings.

    Raises:
        UserError: the task, its space or its rows cannot be used.
    """

    def __init__(
        self, task: str | Task, size: Size = "full", space: str = "", source: Source | None = None
    ) -> None:
        self.task = task if isinstance(task, Task) else tasks.find(task, source)
        self.search_space: Space = self.task.read_space(space)
        self.data: Data = self.task.load(size)
        super().__init__(name=self.task.name)

    def settings(self, hp: HyperParameters) -> Settings:
        """Every setting of a trial; asks for those that are searched."""
        known = {parameter.name: parameter for parameter in self.search_space.parameters}
        found: dict[str, Setting] = {}
        for name in _parents_first(self.search_space.searched, known):
            value = self._asked(hp, known[name], found)
            if value is not None:
                found[name] = value
        return self.search_space.complete(found)

    def build(self, hp: HyperParameters) -> keras.Model:
        """A compiled model of a trial."""
        model = self.task.build(self.settings(hp), self.data)
        if model.built:
            # KerasTuner loads weights into a model that has not trained; the optimiser's, too.
            model.optimizer.build(model.trainable_variables)
        return model

    def fit(self, hp: HyperParameters, model: keras.Model, *args: Any, **kwargs: Any) -> Any:
        """Trains as the task does; what is given counts before the task's own rows and arguments.

        Returns:
            Keras's history; of a task with a training of its own its measures.
        """
        return self.fit_settings(self.settings(hp), model, *args, **kwargs)

    def fit_settings(self, settings: Settings, model: keras.Model, *args: Any, **kwargs: Any) -> Any:
        """As `fit`, of settings that are known."""
        budget = self.search_space.budget
        given = dict(kwargs)
        callbacks = [
            fitting.Means(self.search_space.objective),
            fitting.rates(model, settings, budget),
            fitting.stopping(budget),
            *given.pop("callbacks", []),
        ]
        candidate = Candidate(0, 0, settings)
        training, _ = rows.for_fit(self.data.train, model, candidate, 0, alone=True)
        check_rows = rows.validation_batch(int(settings["batch_size"]))
        arguments: dict[str, Any] = {"epochs": budget.epochs, "verbose": 0}
        if args or "x" in given:
            arguments |= {name: training[name] for name in ("batch_size", "shuffle")}
        else:
            arguments |= {**training, "validation_data": rows.for_keras(self.data.validation, model)}
        arguments |= {**given, "callbacks": callbacks}
        if self.task.fit is not None:
            arguments |= dict(zip(("x", "y"), args, strict=False))
            return own_fits.train(self.task.fit, model, settings, arguments, check_rows)
        return model.fit(*args, **{"validation_batch_size": check_rows, **arguments})

    def _asked(
        self, hp: HyperParameters, parameter: Parameter, found: Mapping[str, Setting]
    ) -> Setting | None:
        """A setting's value; None where nothing reads it."""
        searched, name = self.search_space.searched, parameter.name
        default = self.search_space.published(self.search_space.baseline or {})[name]
        parent, values = parameter.needs or ("", ())
        if parent not in searched:
            read = parameter.is_read(self.search_space.complete(found))
            return asking.ask(hp, name, searched[name], default) if read else None
        with hp.conditional_scope(parent, asking.as_asked(searched[parent], values)):
            return asking.ask(hp, name, searched[name], default)


def _parents_first(searched: Iterable[str], known: Mapping[str, Parameter]) -> list[str]:
    """The names in an order in which a condition's setting is asked for before what it rules."""
    waiting, found = list(searched), list[str]()
    while waiting:
        ready = [name for name in waiting if (known[name].needs or ("",))[0] not in waiting]
        # Two that need each other can have no order.
        found += ready or waiting
        waiting = [name for name in waiting if name not in found]
    return found
