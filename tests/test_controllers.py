"""The lanes' early stopping and reduce-on-plateau: Keras's own callbacks are the oracle, epoch by epoch."""

import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

from pipeline.engines import controllers
from pipeline.engines.controllers import Controllers, Verdict
from pipeline.values import Budget

EPOCHS = 30
CURVES = 2  # of each kind
LEARNING_RATE = 0.01


def _budget(**changed: object) -> Budget:
    values: dict = {
        "epochs": EPOCHS,
        "monitor": "val_loss",
        "mode": "min",
        "patience": 4,
        "min_delta": 0.0,
        "plateau_factor": 0.5,
        "plateau_patience": 2,
        "plateau_min_delta": 1e-4,
        "plateau_cooldown": 0,
        "plateau_floor": 0.0,
    }
    return Budget(**{**values, **changed})


# Each option at its ends and between, and those that depend on each other together.
BUDGETS = {
    "defaults": _budget(patience=10, plateau_patience=5),
    "no patience": _budget(patience=0, plateau_patience=0, plateau_floor=1e-6),
    "patience 1": _budget(patience=1, plateau_patience=1, mode="max"),
    "min_delta on the grid": _budget(min_delta=0.125, plateau_min_delta=0.125),
    "max, min_delta on the grid": _budget(mode="max", min_delta=0.125, plateau_min_delta=0.25),
    "min_delta of no exact number": _budget(min_delta=0.1, plateau_min_delta=0.1, patience=6),
    "max, min_delta of no exact number": _budget(mode="max", min_delta=0.1, plateau_min_delta=0.3),
    "any change counts": _budget(min_delta=1e-12, plateau_min_delta=0.0, plateau_factor=0.9),
    "max, any change counts": _budget(mode="max", plateau_min_delta=1e-9, plateau_factor=1 / 3),
    "cooldown 1": _budget(plateau_cooldown=1, plateau_min_delta=0.2, plateau_factor=0.7, patience=9),
    "cooldown 4": _budget(plateau_cooldown=4, plateau_patience=1, plateau_factor=0.1, plateau_floor=3e-5),
    "max, cooldown 3": _budget(mode="max", plateau_cooldown=3, plateau_patience=3, plateau_floor=1e-3),
    "floor of the start": _budget(plateau_floor=LEARNING_RATE, plateau_patience=1),
    "floor above the start": _budget(plateau_floor=0.3, plateau_patience=1),
}


class Watched(NamedTuple):
    """What is compared, (..., epochs) each; learning_rate is the one after the epoch."""

    stop: np.ndarray
    improved: np.ndarray
    best_epoch: np.ndarray
    learning_rate: np.ndarray


@pytest.fixture(scope="module")
def model() -> keras.Model:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(LEARNING_RATE), "mse")
    return model


def _callbacks(budget: Budget) -> list[keras.callbacks.Callback]:
    """As the fit engine makes them."""
    watched = {"monitor": budget.monitor, "mode": budget.mode}
    plateau = keras.callbacks.ReduceLROnPlateau(
        **watched,
        factor=budget.plateau_factor,
        patience=budget.plateau_patience,
        min_delta=budget.plateau_min_delta,
        cooldown=budget.plateau_cooldown,
        min_lr=budget.plateau_floor,
    )
    stopping = keras.callbacks.EarlyStopping(
        **watched, patience=budget.patience, min_delta=budget.min_delta, restore_best_weights=True
    )
    return [plateau, stopping]


def _keras(model: keras.Model, callbacks: list[keras.callbacks.Callback], curve: np.ndarray) -> Watched:
    """Keras's callbacks over a curve, past the epoch where they stop; epoch number e has the weight e."""
    model.optimizer.learning_rate = LEARNING_RATE
    rows, stopping = [], callbacks[-1]
    for callback in callbacks:
        callback.set_model(model)
        callback.on_train_begin()
    for epoch, value in enumerate(curve):
        model.stop_training = False
        model.set_weights([np.full((1, 1), epoch, np.float32)])
        logs = {"val_loss": float(value)}  # `model.fit` logs Python's floats
        for callback in callbacks:
            callback.on_epoch_end(epoch, logs)
        improved = stopping.best_epoch == epoch and not math.isnan(value)
        rate = np.array(model.optimizer.learning_rate)
        rows.append((model.stop_training, improved, stopping.best_epoch, rate))
    for callback in callbacks:
        callback.on_train_end()
    return Watched(*(np.array(column) for column in zip(*rows, strict=True)))


@cache
def _lanes(budget: Budget) -> Callable[..., tuple[Controllers, Verdict]]:
    """One epoch of many lanes, compiled."""

    def one(state: Controllers, epoch: jax.Array, value: jax.Array, rate: jax.Array) -> tuple:
        return controllers.step(budget, state, epoch, value, rate)

    return jax.jit(jax.vmap(one, in_axes=(0, None, 0, 0)))


def _ours(budget: Budget, curves: np.ndarray) -> Watched:
    """The lanes over curves (lanes, epochs)."""
    lanes = len(curves)
    state = jax.tree.map(lambda leaf: jnp.stack([leaf] * lanes), controllers.start(budget))
    rate, rows = jnp.full(lanes, LEARNING_RATE, jnp.float32), []
    for epoch in range(curves.shape[1]):
        with jax.enable_x64(new_val=curves.dtype == np.float64):
            values = jnp.asarray(curves[:, epoch])
        state, verdict = _lanes(budget)(state, jnp.int32(epoch), values, rate)
        rate = verdict.learning_rate
        rows.append((verdict.stop, verdict.improved, state.stopping.best_epoch, rate))
    return Watched(*(np.stack(column, axis=1) for column in zip(*rows, strict=True)))


def _curves(seed: int) -> Iterator[np.ndarray]:
    """Learning curves of each kind, (epochs,) of float64."""
    rng = np.random.default_rng(seed)
    for _ in range(CURVES):
        noise = rng.normal(size=EPOCHS)
        falling = np.exp(-np.arange(EPOCHS) / rng.uniform(3, 30)) + 0.05 * noise
        yield falling.astype(np.float32)
        yield falling
        yield 1 - falling
        # Steps of exactly min_delta, and of nothing: as exact numbers, and as the nearest ones to tenths.
        steps = np.cumsum(rng.integers(-2, 3, EPOCHS))
        yield 1 + 0.125 * steps
        yield (1 + 0.1 * steps).astype(np.float32)
        yield 1 + 0.1 * steps
        # Changes around float32's last digit, which is 2 ** -23 at 1.
        yield 1 + 2.0**-25 * np.cumsum(rng.integers(-3, 4, EPOCHS))
        yield np.float32(1) + np.float32(2.0**-23) * rng.integers(-2, 3, EPOCHS)
        yield np.full(EPOCHS, rng.normal())
        broken = falling.copy()
        places = 1 + rng.permutation(EPOCHS - 1)[:9]
        broken[places] = rng.choice([math.nan, math.inf, -math.inf], 9, p=[0.7, 0.2, 0.1])
        yield broken
        yield np.concatenate([[rng.choice([math.inf, -math.inf])], falling[1:]])


def _drawn(seed: int) -> np.ndarray:
    """Curves of every kind, (lanes, epochs) of float64."""
    return np.stack([np.asarray(curve, np.float64) for curve in _curves(seed)])


def _keras_all(model: keras.Model, budget: Budget, curves: np.ndarray) -> Watched:
    rows = [_keras(model, _callbacks(budget), curve) for curve in curves]
    return Watched(*map(np.stack, zip(*rows, strict=True)))


def _assert_equal(ours: Watched, theirs: Watched) -> None:
    """Every lane and epoch, to the last bit."""
    for name, got, expected in zip(Watched._fields, ours, theirs, strict=True):
        np.testing.assert_array_equal(got, expected, name)


@pytest.mark.parametrize("name", BUDGETS)
def test_every_epoch_is_judged_as_by_keras(name: str, model: keras.Model) -> None:
    budget, curves = BUDGETS[name], _drawn(seed=list(BUDGETS).index(name))
    ours, theirs = _ours(budget, curves), _keras_all(model, budget, curves)
    _assert_equal(ours, theirs)
    assert ours.learning_rate.dtype == theirs.learning_rate.dtype == np.float32
    assert theirs.stop.any()
    reducible = budget.plateau_floor < LEARNING_RATE
    assert (theirs.learning_rate < np.float32(LEARNING_RATE)).any() == reducible


@pytest.mark.parametrize("lengthened", [False, True], ids=["stops", "last epoch"])
def test_best_weights_are_those_of_the_last_epoch_that_improved(
    model: keras.Model, *, lengthened: bool
) -> None:
    budget = _budget(patience=EPOCHS if lengthened else 3)
    curves = _drawn(seed=104)
    for curve, stop, improved in zip(curves, *_ours(budget, curves)[:2], strict=True):
        assert not (lengthened and stop.any())
        epochs = 1 + int(stop.argmax()) if stop.any() else EPOCHS
        _keras(model, _callbacks(budget), curve[:epochs])
        assert model.get_weights()[0].item() == np.flatnonzero(improved[:epochs])[-1]


class _NaNIsNoImprovement:
    """The one intended difference, put into Keras's callbacks."""

    def _is_improvement(self, value: float, reference: float | None) -> bool:
        return not math.isnan(value) and super()._is_improvement(value, reference)


class _Plateau(_NaNIsNoImprovement, keras.callbacks.ReduceLROnPlateau):
    pass


class _Stopping(_NaNIsNoImprovement, keras.callbacks.EarlyStopping):
    pass


@pytest.mark.parametrize("name", ["defaults", "no patience", "max, cooldown 3"])
def test_a_first_nan_is_never_the_best(
    name: str, model: keras.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget, curves = BUDGETS[name], _drawn(seed=100)
    nans = np.resize([1, 2, 7, EPOCHS], len(curves))
    curves[np.arange(EPOCHS) < nans[:, None]] = math.nan
    ours = _ours(budget, curves)
    # With Keras's own rule nothing beats a first NaN.
    assert not _keras(model, _callbacks(budget), curves[0]).best_epoch.any()
    monkeypatch.setattr(keras.callbacks, "ReduceLROnPlateau", _Plateau)
    monkeypatch.setattr(keras.callbacks, "EarlyStopping", _Stopping)
    theirs = _keras_all(model, budget, curves)
    # Keras names epoch 0 where there is no best epoch.
    none_yet = np.logical_and.accumulate(np.isnan(curves), axis=1)
    best = np.where(none_yet, -1, theirs.best_epoch)
    _assert_equal(ours, theirs._replace(best_epoch=best))


def test_float32_values_are_judged_as_their_float64_twins() -> None:
    budget, curves = BUDGETS["cooldown 1"], _drawn(seed=101).astype(np.float32)
    _assert_equal(_ours(budget, curves), _ours(budget, curves.astype(np.float64)))


def test_a_lane_is_judged_as_if_alone() -> None:
    budget, curves = BUDGETS["max, cooldown 3"], _drawn(seed=102)
    together = _ours(budget, curves)
    for lane in range(0, len(curves), 5):
        alone = _ours(budget, curves[lane : lane + 1])
        _assert_equal(alone, Watched(*(column[lane : lane + 1] for column in together)))


def test_a_compiled_training_holds_it_without_becoming_float64() -> None:
    budget, curves = BUDGETS["max, cooldown 3"], _drawn(seed=103).astype(np.float32)
    assert not jax.config.jax_enable_x64

    def epoch(carry: tuple, x: tuple) -> tuple:
        state, rate = carry
        state, verdict = controllers.step(budget, state, *x, rate)
        # The program around it makes float32 as before.
        assert jnp.ones(()).dtype == verdict.learning_rate.dtype == jnp.float32
        row = Watched(verdict.stop, verdict.improved, state.stopping.best_epoch, verdict.learning_rate)
        return (state, verdict.learning_rate), row

    @jax.jit
    @jax.vmap
    def train(curve: jax.Array) -> tuple:
        first = (controllers.start(budget), jnp.float32(LEARNING_RATE))
        return jax.lax.scan(epoch, first, (jnp.arange(EPOCHS, dtype=jnp.int32), curve))

    (state, rate), compiled = train(curves)
    _assert_equal(Watched(*map(np.asarray, compiled)), _ours(budget, curves))
    assert not jax.config.jax_enable_x64
    assert rate.dtype == jnp.float32
    dtypes = [leaf.dtype.name for leaf in jax.tree.leaves(controllers.start(budget))]
    assert dtypes == ["float64", "int32", "int32", "float64", "int32", "int32"]
    assert [leaf.dtype.name for leaf in jax.tree.leaves(state)] == dtypes


def test_a_float64_learning_rate_keeps_its_digits() -> None:
    # Keras rounds both to float32 where it compares them, so the first rate counts as at its floor.
    floor = 1e-3
    rates = np.array([float(np.float32(floor)) * (1 + 1e-9), 0.01])
    reduced = []
    for rate in rates:
        with jax.enable_x64(new_val=True):  # for Keras on JAX
            optimizer = keras.optimizers.SGD(1.0)
            optimizer._learning_rate = keras.Variable(rate, dtype="float64")
            keras.callbacks.ReduceLROnPlateau(factor=1 / 3, min_lr=floor)._reduce_optimizer_lr(optimizer, 0)
            reduced.append(np.array(optimizer.learning_rate))
    budget = _budget(plateau_factor=1 / 3, plateau_floor=floor, plateau_patience=1)
    for rate, expected in zip(rates, reduced, strict=True):
        state, _ = controllers.step(budget, controllers.start(budget), 0, np.float32(1), rate)
        _, verdict = controllers.step(budget, state, 1, np.float32(1), rate)
        assert verdict.learning_rate.dtype == np.float64
        assert np.array(verdict.learning_rate) == expected
    assert reduced == [rates[0], 0.01 * (1 / 3)]
