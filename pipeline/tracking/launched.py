"""Runs that `mlflow run` makes before it starts a search: which of them belong to processes that are gone."""

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from mlflow.entities import Run

from pipeline.errors import RunError
from pipeline.tracking.connection import Client
from pipeline.tracking.parent import REASON, RESUMES, STUDY, Parent

HOME = ".launched"
"""The folder, beside the studies, of what `alive` keeps."""

_ENTRY_POINT = "mlflow.project.entryPoint"
_SEARCHES = ("search", "main")
# A tag: the machine and folder in which its process shows that it lives.
_SHOWN_IN = "pipeline.shown_in"
# A run that no process has taken up and signed after so long never will be.
_STARTING_SECONDS = 300.0


@contextlib.contextmanager
def alive(folder: Path) -> Iterator[None]:
    """For a block: the run that `mlflow run` has made for this process is known to live.

    folder: of a file for each such run, which its process has locked.
    """
    run = os.environ.get("MLFLOW_RUN_ID", "")
    if not run:
        yield
        return
    file = None
    # Where this cannot be written, the search says so.
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / run).open("a")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield
    finally:
        if file:
            (folder / run).unlink(missing_ok=True)
            file.close()


def sign(client: Client, folder: Path) -> None:
    """Tags the run that `mlflow run` has made for this process with where it shows that it lives.

    Elsewhere nobody can tell whether it does. folder: as of `alive`.
    """
    if run := os.environ.get("MLFLOW_RUN_ID", ""):
        # A store that refuses is told of where the run is taken up.
        with contextlib.suppress(RunError):
            client.set_tag(run, _SHOWN_IN, _name(folder))


def close_left(
    parent: Parent, is_ours: Callable[[Mapping[str, str]], bool], folder: Path, reason: str
) -> int:
    """Closes runs that were made for searches of a study and whose processes are gone; how many.

    Args:
        parent: the study's.
        is_ours: whether an entry point's parameters are of a search of the study.
        folder: as of `alive`.
        reason: is tagged.
    """
    study, left = parent.tag_of(STUDY), []
    for run in parent.client.every_run(parent.experiment_id, "attributes.status = 'RUNNING'"):
        tags = run.data.tags
        if run.info.run_id in parent.runs or STUDY in tags or tags.get(_ENTRY_POINT) not in _SEARCHES:
            continue
        ours = tags[RESUMES] == study if RESUMES in tags else is_ours(run.data.params)
        if ours and _is_dead(run, folder / run.info.run_id):
            left.append(run.info.run_id)
    for run_id in left:
        parent.client.set_tag(run_id, REASON, reason)
        parent.client.set_terminated(run_id, "KILLED")
        (folder / run_id).unlink(missing_ok=True)
    return len(left)


def _name(folder: Path) -> str:
    return f"{socket.gethostname()}:{folder.resolve()}"


def _is_dead(run: Run, file: Path) -> bool:
    """Whether the process that a run was made for is gone, as far as can be told from here."""
    if not file.exists():
        if run.data.tags.get(_SHOWN_IN, _name(file.parent)) != _name(file.parent):
            return False
        return bool(time.time() - run.info.start_time / 1000 > _STARTING_SECONDS)
    with file.open("a") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
