"""One compiled program: some epochs of all its lanes in one call.

Lanes are a mesh axis: each device trains its share of them, and nothing crosses. Within a call each lane has
its own early stopping and plateau; a lane that is over goes on computing, and nothing of it counts.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from pipeline.engines.lanes import dispatch
from pipeline.engines.lanes.epoch import Logs, Work
from pipeline.engines.lanes.plan import EVERYWHERE, Plan, Report
from pipeline.engines.lanes.state import AXIS, State
from pipeline.engines.lanes.twin import Batch, Values
from pipeline.values import Array


class Program:
    """A plan whose rows are on the devices, compiled once."""

    def __init__(self, plan: Plan) -> None:
        self.lanes, self.most_epochs, self.layout = plan.lanes, plan.most_epochs, plan.layout
        self._plan = plan
        self._compiled: Any = None

    @property
    def steps(self) -> int:
        """Full batches of an epoch."""
        return self._plan.sizes.steps

    def compile(self, values: Values) -> None:
        """Compiles, for lanes like this one; other threads run meanwhile, but while it is traced."""
        order = PartitionSpec(None, *self._plan.by_lane)
        specs = self.layout.specs
        sharded = jax.shard_map(
            self._call,
            mesh=self._plan.mesh,
            in_specs=(specs, EVERYWHERE, EVERYWHERE, EVERYWHERE, order, self._plan.by_lane, EVERYWHERE),
            out_specs=(specs, PartitionSpec(None, AXIS)),
            check_vma=False,
        )
        with self._plan.twin.lock:
            state = self.layout.shapes(values)
            lowered = jax.jit(sharded, donate_argnums=0).lower(
                *self._arguments(state, self.orders([]), None, 0)
            )
        self._compiled = lowered.compile()

    def run(self, state: State, order: Array, check_order: Array | None, epochs: int) -> tuple[State, Logs]:
        """Starts some epochs of every lane and returns at once; `state` is used up.

        Args:
            state: all lanes.
            order: from `orders`.
            check_order: with rows of their own, (L, check rows) row numbers.
            epochs: how many of the order's.
        """
        found: tuple[State, Logs] = dispatch.start(
            self._compiled, *self._arguments(state, order, check_order, epochs)
        )
        return found

    def some_steps(
        self, state: State, steps: int, order: Array | None = None, check_order: Array | None = None
    ) -> State:
        """At most so many gradient steps of every lane; `state` is used up."""
        if order is None:
            order = self._plan.any_order()
        arguments = self._arguments(state, order, check_order, 1)
        work = Work(*(np.int32(number) for number in (1, min(steps, self.steps), 0, 0)))
        after: State = dispatch.start(self._compiled, *arguments[:-1], work)[0]
        return after

    def orders(self, each: Sequence[Array]) -> Array:
        """As `Plan.orders`."""
        return self._plan.orders(each)

    def memory(self) -> int:
        """Bytes that a device needs for it, as the compiler tells; 0 where it does not."""
        return needed(self._compiled)

    @staticmethod
    def report(logs: Logs, epochs: int) -> Report:
        """Waits for a call; what it did."""
        return Report.of(logs, epochs)

    def _arguments(
        self, state: State, order: Array, check_order: Array | None, epochs: int
    ) -> tuple[Any, ...]:
        if check_order is None:
            check_order = self._plan.any_checks()
        sizes, rows = self._plan.sizes, self._plan.rows
        work = Work(*(np.int32(number) for number in (epochs, sizes.steps, 1, sizes.checks)))
        return state, rows.train, rows.check, self._plan.tables, order, check_order, work

    def _call(
        self, state: State, train: Batch, check: Batch, shared: Any, orders: Any, checks: Any, work: Work
    ) -> tuple[State, Logs]:
        """All of it, as it is compiled for one device."""

        def epoch(place: jax.Array, carry: tuple[State, Logs]) -> tuple[State, Logs]:
            state, logs = carry
            order = jax.lax.dynamic_index_in_dim(orders, place, keepdims=False)
            state, found = self._plan.epoch.run(state, train, check, shared, order, checks, work)
            return state, {
                name: jax.lax.dynamic_update_index_in_dim(
                    logs[name], value.astype(logs[name].dtype), place, 0
                )
                for name, value in found.items()
            }

        shapes = jax.eval_shape(lambda: self._plan.epoch.logs(state))
        empty = {name: jnp.zeros((self.most_epochs, *one.shape), one.dtype) for name, one in shapes.items()}
        found: tuple[State, Logs] = jax.lax.fori_loop(0, work.epochs, epoch, (state, empty))
        return found


def needed(compiled: Any) -> int:
    """Bytes that a device needs for something compiled, as the compiler tells; 0 where it does not."""
    found = compiled.memory_analysis()
    if found is None:
        return 0
    return int(found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes)
