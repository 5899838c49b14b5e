"""Rows that stay on the host, on their way to the devices: some full batches at a time.

A chunk is gathered by NumPy in an epoch's row order and in the types in which a device holds rows, so that
integers of 8 bits are sent as such. All chunks have one shape, so that one program takes them.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding

from pipeline.engines.lanes.plan import Room
from pipeline.engines.lanes.refusal import Refusal
from pipeline.engines.lanes.twin import Batch
from pipeline.values import Array

UNDER_WAY = 2
"""Chunks on a device at once: one is learned from, one is on its way."""

# Its computation takes longer than to start it, and it is short for a search that is to stop.
_BYTES = 64 * 2**20
# What JAX needs of NumPy's memory on a CPU to read it in place, from all devices: see XLA's MinAlign.
_ALIGNMENT = 64


@dataclass(frozen=True)
class Part:
    """What a chunk has of an epoch. first: its first row's place in the order. full, rest: batches."""

    first: int
    full: int
    rest: int


class Chunks:
    """The chunks of an epoch.

    Args:
        data: all rows, NumPy's arrays, from memory or mapped from a file.
        batch: rows of a full batch.
        full: batches of that many rows in an epoch.
        rest: rows of the last, smaller one; 0 without it.
        lanes: how many have rows of their own; 0 where all see the same.
        devices: that share those lanes.
        room: for the chunks under way.

    Raises:
        Refusal: not even a batch fits.
        MemoryError: it does not, but fewer lanes would.
    """

    def __init__(
        self, data: Batch, batch: int, full: int, rest: int, *, lanes: int, devices: int, room: Room
    ) -> None:
        self._data: Batch = jax.tree.map(np.asarray, data)
        self._batch, self._full, self._rest, self._lanes = batch, full, rest, lanes
        on_each = max(1, lanes // devices)
        bytes_of_batch = batch * on_each * _row_bytes(self._data)
        if bytes_of_batch * UNDER_WAY > room.size:
            of_lanes = f" of each of {on_each} lanes" if on_each > 1 else ""
            message = (
                f"{UNDER_WAY} batches of {batch} rows{of_lanes} take {gib(bytes_of_batch * UNDER_WAY)}, and"
                f" rows may take {gib(room.size)} of {room.where}"
            )
            raise MemoryError(message) if on_each > 1 else Refusal(message)
        batches = full + bool(rest)
        most = max(1, int(min(_BYTES, room.size / UNDER_WAY) // bytes_of_batch))
        # As few as that allows, all about as long.
        self._batches = math.ceil(batches / math.ceil(batches / most))
        self.bytes = self._batches * bytes_of_batch

    def parts(self, batches: int | None = None) -> Iterator[Part]:
        """How an epoch is cut; or, without the rest, at most so many full batches of one."""
        full = self._full if batches is None else min(batches, self._full)
        rest = bool(self._rest) if batches is None else False
        for first in range(0, full + rest, self._batches):
            ends = first + self._batches >= full + rest
            count = min(self._batches, full - first)
            yield Part(first * self._batch, count, int(rest and ends))

    def shapes(self, place: Sharding) -> Batch:
        """A chunk's shapes and types on the devices. place: of each of its arrays."""
        found: Batch = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(self._shape(leaf), device_type(leaf), sharding=place),
            self._data,
        )
        return found

    def gathered(self, order: Array, first: int) -> Batch:
        """A chunk in memory of its own; what the order does not fill is any row.

        Args:
            order: row numbers, (R,), or (L, R) with rows of their own.
            first: the place in it of the first row.
        """
        there = order[..., first : first + self._batches * self._batch]
        numbers = np.zeros((*order.shape[:-1], self._batches * self._batch), np.intp)
        numbers[..., : there.shape[-1]] = there
        found: Batch = jax.tree.map(lambda leaf: _taken(leaf, numbers, self._shape(leaf)), self._data)
        return found

    def _shape(self, leaf: Array) -> tuple[int, ...]:
        by_lane = (self._lanes,) if self._lanes else ()
        return (*by_lane, self._batches * self._batch, *leaf.shape[1:])


def aligned(shape: tuple[int, ...], dtype: Any) -> Array:
    """Memory that JAX does not copy on a CPU, but reads in place, all devices the same."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.empty(size + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


def device_type(leaf: Array) -> np.dtype[Any]:
    """Of the array on a device, where numbers have no 64 bits unless all may have."""
    found: np.dtype[Any] = jax.dtypes.canonicalize_dtype(leaf.dtype.newbyteorder("="))
    return found


def size(data: Batch) -> int:
    """Bytes of all rows as a device holds them."""
    return _row_bytes(data) * len(jax.tree.leaves(data)[0])


def gib(size: float) -> str:
    """Bytes for a reader."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 / 10 else f"{size / 2**20:.3g} MiB"


def _row_bytes(data: Batch) -> int:
    return sum(math.prod(leaf.shape[1:]) * device_type(leaf).itemsize for leaf in jax.tree.leaves(data))


def _taken(leaf: Array, numbers: Array, shape: tuple[int, ...]) -> Array:
    found = aligned(shape, device_type(leaf))
    flags = leaf.flags
    if flags.c_contiguous and flags.aligned and leaf.dtype == found.dtype:
        # Into its place at once, which numpy does without a copy where it need not raise; the numbers are
        # those of rows.
        np.take(leaf, numbers, axis=0, out=found, mode="clip")
    else:
        # Of other arrays, `take` would first copy the whole.
        found[...] = leaf[numbers]
    return found
