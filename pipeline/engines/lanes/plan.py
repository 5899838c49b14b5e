"""What a program of lanes is made of, however its rows come to the devices."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from jax.sharding import Mesh, PartitionSpec

from pipeline.engines.lanes import tables
from pipeline.engines.lanes.epoch import Epoch, Logs, Sizes
from pipeline.engines.lanes.state import AXIS, Layout
from pipeline.engines.lanes.twin import Batch, Twin
from pipeline.engines.rows import validation_batch
from pipeline.values import Array, Budget

EVERYWHERE = PartitionSpec()
"""What every device has the whole of."""


@dataclass(frozen=True)
class Report:
    """What a call did, of E epochs and L lanes.

    ran: (E, L), whether the lane trained in that epoch. metrics: (E, L) each. alive: (L,), what goes on.
    """

    ran: Array
    metrics: dict[str, Array]
    alive: Array

    @classmethod
    def of(cls, logs: Logs, epochs: int) -> Self:
        """Waits for a call; what it did in its first epochs, so many."""
        arrays = {name: np.asarray(value)[:epochs] for name, value in logs.items()}
        ran, alive = arrays.pop("ran"), arrays.pop("alive")
        return cls(ran, arrays, alive[-1])


@dataclass(frozen=True)
class Room:
    """What rows that stay on the host may take of a device at once. size: bytes. where: the device's name."""

    size: float
    where: str


@dataclass(frozen=True)
class Rows:
    """The rows of a program: train and check are (inputs, targets, weights or None).

    own: whether each lane has rows of its own (with folds, of the whole training split), or an order of its
    own. Then a call is told the numbers of `learn_rows` and `check_rows` of them. room: of rows that stay on
    the host, as NumPy's arrays; None where they are on the devices.
    """

    train: Batch
    check: Batch
    learn_rows: int
    check_rows: int
    own: bool
    room: Room | None = None


class Plan:
    """What is decided before a program is compiled: for a signature, a batch size and a number of lanes.

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
        self.twin, self.rows, self.lanes, self.mesh, self.most_epochs = twin, rows, lanes, mesh, most_epochs
        batch = min(batch_size, rows.learn_rows)
        check = min(validation_batch(batch_size), rows.check_rows)
        self.sizes = Sizes(batch, *divmod(rows.learn_rows, batch), check, *divmod(rows.check_rows, check))
        self.layout = Layout(twin, budget, lanes, mesh, own_tables=rows.own)
        self.epoch = Epoch(twin, budget, self.layout, self.sizes, own_rows=rows.own, with_means=with_means)
        self.tables = [] if rows.own else tables.of_model(twin.model)

    @property
    def by_lane(self) -> PartitionSpec:
        """Where things are whose first axis is the lanes' if they have rows of their own, and none if not."""
        return PartitionSpec(AXIS) if self.rows.own else EVERYWHERE

    def orders(self, each: Sequence[Array]) -> Array:
        """Row orders of a call, (epochs, rows) of int32, or (epochs, L, rows) with rows of their own.

        each: of one epoch; those that are missing become zeros.
        """
        shape = (self.lanes, self.rows.learn_rows) if self.rows.own else (self.rows.learn_rows,)
        found = np.zeros((self.most_epochs, *shape), np.int32)
        for place, order in enumerate(each):
            found[place] = order
        return found

    def any_order(self) -> Array:
        """Row orders of a call of one epoch, the rows as they lie."""
        return self.orders([np.arange(self.rows.learn_rows, dtype=np.int32)])

    def any_checks(self) -> Array:
        """With rows of their own, some validation row's number for each, (L, check rows); else (L, 0)."""
        return np.zeros((self.lanes, self.rows.check_rows if self.rows.own else 0), np.int32)
