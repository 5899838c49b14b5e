"""The pipeline as it is deployed: `mlflow run`, an MLflow server, PostgreSQL, the UI in a real browser."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from sqlalchemy import text

from benchmarks.faults import servers
from pipeline import options, presence, recovery, search, storage
from pipeline.engines import backend
from pipeline.errors import UserError
from pipeline.job import open_search
from pipeline.progress import ProgressLine
from pipeline.tracking import outbox, trials
from pipeline.tracking.connection import connect
from pipeline.tracking.outbox import Record
from pipeline.tracking.recorder import TRIAL

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what a user has."""
    folder = tmp_path / "regatta"
    left_behind = shutil.ignore_patterns(".*", "*.db", "mlruns", "studies", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, folder, ignore=left_behind)
    return folder


def mlflow_run(project: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """`mlflow run . --env-manager local …` with this interpreter's programs first on the path."""
    programs = Path(sys.executable).parent
    return subprocess.run(
        [str(programs / "mlflow"), "run", ".", "--env-manager", "local", *arguments],
        cwd=project,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )


def test_mlflow_run_makes_one_parent_and_goes_on_in_it(project: Path) -> None:
    store = f"sqlite:///{project / 'mlflow.db'}"
    small = ("-P", "epochs=2", "-P", "study=night")
    first = mlflow_run(project, "-e", "search", "-P", "task=iris", "-P", "trials=2", *small)
    assert first.returncode == 0, first.stderr
    second = mlflow_run(project, "-P", "trials=3", *small)
    assert second.returncode == 0, second.stderr
    client = MlflowClient(store)
    (experiment,) = client.search_experiments()
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["pipeline.study"] == "night"
    assert parent.data.params["trials"] == "2", "what mlflow run logged stays as it was"
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted(
        run.data.tags["pipeline.trial"] for run in children if "pipeline.trial" in run.data.tags
    ) == [
        "0",
        "1",
        "2",
    ]
    (resumed,) = [run for run in children if "pipeline.resumes" in run.data.tags]
    assert resumed.info.status == "FINISHED"
    assert "pipeline.study" not in resumed.data.tags


def test_values_reach_the_program_as_they_are_and_execute_nothing(project: Path) -> None:
    hostile = "$(touch pwned) `touch pwned`; touch pwned \"'\n--help && touch pwned"
    done = mlflow_run(project, "-e", "search", "-P", f"study={hostile}")
    assert done.returncode == 1
    assert f"but is {hostile!r}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (project / "pwned").exists()


@pytest.mark.parametrize(
    ("command", "kind", "whole_group", "code"),
    [
        (["-m", "pipeline", "search"], signal.SIGTERM, False, 143),
        (["-m", "pipeline", "search"], signal.SIGINT, False, 130),
        # A terminal's Ctrl-C reaches both; mlflow then also terminates the program.
        (["-m", "mlflow", "run", ".", "-e", "search", "--env-manager", "local"], signal.SIGINT, True, 1),
    ],
    ids=["terminated", "interrupted", "interrupted-under-mlflow-run"],
)
def test_a_stopped_search_leaves_nothing_running(
    project: Path, command: list[str], kind: signal.Signals, whole_group: bool, code: int
) -> None:
    programs = Path(sys.executable).parent
    plain = "pipeline" in command
    parameters = ["--study=stopped", "--trials=3"] if plain else ["-P", "study=stopped", "-P", "trials=3"]
    process = subprocess.Popen(
        [sys.executable, *command, *parameters],
        cwd=project,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    for line in process.stdout:
        if line.startswith("trial 0 completed"):
            break
    time.sleep(1)
    (os.killpg if whole_group else os.kill)(process.pid, kind)
    shown = process.communicate(timeout=120)[0]
    assert process.returncode == code
    assert "pipeline: interrupted; the same command goes on with the study" in shown
    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments)
    assert sorted(run.info.status for run in runs if "pipeline.trial" in run.data.tags) in (
        ["FINISHED", "KILLED"],
        ["FINISHED"],
    )
    (parent,) = [run for run in runs if "pipeline.study" in run.data.tags]
    assert parent.info.status == ("KILLED" if plain else "FAILED")
    assert parent.data.tags["pipeline.reason"] == "interrupted"


@pytest.fixture
def mlflow_server(tmp_path: Path) -> Iterator[servers.Mlflow]:
    server = servers.Mlflow(tmp_path, f"sqlite:///{tmp_path / 'server.db'}")
    try:
        yield server
    finally:
        server.stop()


def _browser() -> str:
    found = shutil.which("chromium")
    if not found:
        pytest.skip("no chromium on this machine")
    return found


def test_a_study_on_an_mlflow_server_shows_in_its_ui(
    workplace: Path, mlflow_server: servers.Mlflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = _browser()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.url)
    result = search(task="iris", trials=2, epochs=2, members=2, export="none")
    assert result is not None
    client = MlflowClient(mlflow_server.url)
    parent = client.get_run(result.run_id)
    assert parent.info.artifact_uri.startswith("mlflow-artifacts:"), "artifacts went through the server"
    assert (Path(client.download_artifacts(result.run_id, "report.html")).read_text()).startswith("<!doctype")
    page = f"{mlflow_server.url}/#/experiments/{parent.info.experiment_id}/runs?viewStateShareKey="
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    options += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    options += [f"--user-data-dir={workplace / 'profile'}", "--virtual-time-budget=20000", "--dump-dom"]
    dom = subprocess.run([browser, *options, page], capture_output=True, text=True, timeout=120, check=False)
    assert ">iris<" in dom.stdout


def test_a_study_in_postgresql_goes_on_and_shows_no_password(
    workplace: Path,
    postgresql: servers.Postgresql,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> None:
    monkeypatch.setenv("PIPELINE_STORAGE", postgresql.url("optuna"))
    first = search(task="iris", trials=2, epochs=1, members=2, export="none")
    again = search(task="iris", trials=3, epochs=1, members=2, export="none")
    assert first is not None
    assert again is not None
    assert first.run_id == again.run_id
    shown = capfd.readouterr()
    assert "sesame" not in shown.out + shown.err
    assert all(b"sesame" not in file.read_bytes() for file in workplace.rglob("*") if file.is_file())


def test_the_password_may_come_from_pgpassword(
    workplace: Path, postgresql: servers.Postgresql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "sesame")
    url = postgresql.url("optuna").replace(":sesame", "")
    assert (
        search(task="iris", trials=1, epochs=1, members=1, export="none", storage=url, study="s") is not None
    )


def test_mlflow_itself_may_be_in_postgresql(
    workplace: Path,
    postgresql: servers.Postgresql,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgresql.url("mlflow"))
    monkeypatch.chdir(workplace)
    assert search(task="iris", trials=1, epochs=1, members=1, export="none") is not None
    shown = capfd.readouterr()
    assert "sesame" not in shown.out
    assert ":***@127.0.0.1" in shown.out


def test_tables_of_another_version_in_postgresql_are_told_without_the_password(
    workplace: Path, postgresql: servers.Postgresql, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgresql.url("optuna")
    shown = url.replace("sesame", "***")
    monkeypatch.setenv("PIPELINE_STORAGE", url)
    with storage.connected("", "s") as opened:
        engine = opened.engine
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    with pytest.raises(UserError) as caught:
        connect()
    assert str(caught.value) == (
        f"MLFLOW_TRACKING_URI {shown}: is Optuna's database: MLflow needs one of its own"
    )
    with engine.begin() as connection:
        (version,) = connection.execute(text("select version_num from alembic_version")).one()
        connection.execute(text("update alembic_version set version_num = 'v3.0.0.d'"))
    try:
        with pytest.raises(UserError) as caught:
            storage.connect("", "s")
        (line,) = str(caught.value).splitlines()
        assert line.startswith(
            f"storage {shown}: its tables are of an older Optuna: their version is v3.0.0.d,"
        )
        assert line.endswith('and then run: optuna storage upgrade --storage "$PIPELINE_STORAGE"')
        with engine.begin() as connection:
            assert connection.execute(text("select version_num from alembic_version")).all() == [
                ("v3.0.0.d",)
            ]
    finally:
        with engine.begin() as connection:
            connection.execute(text("update alembic_version set version_num = :head"), {"head": version})
        engine.dispose()


# A server that is away for some seconds

AWAY_SECONDS = 6.0


def away_after_a_trial(server: servers.Mlflow | servers.Postgresql, monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes a server away when the first trial has ended, and brings it back some seconds later."""
    real, back = ProgressLine.trial, threading.Timer(AWAY_SECONDS, server.start)

    def trial(line: ProgressLine, *ended: Any) -> None:
        real(line, *ended)
        # The first one: a timer starts once.
        if back.ident is None:
            server.stop()
            back.start()

    monkeypatch.setattr(ProgressLine, "trial", trial)


def check_nothing_is_lost(run: str, trials: int) -> None:
    client = MlflowClient()
    experiment = client.get_run(run).info.experiment_id
    found = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run}'")
    assert sorted(int(one.data.tags["pipeline.trial"]) for one in found) == list(range(trials))
    for one in found:
        assert one.info.status == "FINISHED"
        assert len(client.get_metric_history(one.info.run_id, "val_loss")) == one.data.metrics["epochs"]
        assert "model.keras" in {file.path for file in client.list_artifacts(one.info.run_id)}


def test_an_mlflow_server_that_is_away_in_mid_search_costs_nothing(
    workplace: Path,
    mlflow_server: servers.Mlflow,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.url)
    away_after_a_trial(mlflow_server, monkeypatch)
    result = search(task="iris", trials=6, epochs=3, members=2, export="none", study="away")
    assert result is not None
    check_nothing_is_lost(result.run_id, 6)
    said = "".join(capfd.readouterr())
    assert said.count("; what is recorded waits on disk, and is written when it answers again") == 1
    assert "MLflow answers again after " in said
    assert "Retrying" not in said
    assert not (workplace / "studies" / "away" / "outbox").exists(), "all that waited is written"


def test_a_postgresql_that_is_away_in_mid_search_costs_nothing(
    workplace: Path,
    postgresql: servers.Postgresql,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PIPELINE_STORAGE", postgresql.url("optuna"))
    away_after_a_trial(postgresql, monkeypatch)
    result = search(task="iris", trials=4, epochs=3, members=2, export="none", study="away")
    assert result is not None
    check_nothing_is_lost(result.run_id, 4)
    said = capfd.readouterr().out
    assert said.count("the study's storage does not answer (") == 1
    assert said.count("the study's storage answers again after ") == 1
    assert "invalid data" not in said, "what Optuna supposes is not what it is"


def test_what_a_dead_process_had_trained_is_delivered_by_the_last_one(
    workplace: Path, postgresql: servers.Postgresql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its records wait in its folder; they become finished runs, though that search does not come back."""
    monkeypatch.setenv("PIPELINE_STORAGE", postgresql.url("optuna"))
    asked = options.values("search", {"task": "iris", "trials": "3", "epochs": "2", "study": "dead"})
    backend.load()
    with open_search(asked) as job:
        job.parent.tag({"pipeline.study": "dead"})
        candidate = job.study.next(3)
        box = outbox.new(storage.home("dead") / outbox.HOME, job.parent.run_id)
        start = (f"trial-{candidate.number}", {}, {TRIAL: str(candidate.number)}, 1)
        ended = ("FINISHED", "", {"epochs": 2.0}, "", 2, "")
        box.put([Record(candidate.number, "start", start)])
        box.put(
            [Record(candidate.number, "end", ended)],
            job.study.note(candidate.number, failure="", value=0.5, replay=None),
        )
        # As a process leaves it that is gone: with its lock let go.
        box._database.close()
        box._lock.close()
        assert {run.info.status for run in trials.children(job.parent, TRIAL)} == set()
        recovery.tidy(job)
        (run,) = trials.children(job.parent, TRIAL)
        assert run.info.status == "FINISHED"
        assert job.study.counts().completed == 1
        # What has only begun is closed, as nobody else is there.
        begun = job.parent.client.create_run(
            job.parent.experiment_id,
            tags={"mlflow.parentRunId": job.parent.run_id, TRIAL: "2"},
        )
        recovery.tidy(job)
        left = job.parent.client.get_run(begun.info.run_id)
        assert (left.info.status, left.data.tags["pipeline.reason"]) == ("KILLED", "its process was gone")
        # While another process trains the study, it may be that one's.
        again = job.parent.client.create_run(
            job.parent.experiment_id,
            tags={"mlflow.parentRunId": job.parent.run_id, TRIAL: "2"},
        )
        url = postgresql.url("optuna")
        with storage.connected(url, "dead") as opened, presence.shown(opened, url, "dead"):
            recovery.recover(job)
        assert job.parent.client.get_run(again.info.run_id).info.status == "RUNNING"
