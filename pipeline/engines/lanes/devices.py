"""The devices that lanes are spread over, and where the rows are that they learn from."""

import logging
from collections.abc import Sequence

import jax
import keras
import numpy as np
from jax.sharding import Mesh, NamedSharding

from pipeline.engines import rows
from pipeline.engines.lanes import chunks, sizing
from pipeline.engines.lanes.plan import EVERYWHERE, Room, Rows
from pipeline.engines.lanes.state import AXIS
from pipeline.engines.lanes.twin import Batch
from pipeline.values import Array, Data, Split

_log = logging.getLogger(__name__)

# Of a device's memory, for rows: half of what a program may take, as its lanes need the other half.
_SHARE = 0.3


def mesh(lanes: int | None) -> Mesh:
    """As many devices as share `lanes` evenly; all of them, if the number is still to be chosen."""
    devices = jax.devices()
    count = max(size for size in range(1, len(devices) + 1) if lanes is None or lanes % size == 0)
    return Mesh(np.array(devices[:count]), (AXIS,))


class DataOnDevices:
    """The rows of a study, in the types in which they are stored: put once on every device of a mesh.

    Those that take more of a device's memory than its share for rows stay on the host, and go there in
    chunks. The devices of a CPU share the machine's memory, and so one copy of the rows.

    folds: one for training without folds. by_lane: whether programs are told the rows of each lane, as they
    always are of folds. memory: bytes of each device; None to ask it.
    """

    def __init__(
        self,
        folds: Sequence[Data],
        whole: Split | None,
        on: Mesh,
        *,
        by_lane: bool = False,
        memory: float | None = None,
    ) -> None:
        self._own = by_lane or whole is not None
        self._folds, self._whole, self._on, self._memory = folds, whole, on, memory
        self._there: tuple[Batch, Batch] | None = None
        self._room: Room | None = None

    def of(self, fold: int, model: keras.Model) -> Rows:
        """The rows of a fold, in the form that the model takes them."""
        if self._there is None:
            self._there = self._placed(model)
        data = self._folds[fold]
        return Rows(*self._there, data.train.rows, data.validation.rows, own=self._own, room=self._room)

    def _placed(self, model: keras.Model) -> tuple[Batch, Batch]:
        data = self._folds[0]
        train = rows.for_keras(self._whole or data.train, model)
        check = None if self._whole else rows.for_keras(data.validation, model)
        self._room = self._room_if_full(chunks.size(train) + (chunks.size(check) if check else 0))
        if self._room is None:
            train, check = self._put(train), check and self._put(check)
        return train, check or train

    def _room_if_full(self, size: int) -> Room | None:
        """What rows of so many bytes have of a device, if it has not enough for them all; None if it has."""
        device = self._on.devices.flat[0]
        memory = sizing.device_memory() if self._memory is None else self._memory
        sharing, where = 1, f"{device.platform}:{device.id}"
        if device.platform == "cpu":
            sharing, where = len(jax.devices()), "this machine"
        if size <= _SHARE * memory * sharing:
            return None
        _log.warning(
            "rows stay on the host: %s of them, %s of memory on %s",
            chunks.gib(size),
            chunks.gib(memory * sharing),
            where,
        )
        return Room(_SHARE * memory, f"{device.platform}:{device.id}")

    def _put(self, batch: Batch) -> Batch:
        on_cpu = self._on.devices.flat[0].platform == "cpu"
        there = jax.tree.map(_for_all, batch) if on_cpu else batch
        put: Batch = jax.device_put(there, NamedSharding(self._on, EVERYWHERE))
        return put


def _for_all(array: Array) -> Array:
    """The rows where all devices of a CPU can read them: nobody writes there."""
    copied = chunks.aligned(array.shape, chunks.device_type(array))
    copied[...] = array
    return copied
