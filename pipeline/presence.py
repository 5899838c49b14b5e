"""Which processes train a study, where several may: each shows itself, and the last one closes the study.

On PostgreSQL a process shows itself by a lock that any number may hold. The server keeps it for as long as
the process's connection lasts, so whoever is killed is seen to be gone at once.
"""

import contextlib
import threading
from collections.abc import Iterator

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from pipeline import storage
from pipeline.storage import Database, Storage

_SHOW = "select pg_advisory_lock_shared(hashtext(:name))"
_TRY = "select pg_try_advisory_lock(hashtext(:name))"
_UNLOCK = "select pg_advisory_unlock(hashtext(:name))"


class Presence:
    """This process's, among those that train a study. Built by `shown` or `looking`.

    Args:
        shared: the storage, if several processes may train a study there; else None.
        study: the study's name.
        shows: whether this process trains; another one only looks at who does.
    """

    def __init__(self, shared: Database | None, study: str, *, shows: bool) -> None:
        self._shared, self._study, self._shows = shared, study, shows
        self._connection: Connection | None = None
        self._mutex = threading.Lock()

    def show(self) -> None:
        """Shows it, if that is not so: the first time, or after the storage was away."""
        with self._mutex:
            if self._shows:
                self._connected()

    @contextlib.contextmanager
    def alone(self) -> Iterator[bool]:
        """For a block in which no process takes a trial or leaves: whether no other one trains the study.

        Raises:
            SQLAlchemyError: the storage does not answer.
        """
        if self._shared is None:
            yield True
            return
        with storage.alone(self._shared, self._study):
            yield not self._others()

    def leave(self) -> bool:
        """Whether this is the last process that trains the study; if it is not, it shows itself no more.

        Of those that end at the same time one is the last.

        Raises:
            SQLAlchemyError: the storage does not answer.
        """
        with self.alone() as alone:
            if not alone:
                self._shows = False
                self.hide()
            return alone

    def last(self) -> bool:
        """As `leave`; true where the storage does not answer: nobody else may end this one's runs then."""
        try:
            return self.leave()
        except SQLAlchemyError:
            return True

    def hide(self) -> None:
        """Lets go of the lock and of its connection."""
        with self._mutex, contextlib.suppress(SQLAlchemyError):
            if self._connection is not None:
                # At once, as whoever asks next must not see it: a server notices a closed connection later.
                self._connection.execute(text("select pg_advisory_unlock_all()"))
                self._connection.close()
            self._connection = None

    def _others(self) -> bool:
        """Whether another process shows itself; asked under `storage.alone` only, as it takes the lock."""
        with self._mutex:
            connection, name = self._connected(), {"name": self._lock}
            free = connection.execute(text(_TRY), name).scalar_one()
            if free:
                connection.execute(text(_UNLOCK), name)
        if not self._shows:
            self.hide()
        return not free

    def _connected(self) -> Connection:
        """The connection that has the lock, a new one if the one before is gone."""
        if self._shared is None:
            raise ValueError("only a shared storage has connections")
        if self._connection is not None:
            try:
                self._connection.execute(text("select 1"))
                return self._connection
            except SQLAlchemyError:
                with contextlib.suppress(SQLAlchemyError):
                    self._connection.close()
                self._connection = None
        connection = self._shared.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        if self._shows:
            connection.execute(text(_SHOW), {"name": self._lock})
        self._connection = connection
        return connection

    @property
    def _lock(self) -> str:
        return f"regatta {self._study} trains"


@contextlib.contextmanager
def shown(opened: Storage, url: str, study: str) -> Iterator[Presence]:
    """This process trains the study, for a block; the others know it.

    Args:
        opened: the storage at `url`.
        url: as of `storage.connect`.
        study: the study's name.
    """
    database, over = storage.database_of_several(opened, url), threading.Event()
    presence = Presence(database, study, shows=True)

    def renew() -> None:
        while not over.wait(storage.BEAT_SECONDS):
            # A storage that does not answer is the search's to tell.
            with contextlib.suppress(SQLAlchemyError):
                presence.show()

    if database:
        presence.show()
        threading.Thread(target=renew, name="presence", daemon=True).start()
    try:
        yield presence
    finally:
        over.set()
        presence.hide()


def looking(opened: Storage, url: str, study: str) -> Presence:
    """For a process that trains nothing: it sees others, and is not seen. Arguments as of `shown`."""
    return Presence(storage.database_of_several(opened, url), study, shows=False)
