"""The devices that lanes are spread over, and where their compiled programs are kept."""

from collections.abc import Sequence

import jax
import keras
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pipeline.engines import rows
from pipeline.engines.lanes.program import Rows
from pipeline.engines.lanes.state import AXIS
from pipeline.engines.lanes.twin import Batch
from pipeline.values import Data, Split


def mesh(lanes: int | None) -> Mesh:
    """As many devices as share `lanes` evenly; all of them, if the number is still to be chosen."""
    devices = jax.devices()
    count = max(size for size in range(1, len(devices) + 1) if lanes is None or lanes % size == 0)
    return Mesh(np.array(devices[:count]), (AXIS,))


class DataOnDevices:
    """The rows of a study, put once on every device of a mesh, in the types in which they are stored.

    folds: one for training without folds. by_lane: whether programs are told the rows of each lane, as they
    always are of folds.
    """

    def __init__(
        self, folds: Sequence[Data], whole: Split | None, on: Mesh, *, by_lane: bool = False
    ) -> None:
        everywhere = NamedSharding(on, PartitionSpec())

        self._own = by_lane or whole is not None
        self._folds, self._whole, self._everywhere = folds, whole, everywhere
        self._there: tuple[Batch, Batch] | None = None

    def of(self, fold: int, model: keras.Model) -> Rows:
        """The rows of a fold, in the form that the model takes them."""
        if self._there is None:
            data = self._folds[0]
            train = self._put(self._whole or data.train, model)
            self._there = (train, train if self._whole else self._put(data.validation, model))
        data = self._folds[fold]
        return Rows(*self._there, data.train.rows, data.validation.rows, own=self._own)

    def _put(self, split: Split, model: keras.Model) -> Batch:
        put: Batch = jax.device_put(rows.for_keras(split, model), self._everywhere)
        return put
