"""Where a study's record lies: a journal file of its own by default, or any Optuna URL.

A journal answers `ask` about ten times faster than SQLite on one machine, and needs no server.
"""

import contextlib
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy import Connection, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from pipeline import journal, lock, outages, revisions
from pipeline.errors import RunError, UserError
from pipeline.secrets import first_line, redacted

Storage = BaseStorage
"""What a study's record is written to and read from."""

Database = RDBStorage
"""A storage behind an SQL server."""

_Found = TypeVar("_Found")

# A study's name is a folder's name too, on every system.
_STUDY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
# Of libpq, in seconds, and the last one in milliseconds.
_PATIENCE = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
BEAT_SECONDS = 15
"""How often a process shows that it lives, where several may train one study."""
_GRACE_SECONDS = 4 * BEAT_SECONDS
_OPTUNA = revisions.Keeper(
    "Optuna",
    optuna.__version__,
    Path(optuna.__file__).parent / "storages" / "_rdb" / "alembic" / "versions",
    "optuna storage upgrade --storage",
    "PIPELINE_STORAGE",
)


def check_name(study: str, parameter: str = "study") -> None:
    """Raises UserError unless the name can be a folder's name. parameter: that it was given by."""
    if not _STUDY_NAME.fullmatch(study):
        raise UserError(
            f"{parameter}: must be 1 to 100 letters, digits, dots, dashes or underscores, the first a letter"
            f" or a digit, but is {redacted(study)!r}"
        )


def home(study: str) -> Path:
    """The study's own folder, in `$PIPELINE_HOME` or `./studies`. It is not made here."""
    return Path(os.environ.get("PIPELINE_HOME") or "studies") / study


def check_url(url: str) -> None:
    """Raises UserError for a `storage` parameter that carries a password."""
    if redacted(url) != url:
        raise UserError(
            "storage: must not carry a password, because `mlflow run` logs its parameters; give the whole"
            " URL in the environment variable PIPELINE_STORAGE, or the password in PGPASSWORD or ~/.pgpass"
        )


def connect(url: str, study: str) -> Storage:
    """The storage at `url`, at `$PIPELINE_STORAGE`, or the study's journal file.

    Raises:
        UserError: the URL is no URL, nothing answers there, its database driver is missing, or what is there
            was written by another version of Optuna.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = url or os.environ.get("PIPELINE_STORAGE", "")
    return _database(url) if url else _journal(study)


@contextlib.contextmanager
def connected(url: str, study: str) -> Iterator[Storage]:
    """As `connect`, for a block; closes a database's connections after it."""
    opened = connect(url, study)
    try:
        yield opened
    finally:
        if isinstance(opened, RDBStorage):
            opened.remove_session()
            opened.engine.dispose()


@contextlib.contextmanager
def ours(url: str, study: str, wait: float = 0.0) -> Iterator[None]:
    """Keeps other processes out of a study, for a block, unless it lies where several may train it.

    By a lock in the study's own folder, and for an SQLite file by one beside that, as processes of several
    `PIPELINE_HOME`s may name it. In another database only processes of one `PIPELINE_HOME` are kept apart.

    wait: seconds to wait for another process.

    Raises:
        Busy: another process has it still.
        UserError: a folder cannot be written.
    """
    if shared(url):
        yield
        return
    database = _sqlite_file(url or os.environ.get("PIPELINE_STORAGE", ""))
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        stack.enter_context(lock.held(home(study), study, wait))
        # Where there is no such folder, whoever connects says so.
        if database and database.parent.is_dir():
            left = max(0.0, wait - (time.monotonic() - began))
            stack.enter_context(lock.held_beside(database, study, left))
        yield


def _sqlite_file(url: str) -> Path | None:
    """The file that an SQLite URL names, without links, so that all who name it mean one; else None."""
    try:
        parts = make_url(url)
    except ArgumentError:
        return None
    if parts.get_backend_name() != "sqlite" or parts.database in (None, "", ":memory:"):
        return None
    # In SQLite's own form, a URI within the URL.
    return Path(str(parts.database).removeprefix("file:")).resolve()


def is_outage(error: BaseException) -> bool:
    """Whether a database does not answer now and may do so later."""
    cause = _of_database(error)
    return cause is not None and ("sqlite3." not in str(cause) or "database is locked" in str(cause))


def why(error: Exception) -> str:
    """What a database said in an error, without what Optuna supposes of it."""
    return first_line(_of_database(error) or error)


def patiently(act: Callable[[], _Found], seconds: float = outages.SECONDS) -> _Found:
    """What `act` gives, which asks a storage; while that does not answer it is asked again for so long.

    Raises:
        RunError: it has not answered for so long, and was to be waited for.
    """
    try:
        return outages.asked_again(act, "the study's storage", _outage, seconds)
    except Exception as error:
        if seconds and (told := _outage(error)):
            raise RunError(f"{told}; the same command goes on") from error
        raise


def _outage(error: Exception) -> str:
    return f"the study's storage does not answer ({why(error)})" if is_outage(error) else ""


def _of_database(error: BaseException) -> Exception | None:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OperationalError | InterfaceError):
            return cause
        cause = cause.__cause__
    return None


def shared(url: str) -> bool:
    """Whether several processes may train one study there; elsewhere its lock keeps others out."""
    return (url or os.environ.get("PIPELINE_STORAGE", "")).startswith("postgresql")


def database_of_several(opened: Storage, url: str) -> Database | None:
    """The storage at `url` as a database, if several processes may train one study there."""
    return opened if shared(url) and isinstance(opened, Database) else None


@contextlib.contextmanager
def alone(shared: Database, study: str, patience: float = 0.0) -> Iterator[None]:
    """For a block that no other process on the same PostgreSQL is in for this study; waits for its turn.

    The server keeps the lock for as long as the connection lasts, whatever ends it.

    patience: as of `patiently`.
    """
    name = {"name": f"regatta {study}"}

    def locked() -> Connection:
        connection = shared.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            connection.execute(text("select pg_advisory_lock(hashtext(:name))"), name)
        except BaseException:
            connection.close()
            raise
        return connection

    with patiently(locked, patience) as connection:
        try:
            yield
        finally:
            # A connection that is gone has let go of it.
            with contextlib.suppress(SQLAlchemyError):
                connection.execute(text("select pg_advisory_unlock(hashtext(:name))"), name)


def is_there(url: str, study: str) -> bool:
    """Whether the study's journal file is there, or it would lie in a database; nothing is made."""
    return bool(url or os.environ.get("PIPELINE_STORAGE")) or (home(study) / "journal.log").exists()


def check_there(url: str, study: str) -> None:
    """Raises UserError if the study would lie in a journal file and there is none; nothing is made."""
    if not is_there(url, study):
        raise UserError(f"study: there is no study named {study!r} in {home(study).parent}; search makes one")


def _journal(study: str) -> Storage:
    folder = home(study)
    file = folder / "journal.log"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return journal.open_journal(file)
    except OSError as error:
        raise UserError(
            f"PIPELINE_HOME: the study's journal {file} cannot be used: {error.strerror}"
        ) from None
    except (ValueError, LookupError, TypeError, AssertionError) as error:
        # Whatever Optuna stumbles over in a line that it has not written.
        if told := journal.newer_entry(file):
            raise UserError(
                f"{file}: the study's journal is of a newer Optuna: {told}, which Optuna {optuna.__version__}"
                " does not know; go on with the Optuna that wrote it, or give another name by study="
            ) from None
        raise UserError(
            f"{file}: the study's journal is damaged: {type(error).__name__}: {first_line(error)}; put a"
            " copy of it back, or give another name by study="
        ) from None


@contextlib.contextmanager
def _alone_at_making(url: str) -> Iterator[None]:
    """For a block in which Optuna makes what tables a PostgreSQL database lacks: of two that do, one fails.

    Raises:
        OperationalError: the server does not answer, or another process has not made them in a minute.
    """
    engine = create_engine(url, connect_args=_PATIENCE, poolclass=NullPool)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("set lock_timeout = '60s'"))
        connection.execute(text("select pg_advisory_lock(hashtext('regatta'))"))
        # Closing the connection lets go of it.
        yield


def _database(url: str) -> Storage:
    place = f"storage {redacted(url)}"
    if "://" not in url:
        raise UserError(f"{place}: must be a database URL such as postgresql://user@host/name")
    if re.fullmatch(r"sqlite(\+\w+)?://(/?|/:memory:)", url):
        raise UserError(f"{place}: names no file, so the study would be lost at the end")
    # psycopg waits for ever by default, and TCP for a quarter of an hour for a machine that is gone.
    postgresql = url.startswith("postgresql")
    # A server may be started anew between two questions: a connection is tried before it is used.
    engine: dict[str, Any] = {"connect_args": _PATIENCE, "pool_pre_ping": True}
    try:
        with warnings.catch_warnings():
            # That Optuna may change how processes show that they live, the pin takes care of.
            warnings.simplefilter("ignore", ExperimentalWarning)
            with _alone_at_making(url) if postgresql else contextlib.nullcontext():
                revisions.check(url, place, _OPTUNA)
                return RDBStorage(
                    url,
                    engine_kwargs=engine if postgresql else None,
                    heartbeat_interval=BEAT_SECONDS if postgresql else None,
                    grace_period=_GRACE_SECONDS if postgresql else None,
                )
    except UserError:
        raise
    except ImportError:
        scheme = urlsplit(url).scheme
        raise UserError(f"{place}: the database driver for {scheme} is not installed") from None
    except Exception as error:
        # SQLAlchemy and the drivers raise families of their own; all mean that the place does not work.
        raise UserError(f"{place}: does not answer: {first_line(error)}") from None
