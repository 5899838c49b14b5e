"""Files of checkpoints: what is read is what was written, and what is of no use is removed with a word."""

import errno
import json
import logging
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from pipeline.engines import checkpoints
from pipeline.engines.checkpoints import Checkpoint, Checkpoints, Training

TRAINING = Training(3, 1, {"seed": 7, "settings": {"units": 8, "rate": 0.1}})
ARRAYS = {
    "weights": np.arange(6, dtype=np.float32).reshape(2, 3),
    "count": np.array(5, np.int32),
    "half": np.array([1.5, -2.0], ml_dtypes.bfloat16),
    "alive": np.ones((), bool),
}
CURVE = ({"loss": 0.1 + 0.2, "val_loss": 1e-300}, {"loss": 2.5, "val_loss": 1 / 3})
CHECKPOINT = Checkpoint(CURVE, 12.5, None, {"turns": [[0, 4]]}, ARRAYS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


def written(folder: Path, checkpoint: Checkpoint = CHECKPOINT, training: Training = TRAINING) -> Path:
    with closing(Checkpoints(folder, 1.0)) as kept:
        kept.write(training, checkpoint)
    return folder / f"{training.number}-{training.fold}.npz"


def read(folder: Path, training: Training = TRAINING, like: dict | None = None) -> Checkpoint | None:
    with closing(Checkpoints(folder, 1.0)) as kept:
        return kept.read(training, ARRAYS if like is None else like)


def test_it_is_read_as_it_was_written(folder: Path) -> None:
    assert read(folder) is None
    file = written(folder)
    assert os.listdir(folder) == ["3-1.npz"]
    mask = os.umask(0)
    os.umask(mask)
    assert file.stat().st_mode & 0o777 == 0o666 & ~mask
    found = read(folder)
    assert found is not None
    assert tuple(found.curve) == CURVE
    assert (found.seconds, found.best_epoch, found.state) == (12.5, None, {"turns": [[0, 4]]})
    assert found.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found.arrays[name].dtype == array.dtype
        assert found.arrays[name].shape == array.shape
        assert found.arrays[name].tobytes() == array.tobytes()
    assert file.exists()


def test_a_training_that_is_over_needs_no_arrays(folder: Path) -> None:
    written(folder, Checkpoint(CURVE, 1.0, 1))
    found = read(folder)
    assert found is not None
    assert (found.best_epoch, found.arrays) == (1, {})


def test_the_last_one_counts(folder: Path) -> None:
    written(folder)
    written(folder, replace(CHECKPOINT, seconds=99.0))
    found = read(folder)
    assert found is not None
    assert found.seconds == 99.0


def _torn(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-50])


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _flipped(file: Path) -> None:
    """A bit of an array, which only the file's own sums tell."""
    content = bytearray(file.read_bytes())
    place = content.index(ARRAYS["weights"].tobytes())
    content[place] ^= 1
    file.write_bytes(bytes(content))


def _pickled(file: Path) -> None:
    np.savez(file, said=np.array([{}], object))


@pytest.mark.parametrize("harm", [_torn, _empty, _flipped, _pickled])
def test_a_damaged_file_is_removed_in_one_line(
    harm: Callable[[Path], None], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = written(folder)
    harm(file)
    assert read(folder) is None
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"trial 3 starts from its beginning: {file} is of no use: it cannot be read (")
    assert "\n" not in line
    assert not file.exists()


@pytest.mark.parametrize(
    ("training", "like", "reason"),
    [
        (replace(TRAINING, told={**TRAINING.told, "seed": 8}), ARRAYS, "it is of another seed"),
        (replace(TRAINING, told={**TRAINING.told, "keras": "4"}), ARRAYS, "it is of another keras"),
        (TRAINING, {**ARRAYS, "weights": np.zeros((3, 2), np.float32)}, "has the shape (2, 3)"),
        (TRAINING, {**ARRAYS, "weights": np.zeros((2, 3), np.float64)}, "other names or types"),
        (TRAINING, {"weights": ARRAYS["weights"]}, "other names or types"),
    ],
)
def test_what_belongs_to_something_else_is_removed(
    training: Training, like: dict, reason: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = written(folder)
    assert read(folder, training, like) is None
    (record,) = caplog.records
    assert reason in record.getMessage()
    assert not file.exists()


def test_a_full_disk_is_told_of_once_and_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with closing(Checkpoints(folder, 1.0)) as kept:
        monkeypatch.setattr(checkpoints.os, "fsync", full)
        kept.write(TRAINING, CHECKPOINT)
        kept.write(TRAINING, CHECKPOINT)
        kept.close()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "checkpoints cannot be written (No space left on device)" in record.getMessage()
    assert os.listdir(folder) == []


def test_a_trial_that_ended_takes_its_files_along_and_no_others(folder: Path) -> None:
    for number, fold in ((3, 0), (3, 1), (33, 0), (4, 0)):
        written(folder, training=replace(TRAINING, number=number, fold=fold))
    # What a process that is gone has left half written, and somebody's own file.
    (folder / "3-0.npz.123").touch()
    (folder / "4-0.npz.123").touch()
    (folder / "3.txt").touch()
    with closing(Checkpoints(folder, 1.0)) as kept:
        kept.forget(3)
    assert sorted(os.listdir(folder)) == ["3.txt", "33-0.npz", "4-0.npz", "4-0.npz.123"]
    checkpoints.sweep(folder, {33, 5})
    assert sorted(os.listdir(folder)) == ["3.txt", "4-0.npz", "4-0.npz.123"]
    checkpoints.sweep(folder / "missing", {1})


def test_much_that_waits_or_a_slow_disk_puts_off_the_next(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "_REST", 0.0)
    with closing(Checkpoints(folder, 1.0)) as kept:
        assert kept.ready
        monkeypatch.setattr(checkpoints, "_MOST_WAITING_BYTES", 0)
        assert not kept.ready
    monkeypatch.setattr(checkpoints, "_MOST_WAITING_BYTES", 1000)
    monkeypatch.setattr(checkpoints, "_REST", 1e9)
    with closing(Checkpoints(folder, 1.0)) as kept:
        assert kept.ready
        kept.write(TRAINING, CHECKPOINT)
        kept.close()
        assert not kept.ready


def test_what_it_says_is_json(folder: Path) -> None:
    with np.load(written(folder), allow_pickle=False) as content:
        said = json.loads(bytes(content["said"]))
    assert said["training"] == TRAINING.told
