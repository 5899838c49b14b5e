"""Whole searches in processes and folders of their own, for the scripts that measure them."""

import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Collection, Mapping
from pathlib import Path

_SPACES = Path(__file__).parent.parent / "search_spaces"


class Failed(SystemExit):
    """A process ended with an error; uncaught, it ends this one with all that was said."""

    @property
    def reason(self) -> str:
        """In one line: the last of what was said."""
        return (str(self).strip().splitlines() or ["it said nothing"])[-1]


def environment(folder: Path, cache: Path) -> dict[str, str]:
    """Variables that keep a search within a folder.

    Args:
        folder: for studies and MLflow's store; it exists.
        cache: for compiled programs.
    """
    foreign = ("MLFLOW_", "PIPELINE_", "KERAS_BACKEND")
    # Where the rows of the real sets lie is the machine's.
    mine = {
        name: value
        for name, value in os.environ.items()
        if name == "PIPELINE_DATA" or not name.startswith(foreign)
    }
    root = str(Path(__file__).parent.parent)
    return {
        **mine,
        "MLFLOW_TRACKING_URI": f"sqlite:///{store(folder)}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PIPELINE_HOME": str(folder / "studies"),
        "PIPELINE_CACHE": str(cache),
        "TF_CPP_MIN_LOG_LEVEL": "2",
        # The searches run in the folder, so that artifacts are put there.
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
    }


def store(folder: Path) -> Path:
    """MLflow's file."""
    return folder / "mlflow.db"


def iris_space(folder: Path, epochs: int | None) -> Path:
    """A space file as `search_spaces/iris.toml`; with `epochs`, each trial trains exactly so long."""
    text = (_SPACES / "iris.toml").read_text()
    if epochs is not None:
        text = re.sub(r"(?m)^epochs = .*$", f"epochs = {epochs}", text)
        text = re.sub(r"(?m)^patience = .*$", "patience = 100000", text)
    file = folder / "iris.toml"
    file.write_text(text)
    return file


def command(trials: int, task: str, *more: str) -> list[str]:
    """The search's command."""
    return [sys.executable, "-m", "pipeline", "search", f"--task={task}", f"--trials={trials}", *more]


def timed(command: list[str], folder: Path, environment: Mapping[str, str]) -> tuple[float, str]:
    """Seconds from the start of a process to its end, and what it printed.

    Raises:
        Failed: it ended with an error.
    """
    began = time.perf_counter()
    done = subprocess.run(  # noqa: S603  # this Python, and arguments of our own
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise Failed(f"{' '.join(command)} failed:\n{done.stderr}")
    return seconds, done.stdout


def metrics(folder: Path, names: Collection[str]) -> dict[str, float]:
    """Those metrics of the parent run of a folder's only search that it has."""
    with sqlite3.connect(store(folder)) as database:
        rows = database.execute(
            "SELECT key, value FROM latest_metrics WHERE run_uuid IN"
            " (SELECT run_uuid FROM tags WHERE key = 'pipeline.study')"
        ).fetchall()
    return {name: value for name, value in rows if name in names}
