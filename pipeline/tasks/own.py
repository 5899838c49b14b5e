"""A task of the user's own: `load` gives rows, `build` a compiled model, `space` what is searched."""

import inspect
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np

from pipeline.datasets.goals import Kind
from pipeline.errors import UserError
from pipeline.metrics import CLASSIFICATION
from pipeline.settings import TRAINING, Parameter
from pipeline.settings import Kind as ParameterKind
from pipeline.source import PROBLEMS, Problem, Source
from pipeline.tasks import brought, compiled, space_texts, user_code
from pipeline.tasks.brought import Brought
from pipeline.tasks.task import Task
from pipeline.values import Data, Metric, Setting, Settings, Size

# Enough to build a model by.
_SOME = 32
_BUDGET = {"epochs": 50, "patience": 10}
_KNOWN = {metric.name: metric for metric in (*CLASSIFICATION, *compiled.REGRESSION)}


@dataclass(frozen=True)
class Parts:
    """What of the user's makes a task.

    build: (settings, data) -> a compiled model. load: gives the rows, perhaps of `size` or `data`; None where
    `data` names them. space: a dict as `[space]`, the text of a search-space file, or such a file. budget,
    baseline: tables of it, where the space is a dict; objective: a metric such as `val_accuracy`. problem:
    classification or regression. metrics: their names, or `Metric`s.
    """

    build: Callable[..., Any]
    load: Callable[..., Any] | None
    space: Any
    budget: Any = None
    objective: Any = None
    baseline: Any = None
    problem: Any = "classification"
    metrics: Any = None

    @classmethod
    def of(cls, holder: object, build: Callable[..., Any]) -> "Parts":
        """The parts that an object, a class's instance or a module has by these names."""
        names = ("space", "budget", "objective", "baseline", "metrics")
        found = {name: getattr(holder, name, None) for name in names}
        return cls(build, getattr(holder, "load", None), problem=getattr(holder, "problem", None), **found)


def task(name: str, parts: Parts, source: Source, folder: Path, named: Callable[[str], Task | None]) -> Task:
    """The task of such parts.

    Args:
        name: of the task.
        parts: of the user's.
        source: where its rows come from, if not from `load`.
        folder: where a file that `space` names lies.
        named: finds a named task, whose rows `source` may name; None if there is no such task.

    Raises:
        UserError: a part is missing or cannot be used.
    """
    problem = _problem(name, parts, source)
    tables = _tables(name, parts, folder, problem)
    parameters = _parameters(name, tables)
    metrics = _metrics(name, parts.metrics, problem)
    try:
        text = space_texts.text(tables)
    except TypeError as error:
        raise UserError(f"task: {name}: {error}") from None
    rows = _Loading(name, replace(parts, problem=problem), source, named)
    models = _Models(name, parts.build)
    defaults = {parameter.name: parameter.default for parameter in parameters}

    def load(size: Size) -> Data:
        return models.fitted(rows.load(size), defaults, problem, size)

    return Task(name, parameters, metrics, load, models.build, space_text=text, source=source)


class _Loading:
    """Gives the rows as `load` has them, or as `data` names them."""

    def __init__(self, name: str, parts: Parts, source: Source, named: Callable[[str], Task | None]) -> None:
        self._name, self._parts, self._source, self._named = name, parts, source, named
        if parts.load is not None:
            brought.check_function(name, parts.load)
            if source.target:
                raise UserError(f"target: is not read by load of {name}, which gives its rows itself")
        takes = inspect.signature(parts.load).parameters if parts.load is not None else {}
        self._takes_size, self._takes_data = "size" in takes, "data" in takes
        if parts.load is not None and source.data and not self._takes_data:
            raise UserError(f"data: load of {name} has no argument called data that would take it")
        if parts.load is None and not source.data:
            raise UserError(f"task: {name}: has no function load that gives its rows, so data must be given")

    def load(self, size: Size) -> Data | Brought:
        """What there is: a Data as the user made it, or rows that a goal must be found for."""
        load = self._parts.load
        if load is None:
            numbers = self._parts.problem == "regression"
            return brought.find(self._name, self._source, None, self._named, numbers=numbers)
        given: dict[str, Any] = {"size": size} if self._takes_size else {}
        if self._takes_data:
            given["data"] = self._source.data
        found = brought.loaded(self._name, load, **given)
        return found if isinstance(found, Data) else brought.of_value(self._name, found)


class _Models:
    """Builds the user's models, and finds out what they learn."""

    def __init__(self, name: str, build: Callable[..., Any]) -> None:
        self._name, self._build = name, build
        # Of what was loaded last, none for a Data of the user's own with several outputs.
        self._kind: Kind | None = None

    def build(self, settings: Settings, data: Data) -> keras.Model:
        """A compiled model, with the metrics that the study needs."""
        model = self._build(settings, data)
        ours = isinstance(model, keras.Model) and model.compiled and self._kind is not None
        return compiled.with_metrics(model, self._kind) if ours and self._kind else model

    def fitted(self, found: Data | Brought, settings: Settings, problem: Problem, size: Size) -> Data:
        """The rows with targets as the model's loss takes them; of a Data as they are."""
        data = found if isinstance(found, Data) else found.before(size, numbers=problem == "regression")
        if len(data.outputs) > 1:
            return data
        with user_code.told(self._name, "build with its defaults"):
            model = self._build(settings, data)
            if not isinstance(model, keras.Model):
                raise ValueError(f"build gave {type(model).__name__}, which is not a Keras model")
            if not model.compiled:
                raise ValueError("build gave a model that is not compiled")
            few = data.train.take(np.arange(min(_SOME, data.train.rows)))
            any_shape = compiled.built_by(model, few.inputs)
            goal = compiled.goal_of(model, problem, any_shape=any_shape)
            compiled.check_kept(compiled.with_metrics(model, goal.kind))
        keras.utils.clear_session()
        if (goal.kind == "numbers") != (problem == "regression"):
            raise UserError(
                f"task: {self._name}: its model's loss does not go with problem = {problem!r}; say it in the"
                " task as problem, or by problem="
            )
        self._kind = goal.kind
        return found if isinstance(found, Data) else replace(found.load(size, goal), name=self._name)


def _problem(name: str, parts: Parts, source: Source) -> Problem:
    problem = parts.problem or "classification"
    if problem not in PROBLEMS[1:]:
        raise UserError(f"task: {name}: problem must be {' or '.join(PROBLEMS[1:])}, but is {problem!r}")
    return source.problem if source.problem != "auto" else cast(Problem, problem)


def _tables(name: str, parts: Parts, folder: Path, problem: str) -> dict[str, Mapping[str, Any]]:
    """The tables of the search-space file that the parts come down to."""
    space = parts.space
    if isinstance(space, Path) or (isinstance(space, str) and "\n" not in space and "[" not in space):
        file = folder / space
        try:
            space = file.read_text(encoding="utf-8-sig")
        except (OSError, ValueError) as error:
            raise UserError(f"task: {name}: its space {file} cannot be read: {error}") from None
    if isinstance(space, str):
        try:
            tables: dict[str, Any] = tomllib.loads(space)
        except tomllib.TOMLDecodeError as error:
            raise UserError(f"task: {name}: its space is no TOML: {error}") from None
    elif isinstance(space, Mapping):
        tables = {"space": space}
    else:
        raise UserError(
            f"task: {name}: must have a space: a dict as [space] of a search-space file, such as"
            " {'units': {'low': 8, 'high': 64}}, the file's text, or its name"
        )
    metric = parts.objective or ("val_mse" if problem == "regression" else "val_accuracy")
    tables.setdefault("objective", metric if isinstance(metric, Mapping) else {"metric": metric})
    budget = parts.budget if parts.budget is not None else {}
    tables.setdefault("budget", {**_BUDGET, **budget} if isinstance(budget, Mapping) else budget)
    if parts.baseline is not None:
        tables.setdefault("baseline", parts.baseline)
    for table, content in tables.items():
        if not isinstance(content, Mapping):
            raise UserError(f"task: {name}: {table} must be a dict, but is {type(content).__name__}")
        if unfit := [key for key in content if not isinstance(key, str)]:
            raise UserError(f"task: {name}: {table}: a name must be a text, but one is {unfit[0]!r}")
    return {table: space_texts.plain(content) for table, content in tables.items()}


def _parameters(name: str, tables: Mapping[str, Mapping[str, Any]]) -> tuple[Parameter, ...]:
    """A parameter for each setting that the space names, of the kind that its values have."""
    training = {parameter.name for parameter in TRAINING}
    baseline = tables.get("baseline", {})
    published = [baseline, *tables.get("variants", {}).values()]
    names = dict.fromkeys([*tables["space"], *(key for table in published for key in table)])
    own = []
    for setting in names:
        spec = tables["space"].get(setting)
        if setting not in training:
            more = [table[setting] for table in published if setting in table]
            own.append(_parameter(name, setting, spec, more, baseline.get(setting)))
    return (*own, *TRAINING)


def _parameter(name: str, setting: str, spec: Any, more: Sequence[Any], published: Any) -> Parameter:
    if isinstance(spec, Mapping):
        choices = spec.get("choices", [])
        if not isinstance(choices, list):
            raise UserError(f"task: {name}: {setting}: choices must be a list, but is {choices!r}")
        values = [*choices, *(spec[end] for end in ("low", "high") if end in spec)]
    else:
        values = [] if spec is None else [spec]
    values += more
    unfit = [value for value in values if not isinstance(value, bool | int | float | str)]
    if unfit or not values:
        raise UserError(
            f"task: {name}: space: {setting} must be a range {{'low': …, 'high': …}}, {{'choices': […]}} or a"
            f" value, but is {spec!r}"
        )
    words = tuple(dict.fromkeys(value for value in values if isinstance(value, str)))
    numbers = [value for value in values if not isinstance(value, str)]
    kind: ParameterKind = "word"
    if numbers:
        kind = "int" if all(isinstance(value, int) for value in numbers) else "float"
    if numbers and all(isinstance(value, bool) for value in numbers):
        kind = "bool"
    return Parameter(
        setting, kind, _default(spec, values) if published is None else published, "of the task", words=words
    )


def _default(spec: Any, values: Sequence[Setting]) -> Setting:
    """The middle of a range, or the first value."""
    low, high = (spec.get(end) if isinstance(spec, Mapping) else None for end in ("low", "high"))
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        return values[0]
    logarithmic = isinstance(spec, Mapping) and spec.get("log") is True and low > 0 and high > 0
    middle = math.sqrt(low * high) if logarithmic else (low + high) / 2
    return round(middle) if isinstance(low, int) and isinstance(high, int) else middle


def _metrics(name: str, given: Any, problem: str) -> tuple[Metric, ...]:
    if given is None:
        return compiled.REGRESSION if problem == "regression" else CLASSIFICATION
    if not isinstance(given, str | Metric | list | tuple):
        raise UserError(f"task: {name}: metrics must be a list of names, but is {given!r}")
    found = []
    for metric in [given] if isinstance(given, str | Metric) else given:
        if not isinstance(metric, Metric) and not (isinstance(metric, str) and metric in _KNOWN):
            raise UserError(
                f"task: {name}: metrics must be of {', '.join(_KNOWN)}, or a Metric, but one is {metric!r}"
            )
        found.append(metric if isinstance(metric, Metric) else _KNOWN[metric])
    return tuple(found)
