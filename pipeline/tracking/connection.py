"""The tracking store: MLflow's own choice of it, checked before the first trial."""

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from pipeline.errors import UserError


def connect() -> MlflowClient:
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
        with _impatient():
            client = MlflowClient(uri)
            client.search_experiments(max_results=1)
    except MlflowException as error:
        raise UserError(
            f"MLFLOW_TRACKING_URI {redacted(uri)}: does not answer: {_plain(error, uri)}"
        ) from None
    except Exception as error:
        # Database drivers and HTTP clients raise families of their own.
        raise UserError(
            f"MLFLOW_TRACKING_URI {redacted(uri)}: cannot be used: {_plain(error, uri)}"
        ) from None
    return client


def redacted(uri: str) -> str:
    """The URI without its password and query, fit to be shown and stored."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return re.sub(r"//[^@/]*@", "//***@", uri)
    if parts.password is None and not parts.query:
        return uri
    user, _, place = parts.netloc.rpartition("@")
    netloc = f"{user.partition(':')[0]}:***@{place}" if parts.password is not None else parts.netloc
    return urlunsplit((parts.scheme, netloc, parts.path, "", ""))


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


def _plain(error: Exception, uri: str) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].replace(uri, redacted(uri))
