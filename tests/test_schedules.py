"""Plans of the learning rate: Keras's schedules are the oracle, and `fit` really trains at their rates."""

import math
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import keras
import numpy as np
import pytest

from pipeline.engines import schedules
from pipeline.engines.fit import FitEngine
from pipeline.settings import SCHEDULE, SCHEDULE_EPOCHS, SCHEDULE_FINAL
from pipeline.values import (
    Budget,
    Candidate,
    Data,
    Objective,
    Outcome,
    Progress,
    SealedSplit,
    Settings,
    Split,
)

FIRST = 0.03
# Keras's schedules calculate in float32.
ROUNDING = 4 * 2.0**-23
PLANS = ("constant", "exponential", "cosine", "step")


def planned(schedule: str, final: float = 0.01, length: int = 10, epochs: int = 99) -> np.ndarray:
    settings = {"schedule": schedule, "schedule_final": final, "schedule_epochs": length}
    return schedules.plan(settings, FIRST, epochs)


def rates(plan: np.ndarray, epochs: int) -> list[float]:
    return [float(schedules.rate(plan, epoch)) for epoch in range(epochs)]


def constant(final: float, length: int) -> Callable[[int], float]:
    return lambda epoch: FIRST


def exponential(final: float, length: int) -> Callable[[int], float]:
    return keras.optimizers.schedules.ExponentialDecay(FIRST, decay_steps=length, decay_rate=final)


def cosine(final: float, length: int) -> Callable[[int], float]:
    return keras.optimizers.schedules.CosineDecay(FIRST, decay_steps=length, alpha=final)


def step(final: float, length: int) -> Callable[[int], float]:
    """Three equal falls at the quarters of the way."""
    # Keras's boundaries are the last steps of a level.
    boundaries = [math.ceil(quarter * length / 4) - 1 for quarter in (1, 2, 3)]
    values = [FIRST * final ** (falls / 3) for falls in range(4)]
    return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, values)


KERAS = {"constant": constant, "exponential": exponential, "cosine": cosine, "step": step}


@pytest.mark.parametrize("final", [0.5, 0.01, 1e-6])
@pytest.mark.parametrize("length", [4, 7, 10, 100])
@pytest.mark.parametrize("schedule", PLANS)
class TestAgainstKeras:
    def test_each_epoch_has_the_rate_of_keras_schedule(self, schedule, length, final):
        by_keras = KERAS[schedule](final, length)
        expected = [float(by_keras(epoch)) for epoch in range(length + 1)]
        found = rates(planned(schedule, final, length), length + 1)
        # A cosine near its end is one minus nearly one, which float32 knows to 6e-8 of the first rate.
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=ROUNDING * FIRST)

    def test_it_starts_at_the_first_rate(self, schedule, length, final):
        assert rates(planned(schedule, final, length), 1) == [FIRST]

    def test_it_ends_at_the_final_share_and_stays_there(self, schedule, length, final):
        end = FIRST if schedule == "constant" else FIRST * final
        found = rates(planned(schedule, final, length), 3 * length)[length:]
        np.testing.assert_allclose(found, end, rtol=1e-12)
        assert len(set(found)) == 1

    def test_it_never_rises(self, schedule, length, final):
        found = rates(planned(schedule, final, length), 2 * length)
        assert max(np.diff(found)) <= 0

    def test_epochs_may_be_many_at_once(self, schedule, length, final):
        plan, epochs = planned(schedule, final, length), np.arange(2 * length)
        # One power of many at once may be rounded in another way.
        np.testing.assert_allclose(schedules.rate(plan, epochs), rates(plan, 2 * length), rtol=1e-15)


def test_a_step_schedule_has_four_equal_levels() -> None:
    found = rates(planned("step", 1e-3, 12), 12)
    np.testing.assert_allclose(found, FIRST * np.repeat([1.0, 0.1, 0.01, 0.001], 3), rtol=1e-12)


@pytest.mark.parametrize("schedule", PLANS)
def test_a_share_of_one_changes_nothing(schedule: str) -> None:
    np.testing.assert_allclose(rates(planned(schedule, 1.0), 12), FIRST, rtol=1e-15)


class TestPlan:
    def test_without_settings_it_is_the_plateaus(self):
        assert schedules.plan({}, FIRST, 7)[0] == schedules.PLATEAU
        assert schedules.plan({"schedule": "plateau"}, FIRST, 7)[0] == schedules.PLATEAU
        assert len(schedules.plan({}, FIRST, 7)) == schedules.SIZE

    def test_settings_that_are_lacking_are_the_defaults(self):
        defaults = {one.name: one.default for one in (SCHEDULE_FINAL, SCHEDULE_EPOCHS)}
        for schedule in PLANS:
            short = schedules.plan({"schedule": schedule}, FIRST, 7)
            whole = schedules.plan({"schedule": schedule, **defaults}, FIRST, 7)
            np.testing.assert_array_equal(short, whole)
            assert list(short[1:]) == [FIRST, 0.01, 7, 0]
            # The last is for trainings of an exact length.
            assert schedules.plan({}, FIRST, 7, exactly=3)[-1] == 3

    def test_its_length_is_the_trainings_or_its_own(self):
        assert planned("cosine", length="epochs", epochs=33)[3] == 33
        assert planned("cosine", length=5, epochs=33)[3] == 5

    def test_each_word_of_the_setting_is_a_kind_of_its_own(self):
        kinds = [planned(word)[0] for word in SCHEDULE.words]
        assert sorted(kinds) == [0, 1, 2, 3, 4]
        assert set(SCHEDULE.words) == {"plateau", *PLANS}


# Under fit: one weight whose gradient is one, so that an epoch of one step moves it by the rate.

ROWS = Split(np.ones((4, 1), np.float32), np.zeros(4, np.int32))
DATA = Data("ones", "made up", ("0", "1"), ROWS, ROWS, SealedSplit(ROWS), {})


def mean_answer(_: object, answers: object) -> object:
    return keras.ops.mean(answers)


def build(settings: Settings, data: Data) -> keras.Model:
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((1,)), layer])
    model.compile(keras.optimizers.SGD(settings["learning_rate"]), mean_answer)
    return model


def own_schedule(settings: Settings, data: Data) -> keras.Model:
    model = build(settings, data)
    model.compile(keras.optimizers.SGD(settings["learning_rate"]()), model.loss)
    return model


def train(folder: Path, builder: Callable = build, **settings: object) -> list[Progress | Outcome]:
    """Twelve epochs, with a plateau's rule that lowers the rate after each but the first two."""
    limits = Budget(
        epochs=12,
        monitor="val_loss",
        mode="max",
        patience=100,
        min_delta=0.0,
        plateau_factor=0.5,
        plateau_patience=1,
        plateau_min_delta=1e-4,
        plateau_cooldown=0,
        plateau_floor=0.0,
    )
    candidate = Candidate(0, 1, {"learning_rate": FIRST, "batch_size": 4, "shuffle": False, **settings})
    events = []
    engine = FitEngine(builder, [DATA], limits, Objective("val_loss", "minimize"), folder)
    with closing(engine):
        engine.add(candidate)
        while not engine.free():
            events += engine.step()
    assert isinstance(events[-1], Outcome)
    assert events[-1].failure == ""
    return events


def logged(events: list, name: str) -> list[float]:
    return [event.metrics[name] for event in events if isinstance(event, Progress)]


def steps(events: list) -> np.ndarray:
    """How far the weight moved in each epoch: the loss after it is the weight."""
    return -np.diff([0.0, *logged(events, "val_loss")])


@pytest.mark.parametrize(
    ("schedule", "length"),
    [("constant", 5), ("exponential", "epochs"), ("cosine", 5), ("cosine", "epochs"), ("step", 5)],
)
def test_fit_trains_at_the_rates_of_the_plan(schedule: str, length: int | str, tmp_path: Path) -> None:
    events = train(tmp_path, schedule=schedule, schedule_final=0.1, schedule_epochs=length)
    expected = rates(planned(schedule, 0.1, 12 if length == "epochs" else length), 12)
    # The optimiser's rate is a float32 number.
    np.testing.assert_allclose(logged(events, "learning_rate"), expected, rtol=2.0**-23)
    # And so is the weight, whose rounding is one of 0.3.
    np.testing.assert_allclose(steps(events), expected, rtol=0, atol=1e-7)


def test_fit_lowers_the_rate_by_the_plateaus_rule_where_there_is_no_plan(tmp_path: Path) -> None:
    # The same training, so the plans above would have been lowered, had the rule been on.
    for settings in ({}, {"schedule": "plateau", "schedule_final": 0.5}):
        found = logged(train(tmp_path, **settings), "learning_rate")
        np.testing.assert_allclose(found, [FIRST * 0.5 ** max(0, e - 1) for e in range(12)], rtol=1e-6)


@pytest.mark.parametrize("more", [{}, {"schedule": "cosine"}])
def test_an_optimizers_own_schedule_leads_itself_and_is_logged(more: dict, tmp_path: Path) -> None:
    def halving() -> keras.optimizers.schedules.LearningRateSchedule:
        return keras.optimizers.schedules.ExponentialDecay(FIRST, decay_steps=1, decay_rate=0.5)

    events = train(tmp_path, own_schedule, learning_rate=halving, **more)
    halved = [FIRST * 0.5**epoch for epoch in range(13)]
    np.testing.assert_allclose(steps(events), halved[:12], rtol=0, atol=1e-7)
    # Logged is what the next step would be made with.
    np.testing.assert_allclose(logged(events, "learning_rate"), halved[1:], rtol=ROUNDING)


class TestAsItFell:
    """A training on all rows, in place of the plateau's rule."""

    @pytest.mark.parametrize("epochs", [4, 7, 30])
    def test_the_rate_begins_and_ends_as_it_did(self, epochs):
        fell = schedules.as_it_fell({"dropout": 0.5}, np.geomspace(FIRST, FIRST / 8, epochs).tolist())
        assert fell["dropout"] == 0.5
        found = rates(schedules.plan(fell, FIRST, 99), epochs)
        assert found[0] == FIRST
        assert found[-1] == pytest.approx(FIRST / 8)
        assert found == sorted(found, reverse=True)

    def test_a_rate_that_never_fell_stays(self):
        fell = schedules.as_it_fell({"schedule": "plateau"}, [FIRST] * 5)
        assert set(rates(schedules.plan(fell, FIRST, 99), 20)) == {FIRST}

    @pytest.mark.parametrize("settings", [{"schedule": "cosine"}, {"schedule": "constant"}])
    def test_a_plan_stays_as_it_is(self, settings):
        assert schedules.as_it_fell(settings, [FIRST, FIRST / 2]) is settings

    def test_a_training_that_has_noted_no_rates_stays_as_it_is(self):
        settings = {"units": 8}
        assert schedules.as_it_fell(settings, []) is settings
