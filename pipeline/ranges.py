"""One entry of `[space]`, a range or a list of choices, as an Optuna distribution."""

import json
import math
from collections.abc import Mapping
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from pipeline.settings import Parameter

_RANGE_KEYS = {"low", "high", "log", "step"}


def distribution(spec: Mapping[str, Any], parameter: Parameter) -> BaseDistribution | list[str]:
    """The distribution of `{low, high, log, step}` or `{choices = [...]}`, or every fault of it."""
    return _choices(spec, parameter) if "choices" in spec else _range(spec, parameter)


def shown(value: object) -> str:
    """A value of a file as a message shows it."""
    if value is None:
        return "missing"
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _choices(spec: Mapping[str, Any], parameter: Parameter) -> BaseDistribution | list[str]:
    faults = [f"{key}: unknown key beside choices" for key in spec if key != "choices"]
    choices = spec["choices"]
    if not isinstance(choices, list) or not choices:
        return [*faults, f"choices must be a list of at least one value, but choices = {shown(choices)}"]
    for choice in choices:
        if rule := parameter.fault(choice):
            faults.append(f"each choice {rule}, but one is {shown(choice)}")
    if not faults and len(set(choices)) < len(choices):
        faults.append(f"choices must differ, but choices = {shown(choices)}")
    return faults or CategoricalDistribution(choices)


def _range(spec: Mapping[str, Any], parameter: Parameter) -> BaseDistribution | list[str]:
    faults = [
        f"{key}: unknown key; a range has low, high, log, step; a list has choices"
        for key in spec
        if key not in _RANGE_KEYS
    ]
    if parameter.kind in ("bool", "word"):
        return [*faults, "has no numeric range; use choices"]
    for key in ("low", "high"):
        if key not in spec:
            faults.append(f"{key} is missing")
        elif isinstance(spec[key], str):
            faults.append(f'{key} must be a number, but {key} = "{spec[key]}"')
        elif rule := parameter.fault(spec[key]):
            faults.append(f"{key} {rule}, but {key} = {shown(spec[key])}")
    log, step = spec.get("log", False), spec.get("step")
    if not isinstance(log, bool):
        faults.append(f"log must be true or false, but log = {shown(log)}")
    if step is not None and not _is_number(step, whole=parameter.kind == "int"):
        whole = "whole " if parameter.kind == "int" else ""
        faults.append(f"step must be a {whole}number > 0, but step = {shown(step)}")
    if faults:
        return faults
    return _range_of_numbers(spec["low"], spec["high"], step, parameter, log=log)


def _range_of_numbers(
    low: float, high: float, step: float | None, parameter: Parameter, *, log: bool
) -> BaseDistribution | list[str]:
    faults = []
    if low >= high:
        faults.append(f"low < high must hold, but low = {low} and high = {high}")
    if log and low <= 0:
        faults.append(f"low > 0 must hold for log = true, but low = {low}")
    if log and step is not None:
        faults.append("log = true takes no step")
    elif step is not None and low < high and not _divides(step, high - low):
        faults.append(f"step must divide high - low, but step = {step} and high - low = {high - low}")
    if faults:
        return faults
    if parameter.kind == "int":
        return IntDistribution(int(low), int(high), log=log, step=int(step or 1))
    return FloatDistribution(float(low), float(high), log=log, step=None if step is None else float(step))


def _is_number(value: object, *, whole: bool) -> bool:
    kinds = int if whole else (int, float)
    return isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def _divides(step: float, width: float) -> bool:
    # Ranges are typed in decimals, which floats hold to about 16 digits.
    return math.isclose(width / step, round(width / step), rel_tol=1e-9) and round(width / step) > 0
