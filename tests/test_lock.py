"""One process at a time has a study, and nothing of a killed one keeps others out."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.lock import Busy, held

HOLDER = """
import sys, time
from pathlib import Path
from pipeline.lock import held
with held(Path(sys.argv[1]), "mine"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def holder(folder: Path, seconds: float) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_one_is_told_who_has_the_study(tmp_path: Path) -> None:
    with holder(tmp_path, 60) as other:
        with pytest.raises(Busy) as error, held(tmp_path, "mine"):
            pass
        assert error.value.exit_code == 75
        said = str(error.value)
        assert said.startswith(
            f"study mine: another process has it: pid {other.pid} on {os.uname().nodename}"
        )
        assert said.endswith("; wait=SECONDS waits for it")
        other.kill()


def test_a_killed_one_keeps_nobody_out(tmp_path: Path) -> None:
    with holder(tmp_path, 60) as other:
        other.send_signal(signal.SIGKILL)
        other.wait()
    with held(tmp_path, "mine"):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    assert (tmp_path / "lock").read_text() == ""


def test_the_second_one_may_wait(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with holder(tmp_path, 1.0) as other, held(tmp_path, "mine", wait=60):
        assert other.wait(10) == 0
    assert capsys.readouterr().out.startswith("study mine: waiting for another process: pid ")


def test_it_waits_no_longer_than_it_is_told(tmp_path: Path) -> None:
    with holder(tmp_path, 60) as other:
        began = time.monotonic()
        with pytest.raises(Busy, match=r"since [0-9T:+-]+$"), held(tmp_path, "mine", wait=0.5):
            pass
        assert time.monotonic() - began < 30
        other.kill()


def test_an_error_in_the_block_lets_go(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no"), held(tmp_path, "mine"):
        raise ValueError("no")
    assert (tmp_path / "lock").read_text() == "", "it is signed off, however the block ends"
    with held(tmp_path, "mine"):
        pass


def test_whoever_has_not_signed_is_told_as_such(tmp_path: Path) -> None:
    with holder(tmp_path, 60) as other:
        (tmp_path / "lock").write_text('{"pid"')  # torn
        with pytest.raises(Busy, match="it has not signed yet"), held(tmp_path, "mine"):
            pass
        other.kill()
