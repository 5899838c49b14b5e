"""Trials into MLflow, off the search's thread, by way of the disk."""

import shutil
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlflow.utils.time import get_current_time_millis

from pipeline import stops
from pipeline.errors import RunError
from pipeline.secrets import first_line
from pipeline.tracking.apart import Process
from pipeline.tracking.curves import CurveFiles
from pipeline.tracking.outbox import Outbox, Record
from pipeline.tracking.parent import Parent
from pipeline.tracking.writer import Writer, obey
from pipeline.values import Progress, Settings

TRIAL, MEMBER, BASELINE, SEED = "pipeline.trial", "pipeline.member", "pipeline.baseline", "pipeline.seed"
REFIT = "pipeline.refit"
"""Tags of child runs: a trial's number, or a `Member`, as it is trained after the trials or on all rows."""
WARM_START = "pipeline.warm_start"
"""A tag of a trial whose settings come from another study: `STUDY/number`."""
RESUMED_FROM = "pipeline.resumed_from"
"""A tag of a trial that went on from a checkpoint: the epochs before it; with folds, one of each fold."""

FINISHED, KILLED, FAILED = "FINISHED", "KILLED", "FAILED"

# Epochs of trials under way need not be on the disk at once: a trial that is killed is trained again.
_PUT_SECONDS, _PUT_RECORDS = 0.2, 2000
# What may wait on disk for a store that does not answer, and how often that is looked at.
_MOST_BYTES, _LOOK_SECONDS = 8 * 2**30, 10.0
# A store that does not answer at the end: a search waits for it, one that is to stop does not.
_PATIENCE_SECONDS, _STOP_SECONDS = 600.0, 5.0


class Recorder:
    """Writes the trials of a study as child runs of its parent. Ended by `close`.

    A method returns at once; what it hands over is written later, in order. While the store does not answer
    it waits on disk, and training goes on.

    Args:
        parent: of the trials.
        folds: of each trial.
        apart: a process of its own that writes, where training leaves no time for it; else a thread does.
        curve_files: what every trial gets of its curves as files; None for nothing.
        kept: what is said of the rest when the store has failed.
        outbox: where records wait; None for a folder that is gone with this process.

    Raises:
        RunError: from any method, when the store has failed for good, or the disk.
    """

    def __init__(
        self,
        parent: Parent,
        folds: int,
        apart: Process | None = None,
        curve_files: CurveFiles | None = None,
        kept: str = "the study is kept: run the same command again to go on",
        outbox: Outbox | None = None,
    ) -> None:
        self._kept = kept
        self._folds = folds
        self._own = None if outbox else tempfile.mkdtemp(prefix="regatta-")
        self._outbox = outbox or Outbox(Path(self._own or ""))
        self._put_at, self._looked_at, self._waiting = 0.0, time.monotonic(), list[Record]()
        self._closed, self._curves = False, curve_files is not None
        if curve_files:
            self._outbox.put([Record(-1, "keep", (asdict(curve_files),))])
        self._writer = apart or _Thread(parent, self._outbox.folder)
        if apart:
            apart.begin(parent.store, parent.run_id, parent.experiment_id, self._outbox.folder)

    @property
    def folder(self) -> Path:
        """On the disk where files of trials wait: what lies there is moved, and not copied."""
        return self._outbox.folder

    def start(self, number: int, name: str, settings: Settings, tags: Mapping[str, str]) -> None:
        """A trial begins. tags: `TRIAL` or `MEMBER`, and what else marks it."""
        self._hand_over(number, "start", name, dict(settings), dict(tags), get_current_time_millis())
        self._put()

    def epoch(self, progress: Progress) -> None:
        """A trial's epoch is done."""
        fold = progress.fold if self._folds > 1 else None
        now, metrics = get_current_time_millis(), dict(progress.metrics)
        self._hand_over(progress.number, "epoch", metrics, progress.epoch, now, fold, progress.steps)
        late = time.monotonic() - self._put_at > _PUT_SECONDS
        if late or len(self._waiting) >= _PUT_RECORDS:
            self._put()

    def resumed(self, number: int, before: Sequence[Progress]) -> None:
        """A trial's training, or one of its folds, goes on behind these epochs of an earlier run of it."""
        for progress in before:
            self.epoch(progress)
        fold = f".fold_{before[0].fold}" if self._folds > 1 else ""
        self._hand_over(number, "tag", {RESUMED_FROM + fold: str(len(before))})

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
        note: Mapping[str, Any] | None = None,
    ) -> None:
        """A trial ends; files and the folder's content move into its artifacts, detail as `traceback.txt`.

        note: how it ended, for whoever finds it after this process is gone; with one it is held back until
        `release`, while the study learns of it.
        """
        now = get_current_time_millis()
        place = self._moved(files, folder)
        self._hand_over(number, "end", status, reason, dict(metrics or {}), detail, now, place)
        self._put(note)

    def release(self, number: int) -> None:
        """The study knows how a trial ended."""
        self._outbox.release(number)

    def revoke(self, number: int, reason: str) -> None:
        """The study has another end of this trial: what is recorded of it is of one ended from outside."""
        self._outbox.revoke(number, reason)

    def close(self) -> None:
        """Returns when everything is written; what a store that does not answer has not got stays on disk.

        Raises:
            RunError: not everything is written, and nobody has asked to stop.
        """
        if self._closed:
            return
        self._closed = True
        try:
            try:
                self._put_what_waits()
            finally:
                self._writer.close(_STOP_SECONDS if stops.asked() else _PATIENCE_SECONDS)
            self._raise_failure()
            if left := self._outbox.waiting() - len(self._outbox.held()):
                told = (
                    f"MLflow does not answer: {left} records wait in {self._outbox.folder}; the same command"
                    " writes them"
                )
                if not stops.asked():
                    raise RunError(told)
                _say(told)
        finally:
            self._outbox.close()
            if self._own:
                shutil.rmtree(self._own, ignore_errors=True)

    def _moved(self, files: tuple[Path, ...], folder: Path | None) -> str:
        """The name of the outbox's folder that has these files now; empty for none.

        Curves that become files are put there, too.
        """
        if not files and not folder and not self._curves:
            return ""
        place = self._outbox.place()
        try:
            for file in files:
                shutil.move(file, place / file.name)
            if folder:
                for part in folder.iterdir():
                    shutil.move(part, place / part.name)
                folder.rmdir()
        except OSError as error:
            raise RunError(f"{place}: a trial's files cannot be kept there: {error.strerror}") from error
        return place.name

    def _hand_over(self, number: int, method: str, *arguments: object) -> None:
        self._raise_failure()
        self._waiting.append(Record(number, method, arguments))

    def _put(self, note: Mapping[str, Any] | None = None) -> None:
        self._put_at = time.monotonic()
        self._put_what_waits(note)
        if self._put_at - self._looked_at > _LOOK_SECONDS:
            self._looked_at = self._put_at
            if self._outbox.bytes() > _MOST_BYTES:
                raise RunError(
                    f"MLflow has not answered for long: {_MOST_BYTES / 2**30:g} GiB of records wait in"
                    f" {self._outbox.folder}; {self._kept}"
                )

    def _put_what_waits(self, note: Mapping[str, Any] | None = None) -> None:
        if self._waiting:
            self._outbox.put(self._waiting, note)
            self._waiting = []

    def _raise_failure(self) -> None:
        if self._writer.failure:
            raise RunError(f"MLflow cannot be written any more ({self._writer.failure}); {self._kept}")


class _Thread:
    """Writes what an outbox holds; what failed is in `failure`. Ended by `close`."""

    def __init__(self, parent: Parent, folder: Path) -> None:
        self.failure = ""
        self._over, self._given_up = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, args=(parent, folder), name="recorder", daemon=True)
        self._thread.start()

    def close(self, patience: float | None = None) -> None:
        """Returns when everything is written, or cannot be, or after so many seconds."""
        self._over.set()
        self._thread.join(patience)
        self._given_up.set()
        # A request to a store that neither answers nor refuses is left alone: the disk has what it was of.
        self._thread.join(patience and _STOP_SECONDS)

    def _run(self, parent: Parent, folder: Path) -> None:
        try:
            outbox = Outbox(folder)
            try:
                writer = Writer(parent.client.impatient, parent.run_id, parent.experiment_id, outbox)
                obey(writer, outbox, self._over.is_set, _say, self._given_up.is_set)
            finally:
                outbox.close()
        except Exception as error:  # handed to the search loop, whose next call raises it
            self.failure = first_line(error)


def _say(text: str) -> None:
    print(text, flush=True)
