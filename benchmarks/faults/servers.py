"""Real servers on loopback that can be taken away and brought back: PostgreSQL and MLflow's."""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

_START_SECONDS = 60.0


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def postgresql_programs() -> Path | None:
    """The folder of PostgreSQL's own programs; None where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    program = shutil.which("initdb")
    return Path(program).parent if program else None


class Postgresql:
    """A PostgreSQL server of its own, in a temporary folder; `stop` keeps its data, `remove` ends it.

    It refuses to run as root: then it runs as `postgres`, whom its packages make.
    """

    def __init__(self, programs: Path) -> None:
        self.port = free_port()
        self._programs = programs
        self._user = ["runuser", "-u", "postgres", "--"] if getpass.getuser() == "root" else []
        # Below no folder that only root may pass.
        self._folder = Path(tempfile.mkdtemp(prefix="regatta-postgresql-"))
        if self._user:
            shutil.chown(self._folder, "postgres", "postgres")
        self._run("initdb", "-D", str(self._folder / "data"), "-U", "regatta", "-A", "trust", "-E", "UTF8")
        self.start()
        for database in ("optuna", "mlflow"):
            self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "regatta", database)

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://regatta@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        options = f"-p {self.port} -h 127.0.0.1 -k {self._folder}"
        log = str(self._folder / "log")
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-o", options, "-l", log, "-w", "start")

    def stop(self) -> None:
        """As a machine does that goes down: connections are cut."""
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-m", "immediate", "-w", "stop")

    def remove(self) -> None:
        """The end of it, and of its data."""
        with contextlib.suppress(subprocess.CalledProcessError):
            self.stop()
        shutil.rmtree(self._folder)

    def _run(self, program: str, *arguments: str) -> None:
        command: Sequence[str] = [*self._user, str(self._programs / program), *arguments]
        subprocess.run(  # noqa: S603  # programs of PostgreSQL's own folder
            command, check=True, stdout=subprocess.DEVNULL, cwd=self._folder
        )


class Mlflow:
    """MLflow's own server, with its artifacts. Ended by `stop`.

    store: its database's URL.
    """

    def __init__(self, folder: Path, store: str) -> None:
        self._folder, self._store, self._port = folder, store, free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--workers", "1", "--backend-store-uri", self._store]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        with (self._folder / "mlflow-server.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  # this Python
                command, stdout=log, stderr=log, cwd=self._folder, start_new_session=True
            )
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=2):  # noqa: S310  # loopback
                    return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def stop(self) -> None:
        if self._process:
            # The server starts workers: the whole group ends.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def both(folder: Path, programs: Path) -> Iterator[tuple[Postgresql, Mlflow]]:
    """A PostgreSQL server, and an MLflow server whose store is in it, for a block."""
    database = Postgresql(programs)
    try:
        server = Mlflow(folder, database.url("mlflow"))
        try:
            yield database, server
        finally:
            server.stop()
    finally:
        database.remove()
