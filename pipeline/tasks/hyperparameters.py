"""KerasTuner's hyperparameters as settings: names, ranges, conditions, and the way back to their values."""

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from keras_tuner import HyperParameters
from keras_tuner.engine import hyperparameters as kinds

from pipeline.settings import BATCH_SIZE, SCHEDULE, SHUFFLE, TRAINING, Kind, Parameter
from pipeline.tasks.space_texts import plain
from pipeline.values import Setting, Settings

# What MLflow takes in the name of a parameter, and how long.
_UNFIT = re.compile(r"[^/\w.\- :]")
_LONGEST = 200


@dataclass(frozen=True)
class Vocabulary:
    """A space of KerasTuner's, and a setting for each of its entries.

    space: never changed. names: the setting of each of its entries, in their order; empty for one that no
    values can make active. parameters: of the settings, and of training. specs: of each setting its range,
    choices or value, as a search-space file has them. even: entries of `reverse_log`, which are drawn evenly.
    """

    space: HyperParameters
    names: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    specs: Mapping[str, Any]
    even: tuple[str, ...] = ()

    @property
    def defaults(self) -> dict[str, Setting]:
        """Each setting as KerasTuner's first trial has it, and how it trains."""
        return {parameter.name: parameter.default for parameter in self.parameters}

    def filled(self, settings: Settings) -> HyperParameters:
        """KerasTuner's object with a trial's values, of the active entries alone; each time a new one."""
        found = HyperParameters.from_config({**self.space.get_config(), "values": {}})
        for entry, name in zip(found.space, self.names, strict=True):
            if name and found.is_active(entry):
                found.values[entry.name] = settings[name]
        return found


def vocabulary(space: HyperParameters) -> Vocabulary:
    """The settings of a space.

    Entries of one name that KerasTuner keeps apart by their conditions are one setting where they are drawn
    alike, and several else. `batch_size`, if it is whole numbers without conditions, and `shuffle`, if it is
    a Boolean, are those that the training goes by, too.
    """
    names: list[str] = []
    entries: dict[str, list[Any]] = {}
    for entry in space.space:
        names.append(_setting(entry, entries) if _reachable(entry, space) else "")
        if names[-1]:
            entries.setdefault(names[-1], []).append(entry)
    by_entry = {entry.name: name for entry, name in zip(space.space, names, strict=True) if name}
    own = [_parameter(name, several, by_entry) for name, several in entries.items()]
    there = {parameter.name for parameter in own}
    training = [replace(SCHEDULE, default="constant") if part is SCHEDULE else part for part in TRAINING]
    return Vocabulary(
        space,
        tuple(names),
        (*own, *(part for part in training if part.name not in there)),
        {name: spec(several[0]) for name, several in entries.items()},
        tuple(name for name, several in entries.items() if _is_mirrored(several[0])),
    )


def spec(entry: Any) -> Any:
    """An entry as `[space]` of a search-space file has it: a range, choices, or its only value.

    Steps of a logarithmic range become choices, as Optuna has no such steps.
    """
    match entry:
        case kinds.Fixed():
            return plain(entry.value)
        case kinds.Boolean():
            return {"choices": [False, True]}
        case kinds.Choice():
            return _choices(entry.values)
        case kinds.Int() | kinds.Float():
            return _range(entry)
    raise TypeError(f"KerasTuner has no {type(entry).__name__}")


def _reachable(entry: Any, space: HyperParameters) -> bool:
    """Whether its parents' values can make it active."""
    for condition in entry.conditions:
        parents = [other for other in space.space if other.name == condition.name]
        if not any(_may_be(parent, condition.values) for parent in parents):
            return False
    return True


def _may_be(entry: Any, values: Sequence[Setting]) -> bool:
    if isinstance(entry, kinds.Int | kinds.Float):
        return any(entry.min_value <= value <= entry.max_value for value in values)
    return bool({*entry.values} & {*values})


def _setting(entry: Any, taken: Mapping[str, Sequence[Any]]) -> str:
    """A name that MLflow takes, that training does not read as something else, and that is the entry's."""
    name = _UNFIT.sub("_", entry.name)[:_LONGEST].strip() or "unnamed"
    if posixpath.normpath(name) != name or name.startswith(("..", "/")) or name == ".":
        name = name.replace("/", "_").replace("..", "_").replace(".", "_")
    training = {part.name for part in TRAINING}
    if name in training and not (name == entry.name and _is_trainings(entry)):
        name = f"hp.{name}"
    found, number = name, 2
    while found in taken and not _alike(taken[found][0], entry):
        found, number = f"{name} {number}", number + 1
    return found


def _is_trainings(entry: Any) -> bool:
    if entry.conditions:
        return False
    if entry.name == SHUFFLE.name:
        return isinstance(entry, kinds.Boolean)
    found = spec(entry)
    values = found.get("choices", [found.get("low")]) if isinstance(found, dict) else [found]
    return entry.name == BATCH_SIZE.name and all(BATCH_SIZE.fault(value) is None for value in values)


def _alike(one: Any, other: Any) -> bool:
    return (
        one.name == other.name
        and type(one) is type(other)
        and spec(one) == spec(other)
        and one.default == other.default
    )


def _parameter(name: str, entries: Sequence[Any], by_entry: Mapping[str, str]) -> Parameter:
    entry = entries[0]
    if name == BATCH_SIZE.name:
        return replace(BATCH_SIZE, default=plain(entry.default))
    if name == SHUFFLE.name:
        return replace(SHUFFLE, default=bool(entry.default))
    kind = _kind(entry)
    words = tuple(dict.fromkeys(map(str, entry.values))) if kind == "word" else ()
    return Parameter(
        name,
        kind,
        plain(entry.default),
        f"the hyperparameter {entry.name!r}",
        words=words,
        needs=_needs(entries, by_entry),
    )


def _kind(entry: Any) -> Kind:
    match entry.default:
        case bool():
            return "bool"
        case str():
            return "word"
    return "float" if isinstance(entry, kinds.Float) or isinstance(entry.default, float) else "int"


def _needs(entries: Sequence[Any], by_entry: Mapping[str, str]) -> tuple[str, tuple[Setting, ...]] | None:
    """The innermost condition of all entries of a setting, if it is of one parent.

    Of nested conditions the innermost one's parent is itself read only where the others hold, as a rule.
    """
    innermost = [entry.conditions[-1] for entry in entries if entry.conditions]
    parents = {condition.name for condition in innermost}
    if len(innermost) < len(entries) or len(parents) != 1:
        return None
    values = dict.fromkeys(value for condition in innermost for value in condition.values)
    return by_entry[parents.pop()], tuple(values)


def _choices(values: Sequence[Setting]) -> Any:
    different = list(dict.fromkeys(map(plain, values)))
    return different[0] if len(different) == 1 else {"choices": different}


def _range(entry: Any) -> Any:
    low, high = entry.min_value, entry.max_value
    if low == high:
        return low
    whole = isinstance(entry, kinds.Int)
    if entry.sampling != "linear" and entry.step is not None:
        return _choices([int(value) if whole else float(value) for value in entry.values])
    if entry.step is None or (whole and entry.step == 1):
        return {"low": low, "high": high, **({"log": True} if entry.sampling == "log" else {})}
    # In decimals, as they were typed: three times 0.1 is 0.3 there.
    start, step = Decimal(str(low)), Decimal(str(entry.step))
    steps = (Decimal(str(high)) - start) // step
    if not steps:
        return low
    last = start + steps * step
    return {"low": low, "high": int(last) if whole else float(last), "step": entry.step}


def _is_mirrored(entry: Any) -> bool:
    return isinstance(entry, kinds.Int | kinds.Float) and entry.sampling == "reverse_log" and not entry.step
