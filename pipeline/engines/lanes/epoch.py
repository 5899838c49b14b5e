"""One epoch of a device's lanes, as it is compiled: `vmap` over Keras's own train_step and test_step.

Nothing here reduces over lanes. Axis letters in comments: L lanes, B rows of a batch, R rows.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import keras
import numpy as np

from pipeline.engines import controllers, schedules
from pipeline.engines.lanes import numbers, tables
from pipeline.engines.lanes.state import Layout, State, choose, lane_axis, narrow
from pipeline.engines.lanes.twin import Batch, Twin
from pipeline.values import Budget

Logs = dict[str, jax.Array]
Metrics = list[jax.Array]
"""The variables of Keras's metrics, of all lanes."""
BatchOf = Callable[[Any, int], Batch]
"""Gives a batch: its first row's number among those that are there, and how many rows."""


class Work(NamedTuple):
    """What a call is asked to do. Its sizes are numbers in the program, so that no other needs compiling.

    A batch of the rest begins where the full ones end. epochs: of the call. steps: full batches of an epoch.
    rest: 1 with the last, smaller batches, else 0. checks: full validation batches.
    """

    epochs: Any
    steps: Any
    rest: Any
    checks: Any


@dataclass(frozen=True)
class Sizes:
    """How an epoch is cut. batch, check: rows of a batch; rest, check_rest: rows of the last, smaller one."""

    batch: int
    steps: int
    rest: int
    check: int
    checks: int
    check_rest: int


class Epoch:
    """An epoch of lanes, to be traced.

    Args:
        twin: of the lanes' models.
        budget: of a trial.
        layout: of the lanes.
        sizes: of its batches.
        own_rows: whether each lane has rows or an order of its own, told by their numbers.
        with_means: adds to an epoch's logs what Keras does not log.
    """

    def __init__(
        self,
        twin: Twin,
        budget: Budget,
        layout: Layout,
        sizes: Sizes,
        *,
        own_rows: bool,
        with_means: Callable[[Logs], Logs],
    ) -> None:
        self._twin, self._budget, self._layout, self._sizes, self._own = twin, budget, layout, sizes, own_rows
        self._with_means = with_means
        model = twin.model
        model.reset_metrics()
        self._fresh_metrics = [np.asarray(variable.value) for variable in model.metrics_variables]
        self.metric_axes = [lane_axis(value.shape) for value in self._fresh_metrics]
        self._rate = next(
            place
            for place, variable in enumerate(model.optimizer.variables)
            if variable is model.optimizer._learning_rate
        )

    def logs(self, state: State) -> Logs:
        """Logs in the shapes of an epoch's, (L,) each."""
        results = self._results(self.fresh(state.alive.shape[0]))
        logs = {**results, **{f"val_{name}": value for name, value in results.items()}}
        return {
            **self._with_means(logs),
            "learning_rate": state.optimizer[self._rate],
            "ran": state.alive,
            "alive": state.alive,
        }

    def run(
        self, state: State, train: Batch, check: Batch, shared: Any, order: Any, checks: Any, work: Work
    ) -> tuple[State, Logs]:
        """One epoch of rows that are there; what Keras would log of it, by lane, with `ran` and `alive`.

        Args:
            state: the lanes.
            train: all rows to learn from.
            check: all validation rows.
            shared: the tables, where lanes have none of their own.
            order: row numbers, (R,), or (L, R) with rows of their own.
            checks: with rows of their own, the numbers of the validation rows, (L, R).
            work: how much of it to do.
        """

        def of_order(first: Any, size: int) -> Batch:
            return _take(train, _cut(order, first, size, -1))

        def of_checks(first: Any, size: int) -> Batch:
            return _take(check, _cut(checks, first, size, -1)) if self._own else cut(check, first, size)

        fresh = self.fresh(state.alive.shape[0])
        state, metrics = self.learn(state, shared, fresh, of_order, work)
        state, checked = self.check(state, shared, fresh, of_checks, work)
        return self.judge(state, metrics, checked)

    def learn(
        self, state: State, shared: Any, metrics: Metrics, batch: BatchOf, work: Work
    ) -> tuple[State, Metrics]:
        """Gradient steps of an epoch; the lanes and the metrics' variables after them.

        Args:
            state: the lanes.
            shared: the tables, where lanes have none of their own.
            metrics: the variables before these steps.
            batch: gives so many rows from one on, all lanes' or (L, ...) each lane's own.
            work: how many steps.
        """
        held = (state.numbers, state.tables if self._own else shared)
        weights = (state.trainable, state.non_trainable, state.optimizer)
        (trainable, non_trainable, optimizer), after = self._train(held, weights, metrics, batch, work)
        return state._replace(trainable=trainable, non_trainable=non_trainable, optimizer=optimizer), after

    def check(
        self, state: State, shared: Any, metrics: Metrics, batch: BatchOf, work: Work
    ) -> tuple[State, Metrics]:
        """Validation batches of an epoch, as `learn`. A layer's state may change here, too."""
        held = (state.numbers, state.tables if self._own else shared)
        weights = (state.trainable, state.non_trainable, state.optimizer)
        non_trainable, after = self._validate(held, weights, metrics, batch, work)
        return state._replace(non_trainable=non_trainable), after

    def judge(self, state: State, metrics: Metrics, checked: Metrics) -> tuple[State, Logs]:
        """The end of an epoch: what Keras would log of it, by lane, with `ran` and `alive`.

        metrics, checked: the metrics' variables after all gradient steps, and after all validation batches.
        """
        weights = (state.trainable, state.non_trainable, list(state.optimizer))
        logs = self._results(metrics)
        logs |= {f"val_{name}": value for name, value in self._results(checked).items()}
        logs = self._with_means(logs)
        logs["learning_rate"] = state.optimizer[self._rate]
        return self._judged(state, weights, logs)

    def fresh(self, lanes: int) -> Metrics:
        """The metrics' variables before an epoch."""
        return [
            jnp.broadcast_to(jnp.expand_dims(value, axis), (*value.shape[:axis], lanes, *value.shape[axis:]))
            for value, axis in zip(self._fresh_metrics, self.metric_axes, strict=True)
        ]

    def _judged(self, state: State, weights: tuple[Any, Any, Any], logs: Logs) -> tuple[State, Logs]:
        """The lanes after an epoch, by what their controllers say of it."""
        trainable, non_trainable, optimizer = weights
        rate = logs["learning_rate"]
        planned = self._planned(state)
        control, verdict = jax.vmap(partial(controllers.step, self._budget))(
            state.control, state.epoch, logs[self._budget.monitor], rate
        )
        finite = jnp.stack([jnp.isfinite(value) for value in logs.values()]).all(0)
        counts = state.alive & finite
        following = jnp.where(jnp.isnan(planned), verdict.learning_rate, planned)
        optimizer[self._rate] = jnp.where(counts, following, rate)
        epoch = state.epoch + state.alive
        # Of lanes that train for an exact number of epochs, each is the best so far.
        exactly = state.numbers[:, -1]
        kept = partial(jax.tree.map, partial(choose, (verdict.improved | (exactly > 0)) & counts))
        goes_on = jnp.where(exactly > 0, epoch < exactly, ~verdict.stop & (epoch < self._budget.epochs))
        alive = counts & goes_on
        after = State(
            trainable,
            non_trainable,
            optimizer,
            kept(trainable, state.best_trainable, self._layout.weights[0]),
            kept(non_trainable, state.best_non_trainable, self._layout.weights[1]),
            state.numbers,
            state.tables,
            jax.tree.map(partial(choose, counts), narrow(control), state.control, self._layout.axes.control),
            epoch,
            alive,
        )
        return after, logs | {"ran": state.alive, "alive": alive}

    def _planned(self, state: State) -> jax.Array:
        """The next epoch's learning rates, (L,); NaN where the plateau's rule leads them."""
        plans = state.numbers[:, -schedules.SIZE :]
        # As Keras's callback, which calculates with Python's floats.
        with jax.enable_x64(new_val=True):
            wide, later = plans.astype(jnp.float64), state.epoch.astype(jnp.float64) + 1.0
            rates = jax.vmap(partial(schedules.rate, xp=jnp))(wide, later).astype(plans.dtype)
        return jnp.where(plans[:, 0] == schedules.PLATEAU, jnp.nan, rates)

    def _train(self, held: Any, weights: Any, metrics: Metrics, batch_of: BatchOf, work: Work) -> Any:
        def one(held: Any, weights: Any, metrics: Any, batch: Batch) -> Any:
            with self._bound(*held):
                _, after = self._twin.model.train_step((*weights, metrics), _without_none(batch))
            return tuple(list(group) for group in after[:3]), list(after[3])

        lanes = self._over_lanes(one)
        size, rest = self._sizes.batch, self._sizes.rest
        carry = jax.lax.fori_loop(
            0,
            work.steps,
            lambda number, carry: lanes(held, *carry, batch_of(number * size, size)),
            (weights, metrics),
        )
        if rest:
            # A loop of one turn or none: a conditional would copy every weight.
            carry = jax.lax.fori_loop(
                0, work.rest, lambda _, carry: lanes(held, *carry, batch_of(work.steps * size, rest)), carry
            )
        return carry

    def _validate(self, held: Any, weights: Any, metrics: Metrics, batch_of: BatchOf, work: Work) -> Any:
        trainable, non_trainable, optimizer = weights

        def one(held: Any, weights: Any, metrics: Any, batch: Batch) -> Any:
            with self._bound(*held):
                state = (weights[0], weights[1], metrics)
                _, after = self._twin.model.test_step(state, _without_none(batch))
            return (weights[0], list(after[1]), weights[2]), list(after[2])

        lanes = self._over_lanes(one)

        def step(first: Any, size: int, carry: Any) -> Any:
            # A layer's state may change here, too, and the next epoch finds it so.
            weights = (trainable, carry[0], optimizer)
            (_, state, _), metrics = lanes(held, weights, carry[1], batch_of(first, size))
            return state, metrics

        size, rest = self._sizes.check, self._sizes.check_rest
        carry = jax.lax.fori_loop(
            0, work.checks, lambda number, carry: step(number * size, size, carry), (non_trainable, metrics)
        )
        if rest:
            carry = jax.lax.fori_loop(
                0, work.rest, lambda _, carry: step(work.checks * size, rest, carry), carry
            )
        return carry

    def _over_lanes(self, one: Callable[..., Any]) -> Callable[..., Any]:
        """`one` over all lanes; in go numbers and tables, weights, metrics, and a batch, shared or own."""
        own = 0 if self._own else None
        return jax.vmap(
            one,
            in_axes=((0, own), self._layout.weights, self.metric_axes, own),
            out_axes=(self._layout.weights, self.metric_axes),
        )

    @contextlib.contextmanager
    def _bound(self, of_lane: jax.Array, tables_of_lane: Sequence[Any]) -> Iterator[None]:
        with numbers.bound(self._twin.slots, of_lane), tables.bound(self._twin.model, tables_of_lane):
            yield

    def _results(self, metrics: list[jax.Array]) -> Logs:
        """Keras's results of the metrics, by name, each (L,)."""
        model = self._twin.model

        def one(values: list[jax.Array]) -> Logs:
            mapping = list(zip(model.metrics_variables, values, strict=True))
            with keras.StatelessScope(state_mapping=mapping):
                return dict(model.get_metrics_result())

        found: Logs = jax.vmap(one, in_axes=(self.metric_axes,))(metrics)
        return found


def cut(data: Batch, first: Any, size: int, axis: int = 0) -> Batch:
    """So many rows from one on."""
    found: Batch = jax.tree.map(lambda leaf: _cut(leaf, first, size, axis), data)
    return found


def _cut(leaf: Any, first: Any, size: int, axis: int) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(leaf, first, size, axis)


def _take(data: Batch, rows: jax.Array) -> Batch:
    """Rows by their numbers: (B,) of all lanes, or (L, B) of each."""
    taken: Batch = jax.tree.map(lambda leaf: leaf[rows], data)
    return taken


def _without_none(batch: Batch) -> Any:
    return batch[:2] if batch[2] is None else batch
