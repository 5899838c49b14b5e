"""Whoever has started this process by `mlflow run`: when it is killed, the search that it started ends.

A signal to `mlflow run` reaches its child only from a terminal; one that is killed leaves a child behind that
trains for nobody. So the child looks up, and stops as by SIGTERM.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path

_PROCESSES = Path("/proc")
_LOOK_SECONDS = 1.0
# mlflow, a shell that it starts for the entry point's command, perhaps another of an environment, and this.
_ANCESTORS = 4
# Its place among the fields of `_fields`.
_STARTED = 19


def watch() -> bool:
    """Watches `mlflow run`, where that has started this process; whether it has.

    What else has started it, a shell or cron, may end as it likes.
    """
    if "MLFLOW_RUN_ID" not in os.environ:
        return False
    found = _launcher()
    if found is None:
        return False
    threading.Thread(target=_wait, args=found, name="launcher", daemon=True).start()
    return True


def _wait(process: int, started: str) -> None:
    while _started(process) == started:
        time.sleep(_LOOK_SECONDS)
    print("mlflow run is gone: the search stops", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)


def _launcher() -> tuple[int, str] | None:
    """The nearest ancestor that is MLflow's command, and when it was started; None if there is none."""
    process = os.getppid()
    for _ in range(_ANCESTORS):
        fields = _fields(process)
        if not fields:
            return None
        with contextlib.suppress(OSError):
            words = (_PROCESSES / str(process) / "cmdline").read_bytes().split(b"\0")
            if _is_mlflow(words):
                # As it was found: if it has ended since, whoever waits for it sees so.
                return process, fields[_STARTED]
        process = int(fields[1])
    return None


def _is_mlflow(words: Sequence[bytes]) -> bool:
    """Whether a process's words are of MLflow's command, by its script or by Python's `-m`.

    Of a shell, the words after its own may say anything.
    """
    module = words[1:2] == [b"-m"] and words[2:3] in ([b"mlflow"], [b"mlflow.cli"])
    return module or any(os.path.basename(word) in (b"mlflow", b"mlflow.exe") for word in words[:2])


def _started(process: int) -> str:
    """When it was started, in the kernel's clock ticks; empty if nothing of it is left but an exit code."""
    fields = _fields(process)
    return "" if not fields or fields[0] in "ZX" else fields[_STARTED]


def _fields(process: int) -> list[str]:
    """What Linux tells of a process after its name (`man 5 proc`): state, parent, …; empty if it is gone."""
    try:
        return (_PROCESSES / str(process) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
