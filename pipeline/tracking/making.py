"""A store that is not there yet is made whole or not at all, at whatever moment its maker is killed.

MLflow makes the tables of a new database by all the revisions that they ever had, one after another, and
each is written before the next: a second or two in which a kill leaves a database that nothing opens.
"""

import contextlib
import os
import socket
import sqlite3
import tempfile
from pathlib import Path

from mlflow import MlflowClient
from sqlalchemy.engine import make_url


def make(uri: str) -> None:
    """Makes the SQLite file that a URI names, where there is none; of any other store it does nothing.

    Raises:
        Exception: what MLflow and SQLite raise where they cannot write.
    """
    url = make_url(uri)
    name = url.database or ""
    if url.get_backend_name() != "sqlite" or not name or name == ":memory:" or name.startswith("file:"):
        return
    file = Path(name)
    # Whoever makes one meanwhile makes it in this way, or is MLflow.
    if file.exists():
        return
    with tempfile.TemporaryDirectory(prefix="regatta-") as folder:
        made = Path(folder, "mlflow.db")
        MlflowClient(f"sqlite:///{made}").search_experiments(max_results=1)
        beside = file.with_name(f"{file.name}.{socket.gethostname()}-{os.getpid()}")
        # Of one that was killed here: the first process of each container has the same number.
        beside.unlink(missing_ok=True)
        try:
            with contextlib.closing(sqlite3.connect(made)) as database:
                database.execute("VACUUM INTO ?", (str(beside),))
            _name(beside, file)
        finally:
            beside.unlink(missing_ok=True)


def _name(made: Path, file: Path) -> None:
    """Gives a file its name, unless something has it: another process may have written there already."""
    try:
        file.hardlink_to(made)
    except FileExistsError:
        pass
    except OSError:
        # A file system without links.
        if not file.exists():
            made.rename(file)
