"""Reads a search-space file and checks all of it: what is searched, the budget, the objective, the baseline.

A file is TOML, because it is in Python's standard library and `1e-4` is a number there. Every fault of a
file is found before the first error is raised, and each names file, table, key, rule and value.
"""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from optuna.distributions import BaseDistribution, distribution_to_json

from pipeline.errors import UserError
from pipeline.ranges import distribution, shown
from pipeline.settings import Parameter
from pipeline.values import Budget, Direction, Metric, Objective, Setting, Settings, Size

_NAME = re.compile(r"[A-Za-z0-9_-]{1,60}")
_TABLES = ("space", "budget", "objective", "baseline", "variants", "comparisons")


@dataclass(frozen=True)
class Comparison:
    """Published settings that an ablation compares, each with the one before it.

    arms: names of variants, or `baseline`. size, epochs: what they are trained on and for how long, where it
    is said.
    """

    name: str
    arms: tuple[str, ...]
    size: Size | None = None
    epochs: int | None = None


@dataclass(frozen=True)
class Space:
    """A checked search-space file.

    searched: what the sampler draws. fixed: settings with one value. baseline: the published model's
    settings, run as trial 0, or None. variants: further published settings of the same model. comparisons:
    of those, for an ablation.
    `complete` fills what is left out with the parameters' defaults.
    """

    file: Path
    text: str
    parameters: tuple[Parameter, ...]
    searched: Mapping[str, BaseDistribution]
    fixed: Settings
    budget: Budget
    objective: Objective
    baseline: Settings | None
    variants: Mapping[str, Settings]
    comparisons: tuple[Comparison, ...] = ()

    def complete(self, suggested: Settings) -> Settings:
        """Every setting the task reads, for values that the sampler drew."""
        return {**self._defaults(), **self.fixed, **suggested}

    def published(self, settings: Settings) -> Settings:
        """Every setting the task reads, those not given at their defaults; fixed values don't count here."""
        return {**self._defaults(), **settings}

    def with_epochs(self, epochs: int | None) -> "Space":
        """The same space with another longest training, if one is given."""
        return self if epochs is None else replace(self, budget=replace(self.budget, epochs=epochs))

    def identity(self) -> dict[str, str]:
        """What a study is tied to, as texts that can be compared and shown."""
        return {
            **{f"[space] {name}": _shown_distribution(drawn) for name, drawn in self.searched.items()},
            **{f"[space] {name}": json.dumps(value) for name, value in self.fixed.items()},
            **{f"[budget] {key}": json.dumps(value) for key, value in vars(self.budget).items()},
            "[objective]": f"{self.objective.direction} {self.objective.metric}",
            "[baseline]": json.dumps(self.baseline, sort_keys=True),
        }

    def _defaults(self) -> dict[str, Setting]:
        return {parameter.name: parameter.default for parameter in self.parameters}


def file_of(task: str) -> Path:
    """The task's own search-space file: in an installed package inside of it, in a checkout beside it."""
    package = Path(__file__).parent
    folder = package if (package / "search_spaces").is_dir() else package.parent
    return folder / "search_spaces" / f"{task}.toml"


def read(file: Path, parameters: Sequence[Parameter], metrics: Sequence[Metric]) -> Space:
    """Reads and checks a file against what its task reads and measures.

    Raises:
        UserError: with every fault of the file, one a line.
    """
    return parse(_text_of(file), file, parameters, metrics)


def parse(text: str, file: Path, parameters: Sequence[Parameter], metrics: Sequence[Metric]) -> Space:
    """As `read`, of a text that was read before from `file`."""
    tables = _tables_of(text, file)
    known = {parameter.name: parameter for parameter in parameters}
    faults: list[str] = []
    for name in tables:
        if name not in _TABLES:
            faults.append(f"[{name}]: unknown table; the tables are {', '.join(_TABLES)}")
    for name in ("space", "budget", "objective"):
        if name not in tables:
            faults.append(f"[{name}]: this table is needed")
    sections = {name: _section(tables, name, faults) for name in _TABLES}

    before = len(faults)
    searched, fixed = _space(sections["space"], known, faults)
    if "space" in tables and not searched and len(faults) == before:
        faults.append("[space]: nothing is searched; give at least one range or list of choices")
    budget = _budget(sections["budget"], metrics, faults) if "budget" in tables else None
    in_loss = [
        name
        for name, spec in sections["space"].items()
        if isinstance(spec, dict) and name in known and known[name].in_loss
    ]
    objective = _objective(sections["objective"], metrics, in_loss, faults) if "objective" in tables else None
    baseline = _settings(sections["baseline"], "baseline", known, faults) if "baseline" in tables else None
    variants: dict[str, Settings] = {}
    for name, settings in sections["variants"].items():
        faults += _name_faults(name, "variants")
        if name == "baseline":
            faults.append("[variants] baseline: has a table of its own, [baseline]")
        elif isinstance(settings, dict):
            variants[name] = _settings(settings, f"variants.{name}", known, faults)
        else:
            faults.append(f"[variants] {name}: must be a table of settings, but is {shown(settings)}")
    known_arms = [*variants, *(["baseline"] if baseline is not None else [])]
    comparisons = [
        _comparison(name, spec, known_arms, faults) for name, spec in sections["comparisons"].items()
    ]
    if faults or budget is None or objective is None:
        raise UserError.of(f"{file} {fault}" for fault in faults)
    return Space(
        file,
        text,
        tuple(parameters),
        searched,
        fixed,
        budget,
        objective,
        baseline,
        variants,
        tuple(filter(None, comparisons)),
    )


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{file}: there is no such search-space file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: a search-space file is UTF-8 text, but byte {error.start} is not") from None
    except OSError as error:
        raise UserError(f"{file}: the search-space file cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{str(file)!r}: no search-space file can have this name: {error}") from None


def _tables_of(text: str, file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise UserError(f"{file}: not a TOML file: {error}") from None


def _section(tables: Mapping[str, Any], name: str, faults: list[str]) -> Mapping[str, Any]:
    section = tables.get(name, {})
    if isinstance(section, dict):
        return section
    faults.append(f"[{name}]: must be a table, but is {shown(section)}")
    return {}


def _space(
    section: Mapping[str, Any], known: Mapping[str, Parameter], faults: list[str]
) -> tuple[dict[str, BaseDistribution], dict[str, Setting]]:
    searched: dict[str, BaseDistribution] = {}
    fixed: dict[str, Setting] = {}
    for name, spec in section.items():
        place = f"[space] {name}"
        if name not in known:
            faults.append(f"{place}: unknown setting; this task reads {', '.join(sorted(known))}")
        elif not isinstance(spec, dict):
            rule = known[name].fault(spec)
            if rule:
                faults.append(f"{place}: {rule}, but is {shown(spec)}")
            else:
                fixed[name] = spec
        else:
            found = distribution(spec, known[name])
            if isinstance(found, BaseDistribution):
                searched[name] = found
            else:
                faults.extend(f"{place}: {fault}" for fault in found)
    return searched, fixed


def _settings(
    section: Mapping[str, Any], table: str, known: Mapping[str, Parameter], faults: list[str]
) -> dict[str, Setting]:
    settings: dict[str, Setting] = {}
    for name, value in section.items():
        if name not in known:
            faults.append(f"[{table}] {name}: unknown setting; this task reads {', '.join(sorted(known))}")
        elif rule := known[name].fault(value):
            faults.append(f"[{table}] {name}: {rule}, but is {shown(value)}")
        else:
            settings[name] = value
    return settings


def _name_faults(name: str, table: str) -> list[str]:
    """Names of arms and comparisons become those of metrics and files."""
    if _NAME.fullmatch(name):
        return []
    return [f"[{table}] {name!r}: a name has letters, digits, dashes and underscores only, up to 60"]


def _comparison(name: str, spec: Any, known: Sequence[str], faults: list[str]) -> Comparison | None:
    place, before = f"[comparisons] {name}", len(faults)
    faults += _name_faults(name, "comparisons")
    if not isinstance(spec, dict):
        faults.append(f"{place}: must be a table with arms, but is {shown(spec)}")
        return None
    arms: Any = spec.get("arms")
    size, epochs = spec.get("size"), spec.get("epochs")
    if not isinstance(arms, list) or len(arms) < 2 or len({*map(str, arms)}) < len(arms):
        faults.append(f"{place}: arms must be a list of two names or more, but arms = {shown(arms)}")
    else:
        faults += [
            f"{place}: each arm must be one of {', '.join(known)}, but one is {shown(arm)}"
            for arm in arms
            if arm not in known
        ]
    if size not in (None, "full", "small"):
        faults.append(f'{place}: size must be "full" or "small", but size = {shown(size)}')
    if epochs is not None and (rule := Parameter("epochs", "int", 1, "", low=1).fault(epochs)):
        faults.append(f"{place}: epochs {rule}, but epochs = {shown(epochs)}")
    faults += [
        f"{place}: {key}: unknown key; the keys are arms, size, epochs"
        for key in spec
        if key not in ("arms", "size", "epochs")
    ]
    return None if len(faults) > before else Comparison(name, tuple(arms), size, epochs)


def _budget(section: Mapping[str, Any], metrics: Sequence[Metric], faults: list[str]) -> Budget | None:
    rules = {
        "epochs": Parameter("epochs", "int", 1, "", low=1),
        "patience": Parameter("patience", "int", 10, "", low=0),
        "min_delta": Parameter("min_delta", "float", 0.0, "", low=0),
        "plateau_factor": Parameter("", "float", 0.5, "", low=0, high=1, open_low=True, open_high=True),
        "plateau_patience": Parameter("", "int", 5, "", low=0),
        "plateau_min_delta": Parameter("", "float", 1e-4, "", low=0),
        "plateau_cooldown": Parameter("", "int", 0, "", low=0),
        "plateau_floor": Parameter("", "float", 0.0, "", low=0),
    }
    before = len(faults)
    monitors = {"val_loss": "min"} | {
        f"val_{metric.name}": "max" if metric.direction == "maximize" else "min" for metric in metrics
    }
    monitor = section.get("monitor", "val_loss")
    if not isinstance(monitor, str) or monitor not in monitors:
        faults.append(f"[budget] monitor: must be one of {', '.join(monitors)}, but is {shown(monitor)}")
    values: dict[str, Any] = {}
    for key, value in section.items():
        if key in rules:
            if rule := rules[key].fault(value):
                faults.append(f"[budget] {key}: {rule}, but is {shown(value)}")
            values[key] = value
        elif key != "monitor":
            faults.append(f"[budget] {key}: unknown key; the keys are monitor, {', '.join(rules)}")
    if "epochs" not in section:
        faults.append("[budget] epochs: this key is needed")
    if len(faults) > before:
        return None
    filled = {key: values.get(key, rule.default) for key, rule in rules.items()}
    mode: Literal["min", "max"] = "max" if monitors[monitor] == "max" else "min"
    return Budget(monitor=monitor, mode=mode, **filled)


def _objective(
    section: Mapping[str, Any], metrics: Sequence[Metric], in_loss: Sequence[str], faults: list[str]
) -> Objective | None:
    directions: dict[str, Direction] = {f"val_{metric.name}": metric.direction for metric in metrics}
    measured = list(directions)
    directions["val_loss"] = "minimize"
    before = len(faults)
    for key in section:
        if key not in ("metric", "direction"):
            faults.append(f"[objective] {key}: unknown key; the keys are metric, direction")
    metric = section.get("metric")
    if not isinstance(metric, str) or metric not in directions:
        faults.append(f"[objective] metric: must be one of {', '.join(directions)}, but is {shown(metric)}")
        return None
    direction = section.get("direction", directions[metric])
    if direction != directions[metric]:
        faults.append(
            f"[objective] direction: {metric} is to {directions[metric]}, but direction = {shown(direction)}"
        )
    if metric == "val_loss" and in_loss:
        faults.append(
            "[objective] metric: must not depend on a searched number, but Keras's val_loss holds the"
            f" penalties, and {', '.join(in_loss)} is searched; use one of"
            f" {', '.join(measured)}"
        )
    means = tuple(
        (mean.name, tuple((part.name, share) for part, share in mean.parts)) for mean in metrics if mean.parts
    )
    return None if len(faults) > before else Objective(metric, directions[metric], means)


def _shown_distribution(drawn: BaseDistribution) -> str:
    content = json.loads(distribution_to_json(drawn))["attributes"]
    return json.dumps(
        {key: value for key, value in content.items() if value is not None and value is not False}
    )
