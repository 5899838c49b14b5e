"""The row orders of a program's epochs, and the batches that they make for Keras.

An order derives from the program and its epoch alone, so that a trial can be trained again in the orders
that it saw.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from pipeline.values import Array, Candidate, Replay, Split

# Enough for a matrix product, few enough for a core's cache.
_VALIDATION_ROWS = 128


def order(seed: int, program: int, epoch: int, rows: int, *, shuffle: bool) -> Array:
    """The row numbers in the order of one epoch, (rows,) of int32.

    Args:
        seed: of the orders, 0 or more.
        program: the program's number, from 0.
        epoch: the program's epoch, from 0.
        rows: how many there are.
        shuffle: without it, the rows stay as they are.
    """
    if not shuffle:
        return np.arange(rows, dtype=np.int32)
    # The key keeps these numbers apart from seeds that derive from the same seed without one.
    sequence = np.random.SeedSequence(seed, spawn_key=(program, epoch))
    return np.random.Generator(np.random.PCG64(sequence)).permutation(rows).astype(np.int32)


def validation_batch(batch_size: int) -> int:
    """Rows of a validation batch, the same for every engine.

    Keras averages a loss over batches, which is the loss of all rows only where each row counts the same: not
    with masks, or with a sum.
    """
    return max(_VALIDATION_ROWS, batch_size)


def for_keras(split: Split, model: keras.Model) -> tuple[Any, Any, Array | None]:
    """Inputs, targets and weights (or None) as `model.fit` takes them for this model."""
    targets = _plain(split.targets)
    if isinstance(targets, dict):
        targets = _in_form_of_outputs(targets, model)
    return _plain(split.inputs), targets, split.weights


class Batches(keras.utils.PyDataset):  # type: ignore[misc]  # Keras has no types
    """Batches of rows in the orders of a trial's epochs; the last batch may be smaller.

    Keras tells a data set that an epoch ended once before the first one, too, and on some backends that one
    began. So the epoch is not counted here: `turning`, which has to be among the callbacks, says it. Keras
    makes its iterator after that, and throws the last epoch's away with what it read ahead.

    Args:
        split: the rows.
        model: the one that takes them.
        size: rows in a batch.
        order_of: the row numbers in the order of an epoch of the trial, from 0.
    """

    def __init__(self, split: Split, model: keras.Model, size: int, order_of: Callable[[int], Array]) -> None:
        # With one worker, Keras adds no threads of its own that read ahead.
        super().__init__(workers=1)
        self._parts = for_keras(split, model)
        self._rows = split.rows
        self._size = size
        self._order_of = order_of
        # Keras reads two batches for their shapes before any epoch.
        self._order = order_of(0)

    def turning(self) -> keras.callbacks.Callback:
        """The callback that turns to each epoch's order."""
        return keras.callbacks.LambdaCallback(on_epoch_begin=self._turn)

    def __len__(self) -> int:
        return math.ceil(self._rows / self._size)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        rows = self._order[index * self._size : (index + 1) * self._size]
        batch = keras.tree.map_structure(lambda array: _floats(array[rows]), self._parts, none_is_leaf=False)
        inputs, targets, weights = batch
        return (inputs, targets) if weights is None else (inputs, targets, weights)

    def _turn(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._order = self._order_of(epoch)


def for_fit(
    train: Split, model: keras.Model, candidate: Candidate, fold: int, *, alone: bool
) -> tuple[dict[str, Any], list[keras.callbacks.Callback]]:
    """What `model.fit` gets of the training rows, and the callbacks that go with it.

    alone: whether Keras may shuffle them, by numbers of the whole process; else an epoch's order derives from
    the trial's seed and the epoch alone.
    """
    settings, replay = candidate.settings, candidate.replay
    size, shuffle = int(settings["batch_size"]), bool(settings["shuffle"])
    if replay is None and alone:
        x, y, weights = for_keras(train, model)
        return {"x": x, "y": y, "sample_weight": weights, "batch_size": size, "shuffle": shuffle}, []
    orders = replay or Replay(candidate.seed, fold, 0, 1)

    def order_of(epoch: int) -> Array:
        return order(orders.seed, orders.program, orders.of_program(epoch), train.rows, shuffle=shuffle)

    batches = Batches(train, model, size, order_of)
    return {"x": batches, "shuffle": False}, [batches.turning()]


def _plain(part: Array | Mapping[str, Array]) -> Any:
    """Keras looks into a dict, but into no other mapping."""
    return dict(part) if isinstance(part, Mapping) else part


def _in_form_of_outputs(targets: dict[str, Array], model: keras.Model) -> Any:
    """Targets by name, or in the order of the outputs where the model does not name them in its answer.

    Keras finds targets by name there, too, but not their weights.
    """
    output = getattr(model, "output", None)
    names: Sequence[str] = getattr(model, "output_names", ())
    if len(targets) == 1 and not isinstance(output, dict | list | tuple):
        # Whatever the only output is called.
        return next(iter(targets.values()))
    if targets.keys() != set(names) or isinstance(output, dict):
        return targets
    # A tuple, as TensorFlow makes one tensor of a list.
    return tuple(targets[name] for name in names) if isinstance(output, list | tuple) else targets[names[0]]


def _floats(array: Array) -> Array:
    """Floating numbers as wide as Keras's own, which it sees to for arrays, but not for batches."""
    return array.astype(keras.config.floatx(), copy=False) if array.dtype.kind == "f" else array
