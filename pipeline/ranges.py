"""One entry of `[space]`, a range or a list of choices, as an Optuna distribution."""

import json
import sys
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState, create_trial

from pipeline.settings import Parameter
from pipeline.values import Setting

_RANGE_KEYS = {"low", "high", "log", "step"}


def distribution(spec: Mapping[str, Any], parameter: Parameter) -> BaseDistribution | list[str]:
    """The distribution of `{low, high, log, step}` or `{choices = [...]}`, or every fault of it."""
    return _choices(spec, parameter) if "choices" in spec else _range(spec, parameter)


def holds(distribution: BaseDistribution, value: Setting) -> bool:
    """Whether a trial could have drawn the value."""
    try:
        # Optuna checks what a trial is made of, and has no other public way to ask.
        create_trial(state=TrialState.WAITING, params={"": value}, distributions={"": distribution})
    except (TypeError, ValueError):
        return False
    return True


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
    if _is_faulty(step, parameter):
        whole = "whole " if parameter.kind == "int" else ""
        faults.append(f"step must be a {whole}number > 0, but step = {shown(step)}")
    if not any(fault.startswith(("low ", "high ")) for fault in faults):
        faults += _order(spec["low"], spec["high"], None if _is_faulty(step, parameter) else step, log)
    if faults:
        return faults
    if parameter.kind == "int":
        return IntDistribution(spec["low"], spec["high"], log=log, step=step or 1)
    return FloatDistribution(spec["low"], spec["high"], log=log, step=step)


def _order(low: float, high: float, step: float | None, log: object) -> list[str]:
    """What is wrong between numbers that are legal each by itself."""
    faults = []
    if low >= high:
        faults.append(f"low < high must hold, but low = {low} and high = {high}")
    if log is True and low <= 0:
        faults.append(f"low > 0 must hold for log = true, but low = {low}")
    if log is True and step is not None:
        faults.append("log = true takes no step")
    elif step is not None and low < high and not _divides(step, low, high):
        faults.append(f"step must divide high - low, but step = {step} and high - low = {_width(low, high)}")
    return faults


def _is_faulty(step: object, parameter: Parameter) -> bool:
    return step is not None and not _is_number(step, whole=parameter.kind == "int")


def _is_number(value: object, *, whole: bool) -> bool:
    kinds = int if whole else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool):
        return False
    return 0 < value <= sys.float_info.max


def _width(low: float, high: float) -> Decimal:
    return Decimal(str(high)) - Decimal(str(low))


def _divides(step: float, low: float, high: float) -> bool:
    # In decimals, as they were typed: 0.1 divides 0.3 there, and in floats it does not.
    width, part = _width(low, high), Decimal(str(step))
    try:
        return part <= width and width % part == 0
    except InvalidOperation:  # the quotient has more digits than decimals are kept with
        return False
