"""One process at a time on a study: a lock that ends with whoever holds it, however that ends.

The operating system holds it, so nothing is left of a process that was killed, and the file's contents only
say who it is.
"""

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from pipeline import stops
from pipeline.errors import UserError

_FILE = "lock"
_ASK_SECONDS = 0.2


class Busy(UserError):
    """Another process has the study. Exit code 75, `EX_TEMPFAIL` of `sysexits.h`: try again later."""

    exit_code = 75


@contextlib.contextmanager
def held(folder: Path, study: str, wait: float = 0.0) -> Iterator[None]:
    """Holds a study's lock for a block.

    Args:
        folder: the study's own; it is made if it is not there.
        study: its name, for the message.
        wait: seconds to wait for another process.

    Raises:
        Busy: another process has it still; the message says which.
        UserError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / _FILE).open("a+", encoding="utf-8")
    except OSError as error:
        raise UserError(f"PIPELINE_HOME: {folder} cannot be used: {error.strerror}") from None
    with _held(file, study, wait):
        yield


@contextlib.contextmanager
def held_beside(database: Path, study: str, wait: float = 0.0) -> Iterator[None]:
    """Holds the lock of a study that lies in a file with others, for a block; see `held`.

    database: the file, which need not be there yet; its folder is.

    Raises:
        Busy: another process has it still; the message says which.
        UserError: the folder cannot be written.
    """
    place = database.with_name(f"{database.name}.{study}.{_FILE}")
    try:
        file = place.open("a+", encoding="utf-8")
    except OSError as error:
        raise UserError(f"storage: {place} cannot be used: {error.strerror}") from None
    with _held(file, study, wait):
        yield


@contextlib.contextmanager
def _held(file: IO[str], study: str, wait: float) -> Iterator[None]:
    with file:
        _take(file, study, wait)
        try:
            _sign(file)
            yield
        finally:
            # Signed off before others can have it: what it says is true, or of a process that was killed.
            file.truncate(0)


def _take(file: IO[str], study: str, wait: float) -> None:
    deadline, told = time.monotonic() + wait, False
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        if time.monotonic() >= deadline:
            again = "" if wait else "; wait=SECONDS waits for it"
            raise Busy(f"study {study}: another process has it: {_holder(file)}{again}")
        if not told:
            print(f"study {study}: waiting for another process: {_holder(file)}", flush=True)
            told = True
        stops.check()
        time.sleep(_ASK_SECONDS)


def _sign(file: IO[str]) -> None:
    file.truncate(0)
    file.seek(0)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    json.dump({"host": socket.gethostname(), "pid": os.getpid(), "since": now}, file)
    file.flush()


def _holder(file: IO[str]) -> str:
    file.seek(0)
    try:
        known = json.loads(file.read())
        return f"pid {known['pid']} on {known['host']}, since {known['since']}"
    except (ValueError, TypeError, KeyError):
        # It has only just begun, or ends.
        return "it has not signed yet"
