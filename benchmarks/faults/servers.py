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
from collections.abc import Sequence
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


def wait_for(url: str, process: "subprocess.Popen[bytes]", seconds: float = _START_SECONDS) -> None:
    """Returns when a server answers.

    Raises:
        OSError: it has ended, or has not answered for so many seconds.
    """
    deadline = time.monotonic() + seconds
    while True:
        if process.poll() is not None:
            raise ChildProcessError(f"the server of {url} ended with exit code {process.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310  # loopback
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


class Postgresql:
    """A PostgreSQL server of its own, in a temporary folder; `stop` keeps its data, `remove` ends it.

    It refuses to run as root: then it runs as `postgres`, whom its packages make.

    Args:
        programs: as `postgresql_programs` finds them.
        password: of its user `regatta`; every user of this machine is let in if it is empty.
    """

    databases = ("optuna", "mlflow")
    """MLflow and Optuna each keep their own tables' version, so each has one."""

    def __init__(self, programs: Path, password: str = "") -> None:
        self.port = free_port()
        self._programs, self._password = programs, password
        self._user = ["runuser", "-u", "postgres", "--"] if getpass.getuser() == "root" else []
        # Below no folder that only root may pass.
        self._folder = Path(tempfile.mkdtemp(prefix="regatta-postgresql-"))
        try:
            self._make()
        except BaseException:
            self.remove()
            raise

    def url(self, database: str) -> str:
        """With the password, if it has one."""
        secret = f":{self._password}" if self._password else ""
        return f"postgresql+psycopg://regatta{secret}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        options = f"-p {self.port} -h 127.0.0.1 -k {self._folder}"
        log = str(self._folder / "log")
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-o", options, "-l", log, "-w", "start")

    def stop(self) -> None:
        """As a machine does that goes down: connections are cut."""
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-m", "immediate", "-w", "stop")

    def remove(self) -> None:
        """The end of it, and of its data."""
        if (self._folder / "data" / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self._folder)

    def _make(self) -> None:
        secret = self._folder / "password"
        secret.write_text(f"{self._password}\n")
        if self._user:
            for path in (self._folder, secret):
                shutil.chown(path, "postgres", "postgres")
        method = ["-A", "scram-sha-256", f"--pwfile={secret}"] if self._password else ["-A", "trust"]
        self._run("initdb", "-D", str(self._folder / "data"), "-U", "regatta", "-E", "UTF8", *method)
        secret.unlink()
        self.start()
        for database in self.databases:
            self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "regatta", database)

    def _run(self, program: str, *arguments: str) -> None:
        command: Sequence[str] = [*self._user, str(self._programs / program), *arguments]
        environment = {**os.environ, "PGPASSWORD": self._password}
        subprocess.run(  # noqa: S603  # programs of PostgreSQL's own folder
            command, check=True, stdout=subprocess.DEVNULL, cwd=self._folder, env=environment
        )


class Mlflow:
    """MLflow's own server, with its artifacts; `start` brings it back after `stop`, at the same place.

    Args:
        folder: of its artifacts and of what it says; it exists.
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
        # No workers for jobs, which nobody gives it.
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self._folder / "mlflow-server.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  # this Python
                command, stdout=log, stderr=log, cwd=self._folder, env=environment, start_new_session=True
            )
        try:
            wait_for(f"{self.url}/health", self._process)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """As a machine does that goes down."""
        if self._process:
            # The server starts workers: the whole group ends.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


class Pair:
    """A PostgreSQL server, and an MLflow server whose store is in it. Ended by `close`.

    folder: of MLflow's artifacts; it exists.
    """

    def __init__(self, folder: Path, programs: Path, password: str = "") -> None:
        self.postgresql = Postgresql(programs, password)
        try:
            self.mlflow = Mlflow(folder, self.postgresql.url("mlflow"))
        except BaseException:
            self.postgresql.remove()
            raise

    @property
    def variables(self) -> dict[str, str]:
        """Of the environment of searches on both."""
        storage = self.postgresql.url("optuna")
        return {"MLFLOW_TRACKING_URI": self.mlflow.url, "PIPELINE_STORAGE": storage}

    def close(self) -> None:
        try:
            self.mlflow.stop()
        finally:
            self.postgresql.remove()
