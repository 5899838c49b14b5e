"""A database of another version of Optuna or MLflow is told with what mends it, and left as it is."""

import os
import shlex
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import mlflow
import optuna
import pytest
from alembic import command
from alembic.script import ScriptDirectory
from mlflow.store.db import utils as mlflow_tables
from mlflow.store.tracking.dbmodels.initial_models import Base
from optuna.storages._rdb.models import BaseModel
from sqlalchemy import create_engine

from pipeline import revisions, storage
from pipeline.__main__ import main
from pipeline.errors import UserError
from pipeline.tracking import connection, making

# Of MLflow's tables one of many, of Optuna's the last but one.
OLD_MLFLOW, OLD_OPTUNA = "0584bdc529eb", "v3.0.0.d"
KEEPERS = (storage._OPTUNA, connection._MLFLOW)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def optuna_url() -> str:
    """Of a database of this Optuna with a study."""
    with storage.connected("sqlite:///study.db", "s") as opened:
        optuna.create_study(study_name="s", storage=opened)
    return "sqlite:///study.db"


@pytest.fixture
def unfinished_mlflow(tmp_path: Path) -> str:
    """The URL of a store whose maker was killed: tables of today are missing, and it has no experiment."""
    url = f"sqlite:///{tmp_path / 'old.db'}"
    engine = create_engine(url)
    Base.metadata.create_all(engine)
    config = mlflow_tables._get_alembic_config(url)
    with engine.begin() as opened:
        config.attributes["connection"] = opened
        command.upgrade(config, OLD_MLFLOW)
    engine.dispose()
    return url


@pytest.fixture
def old_mlflow(unfinished_mlflow: str) -> str:
    """The URL of a store as an MLflow of some years ago has left it."""
    changed("old.db", "insert into experiments (experiment_id, name) values (0, 'Default')")
    return unfinished_mlflow


def changed(file: str, *statements: str) -> None:
    with closing(sqlite3.connect(file)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


def fault_of_storage(url: str) -> str:
    with pytest.raises(UserError) as caught:
        storage.connect(url, "s")
    (line,) = str(caught.value).splitlines()
    return line


def fault_of_mlflow(url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    with pytest.raises(UserError) as caught:
        connection.connect()
    (line,) = str(caught.value).splitlines()
    return line


def ran(line: str) -> None:
    """Runs the command that a message ends with, by this Python's programs."""
    program, *arguments = shlex.split(line.partition("and then run: ")[2])
    subprocess.run([Path(sys.executable).with_name(program), *arguments], check=True, capture_output=True)


@pytest.mark.parametrize("keeper", KEEPERS, ids=lambda keeper: keeper.name)
def test_revisions_are_what_alembic_finds(keeper: revisions.Keeper) -> None:
    scripts = ScriptDirectory(str(keeper.scripts.parent))
    known, head = revisions.revisions(keeper.scripts)
    assert known == {script.revision for script in scripts.walk_revisions()}
    assert head == scripts.get_current_head()


def test_a_folder_without_revisions_is_said(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="must hold revisions with one last one, but has 0 such"):
        revisions.revisions(tmp_path)


def test_nothing_is_asked_of_a_file_that_is_not_there(tmp_path: Path) -> None:
    revisions.check("sqlite:///none.db", "storage", KEEPERS[0])
    assert list(tmp_path.iterdir()) == []


# Optuna's


def test_a_storage_of_an_older_optuna_is_told_with_the_command_that_upgrades_it(optuna_url: str) -> None:
    changed("study.db", f"update alembic_version set version_num = '{OLD_OPTUNA}'")
    before = Path("study.db").read_bytes()
    message = fault_of_storage(optuna_url)
    assert message == (
        f"storage sqlite:///study.db: its tables are of an older Optuna: their version is {OLD_OPTUNA}, and"
        f" Optuna {optuna.__version__} needs v3.2.0.a; back the database up, and then run: optuna storage"
        " upgrade --storage sqlite:///study.db"
    )
    assert Path("study.db").read_bytes() == before
    ran(message)
    with storage.connected(optuna_url, "s") as opened:
        assert optuna.get_all_study_names(opened) == ["s"]


def test_a_storage_from_before_versions_is_an_older_one(optuna_url: str) -> None:
    changed("study.db", "drop table alembic_version", "update version_info set schema_version = 5")
    before = Path("study.db").read_bytes()
    assert "of an older Optuna: their version is not numbered yet, and" in fault_of_storage(optuna_url)
    assert Path("study.db").read_bytes() == before


def test_a_storage_of_a_newer_optuna_is_told(optuna_url: str) -> None:
    changed("study.db", "update alembic_version set version_num = 'v9.0.0.a'")
    before = Path("study.db").read_bytes()
    assert fault_of_storage(optuna_url) == (
        "storage sqlite:///study.db: its tables are of a newer Optuna: their version v9.0.0.a is not known to"
        f" Optuna {optuna.__version__}; use the Optuna that they were made with, or another database"
    )
    assert Path("study.db").read_bytes() == before


def test_a_database_of_other_tables_is_taken(tmp_path: Path) -> None:
    changed("study.db", "create table other (a integer)")
    with storage.connected("sqlite:///study.db", "s") as opened:
        assert optuna.get_all_study_names(opened) == []


def test_a_storage_whose_making_was_cut_off_is_made_now() -> None:
    engine = create_engine("sqlite:///study.db")
    BaseModel.metadata.create_all(engine)
    engine.dispose()
    with storage.connected("sqlite:///study.db", "s") as opened:
        assert optuna.get_all_study_names(opened) == []
    with closing(sqlite3.connect("study.db")) as database:
        assert database.execute("select count(*) from alembic_version").fetchone() == (1,)


# MLflow's


def test_a_store_whose_making_was_cut_off_is_made_now(
    unfinished_mlflow: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", unfinished_mlflow)
    (default,) = connection.connect().search_experiments()
    assert default.name == "Default"


def whole(file: Path) -> bool:
    with closing(sqlite3.connect(file)) as database:
        names = {name for (name,) in database.execute("select name from sqlite_master")}
        if not {"alembic_version", "experiments"} <= names:
            return False
        (version,) = database.execute("select version_num from alembic_version").fetchone()
        (experiments,) = database.execute("select count(*) from experiments").fetchone()
        return version == revisions.revisions(connection._MLFLOW.scripts)[1] and experiments == 1


def test_whoever_is_killed_leaves_a_whole_store_or_none(tmp_path: Path) -> None:
    file = tmp_path / "made" / "mlflow.db"
    file.parent.mkdir()
    command = [sys.executable, "-c", "from pipeline.tracking.connection import connect; connect()"]
    process = subprocess.Popen(command, env={**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{file}"})
    try:
        while not file.exists():
            assert process.poll() is None
            time.sleep(0.001)
    finally:
        process.kill()
        process.wait()
    assert whole(file)


def test_a_store_that_another_process_has_made_meanwhile_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, file = tmp_path / "made", tmp_path / "file"
    made.write_text("mine")
    file.write_text("another's")
    making._name(made, file)
    assert file.read_text() == "another's"
    file.unlink()

    def no_links(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    making._name(made, file)
    assert file.read_text() == "mine"


def test_a_new_store_is_made_where_it_belongs_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///new.db")
    (default,) = connection.connect().search_experiments()
    assert Path(default.artifact_location) == tmp_path / "mlruns" / "0"
    assert whole(Path("new.db"))
    assert [file.name for file in tmp_path.iterdir()] == ["new.db"]


def test_what_a_process_that_was_killed_has_left_beside_it_is_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container the next process has the same number."""
    half = tmp_path / f"new.db.{socket.gethostname()}-{os.getpid()}"
    half.write_bytes(b"SQLite format 3\0" + b"half of it" * 500)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///new.db")
    connection.connect()
    assert whole(Path("new.db"))
    assert [file.name for file in tmp_path.iterdir()] == ["new.db"]


def test_a_store_of_an_older_mlflow_is_told_with_the_command_that_upgrades_it(
    old_mlflow: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Path("old.db").read_bytes()
    message = fault_of_mlflow(old_mlflow, monkeypatch)
    assert message == (
        f"MLFLOW_TRACKING_URI {old_mlflow}: its tables are of an older MLflow: their version is {OLD_MLFLOW},"
        f" and MLflow {mlflow.__version__} needs {revisions.revisions(connection._MLFLOW.scripts)[1]}; back"
        f" the database up, and then run: mlflow db upgrade {old_mlflow}"
    )
    assert Path("old.db").read_bytes() == before
    ran(message)
    assert connection.connect().search_experiments(max_results=1) is not None


def test_a_store_of_another_mlflow_ends_a_search_before_anything_is_made(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed("mlflow.db", "update alembic_version set version_num = 'ffffffffffff'")
    before = Path("mlflow.db").read_bytes()
    assert main(["search", "--task=iris", "--engine=fit", "--trials=1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"pipeline: MLFLOW_TRACKING_URI sqlite:///{workplace}/mlflow.db: its tables are of a newer MLflow"
    )
    assert Path("mlflow.db").read_bytes() == before
    assert not Path("studies").exists()


def test_the_two_do_not_share_a_database(
    optuna_url: str, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Path("study.db").read_bytes(), Path("mlflow.db").read_bytes()
    assert fault_of_storage("sqlite:///mlflow.db") == (
        "storage sqlite:///mlflow.db: is MLflow's database: Optuna needs one of its own"
    )
    url = f"sqlite:///{workplace}/study.db"
    assert fault_of_mlflow(url, monkeypatch) == (
        f"MLFLOW_TRACKING_URI {url}: is Optuna's database: MLflow needs one of its own"
    )
    assert (Path("study.db").read_bytes(), Path("mlflow.db").read_bytes()) == before
