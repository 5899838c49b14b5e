"""What a search that was killed has left behind: its records, its trials, its runs.

It is put in order before anything is trained, by whoever has the study next.
"""

import contextlib
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from pipeline import source, stops, storage
from pipeline.engines import checkpoints
from pipeline.errors import RunError, UserError
from pipeline.job import Job
from pipeline.tracking import launched, outbox, trials
from pipeline.tracking.writer import Writer, obey

_GONE = "its process was gone"
# A store that does not answer what is left is asked for so long.
_PATIENCE_SECONDS = 600.0


def recover(job: Job) -> int:
    """Puts in order what is left, and says what it was; how many records of trials MLflow had not had.

    Raises:
        RunError: MLflow cannot be written.
    """
    written = _deliver(job)
    queued = job.study.queue_left()
    checkpoints.sweep(storage.home(job.study.name) / checkpoints.HOME, job.study.ended())
    closed = _close_left(job)
    closed += launched.close_left(job.parent, lambda given: _is_of(given, job.study.name), folder(), _GONE)
    if written or queued or closed:
        print(
            f"a search before this one was killed: {written} records written, {len(queued)} trials trained"
            f" again, {closed} runs closed",
            flush=True,
        )
    return written


def tidy(job: Job) -> None:
    """Puts in order what other processes that trained the study have left since then, for the last of all."""
    if job.study.shared:
        _deliver(job)
        _close_left(job)


def folder() -> Path:
    """Where processes that `mlflow run` has started show that they live."""
    return storage.home(launched.HOME)


def _close_left(job: Job) -> int:
    """Closes runs of trials that nobody trains; how many. While another process lives, it may write them."""
    with job.presence.alone() as alone:
        if not alone:
            return 0
        return trials.close_left(job.parent, {str(number) for number in job.study.under_way()}, _GONE)


def _deliver(job: Job) -> int:
    """Writes the records that are left, and tells the study of trials that ended; how many there were."""
    written, parent = 0, job.parent
    for box in outbox.left(storage.home(job.study.name) / outbox.HOME, parent.run_id, _say):
        with contextlib.closing(box):
            for note in box.held():
                number = int(note["number"])
                if job.study.settle(note):
                    box.release(number)
                else:
                    box.revoke(number, "another process has trained it again")
            written += box.waiting()
            writer = Writer(parent.client.impatient, parent.run_id, parent.experiment_id, box, again=True)
            obey(writer, box, lambda: True, _say, partial(_given_up, time.monotonic() + _PATIENCE_SECONDS))
            stops.check()
            if left := box.waiting():
                raise RunError(
                    f"MLflow does not answer: {left} records wait in {box.folder}; the same command writes"
                    " them"
                )
    return written


def _given_up(at: float) -> bool:
    return stops.asked() or time.monotonic() > at


def _say(text: str) -> None:
    print(text, flush=True)


def _is_of(given: Mapping[str, str], study: str) -> bool:
    """Whether these parameters of `mlflow run` are of a search of the study."""
    try:
        return (given.get("study") or source.study_of(given.get("task", ""), source.of(given))) == study
    except (UserError, KeyError):
        return False
