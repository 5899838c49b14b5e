"""A search ends when the `mlflow run` that has started it is killed, and only then."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline import launcher

CHILD = """
import os, signal, sys, time
from pipeline import launcher
signal.signal(signal.SIGTERM, lambda *_: (open(sys.argv[1], "w").write("stopped"), os._exit(0)))
print(os.getpid(), launcher.watch(), flush=True)
time.sleep(60)
os._exit(1)
"""
LAUNCHER = """
import os, subprocess, sys
environment = {**os.environ, "MLFLOW_RUN_ID": "run"}
shell = ["bash", "-c", '"$0" -c "$1" "$2"; true', sys.executable, sys.argv[1], sys.argv[2]]
subprocess.run(shell if sys.argv[3] == "shell" else [sys.executable, "-c", *sys.argv[1:3]], env=environment)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc on this machine")
@pytest.mark.parametrize("between", ["shell", "nothing"])
def test_a_launcher_that_is_killed_ends_its_search(between: str, tmp_path: Path) -> None:
    stopped = tmp_path / "stopped"
    program = tmp_path / "mlflow"
    program.write_text(LAUNCHER)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    one = subprocess.Popen(
        [sys.executable, str(program), CHILD, str(stopped), between],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    assert one.stdout is not None
    child, watches = one.stdout.readline().split()
    assert watches == "True"
    one.kill()
    one.wait()
    deadline = time.monotonic() + 30
    while not stopped.exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    one.stdout.close()
    while Path(f"/proc/{child}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("words", "is_it"),
    [
        ("/opt/v/bin/python|/opt/v/bin/mlflow|run|.", True),
        ("mlflow|run|.", True),
        ("python3.11|-m|mlflow|run|.", True),
        ("python|-m|mlflow.cli|run|.", True),
        ("bash|-c|python -m pipeline search --study a/mlflow; true", False),
        ("bash|-c|python -m pipeline search --study mlflow-x; true", False),
        ("/bin/sh|/home/me/mlflow-nightly.sh", False),
        ("python|-m|pipeline|search|--study|mlflow", False),
        ("", False),
    ],
)
def test_only_mlflow_s_own_command_is_one(words: str, *, is_it: bool) -> None:
    assert launcher._is_mlflow(words.encode().split(b"|")) is is_it


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc on this machine")
def test_a_launcher_that_ends_while_it_is_found_is_seen_to_be_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "mlflow"
    program.write_text("import time; time.sleep(60)")
    with subprocess.Popen([sys.executable, str(program)]) as one:
        while b"mlflow" not in Path(f"/proc/{one.pid}/cmdline").read_bytes():
            time.sleep(0.01)

        def read_and_gone(words: Sequence[bytes]) -> bool:
            one.kill()
            # A zombie, as nobody has asked for its exit code.
            while launcher._started(one.pid):
                time.sleep(0.01)
            return True

        monkeypatch.setattr(os, "getppid", lambda: one.pid)
        monkeypatch.setattr(launcher, "_is_mlflow", read_and_gone)
        found = launcher._launcher()
        stopped: list[int] = []
        monkeypatch.setattr(os, "kill", lambda _, number: stopped.append(number))
        assert found is not None
        waiter = threading.Thread(target=launcher._wait, args=found, daemon=True)
        waiter.start()
        waiter.join(30)
        assert stopped == [signal.SIGTERM]


def test_a_search_of_its_own_is_nobody_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    assert not launcher.watch()
    # And where no ancestor is MLflow's command, as when a variable is left over, there is nothing to watch.
    monkeypatch.setenv("MLFLOW_RUN_ID", "run")
    assert not launcher.watch()
