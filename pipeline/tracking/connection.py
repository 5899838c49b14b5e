"""The tracking store: MLflow's own choice of it, checked before the first trial."""

import contextlib
import functools
import logging
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from pipeline import outages, revisions, stops
from pipeline.errors import RunError, UserError
from pipeline.secrets import HIDING, first_line, redacted
from pipeline.tracking import making

_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
_KNOCK_SECONDS = 10.0
# What MLflow's own server says where its database or its disk fails it, and a proxy before it.
_OUTAGES = frozenset(
    {"TEMPORARILY_UNAVAILABLE", "INTERNAL_ERROR", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED"}
)
_LATER, _SERVER_FAILS = frozenset({408, 425, 429}), 500
_DATABASES = frozenset({"sqlite", "postgresql", "mysql", "mssql"})
_MLFLOW = revisions.Keeper(
    "MLflow",
    mlflow.__version__,
    Path(mlflow.__file__).parent / "store" / "db_migrations" / "versions",
    "mlflow db upgrade",
    "MLFLOW_TRACKING_URI",
)
_Found = TypeVar("_Found")
# What PostgreSQL, SQLite and MySQL say where another process wrote the same tag or the same data's name
# between MLflow's look and its writing. Nothing was written then, and by now MLflow sees what is there.
_COLLISIONS = ("UniqueViolation", "UNIQUE constraint failed", "Duplicate entry")
_COLLIDING_TRIES = 4
_FAMILIES = frozenset({"requests", "urllib3", "sqlalchemy", "psycopg", "psycopg2"})
# Those of artifact stores; much else that they raise is a mistake in their settings.
_CLOUDS, _LOST = frozenset({"botocore", "azure", "google"}), ("Connect", "Timeout", "ServiceRe", "Transport")
# One who is to stop has no time for a store that neither answers nor refuses.
_STOP_SECONDS = 3


class Client:
    """MLflow's client by its own methods, whose failures are RunErrors of one line.

    Stores fail in families of their own: HTTP, databases, files.

    Args:
        client: MLflow's.
        patience: seconds for which a store that does not answer is asked again.
    """

    def __init__(self, client: MlflowClient, patience: float = 0.0) -> None:
        self._client, self._patience = client, patience

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        return self._guarded(found) if callable(found) else found

    @property
    def impatient(self) -> "Client":
        """The same client, for one who bears a store that does not answer by himself."""
        return Client(self._client)

    def patiently(self, act: Callable[[MlflowClient], _Found]) -> _Found:
        """What `act` makes of MLflow's own client; it is begun anew where the store does not answer.

        So it may look first whether it was done before, and only the answer was lost.
        """
        found: _Found = self._guarded(act)(self._client)
        return found

    def every_run(self, experiment: str, wanted: str) -> Iterator[Run]:
        """Every run of an experiment that MLflow's filter lets through, the last begun first."""
        token = None
        while True:
            page = self.search_runs([experiment], wanted, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _guarded(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            def once(tries: int = _COLLIDING_TRIES) -> Any:
                try:
                    with _impatient(_STOP_SECONDS) if stops.asked() else contextlib.nullcontext():
                        return method(*args, **kwargs)
                except Exception as error:
                    if tries > 1 and any(words in str(error) for words in _COLLISIONS):
                        return once(tries - 1)
                    raise RunError(f"MLflow: {first_line(error)}") from error

            return outages.asked_again(once, "MLflow", _told, self._patience)

        return guarded


def is_outage(error: BaseException) -> bool:
    """Whether a store does not answer now and may do so later; not where it refuses, or a disk is full."""
    while isinstance(error, RunError) and error.__cause__ is not None:
        error = error.__cause__
    text = str(error)
    if "sqlite3." in text:
        return "database is locked" in text
    if isinstance(error, MlflowException):
        return error.error_code in _OUTAGES
    # Of a server that keeps artifacts: what it answers is no outage, unless it says that it cannot now.
    status = _status(error)
    if status is not None:
        return status in _LATER or status >= _SERVER_FAILS
    family, name = type(error).__module__.partition(".")[0], type(error).__name__
    if family in _CLOUDS:
        return any(part in name for part in _LOST)
    return isinstance(error, ConnectionError | TimeoutError) or family in _FAMILIES


def _status(error: BaseException) -> int | None:
    """The HTTP status that a store has answered with, where the error holds it."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # of Amazon's client
        found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        found = getattr(response, "status_code", getattr(error, "status_code", getattr(error, "code", None)))
    return found if isinstance(found, int) else None


def outage(error: Exception) -> str:
    """What is said first of a store that does not answer."""
    cause = error.__cause__
    return f"MLflow does not answer ({first_line(cause) if isinstance(cause, Exception) else error})"


def _told(error: Exception) -> str:
    return outage(error) if is_outage(error) else ""


def connect() -> Client:
    """A client of the store that `MLFLOW_TRACKING_URI` names, else of MLflow's default.

    Raises:
        UserError: the URI is none, nothing answers there, or it is a database of another version of MLflow.
    """
    _hush()
    uri = mlflow.get_tracking_uri()
    try:
        _knock(uri)
        if urlsplit(uri).scheme.partition("+")[0] in _DATABASES:
            revisions.check(uri, f"MLFLOW_TRACKING_URI {redacted(uri)}", _MLFLOW)
            making.make(uri)
        with _impatient(_KNOCK_SECONDS):
            client = MlflowClient(uri)
            client.search_experiments(max_results=1)
    except UserError:
        raise
    except MlflowException as error:
        raise UserError(
            f"MLFLOW_TRACKING_URI {redacted(uri)}: does not answer: {first_line(error)}"
        ) from None
    except Exception as error:
        # Database drivers and HTTP clients raise families of their own.
        raise UserError(f"MLFLOW_TRACKING_URI {redacted(uri)}: cannot be used: {first_line(error)}") from None
    return Client(client, outages.SECONDS)


def reconnect(uri: str) -> Client:
    """A client, in another process, of a store that has answered."""
    _hush()
    return Client(MlflowClient(uri))


def _hush() -> None:
    """Keeps MLflow from telling what is told better elsewhere, and from waiting minutes in silence."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # With the password of the server, if its URI has one.
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    # It has handlers of its own, and tells URIs.
    for handler in logging.getLogger("mlflow").handlers:
        handler.addFilter(HIDING)
    # A fresh SQLite store tells every step of its making.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # Whoever asks tells once that a server does not answer, and not each of its tries.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    # And a failing one shows its traceback, of which the message is shown anyway.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


def _knock(uri: str) -> None:
    """Raises OSError if the store cannot be reached: MLflow itself tries a database ten times."""
    parts = urlsplit(uri)
    if parts.scheme.startswith("sqlite"):
        return _try_file(Path(parts.path.removeprefix("/")))
    port = parts.port or _PORTS.get(parts.scheme.partition("+")[0])
    if parts.hostname and port:
        socket.create_connection((parts.hostname, port), timeout=_KNOCK_SECONDS).close()
    return None


def _try_file(file: Path) -> None:
    """Raises OSError if the database cannot be written: MLflow tries that ten times, too."""
    place = file if file.exists() else file.parent
    if not os.access(place, os.W_OK):
        raise PermissionError(f"{place} cannot be written")


@contextlib.contextmanager
def _impatient(seconds: float) -> Iterator[None]:
    """One quick try: whoever has just given an address wants to know; a run under way is more patient.

    seconds: for which a server is waited for.
    """
    settings = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": f"{seconds:.0f}"}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
