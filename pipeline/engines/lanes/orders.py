"""The orders in which lanes see their rows."""

from collections.abc import Sequence

import numpy as np

from pipeline.engines import rows
from pipeline.engines.lanes.entries import Entry, Key
from pipeline.values import Array, Data, Replay


class Orders:
    """Which rows each lane of a program sees, one after another.

    Lanes of one program share an order, which is drawn by the study's seed, the program and its epoch: then a
    batch is there once for all of them. With `own` each has the order that `model.fit` would have, drawn by
    its training's seed and epoch. With folds the orders are of the fold's rows.

    Args:
        seed: of the study.
        folds: one for training without folds.
        own: whether each training has an order of its own.
    """

    def __init__(self, seed: int, folds: Sequence[Data], *, own: bool) -> None:
        self._seed, self._folds, self._own = seed, folds, own

    @property
    def by_lane(self) -> bool:
        """Whether a program is told the rows of each lane."""
        return self._own or len(self._folds) > 1

    def learn(self, key: Key, entries: Sequence[Entry | None], epoch: int) -> Array:
        """Of a program's epoch, (rows,), or (lanes, rows) by lane; a lane without an entry has any."""
        if not self.by_lane:
            return self._order(key, self._seed, key.number, epoch)
        shared = None if self._own else self._order(key, self._seed, key.number, epoch)
        return np.stack([self._learn_of(key, entry, epoch, shared) for entry in _filled(entries)])

    def check(self, entries: Sequence[Entry | None]) -> Array | None:
        """Of the validation rows, (lanes, rows); None where lanes share them."""
        if not self.by_lane:
            return None
        return np.stack([self._check_of(entry) for entry in _filled(entries)])

    def unshuffled(self, entry: Entry, lanes: int) -> tuple[Array, Array | None]:
        """As `learn` and `check`, for lanes that all have the entry's rows as they lie."""
        fold = self._folds[entry.fold].fold
        learn = np.arange(entry.key.learn_rows, dtype=np.int32)
        return learn if fold is None else fold.learn.astype(np.int32), self.check([entry] * lanes)

    def replay(self, entry: Entry, lanes: int) -> Replay:
        """What lets `model.fit` see the rows in the order that the entry's lane had."""
        if self._own:
            return Replay(entry.candidate.seed, 0, 0, lanes)
        (_, first), *later = entry.turns
        return Replay(self._seed, entry.key.number, first, lanes, tuple(later))

    def _learn_of(self, key: Key, entry: Entry, epoch: int, shared: Array | None) -> Array:
        order = shared
        if order is None:
            order = self._order(key, entry.candidate.seed, 0, entry.epoch_of(epoch))
        fold = self._folds[entry.fold].fold
        return order if fold is None else fold.learn[order].astype(np.int32)

    def _check_of(self, entry: Entry) -> Array:
        fold = self._folds[entry.fold].fold
        return (np.arange(entry.key.check_rows) if fold is None else fold.check).astype(np.int32)

    @staticmethod
    def _order(key: Key, seed: int, program: int, epoch: int) -> Array:
        return rows.order(seed, program, epoch, key.learn_rows, shuffle=key.shuffle)


def _filled(entries: Sequence[Entry | None]) -> list[Entry]:
    some = next(entry for entry in entries if entry)
    return [entry or some for entry in entries]
