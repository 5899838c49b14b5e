"""The tests of `tests/lanes`, each file in a process of its own, as it settles Keras's backend."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FILES = sorted(file.name for file in (HERE / "lanes").glob("test_*.py"))
# pytest says 5 where a file has no test of the kind that is asked for.
_NONE = 5


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled programs and measured choices, shared by the processes of a session and by nobody else."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("file", FILES)
def test_in_a_process_on_jax(file: str, cache: Path) -> None:
    run(file, cache, "not slow")


@pytest.mark.slow
@pytest.mark.timeout(5400)
@pytest.mark.parametrize("file", FILES)
def test_slow_ones_in_a_process_on_jax(file: str, cache: Path) -> None:
    run(file, cache, "slow")


def run(file: str, cache: Path, marked: str) -> None:
    """Runs the file's tests; two host devices, so that the lane axis is really sharded."""
    settings = {
        "KERAS_BACKEND": "jax",
        "JAX_NUM_CPU_DEVICES": "2",
        "JAX_ENABLE_X64": "1" if "float64" in file else "0",
        "PIPELINE_CACHE": str(cache),
    }
    # Flags of the machine's would decide the devices.
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | settings
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", marked, f"tests/lanes/{file}"]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider"],
        cwd=HERE.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == _NONE and " deselected" in done.stdout:
        pytest.skip(f"{file} has none that are {marked}")
    assert done.returncode == 0, f"{done.stdout[-20_000:]}\n{done.stderr[-5_000:]}"
