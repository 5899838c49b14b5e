"""The pipeline as it is deployed: `mlflow run`, an MLflow server, PostgreSQL, the UI in a real browser."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from servers import free_port, wait_for
from sqlalchemy import text

from pipeline import search, storage
from pipeline.errors import UserError
from pipeline.tracking.connection import connect

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
def mlflow_server(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}"]
    command += ["--artifacts-destination", str(tmp_path / "artifacts")]
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path, start_new_session=True)
    try:
        wait_for(f"{url}/health", process)
        yield url
    finally:
        # The server starts workers: the whole group ends.
        os.killpg(process.pid, 15)
        process.wait(20)


def _browser() -> str:
    found = shutil.which("chromium")
    if not found:
        pytest.skip("no chromium on this machine")
    return found


def test_a_study_on_an_mlflow_server_shows_in_its_ui(
    workplace: Path, mlflow_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = _browser()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    result = search(task="iris", trials=2, epochs=2, members=2, export="none")
    assert result is not None
    client = MlflowClient(mlflow_server)
    parent = client.get_run(result.run_id)
    assert parent.info.artifact_uri.startswith("mlflow-artifacts:"), "artifacts went through the server"
    assert (Path(client.download_artifacts(result.run_id, "report.html")).read_text()).startswith("<!doctype")
    page = f"{mlflow_server}/#/experiments/{parent.info.experiment_id}/runs?viewStateShareKey="
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    options += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    options += [f"--user-data-dir={workplace / 'profile'}", "--virtual-time-budget=20000", "--dump-dom"]
    dom = subprocess.run([browser, *options, page], capture_output=True, text=True, timeout=120, check=False)
    assert ">iris<" in dom.stdout


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real server on loopback, with a password, ended at the end; its URL."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        pytest.skip("no PostgreSQL on this machine")
    # The server refuses to run as root: the account that its package makes runs it then.
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    folder = Path(subprocess.check_output([*as_user, "mktemp", "-d"], text=True).strip())

    def run(command: list[str], **environment: str) -> None:
        subprocess.run(
            command, cwd="/", check=True, stdout=subprocess.DEVNULL, env={**os.environ, **environment}
        )

    secret = tmp_path_factory.mktemp("postgresql") / "password"
    secret.write_text("sesame\n")
    # Down from the folder of all users' tests, however deep in it this one is.
    base = next(path for path in secret.parents if path.name.startswith("pytest-of-"))
    for path in (secret, *secret.parents):
        if path.is_relative_to(base):
            path.chmod(0o755)
    port = free_port()
    try:
        initdb = [str(programs[-1] / "initdb"), "-D", str(folder / "data"), "-U", "me", "-A", "scram-sha-256"]
        run([*as_user, *initdb, f"--pwfile={secret}"])
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
        control = [*as_user, str(programs[-1] / "pg_ctl"), "-D", str(folder / "data"), "-w"]
        run([*control, "-l", str(folder / "log"), "-o", options, "start"])
        # MLflow and Optuna each keep their own tables' version, so each has a database.
        create = [str(programs[-1] / "psql"), "-q", "-h", "127.0.0.1", "-p", str(port), "-U", "me"]
        create += ["-c", "create database mlflow", "postgres"]
        run(create, PGPASSWORD="sesame")
        yield f"postgresql://me:sesame@127.0.0.1:{port}/postgres"
        run([*control, "-m", "immediate", "stop"])
    finally:
        subprocess.run([*as_user, "rm", "-rf", str(folder)], check=False)


def test_a_study_in_postgresql_goes_on_and_shows_no_password(
    workplace: Path, postgresql: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("PIPELINE_STORAGE", postgresql)
    first = search(task="iris", trials=2, epochs=1, members=2, export="none")
    again = search(task="iris", trials=3, epochs=1, members=2, export="none")
    assert first is not None
    assert again is not None
    assert first.run_id == again.run_id
    shown = capfd.readouterr()
    assert "sesame" not in shown.out + shown.err
    assert all(b"sesame" not in file.read_bytes() for file in workplace.rglob("*") if file.is_file())


def test_the_password_may_come_from_pgpassword(
    workplace: Path, postgresql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "sesame")
    url = postgresql.replace(":sesame", "")
    assert (
        search(task="iris", trials=1, epochs=1, members=1, export="none", storage=url, study="s") is not None
    )


def test_mlflow_itself_may_be_in_postgresql(
    workplace: Path, postgresql: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgresql.replace("/postgres", "/mlflow"))
    monkeypatch.chdir(workplace)
    assert search(task="iris", trials=1, epochs=1, members=1, export="none") is not None
    shown = capfd.readouterr()
    assert "sesame" not in shown.out
    assert ":***@127.0.0.1" in shown.out


def test_tables_of_another_version_in_postgresql_are_told_without_the_password(
    workplace: Path, postgresql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = postgresql.replace("sesame", "***")
    monkeypatch.setenv("PIPELINE_STORAGE", postgresql)
    with storage.connected("", "s") as opened:
        engine = opened.engine
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgresql)
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
