"""The tracking store: MLflow's own choice of it, checked before the first trial."""

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from typing import TypeAlias
from urllib.parse import urlsplit

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from pipeline.errors import UserError
from pipeline.secrets import first_line, redacted

Client: TypeAlias = MlflowClient
"""What runs are written and read by."""

_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
_KNOCK_SECONDS = 10.0


def connect() -> Client:
    """A client of the store that `MLFLOW_TRACKING_URI` names, else of MLflow's default.

    Raises:
        UserError: the URI is none, or nothing answers there.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # A fresh SQLite store tells every step of its making.
    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)
    uri = mlflow.get_tracking_uri()
    try:
        _knock(uri)
        with _impatient():
            client: Client = MlflowClient(uri)
            client.search_experiments(max_results=1)
    except MlflowException as error:
        raise UserError(
            f"MLFLOW_TRACKING_URI {redacted(uri)}: does not answer: {first_line(error)}"
        ) from None
    except Exception as error:
        # Database drivers and HTTP clients raise families of their own.
        raise UserError(f"MLFLOW_TRACKING_URI {redacted(uri)}: cannot be used: {first_line(error)}") from None
    return client


def _knock(uri: str) -> None:
    """Raises OSError if nothing listens at the URI's host: MLflow itself tries a database ten times."""
    parts = urlsplit(uri)
    port = parts.port or _PORTS.get(parts.scheme.partition("+")[0])
    if parts.hostname and port:
        socket.create_connection((parts.hostname, port), timeout=_KNOCK_SECONDS).close()


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    """One quick try instead of MLflow's minutes of retries; those serve a run under way."""
    settings = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
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
