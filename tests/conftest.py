"""What all tests share: a quiet Keras, and a fresh MLflow store that costs no migration."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

import pytest

from benchmarks.faults import servers

ROOT = Path(__file__).parent.parent
# Settings of the machine that would lead a test elsewhere.
_FOREIGN = (
    "MLFLOW_EXPERIMENT_ID",
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_RUN_ID",
    "MLFLOW_TRACKING_URI",
    "PIPELINE_DATA",
    "PIPELINE_HOME",
    "PIPELINE_STORAGE",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests first, so that neither of two processes is left alone with them."""
    items.sort(key=lambda item: item.path.name != "test_lanes.py")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _FOREIGN:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """A mirror of the real Keras sets, from the variable that users give it by, or beside the project."""
    folder = Path(os.environ.get("REGATTA_TEST_DATA") or ROOT.parent / "shared" / "data" / "keras")
    if not (folder / "mnist.npz").exists():
        pytest.skip(f"no real Keras sets in {folder} (REGATTA_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def _empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's SQLite file with its tables: made once, as that takes seconds."""
    from mlflow import MlflowClient

    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments(max_results=1)
    return file


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _empty_store: Path) -> Path:
    """An empty working folder with an MLflow store of its own, as a user starts in one."""
    import mlflow

    shutil.copy(_empty_store, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    mlflow.set_tracking_uri(None)
    return tmp_path


@pytest.fixture(scope="session")
def postgresql() -> Iterator[servers.Postgresql]:
    """A real server on loopback, with a password."""
    programs = servers.postgresql_programs()
    if programs is None:
        pytest.skip("no PostgreSQL on this machine")
    server = servers.Postgresql(programs, "sesame")
    try:
        yield server
    finally:
        server.remove()
