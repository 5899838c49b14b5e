"""What a search that was killed has left behind: its records, its trials, its runs.

It is put in order before anything is trained, by whoever has the study next.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from mlflow.entities import Run

from pipeline import source, storage
from pipeline.errors import UserError
from pipeline.job import Job
from pipeline.tracking import outbox, trials
from pipeline.tracking.parent import REASON, RESUMES, STUDY, Parent
from pipeline.tracking.writer import Writer, obey

_GONE = "its process was gone"
_ENTRY_POINT = "mlflow.project.entryPoint"
_SEARCHES = ("search", "main")
# A run that `mlflow run` has made and that no process has taken up after so long never will be.
_STARTING_SECONDS = 300.0


def recover(job: Job) -> None:
    """Puts in order what is left, and says what it was.

    Raises:
        RunError: MLflow cannot be written.
    """
    written = _deliver(job)
    queued = job.study.queue_left()
    alive = {str(number) for number in job.study.under_way()}
    closed = trials.close_left(job.parent, alive, _GONE) + _close_launched(job)
    if written or queued or closed:
        print(
            f"a search before this one was killed: {written} records written, {len(queued)} trials trained"
            f" again, {closed} runs closed",
            flush=True,
        )


@contextlib.contextmanager
def launched() -> Iterator[None]:
    """For a block: the run that `mlflow run` has made for this process is known to live."""
    run = os.environ.get("MLFLOW_RUN_ID", "")
    if not run:
        yield
        return
    file = None
    # Where this cannot be written, the search says so, if it is one that writes there.
    with contextlib.suppress(OSError):
        _file_of(run).parent.mkdir(parents=True, exist_ok=True)
        file = _file_of(run).open("a")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield
    finally:
        if file:
            _file_of(run).unlink(missing_ok=True)
            file.close()


def _deliver(job: Job) -> int:
    """Writes the records that are left, and tells the study of trials that ended; how many there were."""
    written = 0
    for box in outbox.left(storage.home(job.study.name) / outbox.HOME):
        with contextlib.closing(box):
            for note in box.held():
                if job.study.settle(note):
                    box.release(int(note["number"]))
                else:
                    box.revoke(int(note["number"]), "another process has trained it again")
            written += box.waiting()
            parent = job.parent
            writer = Writer(parent.client.impatient, parent.run_id, parent.experiment_id, box, again=True)
            obey(writer, box, lambda: True, lambda text: print(text, flush=True))
    return written


def _close_launched(job: Job) -> int:
    """Closes runs that `mlflow run` has made for searches of this study that were killed; how many."""
    parent, closed = job.parent, 0
    for run in _runs(parent):
        if _is_of(run, job.study.name) and _is_dead(run):
            parent.client.set_tag(run.info.run_id, REASON, _GONE)
            parent.client.set_terminated(run.info.run_id, "KILLED")
            _file_of(run.info.run_id).unlink(missing_ok=True)
            closed += 1
    return closed


def _runs(parent: Parent) -> Iterator[Run]:
    """Runs of searches that are said to run and are not this one's."""
    token = None
    while True:
        page = parent.client.search_runs(
            [parent.experiment_id], "attributes.status = 'RUNNING'", page_token=token
        )
        for run in page:
            tags: Mapping[str, Any] = run.data.tags
            if (
                run.info.run_id not in parent.runs
                and tags.get(_ENTRY_POINT) in _SEARCHES
                and STUDY not in tags
            ):
                yield run
        token = page.token
        if not token:
            return


def _is_of(run: Run, study: str) -> bool:
    params = run.data.params
    if RESUMES in run.data.tags:
        return bool(run.data.tags[RESUMES] == study)
    try:
        given = params.get("study") or source.study_of(params.get("task", "iris"), source.of(params))
    except UserError:
        return False
    return bool(given == study)


def _is_dead(run: Run) -> bool:
    """Whether the process that a run was made for is gone, as far as this machine can tell."""
    file = _file_of(run.info.run_id)
    if file.exists():
        with file.open("a") as opened:
            return not _is_locked(opened)
    return bool(time.time() - run.info.start_time / 1000 > _STARTING_SECONDS)


def _is_locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _file_of(run: str) -> Path:
    return storage.home(".launched") / run
