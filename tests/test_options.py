"""Parameters of the commands: their limits, their hints, and what counts as not given."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import tasks
from pipeline.errors import UserError
from pipeline.options import COMMANDS, ENGINES, METHODS, PRUNERS, SAMPLERS, SIZES, values
from pipeline.source import PROBLEMS

_EVERY = [(command, option.name) for command, table in COMMANDS.items() for option in table]


# What must be given, so that nothing else is said.
_REQUIRED = {
    command: {option.name: "something" for option in table if option.required}
    for command, table in COMMANDS.items()
}
_OPTIONAL = [(command, name) for command, name in _EVERY if name not in _REQUIRED[command]]


def value_of(name: str, given_value: object, command: str = "search") -> Any:
    return values(command, {name: given_value})[name]


def faults_of(command: str = "search", /, **parameters: object) -> list[str]:
    with pytest.raises(UserError) as caught:
        values(command, _REQUIRED[command] | parameters)
    return str(caught.value).split("\n")


# Nothing given


def test_a_search_has_the_promised_defaults() -> None:
    found = values("search", {})
    promised = {
        "task": "iris",
        "trials": 64,
        "epochs": None,
        "engine": "auto",
        "sampler": "tpe",
        "pruner": "none",
        "seed": 0,
        "study": None,
        "storage": None,
        "timeout": None,
        "folds": 1,
        "members": 8,
        "seeds": 1,
        "space": None,
        "size": "full",
    }
    assert {name: found[name] for name in promised} == promised


def test_every_parameter_has_a_value_or_none() -> None:
    for command, table in COMMANDS.items():
        assert list(values(command, _REQUIRED[command])) == [option.name for option in table]


def test_what_is_required_and_not_given_is_said_at_once() -> None:
    faults = faults_of("predict", model="", input=None, output="a.csv")
    assert [line.partition(",")[0] for line in faults] == [
        "model: must be given: MLflow model URI",
        "input: must be given: rows: CSV",
    ]


@pytest.mark.parametrize(("command", "name"), _OPTIONAL)
@pytest.mark.parametrize("empty", ["", None])
def test_an_empty_text_is_not_given(command: str, name: str, empty: str | None) -> None:
    rest = _REQUIRED[command]
    assert values(command, {**rest, name: empty}) == values(command, rest)


# Whole numbers


@pytest.mark.parametrize(
    ("command", "name", "low", "high"),
    [
        ("search", "trials", 1, 1_000_000),
        ("search", "epochs", 1, 1_000_000),
        ("search", "seed", 0, 2**32 - 1),
        ("search", "folds", 1, 100),
        ("search", "members", 1, 1000),
        ("search", "seeds", 1, 20),
        ("ensemble", "members", 1, 1000),
    ],
)
def test_a_whole_number_keeps_to_its_limits(command: str, name: str, low: int, high: int) -> None:
    assert value_of(name, str(low), command) == low
    assert value_of(name, str(high), command) == high
    for beyond in (low - 1, high + 1):
        rule = f"{name}: must be a whole number from {low} to {high}, but is '{beyond}'"
        assert faults_of(command, **{name: str(beyond)}) == [rule]


@pytest.mark.parametrize(
    "text",
    ["1.0", "1e3", "+1", "--1", "-", " 1", "1 ", "1_000", "١", "²", "one", "0x10", "nan", "1\n", "9" * 50],
)
def test_what_is_no_whole_number_is_refused(text: str) -> None:
    assert faults_of(trials=text) == [
        f"trials: must be a whole number from 1 to 1000000, but is {text!r}",
    ]


def test_a_text_without_end_is_not_repeated_in_full() -> None:
    (fault,) = faults_of(trials="9" * 100_000)
    assert len(fault) < 300


# Seconds


@pytest.mark.parametrize(("text", "seconds"), [("1", 1.0), ("0.5", 0.5), ("1e3", 1000.0), ("86400", 86400.0)])
def test_a_timeout_is_seconds(text: str, seconds: float) -> None:
    assert value_of("timeout", text) == seconds


@pytest.mark.parametrize(
    "text", ["0", "-1", "nan", "inf", "-inf", "1e400", "1e-400", "1h", "abc", "\0", "1_0", "١"]
)
def test_what_is_no_number_of_seconds_is_refused(text: str) -> None:
    assert faults_of(timeout=text) == [f"timeout: must be a number of seconds > 0, but is {text!r}"]


# Words


@pytest.mark.parametrize(
    ("command", "name", "words"),
    [
        ("search", "problem", PROBLEMS),
        ("search", "engine", ENGINES),
        ("search", "sampler", SAMPLERS),
        ("search", "pruner", PRUNERS),
        ("search", "size", SIZES),
    ],
)
def test_a_word_is_one_of_those_it_may_be(command: str, name: str, words: tuple[str, ...]) -> None:
    assert [value_of(name, word, command) for word in words] == list(words)
    (fault,) = faults_of(command, **{name: "zzz"})
    assert fault == f"{name}: must be one of {', '.join(words)}, but is 'zzz'"


@pytest.mark.parametrize(
    ("command", "name", "typed", "meant"),
    [
        ("search", "task", "irs", "iris"),
        ("search", "task", "Iris", "iris"),
        ("search", "task", "fashion-mnist", "fashion_mnist"),
        ("search", "sampler", "tp", "tpe"),
        ("search", "pruner", "medain", "median"),
        ("ensemble", "method", "gredy", "greedy"),
    ],
)
def test_a_near_miss_is_told_what_was_meant(command: str, name: str, typed: str, meant: str) -> None:
    (fault,) = faults_of(command, **{name: typed})
    assert f"(did you mean {meant}?)" in fault
    assert fault.endswith(f", but is {typed!r}")


# How an ensemble's members get their weights


@pytest.mark.parametrize("there", [True, False])
def test_an_export_is_what_can_be_made_here(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if there else None)
    every = ("saved_model", "onnx") if there else ("saved_model",)
    assert values("search", {})["export"] == value_of("export", "auto") == every
    assert value_of("export", "none") == ()
    assert value_of("export", "saved_model") == ("saved_model",)
    if there:
        assert value_of("export", "onnx, saved_model") == every
    else:
        (fault,) = faults_of(export="onnx")
        assert fault.startswith(
            "export: onnx needs packages that are not installed: pip install 'regatta-search[onnx]'"
        )
    (fault,) = faults_of(export="onx")
    assert fault.startswith("export: must be some of saved_model, onnx, with commas between (did you mean")
    assert ", or auto or none" in fault


@pytest.mark.parametrize("word", METHODS)
def test_a_method_may_be_a_word(word: str) -> None:
    assert value_of("method", word, "ensemble") == word


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("0.5,0.25,0.1,0.15", (0.5, 0.25, 0.1, 0.15)),
        ("1", (1.0,)),
        ("2, 1", (2.0, 1.0)),
        ("0,1e-3", (0.0, 1e-3)),
    ],
)
def test_a_method_may_be_weights(text: str, weights: tuple[float, ...]) -> None:
    assert value_of("method", text, "ensemble") == weights


@pytest.mark.parametrize(
    "text",
    ["0", "0,0", "1,-1", "1,nan", "1,inf", "inf", "-1", "1,,1", "1,", "1,x", "1e308,1e308", "1_0", "1,1_0"],
)
def test_what_is_no_weights_is_refused(text: str) -> None:
    (fault,) = faults_of("ensemble", method=text)
    assert fault.startswith("method: must be ")
    assert fault.endswith(f", but is {text!r}")
    if text != "1_0":
        assert fault.startswith(
            "method: must be weights of 0 or more with commas between, one of them above 0, but"
        )


def test_an_unknown_method_is_told_what_it_may_be() -> None:
    assert faults_of("ensemble", method="best") == [
        "method: must be one of greedy, uniform, simplex, or weights with commas between, such as"
        " 0.5,0.25,0.25, but is 'best'"
    ]


# Names of parameters


@pytest.mark.parametrize(
    ("typed", "meant"), [("trails", "trials"), ("trial", "trials"), ("time_out", "timeout")]
)
def test_a_near_miss_of_a_name_is_told_what_was_meant(typed: str, meant: str) -> None:
    assert faults_of(**{typed: "1"}) == [f"{typed}: unknown parameter; did you mean {meant}?"]


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_name_is_told_what_there_is(command: str) -> None:
    names = ", ".join(option.name for option in COMMANDS[command])
    assert faults_of(command, zzzz="1") == [f"zzzz: unknown parameter; the parameters are {names}"]


def test_an_unknown_name_is_refused_even_when_empty() -> None:
    assert faults_of(trails="") == ["trails: unknown parameter; did you mean trials?"]


def test_a_parameter_of_one_command_is_none_of_another() -> None:
    (fault,) = faults_of("ensemble", trials="3")
    assert fault.startswith("trials: unknown parameter; ")


def test_all_faults_come_at_once() -> None:
    faults = faults_of(trails=1, trials=0, seed=-1, task="irs", timeout="soon", members="many")
    assert [fault.split(":")[0] for fault in faults] == [
        "trails",
        "task",
        "trials",
        "seed",
        "timeout",
        "members",
    ]


# Plain Python values


@pytest.mark.parametrize(
    ("name", "plain", "value"),
    [
        ("trials", 3, 3),
        ("trials", np.int64(3), 3),
        ("seed", 0, 0),
        ("timeout", 5, 5.0),
        ("timeout", 0.5, 0.5),
        ("space", Path("a/b.toml"), "a/b.toml"),
    ],
)
def test_plain_values_are_taken(name: str, plain: object, value: object) -> None:
    found = value_of(name, plain)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("trials", True),
        ("trials", 3.5),
        ("trials", []),
        ("folds", False),
        ("timeout", True),
        ("seed", -1),
        ("task", 3),
    ],
)
def test_plain_values_keep_to_the_same_rules(name: str, plain: object) -> None:
    (fault,) = faults_of(**{name: plain})
    assert fault.startswith(f"{name}: must be ")


def test_what_was_given_is_left_as_it_was() -> None:
    given_values = {"trials": 3, "task": ""}
    values("search", given_values)
    assert given_values == {"trials": 3, "task": ""}


_TEXTS = st.text(max_size=20) | st.integers().map(str) | st.floats().map(str) | st.sampled_from(tasks.NAMES)


@given(option=st.sampled_from(_EVERY), text=_TEXTS)
@settings(max_examples=500, deadline=None, database=None)
def test_any_text_is_a_value_or_a_user_error(option: tuple[str, str], text: str) -> None:
    command, name = option
    try:
        found = values(command, {**_REQUIRED[command], name: text})
    except UserError:
        assert faults_of(command, **{name: text})[0].startswith(f"{name}: must be ")
    else:
        assert set(found) == {option.name for option in COMMANDS[command]}


@given(name=st.text(max_size=12), text=_TEXTS)
@settings(max_examples=200, deadline=None, database=None)
def test_any_name_is_known_or_a_user_error(name: str, text: str) -> None:
    try:
        found = values("search", {name: text})
    except UserError:
        assert faults_of(**{name: text})[0].startswith(name.split("\n", maxsplit=1)[0])
    else:
        assert name in found
