"""Trials into MLflow, off the search's thread."""

import queue
import threading
from collections.abc import Mapping
from pathlib import Path

from mlflow.utils.time import get_current_time_millis

from pipeline.errors import RunError
from pipeline.secrets import first_line
from pipeline.tracking.apart import Process
from pipeline.tracking.curves import CurveFiles
from pipeline.tracking.parent import Parent
from pipeline.tracking.writer import Message, Writer, obey
from pipeline.values import Progress, Settings

TRIAL, MEMBER, BASELINE, SEED = "pipeline.trial", "pipeline.member", "pipeline.baseline", "pipeline.seed"
REFIT = "pipeline.refit"
"""Tags of child runs: a trial's number, or a `Member`, as it is trained after the trials or on all rows."""
WARM_START = "pipeline.warm_start"
"""A tag of a trial whose settings come from another study: `STUDY/number`."""

FINISHED, KILLED, FAILED = "FINISHED", "KILLED", "FAILED"


class Recorder:
    """Writes the trials of a study as child runs of its parent. Ended by `close`.

    A method returns at once; what it hands over is written later, in order.

    Args:
        parent: of the trials.
        folds: of each trial.
        apart: a process of its own that writes, where training leaves no time for it; else a thread does.
        curve_files: what every trial gets of its curves as files; None for nothing.
        kept: what is said of the rest when the store has failed.

    Raises:
        RunError: from any method, when the store has failed for good.
    """

    def __init__(
        self,
        parent: Parent,
        folds: int,
        apart: Process | None = None,
        curve_files: CurveFiles | None = None,
        kept: str = "the study is kept: run the same command again to go on",
    ) -> None:
        self._kept = kept
        self._folds = folds
        of_parent = (parent.run_id, parent.experiment_id)
        self._writer = apart or _Thread(Writer(parent.client, *of_parent))
        if apart:
            apart.begin(parent.store, *of_parent)
        if curve_files:
            self._hand_over("keep", curve_files)

    def start(self, number: int, name: str, settings: Settings, tags: Mapping[str, str]) -> None:
        """A trial begins. tags: `TRIAL` or `MEMBER`, and what else marks it."""
        self._hand_over("start", number, name, dict(settings), dict(tags), get_current_time_millis())

    def epoch(self, progress: Progress) -> None:
        """A trial's epoch is done."""
        fold = progress.fold if self._folds > 1 else None
        now, metrics = get_current_time_millis(), dict(progress.metrics)
        self._hand_over("epoch", progress.number, metrics, progress.epoch, now, fold, progress.steps)

    def end(
        self,
        number: int,
        status: str,
        *,
        reason: str = "",
        metrics: Mapping[str, float] | None = None,
        files: tuple[Path, ...] = (),
        folder: Path | None = None,
        detail: str = "",
    ) -> None:
        """A trial ends; files and the folder's content move into its artifacts, detail as `traceback.txt`."""
        now = get_current_time_millis()
        self._hand_over("end", number, status, reason, dict(metrics or {}), files, detail, now, folder)

    def close(self) -> None:
        """Returns when everything is written."""
        self._writer.close()
        self._raise_failure()

    def _hand_over(self, method: str, *arguments: object) -> None:
        self._raise_failure()
        self._writer.put((method, arguments))

    def _raise_failure(self) -> None:
        if self._writer.failure:
            raise RunError(f"MLflow cannot be written any more ({self._writer.failure}); {self._kept}")


class _Thread:
    """Takes messages for a writer; what failed is in `failure`. Ended by `close`."""

    def __init__(self, writer: Writer) -> None:
        self.failure = ""
        self._writer = writer
        self._messages: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def put(self, message: Message) -> None:
        self._messages.put(message)

    def close(self) -> None:
        """Returns when everything is written, or cannot be."""
        self._messages.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            obey(self._writer, self._messages.get)
        except Exception as error:  # handed to the search loop, whose next call raises it
            self.failure = first_line(error)
