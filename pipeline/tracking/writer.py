"""What writes trials into MLflow, as it is told, in batches.

A point logged alone costs fifty times one logged in a batch, so points wait until some seconds have passed,
or their trial ends.
"""

import queue
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from pipeline.tracking.connection import Client
from pipeline.tracking.curves import CurveFiles, Point
from pipeline.tracking.parent import REASON
from pipeline.values import Settings

Message = tuple[str, tuple[Any, ...]]
"""The name of a method of `Writer`, and its arguments."""

# A request takes 1,000 metrics, 100 params and 100 tags.
_METRICS_A_REQUEST = 1000
_PARAMS_A_REQUEST = 100
_FLUSH_SECONDS = 5.0


@dataclass
class _Child:
    """A trial's run while it is written; metrics wait for the next request.

    curves: by fold, None without folds, where they become files.
    """

    run_id: str
    metrics: list[Metric] = field(default_factory=list)
    curves: dict[int | None, list[Point]] = field(default_factory=dict)


class Writer:
    """Writes trials as child runs of a parent; times are milliseconds since 1970, as in MLflow.

    Args:
        client: of the store.
        parent: the parent's run id.
        experiment: the parent's.
    """

    def __init__(self, client: Client, parent: str, experiment: str) -> None:
        self._client, self._parent, self._experiment = client, parent, experiment
        self._children: dict[int, _Child] = {}
        self._curve_files: CurveFiles | None = None

    def keep(self, curve_files: CurveFiles) -> None:
        """What every trial gets of its curves as files."""
        self._curve_files = curve_files

    def start(
        self, number: int, name: str, settings: Settings, tags: Mapping[str, str], started: int
    ) -> None:
        """A trial begins."""
        all_tags = {MLFLOW_PARENT_RUN_ID: self._parent, **tags}
        run = self._client.create_run(self._experiment, start_time=started, tags=all_tags, run_name=name)
        child = _Child(str(run.info.run_id))
        params = [Param(key, str(value)) for key, value in settings.items()]
        for place in range(0, len(params), _PARAMS_A_REQUEST):
            self._client.log_batch(child.run_id, params=params[place : place + _PARAMS_A_REQUEST])
        self._children[number] = child

    def epoch(
        self,
        number: int,
        metrics: Mapping[str, float],
        epoch: int,
        now: int,
        fold: int | None = None,
        steps: int = 0,
    ) -> None:
        """A trial's epoch is done. fold: None without folds. steps: the optimiser's, so far."""
        child, prefix = self._children[number], _prefix(fold)
        child.metrics.extend(Metric(prefix + name, value, now, epoch) for name, value in metrics.items())
        if self._curve_files:
            child.curves.setdefault(fold, []).append(Point(epoch, steps, now / 1000, metrics))

    def end(
        self,
        number: int,
        status: str,
        reason: str,
        metrics: Mapping[str, float],
        files: Sequence[Path],
        detail: str,
        ended: int,
        folder: Path | None = None,
    ) -> None:
        """A trial ends; files and the folder's content move into its artifacts, detail as `traceback.txt`."""
        child = self._children.pop(number)
        child.metrics.extend(Metric(name, float(value), ended, 0) for name, value in metrics.items())
        self._flush(child)
        for file in files:
            self._client.log_artifact(child.run_id, str(file))
            file.unlink()
        if folder or child.curves:
            self._move(child, folder or Path(tempfile.mkdtemp(prefix="regatta-")))
        if detail:
            self._client.log_text(child.run_id, detail, "traceback.txt")
        if reason:
            self._client.log_batch(child.run_id, tags=[RunTag(REASON, reason)])
        self._client.set_terminated(child.run_id, status, ended)

    def flush(self) -> None:
        """Writes every point that waits."""
        for child in self._children.values():
            self._flush(child)

    def _move(self, child: _Child, folder: Path) -> None:
        """Moves a folder into a trial's artifacts, with the files of its curves."""
        try:
            for fold, curve in child.curves.items():
                if self._curve_files:
                    self._curve_files.write(curve, folder / _prefix(fold))
            self._client.log_artifacts(child.run_id, str(folder))
        finally:
            shutil.rmtree(folder)

    def _flush(self, child: _Child) -> None:
        for place in range(0, len(child.metrics), _METRICS_A_REQUEST):
            self._client.log_batch(child.run_id, metrics=child.metrics[place : place + _METRICS_A_REQUEST])
        child.metrics = []


def _prefix(fold: int | None) -> str:
    """Of all that is a fold's."""
    return "" if fold is None else f"fold_{fold}/"


def obey(writer: Writer, receive: Callable[..., Message | None]) -> None:
    """Does what the messages say, in their order, until one is None; raises what the store raises.

    receive: the next message; `queue.Empty` if none came in `timeout` seconds.
    """
    flushed = time.monotonic()
    while True:
        try:
            message = receive(timeout=_FLUSH_SECONDS)
        except queue.Empty:
            message = ("flush", ())
        if message is None:
            return writer.flush()
        method, arguments = message
        getattr(writer, method)(*arguments)
        if time.monotonic() - flushed > _FLUSH_SECONDS:
            writer.flush()
            flushed = time.monotonic()
