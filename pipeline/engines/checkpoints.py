"""Checkpoints of trainings on their way: one file each in a folder, from which an interrupted one goes on.

A file is NumPy's `.npz`, read without pickle. It says what it belongs to; one that belongs to anything else,
or that cannot be read, is removed, and its training starts from its beginning.
"""

import json
import logging
import math
import os
import re
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.secrets import first_line
from pipeline.values import Array

_log = logging.getLogger(__name__)

HOME = "checkpoints"
"""The folder of all of a study's, in the study's own."""

# `TRIAL-FOLD.npz`, and what is being written of it by a process.
_NAME = re.compile(r"(\d+)-\d+\.npz(\.\d+)?")
_SAID, _CURVE, _ARRAY = "said", "curve", "array/"
# Copies that wait for the disk lie in memory; and the disk is others', too, for most of the time.
_MOST_WAITING_BYTES, _REST = 2**28, 9.0

Curve = Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Training:
    """What a checkpoint belongs to: a trial's number and fold, and all else that its training follows from.

    told: plain values of JSON, which have to be the same for a training to go on.
    """

    number: int
    fold: int
    told: Mapping[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """A training after some epochs.

    curve: what each epoch so far logged, the first one first; one epoch or more. seconds: that the trial has
    trained for. best_epoch: of a training that is over, for which nothing else is needed; else None. state:
    plain values of JSON that its engine goes on with. arrays: likewise, by name.
    """

    curve: Curve
    seconds: float
    best_epoch: int | None = None
    state: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, Array] = field(default_factory=dict)


class Checkpoints:
    """Writes and reads the checkpoints of trainings. Ended by `close`.

    They are written by a thread, in their order; a disk that does not take them is told of once, and training
    goes on without them.

    Args:
        folder: of the files; made with the first one.
        seconds: of training between two checkpoints of a training, above 0.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self.seconds = seconds
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._lock = threading.Lock()
        self._waiting_bytes, self._rests_until, self._told = 0, -math.inf, False

    @property
    def ready(self) -> bool:
        """Whether there is room for one more: little waits for the disk, which has had time for others."""
        return self._waiting_bytes < _MOST_WAITING_BYTES and time.monotonic() >= self._rests_until

    def write(self, training: Training, checkpoint: Checkpoint) -> None:
        """Puts a checkpoint in place of the one before, later; its arrays are not to be changed any more."""
        size = sum(array.nbytes for array in checkpoint.arrays.values())
        with self._lock:
            self._waiting_bytes += size
        self._thread.submit(self._written, training, checkpoint, size)

    def read(self, training: Training, like: Mapping[str, Array]) -> Checkpoint | None:
        """A training's checkpoint; None if there is none that it can go on from.

        Args:
            training: that would go on.
            like: arrays of the names, shapes and types that it needs, unless it is over.
        """
        file = self._file(training)
        try:
            # Opened here, as NumPy leaves one open that is no zip.
            with file.open("rb") as opened, np.load(opened, allow_pickle=False) as content:
                said = json.loads(bytes(content[_SAID]))
                reason = _difference(said["training"], training.told)
                if not reason:
                    return _checkpoint(said, content, like)
        except FileNotFoundError:
            return None
        except Exception as error:  # whatever a torn file makes zip, NumPy and JSON raise
            reason = f"it cannot be read ({type(error).__name__}: {first_line(error)})"
        _log.warning("trial %d starts from its beginning: %s is of no use: %s", training.number, file, reason)
        _unlink(file)
        return None

    def forget(self, number: int) -> None:
        """Removes a trial's checkpoints, later."""
        self._thread.submit(_remove, self._folder, {number})

    def close(self) -> None:
        """Returns when everything is written."""
        self._thread.shutdown()

    def _file(self, training: Training) -> Path:
        return self._folder / f"{training.number}-{training.fold}.npz"

    def _written(self, training: Training, checkpoint: Checkpoint, size: int) -> None:
        began = time.monotonic()
        try:
            _write(self._file(training), training, checkpoint)
        except Exception as error:  # it must not end a training, nor be lost on this thread
            if not self._told:
                self._told = True
                reason = error.strerror if isinstance(error, OSError) else None
                _log.warning(
                    "%s: checkpoints cannot be written (%s): training goes on, and a trial that is"
                    " interrupted may start from its beginning",
                    self._folder,
                    reason or f"{type(error).__name__}: {first_line(error)}",
                )
        finally:
            ended = time.monotonic()
            with self._lock:
                self._waiting_bytes -= size
            self._rests_until = ended + _REST * (ended - began)


def sweep(folder: Path, ended: Collection[int]) -> None:
    """Removes the checkpoints of trials that have ended, and no other's: processes may share the folder."""
    _remove(folder, ended)


def _remove(folder: Path, numbers: Collection[int]) -> None:
    names = os.listdir(folder) if folder.is_dir() else ()
    for name in names:
        of_trial = _NAME.fullmatch(name)
        if of_trial and int(of_trial[1]) in numbers:
            _unlink(folder / name)


def _unlink(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        _log.warning("%s: cannot be removed: %s", file, error.strerror or error)


def _write(file: Path, training: Training, checkpoint: Checkpoint) -> None:
    """Writes a file in one go: whoever reads it finds the one before, or this one whole."""
    names = list(checkpoint.curve[0])
    said = {
        "training": training.told,
        "metrics": names,
        "seconds": checkpoint.seconds,
        "best_epoch": checkpoint.best_epoch,
        "state": checkpoint.state,
        "types": {name: array.dtype.name for name, array in checkpoint.arrays.items()},
    }
    content: dict[str, Any] = {
        _SAID: np.frombuffer(json.dumps(said).encode(), np.uint8),
        _CURVE: np.array([[metrics[name] for name in names] for metrics in checkpoint.curve], np.float64),
        **{_ARRAY + name: _storable(array) for name, array in checkpoint.arrays.items()},
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        with unfinished.open("wb") as out:
            np.savez(out, **content)
            out.flush()
            os.fsync(out.fileno())
        unfinished.replace(file)
    except OSError:
        _unlink(unfinished)
        raise


def _checkpoint(said: Mapping[str, Any], content: Any, like: Mapping[str, Array]) -> Checkpoint:
    """What a file holds.

    Raises:
        ValueError: its arrays are not such as are needed.
    """
    names = said["metrics"]
    curve = [dict(zip(names, map(float, row), strict=True)) for row in content[_CURVE]]
    if not curve:
        raise ValueError("its curve has no epoch")
    best = said["best_epoch"]
    if best is not None:
        if not 0 <= best < len(curve):
            raise ValueError(f"its best epoch is {best} of {len(curve)}")
        return Checkpoint(curve, float(said["seconds"]), best, said["state"])
    types = {name: array.dtype.name for name, array in like.items()}
    if said["types"] != types:
        raise ValueError("its arrays have other names or types")
    arrays = {}
    for name, array in like.items():
        stored = content[_ARRAY + name]
        if stored.shape != array.shape:
            raise ValueError(f"array {name} has the shape {stored.shape}, but needs {array.shape}")
        arrays[name] = stored.view(array.dtype)
    return Checkpoint(curve, float(said["seconds"]), None, said["state"], arrays)


def _storable(array: Array) -> Array:
    """The same bytes in a type that NumPy's files know, which bfloat16 is not."""
    return array if array.dtype.isbuiltin == 1 else array.view(f"u{array.dtype.itemsize}")


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """What differs between what a file belongs to and what is wanted; empty for nothing."""
    for name in sorted({*found, *wanted}):
        if found.get(name) != wanted.get(name):
            return f"it is of another {name}"
    return ""
