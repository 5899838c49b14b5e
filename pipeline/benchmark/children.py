"""Processes that measure: each has a backend of its own, as Keras's cannot change once it is imported."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from pipeline.benchmark.speed import Speed
from pipeline.errors import RunError

# Before the line that holds the answer; whatever else a child prints is for people.
_MARK = "measured: "


def measure(module: str, asked: Mapping[str, Any], keras_backend: str, cache: str) -> Speed:
    """What `python -m module --child '<asked>'` measured, after it has ended.

    Args:
        module: its `--child` calls `answer` once.
        asked: what to measure; JSON can hold it.
        keras_backend: Keras's name of it.
        cache: the folder for compiled programs.

    Raises:
        RunError: the process failed, with its last line.
    """
    environment = {
        **os.environ,
        "KERAS_BACKEND": keras_backend,
        "PIPELINE_CACHE": cache,
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    done = subprocess.run(  # noqa: S603  # this Python, and arguments of our own
        [sys.executable, "-m", module, "--child", json.dumps(asked)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    answers = [line for line in done.stdout.splitlines() if line.startswith(_MARK)]
    if done.returncode or not answers:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        reason = said[-1] if said else f"exit code {done.returncode}"
        raise RunError(f"measuring {asked.get('contender', module)} failed: {reason}")
    return Speed.from_json(answers[-1].removeprefix(_MARK))


def answer(speed: Speed) -> None:
    """The child's side: hands over what it measured."""
    print(_MARK + speed.as_json(), flush=True)
