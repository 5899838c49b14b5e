"""Trials into MLflow, in batches and off the training thread.

A point logged alone costs fifty times one logged in a batch, so a thread of its own gathers what the search
loop hands over and writes it every few seconds, and when a trial ends.
"""

import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlflow.entities import Metric, Param, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from mlflow.utils.time import get_current_time_millis

from pipeline.errors import RunError
from pipeline.secrets import first_line
from pipeline.tracking.parent import REASON, Parent
from pipeline.values import Progress, Settings

TRIAL, MEMBER, BASELINE, SEED = "pipeline.trial", "pipeline.member", "pipeline.baseline", "pipeline.seed"
"""Tags of child runs: a trial's number, or the number of the trial that an ensemble member trains again."""

FINISHED, KILLED, FAILED = "FINISHED", "KILLED", "FAILED"

# A request takes 1,000 metrics, 100 params and 100 tags.
_METRICS_A_REQUEST = 1000
_PARAMS_A_REQUEST = 100
_FLUSH_SECONDS = 5.0


@dataclass
class _Child:
    """A trial's run while it is written; metrics wait for the next request."""

    run_id: str
    metrics: list[Metric] = field(default_factory=list)


class Recorder:
    """Writes the trials of a study as child runs of its parent. Ended by `close`.

    A method returns at once; what it hands over is written later, in order.

    Raises:
        RunError: from any method, when the store has failed for good.
    """

    def __init__(self, parent: Parent, folds: int) -> None:
        self._parent = parent
        self._client = parent.client
        self._folds = folds
        self._children: dict[int, _Child] = {}
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._write, name="recorder", daemon=True)
        self._thread.start()

    def start(self, number: int, name: str, settings: Settings, tags: Mapping[str, str]) -> None:
        """A trial begins. tags: `TRIAL` or `MEMBER`, and what else marks it."""
        now = get_current_time_millis()
        self._hand_over(lambda: self._start(number, name, settings, tags, now))

    def epoch(self, progress: Progress) -> None:
        """A trial's epoch is done."""
        now = get_current_time_millis()
        prefix = f"fold_{progress.fold}/" if self._folds > 1 else ""
        metrics = [
            Metric(prefix + name, value, now, progress.epoch) for name, value in progress.metrics.items()
        ]
        self._hand_over(lambda: self._children[progress.number].metrics.extend(metrics))

    def end(
        self,
        number: int,
        status: str,
        *,
        reason: str = "",
        metrics: Mapping[str, float] | None = None,
        files: tuple[Path, ...] = (),
        detail: str = "",
    ) -> None:
        """A trial ends; files are moved into its artifacts, detail becomes `traceback.txt`."""
        now = get_current_time_millis()
        last = [Metric(name, float(value), now, 0) for name, value in (metrics or {}).items()]
        self._hand_over(lambda: self._end(number, status, reason, last, files, detail, now))

    def close(self) -> None:
        """Returns when everything is written."""
        self._work.put(None)
        self._thread.join()
        self._raise_failure()

    def _hand_over(self, work: Callable[[], None]) -> None:
        self._raise_failure()
        self._work.put(work)

    def _raise_failure(self) -> None:
        if self._failure:
            raise RunError(
                f"MLflow cannot be written any more ({first_line(self._failure)}); the study is kept: run the"
                " same command again to go on"
            ) from self._failure

    def _write(self) -> None:
        flushed = time.monotonic()
        try:
            while True:
                try:
                    work = self._work.get(timeout=_FLUSH_SECONDS)
                except queue.Empty:
                    work = self._flush_all
                if work is None:
                    return self._flush_all()
                work()
                if time.monotonic() - flushed > _FLUSH_SECONDS:
                    self._flush_all()
                    flushed = time.monotonic()
        except Exception as error:  # handed to the search loop, whose next call raises it
            self._failure = error

    def _start(
        self, number: int, name: str, settings: Settings, tags: Mapping[str, str], started: int
    ) -> None:
        all_tags = {MLFLOW_PARENT_RUN_ID: self._parent.run_id, **tags}
        run = self._client.create_run(
            self._parent.experiment_id, start_time=started, tags=all_tags, run_name=name
        )
        child = _Child(str(run.info.run_id))
        params = [Param(key, str(value)) for key, value in settings.items()]
        for place in range(0, len(params), _PARAMS_A_REQUEST):
            self._client.log_batch(child.run_id, params=params[place : place + _PARAMS_A_REQUEST])
        self._children[number] = child

    def _end(
        self,
        number: int,
        status: str,
        reason: str,
        metrics: list[Metric],
        files: tuple[Path, ...],
        detail: str,
        ended: int,
    ) -> None:
        child = self._children.pop(number)
        child.metrics.extend(metrics)
        self._flush(child)
        for file in files:
            self._client.log_artifact(child.run_id, str(file))
            file.unlink()
        if detail:
            self._client.log_text(child.run_id, detail, "traceback.txt")
        if reason:
            self._client.log_batch(child.run_id, tags=[RunTag(REASON, reason)])
        self._client.set_terminated(child.run_id, status, ended)

    def _flush_all(self) -> None:
        for child in self._children.values():
            self._flush(child)

    def _flush(self, child: _Child) -> None:
        for place in range(0, len(child.metrics), _METRICS_A_REQUEST):
            self._client.log_batch(child.run_id, metrics=child.metrics[place : place + _METRICS_A_REQUEST])
        child.metrics = []
