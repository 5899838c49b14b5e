"""Whole searches in processes and folders of their own, for the scripts that measure them."""

import os
import re
import sys
from pathlib import Path

_SPACES = Path(__file__).parent.parent / "search_spaces"


def environment(folder: Path, cache: Path) -> dict[str, str]:
    """Variables that keep a search within a folder.

    Args:
        folder: for studies and MLflow's store; it exists.
        cache: for compiled programs.
    """
    foreign = ("MLFLOW_", "PIPELINE_", "KERAS_BACKEND")
    mine = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
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


def command(trials: int, space: Path, *more: str) -> list[str]:
    """The search's command."""
    return [
        sys.executable,
        "-m",
        "pipeline",
        "search",
        "--task=iris",
        f"--trials={trials}",
        f"--space={space}",
        *more,
    ]
