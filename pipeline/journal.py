"""A study's journal file: Optuna's, whose lines go to the disk together where they belong together.

Optuna writes a line for each parameter and attribute, and waits for the disk after each: a dozen times a
trial, which is longer than a small model trains in a lane. A trial that is asked for, or told, is one write.
"""

import contextlib
import json
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage
from optuna.storages.journal import (
    BaseJournalBackend,
    JournalFileBackend,
    JournalFileSymlinkLock,
    JournalStorage,
)
from optuna.storages.journal._storage import JournalOperation


class Journal(BaseJournalBackend):
    """The lines of a file, and in a block of `together` those that are going to be. For one storage's use.

    file: in a folder that is there; it is made if it is not there.
    """

    def __init__(self, file: Path) -> None:
        self._place, self._file = file, JournalFileBackend(str(file))
        self._held: list[dict[str, Any]] | None = None
        # Of those that are held, how many were read; and how many lines of the file.
        self._given = self._read = 0

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Entries from that number on, as Optuna asks for them: each is read once."""
        self._read = log_number_from - self._given
        for log in self._file.read_logs(self._read):
            self._read += 1
            yield log
        while self._held and self._given < len(self._held):
            self._given += 1
            # As the file will give it.
            yield json.loads(json.dumps(self._held[self._given - 1]))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Adds entries."""
        if self._held is None:
            self._write(logs)
        else:
            self._held.extend(logs)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """For a block whose entries are written at its end, however it ends: all of them, in one write."""
        if self._held is not None:
            yield
            return
        self._held = []
        try:
            yield
        finally:
            held, self._held, self._given = self._held, None, 0
            if held:
                self._write(held)
                # It must know where they lie: else the next look would begin at the first line.
                deque(self._file.read_logs(self._read), maxlen=0)

    def _write(self, logs: list[dict[str, Any]]) -> None:
        try:
            self._file.append_logs(logs)
        except OSError:
            # A disk that is full takes half a line, which the next one would be joined to.
            _mend(self._place)
            raise


def open_journal(file: Path) -> JournalStorage:
    """The storage in a file; raises whatever Optuna stumbles over in a line that it has not written."""
    _mend(file)
    return JournalStorage(Journal(file))


def together(storage: BaseStorage) -> contextlib.AbstractContextManager[None]:
    """For a block whose changes reach the disk at its end, where the storage is of `open_journal`."""
    backend = getattr(storage, "_backend", None)
    return backend.together() if isinstance(backend, Journal) else contextlib.nullcontext()


def newer_entry(file: Path) -> str:
    """Which entry of a file is of a kind that Optuna does not know; empty if another fault comes first."""
    kinds = {int(kind) for kind in JournalOperation}
    for place, line in enumerate(file.read_bytes().splitlines(), 1):
        try:
            kind = json.loads(line)["op_code"]
        except (ValueError, LookupError, TypeError):
            return ""
        if kind not in kinds:
            return f"line {place} has op_code {kind}" if isinstance(kind, int) else ""
    return ""


def _mend(file: Path) -> None:
    """Cuts off a last line that was half written, by a process that was killed or on a disk that was full.

    Optuna reads past it, but its next line would be joined to it, and break the study for good.
    """
    if not file.exists():
        return
    lock = JournalFileSymlinkLock(str(file))
    lock.acquire()
    try:
        content = file.read_bytes()
        if not content.endswith(b"\n"):
            os.truncate(file, content.rfind(b"\n") + 1)
    finally:
        lock.release()
