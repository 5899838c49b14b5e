"""Whose runs that `mlflow run` has made are closed: those of processes that are known to be gone."""

import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipeline.tracking import launched
from pipeline.tracking.connection import Client, connect
from pipeline.tracking.parent import STUDY, Parent, open_parent

_LONG_AGO_MS = 400_000


@pytest.fixture
def client(workplace: Path) -> Client:
    return connect()


@pytest.fixture
def parent(client: Client) -> Parent:
    found = open_parent(client, "s", "iris", "")
    found.tag({STUDY: "s"})
    return found


def made(parent: Parent) -> str:
    """The id of a run as `mlflow run` makes one, some time ago."""
    begun = int(time.time() * 1000) - _LONG_AGO_MS
    tags = {"mlflow.project.entryPoint": "search"}
    return str(MlflowClient().create_run(parent.experiment_id, start_time=begun, tags=tags).info.run_id)


def closed(parent: Parent, folder: Path) -> int:
    return launched.close_left(parent, lambda _: True, folder, "its process was gone")


def status(run_id: str) -> str:
    return str(MlflowClient().get_run(run_id).info.status)


def test_a_process_of_another_home_is_not_judged(
    client: Client, parent: Parent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    run = made(parent)
    monkeypatch.setenv("MLFLOW_RUN_ID", run)
    with launched.alive(there):
        launched.sign(client, there)
        assert closed(parent, here) == 0
        assert closed(parent, there) == 0
        assert status(run) == "RUNNING"


def test_one_of_the_same_home_that_is_gone_is_closed(
    client: Client, parent: Parent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made(parent)
    monkeypatch.setenv("MLFLOW_RUN_ID", run)
    with launched.alive(tmp_path):
        launched.sign(client, tmp_path)
    # As SIGKILL leaves it: the file is there, and nobody has locked it.
    (tmp_path / run).touch()
    assert closed(parent, tmp_path) == 1
    assert status(run) == "KILLED"
    assert MlflowClient().get_run(run).data.tags["pipeline.reason"] == "its process was gone"
    assert not (tmp_path / run).exists()


def test_what_no_process_has_ever_signed_is_closed_after_a_while(parent: Parent, tmp_path: Path) -> None:
    old = made(parent)
    young = MlflowClient().create_run(parent.experiment_id, tags={"mlflow.project.entryPoint": "search"})
    assert closed(parent, tmp_path) == 1
    assert (status(old), status(young.info.run_id)) == ("KILLED", "RUNNING")
