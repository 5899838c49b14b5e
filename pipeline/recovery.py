"""What a search that was killed has left behind: its records, its trials, its runs.

It is put in order before anything is trained, by whoever has the study next.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path

from pipeline import source, storage
from pipeline.engines import checkpoints
from pipeline.errors import UserError
from pipeline.job import Job
from pipeline.tracking import launched, outbox, trials
from pipeline.tracking.writer import Writer, obey

_GONE = "its process was gone"


def recover(job: Job) -> None:
    """Puts in order what is left, and says what it was.

    Raises:
        RunError: MLflow cannot be written.
    """
    written = _deliver(job)
    queued = job.study.queue_left()
    checkpoints.sweep(storage.home(job.study.name) / checkpoints.HOME, job.study.ended())
    under_way = {str(number) for number in job.study.under_way()}
    closed = trials.close_left(job.parent, under_way, _GONE)
    closed += launched.close_left(job.parent, lambda given: _is_of(given, job.study.name), folder(), _GONE)
    if written or queued or closed:
        print(
            f"a search before this one was killed: {written} records written, {len(queued)} trials trained"
            f" again, {closed} runs closed",
            flush=True,
        )


def tidy(job: Job) -> None:
    """Closes runs of trials that another process left under way and that were trained again meanwhile."""
    if job.study.shared:
        trials.close_left(job.parent, {str(number) for number in job.study.under_way()}, _GONE)


def folder() -> Path:
    """Where processes that `mlflow run` has started show that they live."""
    return storage.home(".launched")


def _deliver(job: Job) -> int:
    """Writes the records that are left, and tells the study of trials that ended; how many there were."""
    written, parent = 0, job.parent
    for box in outbox.left(storage.home(job.study.name) / outbox.HOME):
        with contextlib.closing(box):
            for note in box.held():
                number = int(note["number"])
                if job.study.settle(note):
                    box.release(number)
                else:
                    box.revoke(number, "another process has trained it again")
            written += box.waiting()
            writer = Writer(parent.client.impatient, parent.run_id, parent.experiment_id, box, again=True)
            obey(writer, box, lambda: True, lambda text: print(text, flush=True))
    return written


def _is_of(given: Mapping[str, str], study: str) -> bool:
    """Whether these parameters of `mlflow run` are of a search of the study."""
    try:
        return (given.get("study") or source.study_of(given.get("task", ""), source.of(given))) == study
    except (UserError, KeyError):
        return False
