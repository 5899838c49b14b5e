"""The tables of a search-space file, each checked against what its task reads and measures.

Each function adds to a list whatever is wrong with its table, and reads what it can.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from pipeline.ranges import distribution, shown
from pipeline.settings import SWITCHES, Parameter
from pipeline.values import Budget, Direction, Metric, Objective, Setting, Settings, Size

_NAME = re.compile(r"[A-Za-z0-9_-]{1,60}")
# What `groups` of the command `ablate` means by these words.
_GROUPS = ("all", "added", "taken")


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


def space(
    section: Mapping[str, Any], known: Mapping[str, Parameter], faults: list[str]
) -> tuple[dict[str, BaseDistribution], dict[str, Setting]]:
    """What a sampler draws, and what has one value."""
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


def unread(
    searched: Mapping[str, BaseDistribution], fixed: Mapping[str, Setting], known: Mapping[str, Parameter]
) -> list[str]:
    """Faults of searched settings that no model would read: a sampler would learn from noise."""
    faults = _switches_of_nothing(searched, fixed, known)
    for name in searched:
        needed, values = known[name].needs or ("", ())
        if needed not in known:
            continue
        drawn = searched.get(needed)
        if isinstance(drawn, FloatDistribution | IntDistribution):
            if any(_is_number(value) and drawn.low <= float(value) <= drawn.high for value in values):
                continue
            there: Sequence[object] = (drawn.low, drawn.high)
        else:
            choices = drawn.choices if isinstance(drawn, CategoricalDistribution) else ()
            there = choices or (fixed.get(needed, known[needed].default),)
        if not set(there) & set(values):
            faults.append(
                f"[space] {name}: is read only where {needed} is {_either(values)},"
                f" but {needed} is {_either(there)}"
            )
    return faults


def _switches_of_nothing(
    searched: Mapping[str, BaseDistribution], fixed: Mapping[str, Setting], known: Mapping[str, Parameter]
) -> list[str]:
    faults = []
    for name, number in SWITCHES.items():
        its = known.get(number.name)
        # Settings of a person's own may have these names and be something else.
        if name not in searched or number.name in searched or its is None or its.needs != number.needs:
            continue
        there = fixed.get(number.name, its.default)
        if there == number.default:
            faults.append(
                f"[space] {name}: is read only where {number.name} is on, but {number.name} is {shown(there)}"
            )
    return faults


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _either(values: Sequence[object]) -> str:
    return " or ".join(map(shown, values))


def settings(
    section: Mapping[str, Any], table: str, known: Mapping[str, Parameter], faults: list[str]
) -> dict[str, Setting]:
    """Published settings."""
    settings: dict[str, Setting] = {}
    for name, value in section.items():
        if name not in known:
            faults.append(f"[{table}] {name}: unknown setting; this task reads {', '.join(sorted(known))}")
        elif rule := known[name].fault(value):
            faults.append(f"[{table}] {name}: {rule}, but is {shown(value)}")
        else:
            settings[name] = value
    return settings


def variants(
    section: Mapping[str, Any], known: Mapping[str, Parameter], faults: list[str]
) -> dict[str, Settings]:
    """Published settings by name, each a table of its own."""
    found: dict[str, Settings] = {}
    for name, spec in section.items():
        faults += _name_faults(name, "variants")
        if name == "baseline":
            faults.append("[variants] baseline: has a table of its own, [baseline]")
        elif isinstance(spec, dict):
            found[name] = settings(spec, f"variants.{name}", known, faults)
        else:
            faults.append(f"[variants] {name}: must be a table of settings, but is {shown(spec)}")
    return found


def comparisons(section: Mapping[str, Any], arms: Sequence[str], faults: list[str]) -> tuple[Comparison, ...]:
    """What an ablation compares, of those arms."""
    found = [_comparison(name, spec, arms, faults) for name, spec in section.items()]
    return tuple(filter(None, found))


def _name_faults(name: str, table: str) -> list[str]:
    """Names of arms and comparisons become those of metrics and files."""
    if _NAME.fullmatch(name):
        return []
    return [f"[{table}] {name!r}: a name has letters, digits, dashes and underscores only, up to 60"]


def _comparison(name: str, spec: Any, known: Sequence[str], faults: list[str]) -> Comparison | None:
    place, before = f"[comparisons] {name}", len(faults)
    faults += _name_faults(name, "comparisons")
    if name in _GROUPS:
        faults.append(
            f"{place}: must not be one of {', '.join(_GROUPS)}, which mean something else to ablate"
        )
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


def budget(section: Mapping[str, Any], metrics: Sequence[Metric], faults: list[str]) -> Budget | None:
    """What ends a training; None if it has faults."""
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


def objective(
    section: Mapping[str, Any], metrics: Sequence[Metric], in_loss: Sequence[str], faults: list[str]
) -> Objective | None:
    """The logged metric that scores a trial; None if it has faults.

    in_loss: the searched numbers that are part of the loss.
    """
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
