"""Early stopping and reduce-on-plateau as pure state machines, for a training program that runs compiled.

They do what Keras's callbacks do, for one lane and once an epoch; `jax.vmap` makes many lanes. The rules:
https://keras.io/api/callbacks/early_stopping/ and https://keras.io/api/callbacks/reduce_lr_on_plateau/, with
their base class MonitorCallback (Keras 3.15).

One rule differs. To Keras the first epoch is an improvement whatever its value, so a first NaN stays the best
for good, as nothing compares as better than NaN. Here NaN is no improvement in any epoch, the first one too.
So there may be no best epoch: `best_epoch` is then -1, where Keras names epoch 0.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pipeline.values import Budget


class Stopping(NamedTuple):
    """Keras's EarlyStopping with restore_best_weights, all scalars.

    best: float64, the best value so far; NaN before the first improvement. best_epoch: int32, its epoch; -1
    before the first improvement. wait: int32, epochs since then.
    """

    best: jax.Array
    best_epoch: jax.Array
    wait: jax.Array


class Plateau(NamedTuple):
    """Keras's ReduceLROnPlateau, all scalars.

    best: float64, the best value so far; NaN before the first improvement. wait: int32, epochs without an
    improvement that count. cooldown: int32, goes down by one an epoch; epochs count from where it is 0.
    """

    best: jax.Array
    wait: jax.Array
    cooldown: jax.Array


class Controllers(NamedTuple):
    """Both state machines of one lane. Each keeps a best value of its own, as each has its own min_delta."""

    stopping: Stopping
    plateau: Plateau


class Verdict(NamedTuple):
    """What an epoch leads to, all scalars.

    improved: bool, this epoch's weights are the best so far. The trained model has the weights of the last
    epoch that improved, also where no epoch stopped. stop: bool, training ends after this epoch; what is said
    of later epochs means nothing. learning_rate: for the next epoch, in the dtype that was given. It may be
    lower after the epoch that stops too.
    """

    improved: jax.Array
    stop: jax.Array
    learning_rate: jax.Array


def start(budget: Budget) -> Controllers:
    """The state before the first epoch, the same for every budget."""
    with jax.enable_x64(new_val=True):
        nothing, zero = jnp.full((), jnp.nan, jnp.float64), jnp.zeros((), jnp.int32)
        return Controllers(Stopping(nothing, zero - 1, zero), Plateau(nothing, zero, zero))


def step(
    budget: Budget, state: Controllers, epoch: jax.Array, value: jax.Array, learning_rate: jax.Array
) -> tuple[Controllers, Verdict]:
    """Judges one epoch.

    Args:
        budget: the limits; constants of the compiled program.
        state: before this epoch.
        epoch: its number from 0, int32 scalar.
        value: what `budget.monitor` names, as Keras logs it, float32 or float64 scalar.
        learning_rate: of this epoch, float32 or float64 scalar.

    Returns:
        The state after this epoch, and what follows from the epoch.
    """
    # Keras's callbacks calculate with Python's floats, which are float64, whatever the training has.
    with jax.enable_x64(new_val=True):
        value, learning_rate = jnp.asarray(value, jnp.float64), jnp.asarray(learning_rate)
        plateau, learning_rate = _plateau(budget, state.plateau, value, learning_rate)
        stopping, improved, stop = _stopping(budget, state.stopping, epoch, value)
        return Controllers(stopping, plateau), Verdict(improved, stop, learning_rate)


def _stopping(
    budget: Budget, state: Stopping, epoch: jax.Array, value: jax.Array
) -> tuple[Stopping, jax.Array, jax.Array]:
    """The new state, whether the epoch is the best so far, and whether training ends."""
    improved = _improved(budget, budget.min_delta, value, state.best)
    # Counted before it is compared: patience 0 and 1 are the same.
    wait = jnp.where(improved, 0, state.wait + 1)
    stop = ~improved & (wait >= budget.patience) & (epoch > 0)
    best = jnp.where(improved, value, state.best)
    best_epoch = jnp.where(improved, epoch, state.best_epoch).astype(jnp.int32)
    return Stopping(best, best_epoch, wait), improved, stop


def _plateau(
    budget: Budget, state: Plateau, value: jax.Array, learning_rate: jax.Array
) -> tuple[Plateau, jax.Array]:
    """The new state, and the next epoch's learning rate."""
    improved = _improved(budget, budget.plateau_min_delta, value, state.best)
    # An epoch that ends the cooldown counts already: cooldown 0 and 1 are the same.
    cooldown = jnp.maximum(state.cooldown - 1, 0)
    counts = ~improved & (cooldown == 0)
    wait = jnp.where(improved, 0, state.wait + counts)
    # Keras rounds the floor to float32 here, but not where it limits the new rate. A rate at its floor keeps
    # waiting, without a cooldown.
    above_floor = learning_rate.astype(jnp.float32) > np.float32(budget.plateau_floor)
    reduced = counts & (wait >= budget.plateau_patience) & above_floor
    lower = jnp.maximum(learning_rate.astype(jnp.float64) * budget.plateau_factor, budget.plateau_floor)
    state = Plateau(
        best=jnp.where(improved, value, state.best),
        wait=jnp.where(reduced, 0, wait),
        cooldown=jnp.where(reduced, budget.plateau_cooldown, cooldown),
    )
    return state, jnp.where(reduced, lower.astype(learning_rate.dtype), learning_rate)


def _improved(budget: Budget, min_delta: float, value: jax.Array, best: jax.Array) -> jax.Array:
    """Whether a value is better than the best by more than min_delta; a best of NaN is no best yet.

    Keras subtracts min_delta in float64, but then compares by `keras.ops`, which makes float32 of both.
    """
    if budget.mode == "min":
        better = (value + min_delta).astype(jnp.float32) < best.astype(jnp.float32)
    else:
        better = (value - min_delta).astype(jnp.float32) > best.astype(jnp.float32)
    return ~jnp.isnan(value) & (jnp.isnan(best) | better)
