"""The ensemble in other formats: a TensorFlow SavedModel, and ONNX where its converter is installed.

They are made beside other work in a process of its own, from the saved file, and must predict the same.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.engines import exporting
from pipeline.tasks import user_code
from pipeline.values import Array

_log = logging.getLogger(__name__)

# Float32 through another library's kernels: sums of some thousand products in another order.
_TOLERANCE = 1e-3
# What computes with bfloat16 is exported with 32 bits: other libraries have no kernels for less. It differs
# by the roundings of some sixteen results, each by 2^-7 at most, which add up as their root.
_TOLERANCE_NARROW = 2.0**-5
_MOST_SECONDS = 600


@dataclass(frozen=True)
class Export:
    """A format's file or folder, and the largest difference of its answers to those of the model."""

    name: str
    place: Path
    difference: float


class Exporting:
    """Exports on their way; made by `begin`."""

    def __init__(self, process: subprocess.Popen[str], folder: Path, tolerance: float) -> None:
        self._process, self._tolerance = process, tolerance
        self._folder = folder

    def finished(self) -> Iterator[Export]:
        """Waits, and gives each format that predicts the same; says what is wrong with another."""
        try:
            said, complaints = self._process.communicate(timeout=_MOST_SECONDS)
        except subprocess.TimeoutExpired:
            self.stop()
            _log.warning("exports: not made within %d s", _MOST_SECONDS)
            return
        if code := self._process.returncode:
            ended = f"ended by signal {-code}" if code < 0 else f"exit code {code}"
            last = complaints.strip().splitlines()[-1:] or [ended]
            _log.warning("exports: failed: %s", last[0])
            return
        for name, made in json.loads(said.strip().splitlines()[-1]).items():
            if "failure" in made:
                _log.warning("exports: %s: %s", name, made["failure"])
            elif not made["difference"] <= self._tolerance:
                _log.warning(
                    "exports: %s: its answers differ by %.2g, and so it is not kept", name, made["difference"]
                )
            else:
                yield Export(name, self._folder / made["file"], made["difference"])

    def stop(self) -> None:
        """Ends the process, if it runs."""
        self._process.kill()
        self._process.communicate()


def begin(
    file: Path,
    names: Sequence[str],
    inputs: Mapping[str, Array],
    answers: list[Array],
    folder: Path,
    *,
    narrow: bool = False,
) -> Exporting:
    """Starts to export.

    Args:
        file: the `.keras` file.
        names: of the formats, at least one.
        inputs: some rows by input name, of the only input by the name "".
        answers: what the model answers to them, in the order of its outputs as Keras flattens them.
        folder: is made; what is exported comes there.
        narrow: whether the model computes with 16 bits.
    """
    folder.mkdir()
    shutil.copy(file, folder / exporting.MODEL_FILE)
    modules = user_code.held_by(file).modules
    (folder / exporting.MODULES_FILE).write_text(json.dumps(modules))
    named = {f"{exporting.INPUT}{name}": rows for name, rows in inputs.items()}
    given = {f"{exporting.ANSWER}{place:04d}": part for place, part in enumerate(answers)}
    np.savez(folder / exporting.ROWS_FILE, allow_pickle=False, **named, **given)
    process = subprocess.Popen(  # noqa: S603 (this program, and a folder of its own)
        [sys.executable, "-m", exporting.__name__, str(folder), *names],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # The graphics card is the search's.
        env={
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "-1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        },
    )
    return Exporting(process, folder, _TOLERANCE_NARROW if narrow else _TOLERANCE)
