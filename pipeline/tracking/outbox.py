"""Records of trials on disk, until MLflow has them.

The search puts records in; a writer takes them out in their order, and they stay until the store has them.
So whichever of the two is killed, and however long the store does not answer, what was put in is written by
the next process at the latest. A record that is written a second time changes nothing, see `Writer`.

The end of a trial is held back until the study knows of it, too. Whoever opens what a killed process left
learns from it how such trials ended, so that none is trained twice.
"""

import contextlib
import fcntl
import json
import os
import shutil
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pipeline.errors import RunError, UserError

HOME = "outbox"
"""The folder of all of a study's, in the study's own."""

_DATABASE, _FILES, _LOCK = "records.db", "files", "lock"
_BUSY_SECONDS = 30.0
# A writer whose search is gone ends at once; while it ends it still has the folder.
_ENDING_SECONDS = 30.0

# All of it or nothing, whenever whoever makes it is killed.
_TABLES = """
begin immediate;
create table if not exists records (id integer primary key, number integer, held integer, method text,
    arguments text, note text);
create table if not exists runs (number integer, started integer, run text, primary key (number, started));
create table if not exists owner (parent text);
pragma user_version = 2;
commit;
"""
# Of those tables and of what stands in them.
_LAYOUT = 2


@dataclass(frozen=True)
class Record:
    """A method of `Writer` and its arguments, which are plain values of JSON.

    number: the trial's; -1 for what is of no trial.
    """

    number: int
    method: str
    arguments: tuple[Any, ...]


class Outbox:
    """The records of one process. Ended by `close`; what is in it stays.

    folder: its own; it is made if it is not there. Another process may have the same one open, to write.
    parent: the run whose trials a new one is of.

    Raises:
        UserError: what lies there was written by another version of this program.
        RunError: from any method, when the folder cannot be written.
    """

    def __init__(self, folder: Path, parent: str = "") -> None:
        self.folder = folder
        with _told(folder):
            _check_layout(folder)
            (folder / _FILES).mkdir(parents=True, exist_ok=True)
            self._lock = _locked(folder, fcntl.LOCK_SH)
            self._database = sqlite3.connect(
                folder / _DATABASE, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._database.execute("pragma journal_mode = wal")
            # A commit is safe from a process that is killed; the last ones are not from a power failure.
            self._database.execute("pragma synchronous = normal")
            self._database.executescript(_TABLES)
            if parent:
                self._database.execute("insert into owner values (?)", (parent,))
            (last,) = self._database.execute("select coalesce(max(id), 0) from records").fetchone()
        self._last = int(last)
        self._mutex = threading.Lock()

    # The search's side

    def put(self, records: Sequence[Record], note: Mapping[str, Any] | None = None) -> None:
        """Puts records in, all or none. note: holds the last one back until `release`, and says why."""
        rows: list[tuple[Any, ...]] = [
            (record.number, record.method, json.dumps(record.arguments), 0, None) for record in records
        ]
        if note is not None:
            rows[-1] = (*rows[-1][:3], 1, json.dumps(note))
        with self._mutex, _told(self.folder):
            numbered = [(self._last + place, *row) for place, row in enumerate(rows, 1)]
            with self._transaction():
                self._database.executemany(
                    "insert into records (id, number, method, arguments, held, note)"
                    " values (?, ?, ?, ?, ?, ?)",
                    numbered,
                )
            self._last += len(rows)

    def release(self, number: int) -> None:
        """Lets the writer have what is held back of a trial."""
        with self._mutex, _told(self.folder):
            # With a new place at the end, as the writer has passed the old one.
            changed = self._database.execute(
                "update records set id = ?, held = 0, note = null where number = ? and held = 1",
                (self._last + 1, number),
            )
            self._last += changed.rowcount

    def revoke(self, number: int, reason: str) -> None:
        """Lets the writer have what is held back of a trial as one that was ended from outside."""
        with self._mutex, _told(self.folder):
            rows = self._database.execute(
                "select id, arguments from records where number = ? and held = 1", (number,)
            ).fetchall()
            for id_, text in rows:
                _, _, metrics, detail, ended, files = json.loads(text)
                changed = json.dumps(["KILLED", reason, metrics, detail, ended, files])
                self._database.execute("update records set arguments = ? where id = ?", (changed, id_))
        self.release(number)

    def place(self) -> Path:
        """A new folder for the files of a record."""
        with self._mutex, _told(self.folder):
            for place in range(self._last + 1, self._last + 1_000_000):
                folder = self.folder / _FILES / str(place)
                with contextlib.suppress(FileExistsError):
                    folder.mkdir()
                    return folder
        raise RunError(f"{self.folder}: no place for a file")

    def files(self, name: str) -> Path:
        """The folder of a record's files, by the name that `place` gave it."""
        return self.folder / _FILES / Path(name).name

    def held(self) -> list[dict[str, Any]]:
        """The notes of what is held back, oldest first."""
        with self._mutex, _told(self.folder):
            rows = self._database.execute("select note from records where held = 1 order by id")
            return [json.loads(note) for (note,) in rows]

    def waiting(self) -> int:
        """How many records there are."""
        with self._mutex, _told(self.folder):
            (count,) = self._database.execute("select count(*) from records").fetchone()
            return int(count)

    def bytes(self) -> int:
        """What it takes on the disk."""
        total = 0
        for folder, _, names in os.walk(self.folder):
            for name in names:
                # What the writer takes away meanwhile counts no more.
                with contextlib.suppress(OSError):
                    total += (Path(folder) / name).stat().st_size
        return total

    # The writer's side

    def after(self, place: int, most: int) -> list[tuple[int, Record]]:
        """Records behind a place, each with its own, in their order."""
        with self._mutex, _told(self.folder):
            rows = self._database.execute(
                "select id, number, method, arguments from records where held = 0 and id > ?"
                " order by id limit ?",
                (place, most),
            ).fetchall()
        return [(id_, Record(number, method, tuple(json.loads(text)))) for id_, number, method, text in rows]

    def done(self, place: int, but: Sequence[int] = ()) -> None:
        """Forgets records up to a place, with their files. but: trials whose records are kept."""
        kept = ",".join(str(int(number)) for number in but)
        with self._mutex, _told(self.folder):
            where = f"held = 0 and id <= {int(place)} and number not in ({kept})"
            ends = self._database.execute(
                f"select number, arguments from records where method = 'end' and {where}"  # noqa: S608  # numbers
            ).fetchall()
            for _, arguments in ends:
                if name := json.loads(arguments)[-1]:
                    shutil.rmtree(self.folder / _FILES / name, ignore_errors=True)
            with self._transaction():
                self._database.execute(f"delete from records where {where}")  # noqa: S608  # numbers
                for number, _ in ends:
                    # A trial that was interrupted and trained again has a run for each time.
                    self._database.execute(
                        "delete from runs where number = ? and started ="
                        " (select min(started) from runs where number = ?)",
                        (number, number),
                    )

    def run_of(self, number: int, started: int | None = None) -> str:
        """The MLflow run of a trial whose start was written; empty if it was not.

        started: of which start, as its record says; None for the first whose end has not been forgotten.
        """
        with self._mutex, _told(self.folder):
            found = self._database.execute(
                "select run from runs where number = ? and started = coalesce(?, started) order by started",
                (number, started),
            ).fetchone()
        return str(found[0]) if found else ""

    def set_run(self, number: int, started: int, run: str) -> None:
        """Remembers the MLflow run of a trial that was started then."""
        with self._mutex, _told(self.folder):
            self._database.execute("insert or replace into runs values (?, ?, ?)", (number, started, run))

    def close(self) -> None:
        """Lets go of it; what is empty is removed."""
        empty = not self.waiting()
        self._database.close()
        self._lock.close()
        if empty and _is_free(self.folder):
            shutil.rmtree(self.folder, ignore_errors=True)
            if self.folder.parent.name == HOME:
                # Unless another process has one there.
                with contextlib.suppress(OSError):
                    self.folder.parent.rmdir()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("begin immediate")
        try:
            yield
        except BaseException:
            self._database.execute("rollback")
            raise
        self._database.execute("commit")


def new(home: Path, parent: str) -> Outbox:
    """An outbox of this process's own.

    home: the folder of all of a study's. parent: the study's run.
    """
    name = f"{socket.gethostname()}-{os.getpid()}-{time.time_ns()}"
    return Outbox(home / name, parent)


def check_left(home: Path) -> None:
    """Raises UserError if something is left there that another version of this program wrote."""
    for folder in _folders(home):
        if _is_free(folder):
            with _told(folder):
                _check_layout(folder)


def left(home: Path, parent: str, say: Callable[[str], None]) -> Iterator[Outbox]:
    """What processes that are gone have left of a study, one after the other, oldest first.

    A process that lives keeps its own; that of one which has just been killed is waited for. What is of
    another study of the same name, such as one in another storage, stays. One that is nobody's is removed:
    its process was killed as it made it, and had put nothing in.

    Args:
        home: the folder of all of a study's.
        parent: the study's run.
        say: takes a line about what stays.

    Raises:
        UserError: another version of this program has left it.
    """
    for folder in set(home.glob("*-*-*")) - set(_folders(home)):
        if _of_this_host(folder):
            shutil.rmtree(folder, ignore_errors=True)
    folders = _folders(home)
    for folder in sorted(folders, key=lambda folder: folder.name.rpartition("-")[2]):
        of_this_host = _of_this_host(folder)
        if not _is_free(folder, _ENDING_SECONDS if of_this_host else 0.0):
            if of_this_host:
                say(f"{folder}: what its process has recorded stays there: another process still has it")
            continue
        with _told(folder):
            _check_layout(folder)
            owner = _owner(folder)
        if owner == parent:
            yield Outbox(folder)
        elif not owner:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            say(
                f"{folder}: records of another study of this name (its MLflow run is {owner})"
                " stay there: a search in that one's storage writes them"
            )


def _folders(home: Path) -> list[Path]:
    return [folder for folder in home.glob("*") if (folder / _DATABASE).exists()]


def _check_layout(folder: Path) -> None:
    """Raises UserError if the records there, if any, are laid out in another way than these; changes none."""
    file = folder / _DATABASE
    if not file.exists():
        return
    with _read_only(folder) as database:
        (found,) = database.execute("pragma user_version").fetchone()
        (tables,) = database.execute("select count(*) from sqlite_schema").fetchone()
    # A process that was killed before it could say so has none.
    if found != _LAYOUT and tables:
        raise UserError(
            f"{folder}: holds records of trials in layout {found}, and this version of the program reads"
            f" layout {_LAYOUT}: run the same command with the version that wrote them, which hands them to"
            " MLflow; or remove the folder, and with it what those trials recorded"
        )


def _owner(folder: Path) -> str:
    """The run whose trials it is of; empty if its process was killed before it could say so."""
    with _read_only(folder) as database:
        try:
            found = database.execute("select parent from owner").fetchone()
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise
            return ""
    return str(found[0]) if found else ""


def _read_only(folder: Path) -> contextlib.AbstractContextManager[sqlite3.Connection]:
    uri = f"{(folder / _DATABASE).absolute().as_uri()}?mode=ro"
    return contextlib.closing(sqlite3.connect(uri, uri=True))


def _of_this_host(folder: Path) -> bool:
    """Whether it is of a process of this machine that is gone."""
    host, process, _ = folder.name.rsplit("-", 2)
    return host == socket.gethostname() and not Path(f"/proc/{process}").exists()


def _is_free(folder: Path, wait: float = 0.0) -> bool:
    """Whether no process has it open, at the latest after so many seconds."""
    deadline = time.monotonic() + wait
    while True:
        try:
            _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB).close()
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.1)
        except OSError:
            return False


def _locked(folder: Path, kind: int) -> IO[str]:
    file = (folder / _LOCK).open("a")
    try:
        fcntl.flock(file, kind)
    except OSError:
        file.close()
        raise
    return file


@contextlib.contextmanager
def _told(folder: Path) -> Iterator[None]:
    """A disk that is full, or a folder that cannot be written, in one line."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        if isinstance(error, BlockingIOError):
            raise
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise RunError(f"{folder}: records of trials cannot be kept there: {why}") from error
