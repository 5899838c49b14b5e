"""Search-space files: every rule with its message, all faults at once, and what a checked file offers."""

import datetime
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from pipeline import settings, tasks
from pipeline.errors import UserError
from pipeline.metrics import CLASSIFICATION
from pipeline.ranges import shown
from pipeline.settings import Parameter, techniques
from pipeline.source import OWN
from pipeline.space import Space, file_of, parse, read

FILE = Path("search_spaces/some.toml")
ACTIVATION = Parameter("activation", "word", "linear", "of the hidden layers", words=("linear", "relu"))
PARAMETERS = (
    settings.LEARNING_RATE,
    *settings.TRAINING,
    settings.DROPOUT,
    settings.BATCH_NORMALIZATION,
    settings.L1,
    settings.L2,
    settings.MAX_NORM,
    settings.UNITS,
    ACTIVATION,
)
DEFAULTS = {parameter.name: parameter.default for parameter in PARAMETERS}
READS = f"this task reads {', '.join(sorted(DEFAULTS))}"
# Too large for a float, yet within what TOML's whole numbers may hold.
HUGE = "1" + "0" * 400


def text_of(
    space: str = "dropout = { low = 0.0, high = 0.5 }",
    budget: str = "epochs = 3",
    objective: str = 'metric = "val_accuracy"',
    rest: str = "",
) -> str:
    return f"[space]\n{space}\n[budget]\n{budget}\n[objective]\n{objective}\n{rest}\n"


def space_of(**parts: str) -> Space:
    return parse(text_of(**parts), FILE, PARAMETERS, CLASSIFICATION)


def faults_in(text: str) -> list[str]:
    """The faults of a file, one each, without the file's name in front."""
    with pytest.raises(UserError) as caught:
        parse(text, FILE, PARAMETERS, CLASSIFICATION)
    lines = str(caught.value).split("\n")
    assert all(line.startswith(f"{FILE} ") for line in lines)
    return [line.removeprefix(f"{FILE} ") for line in lines]


def faults_of(**parts: str) -> list[str]:
    return faults_in(text_of(**parts))


# [space]: ranges and choices


@pytest.mark.parametrize(
    ("entry", "drawn"),
    [
        ("dropout = { low = 0, high = 0.5 }", FloatDistribution(0.0, 0.5)),
        ("dropout = { low = 0.0, high = 0.5, step = 0.1 }", FloatDistribution(0.0, 0.5, step=0.1)),
        ("l2 = { low = 1e-7, high = 1e-2, log = true }", FloatDistribution(1e-7, 1e-2, log=True)),
        ("l2 = { low = 0.0, high = 1e-2, log = false }", FloatDistribution(0.0, 1e-2)),
        ("batch_size = { low = 8, high = 64 }", IntDistribution(8, 64)),
        ("batch_size = { low = 8, high = 64, step = 8 }", IntDistribution(8, 64, step=8)),
        ("batch_size = { low = 8, high = 64, log = true }", IntDistribution(8, 64, log=True)),
        ("batch_size = { choices = [8] }", CategoricalDistribution([8])),
        ("shuffle = { choices = [true, false] }", CategoricalDistribution([True, False])),
        ('max_norm = { choices = ["none", 1, 2.5] }', CategoricalDistribution(["none", 1, 2.5])),
        ('activation = { choices = ["relu", "linear"] }', CategoricalDistribution(["relu", "linear"])),
        ('units = { choices = ["published", 64] }', CategoricalDistribution(["published", 64])),
    ],
)
def test_an_entry_becomes_the_distribution_it_describes(entry: str, drawn: object) -> None:
    space = space_of(space=entry)
    assert list(space.searched.values()) == [drawn]
    assert space.fixed == {}


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ("l2 = { low = 1, high = 1 }", "l2: low < high must hold, but low = 1 and high = 1"),
        ("l2 = { low = 0.2, high = 0.1 }", "l2: low < high must hold, but low = 0.2 and high = 0.1"),
        (
            "l2 = { low = 0, high = 0.1, log = true }",
            "l2: low > 0 must hold for log = true, but low = 0",
        ),
        ("l2 = { low = 0.1, high = 1, log = true, step = 0.1 }", "l2: log = true takes no step"),
        (
            "l2 = { low = 0, high = 1, step = 0.3 }",
            "l2: step must divide high - low, but step = 0.3 and high - low = 1",
        ),
        (
            "batch_size = { low = 8, high = 64, step = 6 }",
            "batch_size: step must divide high - low, but step = 6 and high - low = 56",
        ),
        (
            "dropout = { low = 0, high = 0.5, step = 1.0 }",
            "dropout: step must divide high - low, but step = 1.0 and high - low = 0.5",
        ),
        # Optuna would warn, and draw from another range than the file says.
        (
            "l2 = { low = 0, high = 1, step = 0.33333333333 }",
            "l2: step must divide high - low, but step = 0.33333333333 and high - low = 1",
        ),
        (
            "batch_size = { low = 1, high = 9007199254740991, step = 9 }",
            "batch_size: step must divide high - low, but step = 9 and high - low = 9007199254740990",
        ),
        ("l2 = { low = 0, high = 1, step = 0 }", "l2: step must be a number > 0, but step = 0"),
        ("l2 = { low = 0, high = 1, step = -0.5 }", "l2: step must be a number > 0, but step = -0.5"),
        ("l2 = { low = 0, high = 1, step = nan }", "l2: step must be a number > 0, but step = NaN"),
        ("l2 = { low = 0, high = 1, step = true }", "l2: step must be a number > 0, but step = true"),
        (
            "batch_size = { low = 8, high = 64, step = 8.0 }",
            "batch_size: step must be a whole number > 0, but step = 8.0",
        ),
        ("l2 = { low = 0, high = 1, log = 1 }", "l2: log must be true or false, but log = 1"),
        ('l2 = { low = "0", high = 1 }', 'l2: low must be a number, but low = "0"'),
        ('max_norm = { low = "none", high = 1 }', 'max_norm: low must be a number, but low = "none"'),
        ("l2 = { low = true, high = 1 }", "l2: low must be a number ≥ 0, but low = true"),
        ("l2 = { low = 0, high = nan }", "l2: high must be a number ≥ 0, but high = NaN"),
        ("l2 = { low = 0, high = inf }", "l2: high must be a number ≥ 0, but high = Infinity"),
        ("l2 = { low = 0 }", "l2: high is missing"),
        (
            "l2 = { low = 0, high = 1, hihg = 2 }",
            "l2: hihg: unknown key; a range has low, high, log, step; a list has choices",
        ),
        ("l2 = { choices = [0.1], low = 0 }", "l2: low: unknown key beside choices"),
        (
            "l2 = { choices = [] }",
            "l2: choices must be a list of at least one value, but choices = []",
        ),
        (
            "l2 = { choices = 0.1 }",
            "l2: choices must be a list of at least one value, but choices = 0.1",
        ),
        ("l2 = { choices = [0.1, 0.1] }", "l2: choices must differ, but choices = [0.1, 0.1]"),
        ("l2 = { choices = [1, 1.0] }", "l2: choices must differ, but choices = [1, 1.0]"),
        ("l2 = { choices = [true, 1] }", "l2: each choice must be a number ≥ 0, but one is true"),
        ("l2 = { choices = [[1]] }", "l2: each choice must be a number ≥ 0, but one is [1]"),
        (
            'activation = { choices = ["relu", "rleu"] }',
            'activation: each choice must be "linear" or "relu", but one is "rleu"',
        ),
        ("shuffle = { low = 0, high = 1 }", "shuffle: has no numeric range; use choices"),
        ("activation = { low = 0, high = 1 }", "activation: has no numeric range; use choices"),
    ],
)
def test_a_range_or_list_that_breaks_a_rule_is_named_with_rule_and_value(entry: str, fault: str) -> None:
    assert faults_of(space=entry) == [f"[space] {fault}"]


@pytest.mark.parametrize(
    ("entry", "faults"),
    [
        ("l2 = {}", ["low is missing", "high is missing"]),
        (
            "l2 = { low = -1, high = [1] }",
            ["low must be a number ≥ 0, but low = -1", "high must be a number ≥ 0, but high = [1]"],
        ),
        (
            "l2 = { low = 0, high = 0, log = true }",
            [
                "low < high must hold, but low = 0 and high = 0",
                "low > 0 must hold for log = true, but low = 0",
            ],
        ),
        (
            "l2 = { low = 2, high = 1, hihg = 3 }",
            [
                "hihg: unknown key; a range has low, high, log, step; a list has choices",
                "low < high must hold, but low = 2 and high = 1",
            ],
        ),
        (
            "l2 = { low = 2, high = 1, log = 1 }",
            [
                "log must be true or false, but log = 1",
                "low < high must hold, but low = 2 and high = 1",
            ],
        ),
    ],
)
def test_every_fault_of_one_entry_is_told(entry: str, faults: list[str]) -> None:
    assert faults_of(space=entry) == [f"[space] l2: {fault}" for fault in faults]


@pytest.mark.parametrize(
    ("entry", "rule"),
    [
        ("batch_size = { low = 0, high = 8 }", "low must be a whole number ≥ 1, but low = 0"),
        ("batch_size = { low = 1.0, high = 8 }", "low must be a whole number ≥ 1, but low = 1.0"),
        ("dropout = { low = 0, high = 1 }", "high must be a number ≥ 0 and < 1, but high = 1"),
        ("dropout = { low = -0.1, high = 0.5 }", "low must be a number ≥ 0 and < 1, but low = -0.1"),
        ("learning_rate = { low = 0, high = 1 }", "low must be a number > 0, but low = 0"),
        ("max_norm = { low = 0, high = 1 }", 'low must be a number > 0 or "none", but low = 0'),
        (
            "units = { low = 0, high = 8 }",
            'low must be a whole number ≥ 1 or "published", but low = 0',
        ),
    ],
)
def test_a_range_stays_within_what_is_legal_for_its_setting(entry: str, rule: str) -> None:
    name = entry.split(" ", maxsplit=1)[0]
    assert faults_of(space=entry) == [f"[space] {name}: {rule}"]


@pytest.mark.parametrize("step", ["0.1", "0.05", "0.02", "0.7"])
def test_a_step_typed_in_decimals_divides_its_range(step: str) -> None:
    # 0.7 / 0.1 is 6.999999999999999 in floats.
    space = space_of(space=f"l2 = {{ low = 0.0, high = 0.7, step = {step} }}")
    assert space.searched["l2"] == FloatDistribution(0.0, 0.7, step=float(step))


# Fixed values and the rule of each kind of setting


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("l2 = 0", 0),
        ("l2 = 0.5", 0.5),
        ("batch_size = 32", 32),
        ("shuffle = false", False),
        ('max_norm = "none"', "none"),
        ("max_norm = 3", 3),
        ('activation = "relu"', "relu"),
    ],
)
def test_a_plain_value_is_fixed(entry: str, value: object) -> None:
    space = space_of(space=f"learning_rate = {{ low = 0.1, high = 0.2 }}\n{entry}")
    assert list(space.fixed.values()) == [value]
    assert [type(fixed) for fixed in space.fixed.values()] == [type(value)]
    assert list(space.searched) == ["learning_rate"]


@pytest.mark.parametrize("table", ["space", "baseline", "variants.plain"])
@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ("l2 = true", "l2: must be a number ≥ 0, but is true"),
        ('l2 = "0.1"', 'l2: must be a number ≥ 0, but is "0.1"'),
        ("l2 = nan", "l2: must be a number ≥ 0, but is NaN"),
        ("l2 = inf", "l2: must be a number ≥ 0, but is Infinity"),
        ("l2 = -inf", "l2: must be a number ≥ 0, but is -Infinity"),
        ("l2 = -0.1", "l2: must be a number ≥ 0, but is -0.1"),
        ("l2 = [0.1]", "l2: must be a number ≥ 0, but is [0.1]"),
        ("l2 = 1979-05-27", 'l2: must be a number ≥ 0, but is "1979-05-27"'),
        ("l2 = 1979-05-27T07:32:00Z", 'l2: must be a number ≥ 0, but is "1979-05-27 07:32:00+00:00"'),
        ("l2 = 07:32:00", 'l2: must be a number ≥ 0, but is "07:32:00"'),
        ("dropout = 1.0", "dropout: must be a number ≥ 0 and < 1, but is 1.0"),
        ("learning_rate = 0.0", "learning_rate: must be a number > 0, but is 0.0"),
        ("batch_size = 32.0", "batch_size: must be a whole number ≥ 1, but is 32.0"),
        ("batch_size = true", "batch_size: must be a whole number ≥ 1, but is true"),
        ('max_norm = "off"', 'max_norm: must be a number > 0 or "none", but is "off"'),
        ("max_norm = 0", 'max_norm: must be a number > 0 or "none", but is 0'),
        ("shuffle = 1", "shuffle: must be true or false, but is 1"),
        ('shuffle = "true"', 'shuffle: must be true or false, but is "true"'),
        ("activation = 1", 'activation: must be "linear" or "relu", but is 1'),
        ("activation = true", 'activation: must be "linear" or "relu", but is true'),
        ('activation = "rleu"', 'activation: must be "linear" or "relu", but is "rleu"'),
        ("weight_decay = 0.1", f"weight_decay: unknown setting; {READS}"),
    ],
)
def test_an_illegal_value_is_refused_wherever_it_stands(table: str, entry: str, fault: str) -> None:
    parts = {"space": entry} if table == "space" else {"rest": f"[{table}]\n{entry}"}
    assert faults_of(**parts) == [f"[{table}] {fault}"]


@pytest.mark.parametrize(
    "entry",
    [
        f"l2 = {HUGE}",
        f"batch_size = {HUGE}",
        f"l2 = {{ low = 0, high = {HUGE} }}",
        f"batch_size = {{ low = 1, high = {HUGE} }}",
        f"batch_size = {{ low = 1, high = 8, step = {HUGE} }}",
        f"l2 = {{ low = 0, high = 1, step = {HUGE} }}",
        f"l2 = {{ choices = [{HUGE}] }}",
        # Steps of which no float can say how many there are.
        "l2 = { low = 0, high = 1, step = 1e-320 }",
    ],
)
def test_numbers_beyond_what_floats_hold_are_refused(entry: str) -> None:
    name = entry.split(" ", maxsplit=1)[0]
    assert all(fault.startswith(f"[space] {name}: ") for fault in faults_of(space=entry))


@pytest.mark.parametrize("key", ["epochs", "plateau_floor"])
def test_a_budget_beyond_what_floats_hold_is_refused(key: str) -> None:
    budget = f"{key} = {HUGE}" if key == "epochs" else f"epochs = 3\n{key} = {HUGE}"
    assert [fault.split(":")[0] for fault in faults_of(budget=budget)] == [f"[budget] {key}"]


def test_a_long_value_is_shortened() -> None:
    (fault,) = faults_of(space=f"l2 = {[1] * 1000}")
    assert fault.endswith("…")
    assert len(fault) < 150


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "missing"),
        (1e-05, "1e-05"),
        ("größer", '"größer"'),
        (datetime.date(1979, 5, 27), '"1979-05-27"'),
        ({"low": 1}, '{"low": 1}'),
    ],
)
def test_a_value_is_shown_as_the_file_has_it(value: object, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize("parameter", PARAMETERS, ids=lambda parameter: parameter.name)
def test_every_default_is_legal(parameter: Parameter) -> None:
    assert parameter.fault(parameter.default) is None


@pytest.mark.parametrize(
    ("parameter", "legal", "illegal"),
    [
        (settings.DROPOUT, [0, 0.0, math.nextafter(1.0, 0.0)], [1, 1.0, math.nextafter(0.0, -1.0)]),
        (settings.LEARNING_RATE, [5e-324, 1], [0, 0.0, -1]),
        (settings.BATCH_SIZE, [1, 10**6], [0, -1, 1.0]),
        (settings.HIDDEN_LAYERS, [1, 64, "published"], [0, 65, "none"]),
    ],
    ids=["dropout", "learning_rate", "batch_size", "hidden_layers"],
)
def test_the_ends_of_a_legal_range(parameter: Parameter, legal: list, illegal: list) -> None:
    assert [value for value in legal if parameter.fault(value)] == []
    assert [value for value in illegal if not parameter.fault(value)] == []


WIDER = techniques(optimizer="adam", activation="relu")


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        (
            "momentum = { low = 0.5, high = 0.9 }",
            'momentum: is read only where optimizer is "sgd", but optimizer is "adam"',
        ),
        (
            'momentum = { low = 0.5, high = 0.9 }\noptimizer = { choices = ["adam", "rmsprop"] }',
            'momentum: is read only where optimizer is "sgd", but optimizer is "adam" or "rmsprop"',
        ),
        (
            'weight_decay = { low = 1e-4, high = 1e-2 }\noptimizer = "sgd"',
            'weight_decay: is read only where optimizer is "adamw", but optimizer is "sgd"',
        ),
        (
            "dropout = { low = 0.0, high = 0.5 }\ndropout_on = false",
            "dropout: is read only where dropout_on is true, but dropout_on is false",
        ),
        (
            "bn_momentum = { low = 0.8, high = 0.99 }\nbatch_normalization = { choices = [false] }",
            "bn_momentum: is read only where batch_normalization is true, but batch_normalization is false",
        ),
        (
            'schedule_final = { low = 0.001, high = 0.1 }\nschedule = { choices = ["plateau", "constant"] }',
            'schedule_final: is read only where schedule is "exponential" or "cosine" or "step",'
            ' but schedule is "plateau" or "constant"',
        ),
        (
            "dropout_on = { choices = [true, false] }",
            "dropout_on: is read only where dropout is on, but dropout is 0.0",
        ),
        (
            'max_norm = "none"\nmax_norm_on = { choices = [true, false] }',
            'max_norm_on: is read only where max_norm is on, but max_norm is "none"',
        ),
    ],
)
def test_a_searched_setting_that_no_model_would_read_is_refused(entry: str, fault: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(text_of(space=entry), FILE, WIDER, CLASSIFICATION)
    assert str(caught.value) == f"{FILE} [space] {fault}"


@pytest.mark.parametrize(
    "entry",
    [
        'momentum = { low = 0.5, high = 0.9 }\noptimizer = "sgd"',
        'momentum = { low = 0.5, high = 0.9 }\noptimizer = { choices = ["adam", "sgd"] }',
        "momentum = 0.5\ndropout = { low = 0.0, high = 0.5 }",
        "dropout = { low = 0.0, high = 0.5 }\ndropout_on = { choices = [true, false] }",
        "dropout = 0.25\ndropout_on = { choices = [true, false] }",
        'schedule_epochs = { low = 3, high = 9 }\nschedule = "cosine"',
    ],
)
def test_a_searched_setting_that_some_model_reads_is_searched(entry: str) -> None:
    assert parse(text_of(space=entry), FILE, WIDER, CLASSIFICATION).searched


@pytest.mark.parametrize("parameter", WIDER, ids=lambda parameter: parameter.name)
def test_what_a_setting_needs_is_a_legal_value_of_another(parameter: Parameter) -> None:
    needed, values = parameter.needs or ("optimizer", ("sgd",))
    (other,) = (one for one in WIDER if one.name == needed)
    assert [other.fault(value) for value in values] == [None] * len(values)
    assert parameter.needs is None or other is not parameter


def test_a_space_without_a_range_is_refused() -> None:
    fault = "[space]: nothing is searched; give at least one range or list of choices"
    assert faults_of(space="") == [fault]
    assert faults_of(space="l2 = 0.1") == [fault]


def test_a_space_without_a_range_is_told_beside_a_fault_of_another_table() -> None:
    assert faults_of(space="l2 = 0.1", rest="[bugdet]") == [
        "[bugdet]: unknown table; the tables are space, budget, objective, baseline, variants, comparisons",
        "[space]: nothing is searched; give at least one range or list of choices",
    ]


# [budget]


def test_a_budget_has_keras_defaults() -> None:
    budget = space_of(budget="epochs = 7").budget
    assert (budget.epochs, budget.monitor, budget.mode) == (7, "val_loss", "min")
    assert budget.min_delta == 0.0
    assert (budget.plateau_min_delta, budget.plateau_cooldown, budget.plateau_floor) == (1e-4, 0, 0.0)


def test_a_budget_is_what_the_file_says() -> None:
    said = {
        "epochs": 7,
        "patience": 0,
        "min_delta": 0.25,
        "plateau_factor": 0.1,
        "plateau_patience": 3,
        "plateau_min_delta": 0.5,
        "plateau_cooldown": 2,
        "plateau_floor": 1e-6,
    }
    budget = space_of(budget="\n".join(f"{key} = {value}" for key, value in said.items())).budget
    assert {key: value for key, value in vars(budget).items() if key in said} == said


@pytest.mark.parametrize(
    ("monitor", "mode"), [("val_loss", "min"), ("val_accuracy", "max"), ("val_log_loss", "min")]
)
def test_the_monitor_knows_which_way_is_better(monitor: str, mode: str) -> None:
    budget = space_of(budget=f'epochs = 3\nmonitor = "{monitor}"').budget
    assert (budget.monitor, budget.mode) == (monitor, mode)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("epochs = 0", "epochs: must be a whole number ≥ 1, but is 0"),
        ("epochs = 1.5", "epochs: must be a whole number ≥ 1, but is 1.5"),
        ("epochs = true", "epochs: must be a whole number ≥ 1, but is true"),
        ('epochs = "3"', 'epochs: must be a whole number ≥ 1, but is "3"'),
        ("", "epochs: this key is needed"),
        ("epochs = 3\npatience = -1", "patience: must be a whole number ≥ 0, but is -1"),
        ("epochs = 3\nmin_delta = nan", "min_delta: must be a number ≥ 0, but is NaN"),
        ("epochs = 3\nplateau_factor = 0", "plateau_factor: must be a number > 0 and < 1, but is 0"),
        ("epochs = 3\nplateau_factor = 1", "plateau_factor: must be a number > 0 and < 1, but is 1"),
        ("epochs = 3\nplateau_patience = 1.0", "plateau_patience: must be a whole number ≥ 0, but is 1.0"),
        ("epochs = 3\nplateau_min_delta = -1", "plateau_min_delta: must be a number ≥ 0, but is -1"),
        ("epochs = 3\nplateau_cooldown = -1", "plateau_cooldown: must be a whole number ≥ 0, but is -1"),
        ("epochs = 3\nplateau_floor = -1", "plateau_floor: must be a number ≥ 0, but is -1"),
        (
            'epochs = 3\nmonitor = "val_f1"',
            'monitor: must be one of val_loss, val_accuracy, val_log_loss, but is "val_f1"',
        ),
        (
            'epochs = 3\nmonitor = "loss"',
            'monitor: must be one of val_loss, val_accuracy, val_log_loss, but is "loss"',
        ),
        (
            'epochs = 3\nmonitor = ["val_loss"]',
            'monitor: must be one of val_loss, val_accuracy, val_log_loss, but is ["val_loss"]',
        ),
        (
            "epochs = 3\npatiense = 3",
            "patiense: unknown key; the keys are monitor, epochs, patience, min_delta, plateau_factor,"
            " plateau_patience, plateau_min_delta, plateau_cooldown, plateau_floor",
        ),
    ],
)
def test_a_budget_that_breaks_a_rule_is_refused(line: str, fault: str) -> None:
    assert faults_of(budget=line) == [f"[budget] {fault}"]


# [objective]

_METRICS = "val_accuracy, val_log_loss, val_loss"


@pytest.mark.parametrize(
    ("metric", "direction"),
    [("val_accuracy", "maximize"), ("val_log_loss", "minimize"), ("val_loss", "minimize")],
)
def test_a_metric_has_one_direction_which_may_be_left_out(metric: str, direction: str) -> None:
    left_out = space_of(objective=f'metric = "{metric}"').objective
    said = space_of(objective=f'metric = "{metric}"\ndirection = "{direction}"').objective
    assert left_out == said
    assert (said.metric, said.direction) == (metric, direction)


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ("", f"metric: must be one of {_METRICS}, but is missing"),
        ('metric = "val_f1"', f'metric: must be one of {_METRICS}, but is "val_f1"'),
        ('metric = "accuracy"', f'metric: must be one of {_METRICS}, but is "accuracy"'),
        ("metric = 1", f"metric: must be one of {_METRICS}, but is 1"),
        ('metric = ["val_loss"]', f'metric: must be one of {_METRICS}, but is ["val_loss"]'),
        (
            'metric = "val_accuracy"\ndirection = "minimize"',
            'direction: val_accuracy is to maximize, but direction = "minimize"',
        ),
        (
            'metric = "val_log_loss"\ndirection = "down"',
            'direction: val_log_loss is to minimize, but direction = "down"',
        ),
        (
            'metric = "val_accuracy"\ndirection = true',
            "direction: val_accuracy is to maximize, but direction = true",
        ),
        (
            'metric = "val_accuracy"\ngoal = 1',
            "goal: unknown key; the keys are metric, direction",
        ),
    ],
)
def test_an_objective_that_breaks_a_rule_is_refused(lines: str, fault: str) -> None:
    assert faults_of(objective=lines) == [f"[objective] {fault}"]


_DEPENDS = (
    "[objective] metric: must not depend on a searched number, but Keras's val_loss holds the penalties,"
    " and {} is searched; use one of val_accuracy, val_log_loss"
)


@pytest.mark.parametrize(
    ("space", "searched"),
    [
        ("l1 = { low = 0, high = 1 }", "l1"),
        ("l2 = { choices = [0, 0.1] }", "l2"),
        ("l1 = { low = 0, high = 1 }\nl2 = { low = 0, high = 1 }", "l1, l2"),
    ],
)
def test_the_objective_must_not_depend_on_a_searched_penalty(space: str, searched: str) -> None:
    assert faults_of(space=space, objective='metric = "val_loss"') == [_DEPENDS.format(searched)]


def test_the_switch_of_a_penalty_changes_the_loss_as_its_number_does() -> None:
    in_loss = [
        parameter.name for parameter in techniques(optimizer="adam", activation="relu") if parameter.in_loss
    ]
    assert sorted(in_loss) == ["activity_l1", "activity_l1_on", "l1", "l1_on", "l2", "l2_on"]


def test_a_penalty_that_is_fixed_leaves_the_loss_comparable() -> None:
    space = space_of(space="dropout = { low = 0, high = 0.5 }\nl2 = 0.1", objective='metric = "val_loss"')
    assert space.objective.metric == "val_loss"


def test_a_dependent_objective_is_told_beside_a_fault_of_the_penalty_itself() -> None:
    faults = faults_of(space="l2 = { low = 0, high = 1, log = true }", objective='metric = "val_loss"')
    assert faults == [
        "[space] l2: low > 0 must hold for log = true, but low = 0",
        _DEPENDS.format("l2"),
    ]


# The file as a whole


def test_all_faults_of_a_file_come_at_once() -> None:
    faults = faults_of(
        space="l2 = { low = 1, high = 0 }\nnope = 1\nshuffle = 1",
        budget="patience = -1\nmonitor = 3",
        objective='metric = "val_accuracy"\ndirection = "minimize"\nextra = 1',
        rest="[baseline]\ndropout = 2\n[variants]\nplain = 3\n[variants.other]\nl2 = -1\n[more]",
    )
    assert [fault.split(": ", maxsplit=1)[0] for fault in faults] == [
        "[more]",
        "[space] l2",
        "[space] nope",
        "[space] shuffle",
        "[budget] monitor",
        "[budget] patience",
        "[budget] epochs",
        "[objective] extra",
        "[objective] direction",
        "[baseline] dropout",
        "[variants] plain",
        "[variants.other] l2",
    ]


def test_the_tables_that_are_needed_are_named() -> None:
    assert faults_in("") == [f"[{name}]: this table is needed" for name in ("space", "budget", "objective")]


@pytest.mark.parametrize("name", ["baseline", "variants"])
def test_a_table_must_be_a_table(name: str) -> None:
    assert faults_in(f"{name} = 1\n{text_of()}") == [f"[{name}]: must be a table, but is 1"]
    assert faults_of(rest=f"[[{name}]]\nl2 = 1") == [f'[{name}]: must be a table, but is [{{"l2": 1}}]']


def test_a_variant_must_be_a_table() -> None:
    assert faults_of(rest="[variants]\nplain = 1") == [
        "[variants] plain: must be a table of settings, but is 1"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "[space",
        "[space]\n[space]",
        text_of(budget="epochs = 3\nepochs = 4"),
        "l2 = " + "[" * 100_000,
        "l2 = " + "1" * 5_000,
        "\0",
        "<html>",
    ],
    ids=["open", "table twice", "key twice", "too deep", "too long", "NUL", "no TOML"],
)
def test_broken_toml_is_told_with_its_file(text: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(str(FILE))}: not a TOML file: .+"):
        parse(text, FILE, PARAMETERS, CLASSIFICATION)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    file = tmp_path / "no.toml"
    with pytest.raises(UserError) as caught:
        read(file, PARAMETERS, CLASSIFICATION)
    assert str(caught.value) == f"{file}: there is no such search-space file"


def test_a_file_that_is_not_utf8_is_told_with_the_byte(tmp_path: Path) -> None:
    file = tmp_path / "latin.toml"
    file.write_bytes("# grö".encode("latin-1"))
    with pytest.raises(UserError) as caught:
        read(file, PARAMETERS, CLASSIFICATION)
    assert str(caught.value) == f"{file}: a search-space file is UTF-8 text, but byte 4 is not"


def test_a_directory_in_place_of_a_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path, PARAMETERS, CLASSIFICATION)
    assert str(caught.value) == f"{tmp_path}: the search-space file cannot be read: Is a directory"


def test_a_file_in_the_way_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/a\.toml: the search-space file cannot be read: "):
        read(tmp_path / "file" / "a.toml", PARAMETERS, CLASSIFICATION)


def test_a_file_name_no_system_takes_is_told() -> None:
    with pytest.raises(UserError, match="search-space file"):
        read(Path("a\0.toml"), PARAMETERS, CLASSIFICATION)


def test_a_file_is_read_as_its_text_is_parsed(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("# größer\r\n" + text_of(), encoding="utf-8")
    space = read(file, PARAMETERS, CLASSIFICATION)
    assert space.file == file
    assert space == parse(space.text, file, PARAMETERS, CLASSIFICATION)


# Baseline, variants, and what a space offers


def test_a_baseline_may_leave_the_ranges_and_switch_techniques_off() -> None:
    space = space_of(
        space='max_norm = { low = 1, high = 2 }\nactivation = "relu"',
        rest='[baseline]\nmax_norm = "none"\nbatch_normalization = false\nl2 = 100',
    )
    assert space.baseline == {"max_norm": "none", "batch_normalization": False, "l2": 100}


def test_a_baseline_is_settings_and_no_ranges() -> None:
    assert faults_of(rest="[baseline]\nl2 = { low = 0, high = 1 }") == [
        '[baseline] l2: must be a number ≥ 0, but is {"low": 0, "high": 1}'
    ]


def test_a_file_without_a_baseline_has_none_and_an_empty_one_is_all_defaults() -> None:
    assert space_of().baseline is None
    assert space_of(rest="[baseline]").baseline == {}


@pytest.mark.parametrize("name", ["l2 + act", "x/y", "ümlaut", "added to the baseline", "a" * 61, ""])
def test_names_of_arms_and_comparisons_can_be_those_of_metrics_and_files(name: str) -> None:
    rule = f"{name!r}: a name has letters, digits, dashes and underscores only, up to 60"
    text = json.dumps(name, ensure_ascii=False)
    assert faults_of(rest=f"[variants.{text}]\nl2 = 0.1") == [f"[variants] {rule}"]
    arms = "[variants.one]\n[variants.two]\n"
    found = faults_of(rest=f'{arms}[comparisons.{text}]\narms = ["one", "two"]')
    assert found == [f"[comparisons] {rule}"]


@pytest.mark.parametrize("name", ["all", "added", "taken"])
def test_no_comparison_is_called_as_what_ablate_means_by_a_word(name: str) -> None:
    found = faults_of(rest=f'[variants.one]\n[variants.two]\n[comparisons.{name}]\narms = ["one", "two"]')
    rule = "must not be one of all, added, taken, which mean something else to ablate"
    assert found == [f"[comparisons] {name}: {rule}"]


def test_a_variant_cannot_be_named_as_the_baseline_is() -> None:
    assert faults_of(rest="[variants.baseline]\nl2 = 0.1") == [
        "[variants] baseline: has a table of its own, [baseline]"
    ]


def test_variants_are_named_settings() -> None:
    space = space_of(rest="[variants.plain]\nl2 = 0\n[variants.heavy]\nl2 = 0.1\ndropout = 0.5")
    assert space.variants == {"plain": {"l2": 0}, "heavy": {"l2": 0.1, "dropout": 0.5}}


def test_complete_puts_what_was_drawn_over_fixed_over_defaults() -> None:
    space = space_of(space="dropout = { low = 0, high = 0.5 }\nl2 = 0.1\nl1 = 0.2")
    assert space.complete({"dropout": 0.3}) == {**DEFAULTS, "l2": 0.1, "l1": 0.2, "dropout": 0.3}


def test_published_settings_ignore_the_fixed_values() -> None:
    space = space_of(space="dropout = { low = 0, high = 0.5 }\nl2 = 0.1")
    assert space.published({"l1": 0.2}) == {**DEFAULTS, "l1": 0.2}


def test_with_epochs_changes_the_longest_training_alone() -> None:
    space = space_of(budget="epochs = 3\npatience = 2")
    longer = space.with_epochs(9)
    assert (longer.budget.epochs, longer.budget.patience) == (9, 2)
    assert space.budget.epochs == 3
    assert space.with_epochs(None) is space
    assert longer.with_epochs(3) == space


def test_identity_is_texts_by_place() -> None:
    identity = space_of(
        space="dropout = { low = 0, high = 0.5 }\nl2 = 0.1", rest="[baseline]\nl2 = 0"
    ).identity()
    assert json.loads(identity["[space] dropout"]) == {"low": 0.0, "high": 0.5}
    assert identity["[space] l2"] == "0.1"
    assert identity["[budget] epochs"] == "3"
    assert identity["[objective]"] == "maximize val_accuracy"
    assert identity["[baseline]"] == '{"l2": 0}'


def test_identity_ignores_comments_and_order() -> None:
    one = space_of(space="l1 = { low = 0, high = 1 } # wide\nl2 = 0.1", rest="[baseline]\nl2 = 0\nl1 = 1")
    other = space_of(space="l2 = 0.1\nl1 = { high = 1, low = 0.0 }", rest="[baseline]\nl1 = 1\nl2 = 0")
    assert one.identity() == other.identity()


@pytest.mark.parametrize(
    "changed",
    [
        {"space": "dropout = { low = 0.0, high = 0.4 }"},
        {"space": "dropout = { low = 0.0, high = 0.5, step = 0.1 }"},
        {"space": "dropout = { choices = [0.0, 0.5] }"},
        {"space": "dropout = { low = 0.0, high = 0.5 }\nl2 = 0.1"},
        {"budget": "epochs = 4"},
        {"budget": 'epochs = 3\nmonitor = "val_accuracy"'},
        {"objective": 'metric = "val_log_loss"'},
        {"rest": "[baseline]"},
        {"rest": "[baseline]\nl2 = 0.1"},
    ],
    ids=str,
)
def test_identity_tells_spaces_apart(changed: dict[str, str]) -> None:
    assert space_of(**changed).identity() != space_of().identity()


def test_identity_tells_a_log_range_from_a_plain_one() -> None:
    plain = space_of(space="l2 = { low = 0.1, high = 1 }")
    log = space_of(space="l2 = { low = 0.1, high = 1, log = true }")
    assert plain.identity() != log.identity()


# The files in search_spaces/

TECHNIQUES = frozenset(
    {"learning_rate", "batch_size", "dropout", "bn_momentum", "bn_epsilon", "l1", "l2", "max_norm"}
)


@pytest.mark.parametrize("name", tasks.NAMES)
class TestTheTasksOwnFile:
    def test_it_suits_its_task(self, name: str) -> None:
        task = tasks.find(name)
        space = read(file_of(name), task.parameters, task.metrics)
        assert set(space.searched) >= TECHNIQUES
        assert space.baseline is not None
        read_by_the_model = {parameter.name for parameter in task.parameters}
        for settings_of in (space.baseline, *space.variants.values()):
            assert set(space.published(settings_of)) == read_by_the_model

    def test_it_opens_with_goal_command_and_expectation(self, name: str) -> None:
        lines = file_of(name).read_text(encoding="utf-8").splitlines()
        assert [re.split(r":\s+", line)[0] for line in lines[:3]] == ["# Goal", "# Command", "# Expect"]
        assert f"-P task={name}" in lines[1]

    def test_its_expectation_comes_from_a_real_run(self, name: str) -> None:
        expectation = file_of(name).read_text(encoding="utf-8").splitlines()[2]
        assert re.search(r"\d", expectation), expectation


def test_every_file_in_search_spaces_is_a_tasks_own() -> None:
    # A task of a person's own rows may have one for each kind of target.
    found = {file.stem for file in file_of("iris").parent.glob("*.toml")}
    assert {name for name in found if name.partition("_")[0] not in OWN} == set(tasks.NAMES)


# Anything at all in a file

_WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=6)
_NUMBERS = (
    st.sampled_from([-1, 0, 1, 2, 0.1, 0.5, 1e-320, 1e308, int(HUGE)])
    | st.integers()
    | st.floats(allow_nan=True, allow_infinity=True)
)
_SCALARS = (
    _NUMBERS
    | st.booleans()
    | st.sampled_from(["none", "published", "relu", "val_loss", "val_accuracy", "minimize"])
    | _WORDS
    | st.dates()
    | st.times()
    | st.datetimes()
)
_SPECS = st.fixed_dictionaries(
    {},
    optional={
        "low": _SCALARS,
        "high": _SCALARS,
        "log": _SCALARS,
        "step": _SCALARS,
        "choices": st.lists(_SCALARS, max_size=3),
    },
)
_ANYTHING = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=3),
    max_leaves=5,
)
_RANGES = st.fixed_dictionaries(
    {"low": _NUMBERS, "high": _NUMBERS}, optional={"step": _NUMBERS, "log": st.booleans()}
)
# Often sound, so that some files come through.
_LIKELY = st.dictionaries(
    st.sampled_from(["l1", "l2", "learning_rate", "max_norm"]),
    st.fixed_dictionaries(
        {"low": st.floats(1e-9, 1.0), "high": st.sampled_from([1.0, 2]) | st.floats(0.5, 1e300)},
        optional={"log": st.booleans()},
    )
    | st.fixed_dictionaries({"choices": st.lists(st.integers(1, 9), min_size=1, max_size=2)})
    | st.floats(0.1, 1.0),
    min_size=1,
    max_size=3,
)
_SETTINGS = st.dictionaries(
    st.sampled_from(sorted(DEFAULTS)) | _WORDS, _SPECS | _RANGES | _SCALARS | _ANYTHING, max_size=4
)
_BUDGET_KEYS = ["epochs", "monitor", "patience", "plateau_factor", "min_delta"]
_BUDGETS = st.dictionaries(st.sampled_from(_BUDGET_KEYS) | _WORDS, _ANYTHING, max_size=3)
_OBJECTIVES = st.dictionaries(st.sampled_from(["metric", "direction"]) | _WORDS, _ANYTHING, max_size=3)
SOUND = st.fixed_dictionaries(
    {
        "space": _LIKELY,
        "budget": st.just({"epochs": 3}),
        "objective": st.sampled_from([{"metric": "val_accuracy"}, {"metric": "val_loss"}]),
    },
    optional={"baseline": st.just({"l2": 0.1}), "variants": st.just({"plain": {}})},
)
JUNK = st.fixed_dictionaries(
    {
        "space": _SETTINGS | _ANYTHING,
        "budget": st.just({"epochs": 3}) | _BUDGETS,
        "objective": st.just({"metric": "val_accuracy"}) | _OBJECTIVES,
    },
    optional={
        "baseline": _SETTINGS,
        "variants": st.dictionaries(_WORDS, _SETTINGS, max_size=2),
        "some": _ANYTHING,
    },
)


def toml(value: object) -> str:
    """A value as TOML, tables inline."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{toml(key)} = {toml(item)}' for key, item in value.items())} }}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


@given(tables=SOUND | JUNK)
@hypothesis_settings(max_examples=300, deadline=None, database=None)
def test_any_tables_are_a_space_or_a_user_error(tables: dict) -> None:
    check(tables)


def check(tables: dict) -> None:
    """These tables are a space as they say, or refused with the place of each fault."""
    text = "\n".join(f"{toml(name)} = {toml(table)}" for name, table in tables.items())
    try:
        space = parse(text, FILE, PARAMETERS, CLASSIFICATION)
    except UserError:
        assert all(fault.startswith("[") for fault in faults_in(text))
        return
    assert space.searched
    for name, drawn in space.searched.items():
        if isinstance(drawn, FloatDistribution | IntDistribution):
            assert drawn.low < drawn.high
            assert (drawn.low, drawn.high) == (tables["space"][name]["low"], tables["space"][name]["high"])
    assert set(space.complete({})) == set(DEFAULTS)
    assert all(isinstance(value, str) for value in space.identity().values())


@given(text=st.text(max_size=60))
@hypothesis_settings(max_examples=100, deadline=None, database=None)
def test_any_text_is_no_space_but_a_user_error(text: str) -> None:
    with pytest.raises(UserError):
        parse(text, FILE, PARAMETERS, CLASSIFICATION)


def test_a_condition_on_a_whole_number_can_be_met_within_its_range() -> None:
    known = [
        Parameter("layers", "int", 1, "", low=1),
        Parameter("width", "int", 8, "", low=1, needs=("layers", (2, 3))),
    ]
    text = """
        [objective]
        metric = "val_accuracy"
        [budget]
        epochs = 3
        [space]
        layers = { low = 1, high = HIGH }
        width = { low = 8, high = 16 }
    """
    file = Path("space.toml")
    found = parse(text.replace("HIGH", "4"), file, known, CLASSIFICATION)
    assert found.searched.keys() == {"layers", "width"}
    with pytest.raises(UserError, match=r"width: is read only where layers is 5 or 6, but layers is 1 or 4"):
        parse(
            text.replace("HIGH", "4"),
            file,
            [known[0], replace(known[1], needs=("layers", (5, 6)))],
            CLASSIFICATION,
        )
