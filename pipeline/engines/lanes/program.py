"""One compiled program: some epochs of all its lanes in one call.

Lanes are a mesh axis: each device trains its share of them, and nothing crosses. Within a call each lane has
its own early stopping and plateau; a lane that is over goes on computing, and nothing of it counts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from pipeline.engines.lanes import tables
from pipeline.engines.lanes.epoch import Epoch, Logs, Sizes, Work
from pipeline.engines.lanes.state import AXIS, Layout, State
from pipeline.engines.lanes.twin import Batch, Twin, Values
from pipeline.engines.rows import validation_batch
from pipeline.values import Array, Budget


@dataclass(frozen=True)
class Report:
    """What a call did, of E epochs and L lanes.

    ran: (E, L), whether the lane trained in that epoch. metrics: (E, L) each. alive: (L,), what goes on.
    """

    ran: Array
    metrics: dict[str, Array]
    alive: Array


@dataclass(frozen=True)
class Rows:
    """The rows of a program, on its devices: train and check are (inputs, targets, weights or None).

    own: whether each lane has rows of its own (with folds, of the whole training split), or an order of its
    own. Then a call is told the numbers of `learn_rows` and `check_rows` of them.
    """

    train: Batch
    check: Batch
    learn_rows: int
    check_rows: int
    own: bool


class Program:
    """Compiled once for a signature, a batch size and a number of lanes.

    Args:
        twin: of the models of this signature.
        budget: of a trial.
        batch_size: rows of a gradient step.
        rows: what is learned from.
        lanes: how many; a multiple of the mesh's devices.
        mesh: one axis, `state.AXIS`.
        most_epochs: in a call.
        with_means: adds to what an epoch logs what Keras does not log.
    """

    def __init__(
        self,
        twin: Twin,
        budget: Budget,
        batch_size: int,
        rows: Rows,
        lanes: int,
        mesh: Mesh,
        most_epochs: int,
        with_means: Callable[[Logs], Logs] = dict,
    ) -> None:
        self.lanes, self.most_epochs = lanes, most_epochs
        self._twin, self._rows, self._mesh = twin, rows, mesh
        batch = min(batch_size, rows.learn_rows)
        check = min(validation_batch(batch_size), rows.check_rows)
        self._sizes = Sizes(batch, *divmod(rows.learn_rows, batch), check, *divmod(rows.check_rows, check))
        self.layout = Layout(twin, budget, lanes, mesh, own_tables=rows.own)
        self._epoch = Epoch(twin, budget, self.layout, self._sizes, own_rows=rows.own, with_means=with_means)
        self._tables = [] if rows.own else tables.of_model(twin.model)
        self._compiled: Any = None

    @property
    def steps(self) -> int:
        """Full batches of an epoch."""
        return self._sizes.steps

    def compile(self, values: Values) -> None:
        """Compiles, for lanes like this one; other threads run meanwhile, but while it is traced."""
        everywhere = PartitionSpec()
        order = PartitionSpec(None, AXIS) if self._rows.own else everywhere
        checks = PartitionSpec(AXIS) if self._rows.own else everywhere
        specs = self.layout.specs
        sharded = jax.shard_map(
            self._call,
            mesh=self._mesh,
            in_specs=(specs, everywhere, everywhere, everywhere, order, checks, everywhere),
            out_specs=(specs, PartitionSpec(None, AXIS)),
            check_vma=False,
        )
        with self._twin.lock:
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
        found: tuple[State, Logs] = self._compiled(*self._arguments(state, order, check_order, epochs))
        return found

    def some_steps(
        self, state: State, steps: int, order: Array | None = None, check_order: Array | None = None
    ) -> State:
        """At most so many gradient steps of every lane; `state` is used up."""
        if order is None:
            order = self.orders([np.arange(self._rows.learn_rows, dtype=np.int32)])
        arguments = self._arguments(state, order, check_order, 1)
        work = Work(*(np.int32(number) for number in (1, min(steps, self._sizes.steps), 0, 0)))
        after: State = self._compiled(*arguments[:-1], work)[0]
        return after

    def orders(self, each: Sequence[Array]) -> Array:
        """Row orders of a call, (epochs, rows) of int32, or (epochs, L, rows) with rows of their own.

        each: of one epoch; those that are missing become zeros.
        """
        shape = (self.lanes, self._rows.learn_rows) if self._rows.own else (self._rows.learn_rows,)
        found = np.zeros((self.most_epochs, *shape), np.int32)
        for place, order in enumerate(each):
            found[place] = order
        return found

    def memory(self) -> int:
        """Bytes that a device needs for it, as the compiler tells; 0 where it does not."""
        found = self._compiled.memory_analysis()
        if found is None:
            return 0
        return int(found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes)

    @staticmethod
    def report(logs: Logs, epochs: int) -> Report:
        """Waits for a call; what it did."""
        arrays = {name: np.asarray(value)[:epochs] for name, value in logs.items()}
        ran, alive = arrays.pop("ran"), arrays.pop("alive")
        return Report(ran, arrays, alive[-1])

    def _arguments(
        self, state: State, order: Array, check_order: Array | None, epochs: int
    ) -> tuple[Any, ...]:
        if check_order is None:
            check_order = np.zeros((self.lanes, self._rows.check_rows if self._rows.own else 0), np.int32)
        work = Work(*(np.int32(number) for number in (epochs, self._sizes.steps, 1, self._sizes.checks)))
        return state, self._rows.train, self._rows.check, self._tables, order, check_order, work

    def _call(
        self, state: State, train: Batch, check: Batch, shared: Any, orders: Any, checks: Any, work: Work
    ) -> tuple[State, Logs]:
        """All of it, as it is compiled for one device."""

        def epoch(place: jax.Array, carry: tuple[State, Logs]) -> tuple[State, Logs]:
            state, logs = carry
            order = jax.lax.dynamic_index_in_dim(orders, place, keepdims=False)
            state, found = self._epoch.run(state, train, check, shared, order, checks, work)
            return state, {
                name: jax.lax.dynamic_update_index_in_dim(
                    logs[name], value.astype(logs[name].dtype), place, 0
                )
                for name, value in found.items()
            }

        shapes = jax.eval_shape(lambda: self._epoch.logs(state))
        empty = {name: jnp.zeros((self.most_epochs, *one.shape), one.dtype) for name, one in shapes.items()}
        found: tuple[State, Logs] = jax.lax.fori_loop(0, work.epochs, epoch, (state, empty))
        return found
