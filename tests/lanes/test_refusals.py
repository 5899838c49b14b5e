"""What lanes cannot take is refused with a reason and goes to fit, and never trains wrongly."""

import functools
import logging
import math
import re
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import jax.numpy as jnp
import keras
import numpy as np
import pytest
from lanes_harness import (
    OBJECTIVE,
    SETTINGS,
    Build,
    Trial,
    blobs,
    budget,
    each,
    in_lanes,
    lanes_engine,
    note,
    one_by_one,
    relative,
    replayed,
)

from pipeline.engines.auto import AutoEngine
from pipeline.engines.fit import FitEngine
from pipeline.errors import UserError
from pipeline.values import Candidate, Data, Settings

LANES = 2
LIMITS = budget(epochs=2)


@pytest.fixture(scope="module")
def data() -> Data:
    return blobs(train=32, validation=16)


def refused(build: Build, data: Data, folder: Path, *settings: dict) -> str:
    """The reason that lanes give, the same for each of the settings."""
    trials = in_lanes(lanes_engine(build, data, LIMITS, folder, LANES), each(*settings or [{}]))
    assert all(trial.outcome is None for trial in trials.values()), trials
    (reason,) = {trial.refused for trial in trials.values()}
    return reason


def model(
    *middle: keras.Layer, loss: object = "sparse_categorical_crossentropy", optimizer: object = None
) -> keras.Model:
    """A classifier with layers of the test's own in the middle."""
    layers = [keras.Input((4,)), keras.layers.Dense(6), *middle, keras.layers.Dense(3, activation="softmax")]
    made = keras.Sequential(layers)
    made.compile(optimizer or keras.optimizers.SGD(0.1), loss)
    return made


class OwnStep(keras.Model):
    def train_step(self, *args: object, **more: object) -> object:
        return super().train_step(*args, **more)


def own_step(settings: Settings, data: Data) -> keras.Model:
    place = keras.Input((4,))
    made = OwnStep(place, keras.layers.Dense(3, activation="softmax")(place))
    made.compile("sgd", "sparse_categorical_crossentropy")
    return made


@keras.saving.register_keras_serializable("lanes")
class Scale(keras.layers.Layer):
    """A layer of a user's, well written: its number is used in call alone."""

    def __init__(self, factor: float, **more: object) -> None:
        super().__init__(**more)
        self.factor = factor

    def call(self, inputs: object) -> object:
        return inputs * self.factor

    def get_config(self) -> dict:
        return {**super().get_config(), "factor": self.factor}


@keras.saving.register_keras_serializable("lanes")
class Branching(Scale):
    def call(self, inputs: object) -> object:
        return inputs * self.factor if self.factor > 0.3 else inputs


@keras.saving.register_keras_serializable("lanes")
class Deriving(Scale):
    def __init__(self, factor: float, **more: object) -> None:
        super().__init__(factor, **more)
        self.squared = factor**2

    def call(self, inputs: object) -> object:
        return inputs * self.squared


@keras.saving.register_keras_serializable("lanes")
class Building(Scale):
    """Derives a value when it is built."""

    def build(self, shape: object) -> None:
        self.squared = self.factor**2

    def call(self, inputs: object) -> object:
        return inputs * self.squared


@keras.saving.register_keras_serializable("lanes")
class WithoutConfig(keras.layers.Layer):
    """A layer that forgets its number in its configuration; a model of it is read back with the default."""

    def __init__(self, factor: float = 2.0, **more: object) -> None:
        super().__init__(**more)
        self.factor = factor

    def call(self, inputs: object) -> object:
        return inputs * self.factor

    def get_config(self) -> dict:
        return super().get_config()


@keras.saving.register_keras_serializable("lanes")
class Raising(Scale):
    def call(self, inputs: object) -> object:
        if not isinstance(self.factor, float):
            raise RuntimeError("no such number")
        return inputs * self.factor


@keras.saving.register_keras_serializable("lanes")
class Cap(keras.constraints.Constraint):
    """A constraint without a configuration, of which Keras makes an empty one."""

    def __init__(self, limit: float = 0.5) -> None:
        self.limit = limit

    def __call__(self, weights: object) -> object:
        return keras.ops.clip(weights, -self.limit, self.limit)


@keras.saving.register_keras_serializable("lanes")
class Focal(keras.losses.Loss):
    """A loss that forgets its number, as Keras's base class does where nobody writes a get_config."""

    def __init__(self, gamma: float = 2.0, **more: object) -> None:
        super().__init__(**more)
        self.gamma = gamma

    def call(self, targets: object, answers: object) -> object:
        chosen = keras.ops.sum(answers * keras.ops.one_hot(keras.ops.cast(targets, "int32"), 3), axis=-1)
        return -((1 - chosen) ** self.gamma) * keras.ops.log(chosen + 1e-7)


def scaled(kind: Callable[..., keras.Layer]) -> Build:
    return lambda settings, data: model(kind(factor=settings["factor"]))


def capped(settings: Settings, data: Data) -> keras.Model:
    return model(keras.layers.Dense(6, kernel_constraint=Cap(settings["factor"])))


def focal(settings: Settings, data: Data) -> keras.Model:
    return model(loss=Focal(settings["factor"]))


def scheduled(settings: Settings, data: Data) -> keras.Model:
    return model(optimizer=keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)))


def closure(settings: Settings, data: Data) -> keras.Model:
    factor = settings["factor"]

    def loss(targets: object, answers: object) -> object:
        return factor * keras.losses.sparse_categorical_crossentropy(targets, answers)

    return model(loss=loss)


def partial(settings: Settings, data: Data) -> keras.Model:
    return model(loss=functools.partial(_power_loss, power=settings["factor"]))


def _power_loss(targets: object, answers: object, power: float) -> object:
    return keras.losses.sparse_categorical_crossentropy(targets, answers) ** power


def inner_lambda(settings: Settings, data: Data) -> keras.Model:
    factor = settings["factor"]
    return model(keras.layers.Lambda(lambda inputs: inputs * factor))


def partial_activation(settings: Settings, data: Data) -> keras.Model:
    return model(keras.layers.Activation(functools.partial(jnp.power, settings["factor"])))


def metric_closure(settings: Settings, data: Data) -> keras.Model:
    factor = settings["factor"]

    def scaled_accuracy(targets: object, answers: object) -> object:
        return factor * keras.metrics.sparse_categorical_accuracy(targets, answers)

    made = model()
    made.compile(made.optimizer, made.loss, metrics=[scaled_accuracy])
    return made


@keras.saving.register_keras_serializable("lanes")
class OwnOptimizer(keras.optimizers.SGD):
    pass


CASES: dict[str, tuple[Build, str]] = {
    "a train_step of its own": (own_step, "a model class of its own"),
    "a branch in Python": (scaled(Branching), "cannot be compiled|compares a lane number"),
    "a value derived in __init__": (scaled(Deriving), "one step of its twin differs"),
    "a value derived in build": (scaled(Building), "one step of its twin differs"),
    "a layer without configuration": (scaled(WithoutConfig), "factor"),
    "a constraint without configuration": (capped, "limit"),
    "a loss without configuration": (focal, "gamma"),
    "a schedule": (scheduled, "schedule"),
    "a closure as loss": (closure, "made anew"),
    "a closure as metric": (metric_closure, "made anew"),
    "a closure in a Lambda": (inner_lambda, "made anew"),
    "a partial function as loss": (partial, "a partial function"),
    "a partial function as activation": (partial_activation, "a partial function"),
    "an optimiser of its own": (
        lambda settings, data: model(optimizer=OwnOptimizer(0.1)),
        "not one of Keras's optimisers",
    ),
}
FACTORS = ({"factor": 0.7}, {"factor": 0.2})


@pytest.mark.parametrize("case", CASES)
def test_is_refused_with_its_reason(case: str, data: Data, tmp_path: Path) -> None:
    build, reason = CASES[case]
    # Each value first, as the first model of a structure is the one that is compared.
    for settings in (FACTORS, FACTORS[::-1]):
        assert re.search(reason, refused(build, data, tmp_path, *settings))


def test_whatever_a_layer_raises_while_it_is_traced_is_a_refusal(data: Data, tmp_path: Path) -> None:
    assert "no such number" in refused(scaled(Raising), data, tmp_path, *FACTORS)


@pytest.mark.parametrize(
    ("build", "default"),
    [(scaled(WithoutConfig), 2.0), (capped, 0.5), (focal, 2.0)],
    ids=["layer", "rule", "loss"],
)
def test_a_forgotten_number_is_refused_where_the_first_model_has_the_default(
    build: Build, default: float, data: Data, tmp_path: Path
) -> None:
    """Its twin is then equal, and a second model with this configuration would train wrongly."""
    refused(build, data, tmp_path, {"factor": default}, {"factor": default / 2})


def test_a_layer_with_a_number_used_in_call_alone_trains_in_lanes(data: Data, tmp_path: Path) -> None:
    build = scaled(Scale)
    candidates = each(*({"factor": factor} for factor in (0.0, 0.5, 1.0, 3.0)))
    ours = in_lanes(lanes_engine(build, data, LIMITS, tmp_path, 4), candidates)
    assert {trial.refused for trial in ours.values()} == {""}
    assert len({trial.outcome.replay for trial in ours.values()}) == 1, "they shared one program"
    theirs = one_by_one(build, data, LIMITS, tmp_path / "fit", replayed(candidates, ours))
    for number, trial in ours.items():
        # Four steps of plain SGD amplify float32's rounding hardly at all.
        assert max(relative(trial.curve, theirs[number].curve).values()) < 1e-5


def _sometimes(settings: Settings, data: Data) -> keras.Model:
    return scheduled(settings, data) if settings["scheduled"] else model()


def _auto(data: Data, folder: Path, *, fit: bool) -> AutoEngine:
    lanes = lanes_engine(_sometimes, data, LIMITS, folder, LANES)
    return AutoEngine(
        lanes, FitEngine(_sometimes, [data], LIMITS, OBJECTIVE, folder, alone=False) if fit else None
    )


def _all(engine: AutoEngine, candidates: list[Candidate]) -> dict[int, Trial]:
    trials: dict[int, Trial] = {}
    queue, ended = list(candidates), 0
    while ended < len(candidates):
        while queue and engine.free():
            engine.add(queue.pop(0))
        ended += note(trials, engine.step())
    return trials


def test_auto_sends_to_fit_what_lanes_refuse_and_says_why_once(
    data: Data, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    candidates = each(*({"scheduled": scheduled} for scheduled in (False, False, True, True, True)))
    with caplog.at_level(logging.WARNING), closing(_auto(data, tmp_path, fit=True)) as engine:
        trials = _all(engine, candidates[:2]) | _all(engine, candidates[2:])
    assert sorted(trials) == [0, 1, 2, 3, 4]
    for number, trial in trials.items():
        assert not trial.refused
        assert not trial.outcome.failure
        assert len(trial.curve) == LIMITS.epochs
        assert (trial.outcome.replay is None) == candidates[number].settings["scheduled"]
    said = [record.getMessage() for record in caplog.records if "schedule" in record.getMessage()]
    assert len(said) == 1
    assert "by fit" in said[0]


@pytest.mark.parametrize("kinds", [(True, True), (False, True), (False, False)])
def test_auto_knows_when_the_first_epoch_began_and_the_last_ended_wherever_they_were(
    kinds: tuple[bool, ...], data: Data, tmp_path: Path
) -> None:
    began = time.monotonic()
    with closing(_auto(data, tmp_path, fit=True)) as engine:
        assert not math.isfinite(engine.times().first)
        _all(engine, each(*({"scheduled": scheduled} for scheduled in kinds)))
        times = engine.times()
    assert began < times.first < times.last < time.monotonic()
    assert ("lane_occupancy" in times.metrics) == (False in kinds)


@keras.saving.register_keras_serializable("lanes")
class Slow(Scale):
    """Takes its time to be traced for lanes, so that what other threads do meanwhile is seen."""

    def call(self, inputs: object) -> object:
        if not isinstance(self.factor, float):
            time.sleep(0.5)
        return inputs * self.factor


def test_a_trial_that_ends_in_fit_disturbs_no_trace_of_lanes(data: Data, tmp_path: Path) -> None:
    def build(settings: Settings, data: Data) -> keras.Model:
        return scheduled(settings, data) if settings["scheduled"] else model(Slow(0.5))

    lanes = lanes_engine(build, data, LIMITS, tmp_path, LANES)
    fit = FitEngine(build, [data], LIMITS, OBJECTIVE, tmp_path, alone=False)
    candidates = each({"scheduled": True}, {"scheduled": False}, {"scheduled": True}, {"scheduled": True})
    with closing(AutoEngine(lanes, fit)) as engine:
        trials = _all(engine, candidates)
    assert trials[1].outcome.replay is not None


def test_strict_lanes_end_with_the_reason(data: Data, tmp_path: Path) -> None:
    with (
        closing(_auto(data, tmp_path, fit=False)) as engine,
        pytest.raises(UserError, match=r"engine=lanes: trial 0 .*schedule"),
    ):
        _all(engine, each({"scheduled": True}))


def test_auto_drops_a_trial_that_waits_for_fit_or_is_there(data: Data, tmp_path: Path) -> None:
    with closing(_auto(data, tmp_path, fit=True)) as engine:
        for candidate in each({"scheduled": True}, {"scheduled": True}):
            engine.add(candidate)
        trials: dict[int, Trial] = {}
        while not trials:
            note(trials, engine.step())
        (running,) = trials
        engine.drop(running)
        engine.drop(1 - running)
        # It may have ended in a step that raised.
        engine.drop(running)
        third = Candidate(2, 7, {**SETTINGS, "scheduled": True})
        assert _all(engine, [third])[2].outcome.value == pytest.approx(1, abs=2)


@pytest.mark.parametrize(
    "raised", [LookupError("no such layer\nand more lines"), SystemExit("no such layer")]
)
def test_a_model_that_cannot_be_built_fails_its_trial_alone(
    data: Data, tmp_path: Path, raised: BaseException
) -> None:
    def sometimes(settings: Settings, data: Data) -> keras.Model:
        if settings["factor"] == 1:
            raise raised
        return model()

    trials = in_lanes(
        lanes_engine(sometimes, data, LIMITS, tmp_path, LANES),
        each({"factor": 0}, {"factor": 1}, {"factor": 2}),
    )
    assert trials[1].outcome.failure.startswith(f"{type(raised).__name__}: no such layer")
    assert "in sometimes" in trials[1].outcome.detail
    assert [trials[number].outcome.failure for number in (0, 2)] == ["", ""]
    assert np.isfinite(trials[2].outcome.value)


def test_what_goes_to_fit_depends_on_its_seed_alone(data: Data, tmp_path: Path) -> None:
    """Lanes draw from the process's random numbers at the same time."""

    def losses(scheduled: tuple[bool, ...]) -> list[list[float]]:
        candidates = each(*({"scheduled": one} for one in scheduled))
        with closing(_auto(data, tmp_path, fit=True)) as engine:
            trials = _all(engine, candidates)
        return [trials[number].of("loss") for number, one in enumerate(scheduled) if one]

    among_lanes = losses((True, True, False, False, False, False))
    assert among_lanes == losses((True, True))
