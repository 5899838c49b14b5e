"""Techniques that are numbers share a program with those that are off; the others make another one."""

from collections.abc import Callable
from dataclasses import replace

import keras
import numpy as np
import pytest
from test_equality import named

from pipeline import tasks
from pipeline.engines.lanes import signature
from pipeline.values import Data, Setting

NUMBERS = {"dropout": 0.1, "l1": 0.1, "l2": 0.1, "max_norm": 1.0, "activity_l1": 0.1}
# What a lane has of its own: rates, penalties and bounds, and initial weights.
SHARED = [
    {"dropout_on": False},
    {"l1_on": False},
    {"l2_on": False, "l1_on": False},
    {"activity_l1_on": False},
    {"max_norm": 2.0},
    {"learning_rate": 0.5},
    {"bn_momentum": 0.5, "bn_epsilon": 0.1},
    {"bn_gamma": 0.5},
    {"bn_beta_stddev": 0.1},
    {"initializer": "orthogonal"},
    {"schedule": "cosine", "schedule_final": 0.5, "schedule_epochs": 3},
]
OTHERS = [
    {"max_norm_on": False},
    {"batch_normalization": False},
    {"bn_position": "before"},
    {"activation": "tanh"},
    {"optimizer": "sgd"},
    {"optimizer": "adamw"},
    {"optimizer": "rmsprop"},
    {"scaling": "none"},
    {"units": 7},
    {"hidden_layers": 2},
]


@pytest.fixture(scope="module")
def data() -> Data:
    return named("iris")


@pytest.fixture
def of(data: Data) -> Callable[..., str]:
    """The signature's digest of a model of iris with everything on, with some settings changed."""
    task = tasks.find("iris")
    defaults = {parameter.name: parameter.default for parameter in task.parameters} | NUMBERS

    def digest(**changes: Setting) -> str:
        assert changes.keys() <= defaults.keys()
        keras.utils.set_random_seed(len(changes))
        return signature.of_model(task.build({**defaults, **changes}, data), own_tables=False).digest

    return digest


@pytest.mark.parametrize("changes", SHARED, ids=", ".join)
def test_numbers_share_a_program_with_those_that_are_off(changes: dict, of: Callable[..., str]) -> None:
    assert of(**changes) == of()


def test_structures_make_programs_of_their_own(of: Callable[..., str]) -> None:
    digests = [of(), *(of(**changes) for changes in OTHERS)]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize(
    ("optimizer", "number"), [("sgd", {"momentum": 0.0}), ("adamw", {"weight_decay": 0.0})]
)
def test_an_optimizers_own_number_is_a_lanes(optimizer: str, number: dict, of: Callable[..., str]) -> None:
    assert of(optimizer=optimizer, **number) == of(optimizer=optimizer)


def test_folds_that_are_scaled_by_their_own_rows_share_a_program(data: Data) -> None:
    task = tasks.find("iris")
    defaults = {parameter.name: parameter.default for parameter in task.parameters}
    fold = replace(data, train=data.train.take(np.arange(40)))
    models = [task.build(defaults, one) for one in (data, fold)]
    assert len({signature.of_model(model, own_tables=True).digest for model in models}) == 1
    assert len({signature.of_model(model, own_tables=False).digest for model in models}) == 2
