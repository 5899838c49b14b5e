"""A trial's curves as files: what Keras's CSVLogger writes, and the scalars of its TensorBoard callback.

They are written of what was recorded, where that is written. So the engines' files are the same, a trial that
failed or was pruned has them too, and training waits for nothing. No TensorFlow is needed.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.engines.engine import EVENTS_FOLDER

LOG_FILE = "log.csv"

# The first event of every file says this.
_FILE_VERSION = "brain.Event:2"


@dataclass(frozen=True)
class Point:
    """An epoch of a curve.

    epoch: from 0. steps: what the optimiser counts, so far. time: seconds since 1970. metrics: as logged.
    """

    epoch: int
    steps: int
    time: float
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class CurveFiles:
    """Which files of its curves a trial gets.

    csv: `log.csv`. events: `tensorboard/`, where the engine has put none. own: the logged metrics that Keras
    does not know, without `val_`.
    """

    csv: bool
    events: bool
    own: tuple[str, ...] = ()

    def write(self, curve: Sequence[Point], folder: Path) -> None:
        """Writes a curve of one point or more into a folder, which need not exist."""
        folder.mkdir(parents=True, exist_ok=True)
        if self.csv:
            _write_log(curve, folder / LOG_FILE)
        if self.events and not (folder / EVENTS_FOLDER).exists():
            _write_events(curve, folder / EVENTS_FOLDER, self.own)


def _write_log(curve: Sequence[Point], file: Path) -> None:
    """An epoch a row, the metrics in the order of their names."""
    names = sorted(curve[0].metrics)
    with file.open("w", encoding="utf-8", newline="") as out:
        table = csv.writer(out)
        table.writerow(["epoch", *names])
        table.writerows([point.epoch, *(point.metrics.get(name, "NA") for name in names)] for point in curve)


def _write_events(curve: Sequence[Point], folder: Path, own: Sequence[str]) -> None:
    """Event files of training and of validation, by the names and steps of Keras's TensorBoard callback."""
    training, validation = [], []
    for point in curve:
        learnt = {name: value for name, value in point.metrics.items() if not name.startswith("val_")}
        checked = {
            name.removeprefix("val_"): value for name, value in point.metrics.items() if name not in learnt
        }
        epoch = {f"epoch_{name}": value for name, value in learnt.items()}
        training.append(_event(point.time, point.epoch, epoch))
        steps = {f"evaluation_{name}_vs_iterations": checked[name] for name in checked if name not in own}
        validation.append(_event(point.time, point.steps, steps))
        epoch = {f"epoch_{name}": value for name, value in checked.items()}
        validation.append(_event(point.time, point.epoch, epoch))
    for name, events in (("train", training), ("validation", validation)):
        _write_records(events, folder / name / f"events.out.tfevents.{int(curve[0].time):010d}.v2")


def _event(time: float, step: int, scalars: Mapping[str, float]) -> Any:
    # Late: who asks for no event files need not wait for it.
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.plugins.scalar.summary_v2 import scalar_pb

    event = Event(wall_time=time, step=step)
    for name, value in scalars.items():
        event.summary.MergeFrom(scalar_pb(name, value))
    return event


def _write_records(events: Sequence[Any], file: Path) -> None:
    from tensorboard.compat.proto.event_pb2 import Event

    # By itself, as TensorBoard's writer of event files imports TensorFlow where that is installed.
    from tensorboard.summary.writer.record_writer import RecordWriter

    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as out:
        records = RecordWriter(out)
        for event in (Event(wall_time=events[0].wall_time, file_version=_FILE_VERSION), *events):
            records.write(event.SerializeToString())
