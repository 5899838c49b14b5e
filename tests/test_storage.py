"""Where a study's record lies: names, passwords, the journal, databases, and what is told when one fails."""

import contextlib
import json
import os
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages.journal import JournalStorage
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from benchmarks.faults import servers
from pipeline import outages, storage
from pipeline.errors import RunError, UserError
from pipeline.lock import Busy
from pipeline.secrets import redacted


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def connected(url: str, study: str = "iris") -> contextlib.AbstractContextManager[BaseStorage]:
    """The storage; its database connections are closed afterwards."""
    return storage.connected(url, study)


def fault_of(url: str, study: str = "iris") -> str:
    with pytest.raises(UserError) as caught:
        storage.connect(url, study)
    (line,) = str(caught.value).splitlines()
    return line


# Names


@pytest.mark.parametrize("name", ["iris", "a", "1", "A.b-c_d", "2026-01-01", "x" * 100])
def test_a_name_that_can_be_a_folder_is_taken(name: str) -> None:
    storage.check_name(name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "-a", "_a", "a b", "a/b", "a\\b", "a\n", "\na", "a\0", "größe", "٣", "$(x)", "x" * 101],
)
def test_a_name_that_cannot_be_a_folder_is_refused(name: str) -> None:
    with pytest.raises(UserError) as caught:
        storage.check_name(name)
    assert str(caught.value).startswith("study: must be 1 to 100 letters, digits, dots")
    assert str(caught.value).endswith(f"but is {name!r}")


@given(name=st.text(max_size=10))
@settings(max_examples=200, deadline=None, database=None)
def test_any_name_is_one_part_of_a_path_or_refused(name: str) -> None:
    try:
        storage.check_name(name)
    except UserError:
        return
    assert Path(name).parts == (name,)
    assert name != ".."


# Passwords

WITH_PASSWORD = [
    "postgresql://user:sesame@host/db",
    "postgresql+psycopg://user:sesame@host:5432/db",
    "postgresql://:sesame@host/db",
    "postgresql://user%40firm:sesame@host/db",
    "mysql://user:sesame@host/db?charset=utf8",
    "postgresql://host/db?password=sesame",
    "postgresql://host/db?user=user&password=sesame",
    "postgresql://user@host/db?PASSWORD=sesame",
    # SQLAlchemy takes all of these for a password, too.
    "postgresql://user:ses@me-sesame@host/db",
    "postgresql://user:open/sesame@host/db",
    "postgresql://user:open?sesame@host/db",
    "postgresql://user:open#sesame@host/db",
    "postgresql://user:open[sesame@host/db",
    "mysql+pymysql://host/db?passwd=sesame",
    "postgresql://host/db?pass%77ord=sesame",
    "postgresql://user@host/db?sslpassword=sesame",
]
WITHOUT_PASSWORD = [
    "",
    "postgresql://user@host/db",
    "postgresql://user@host:5432/db",
    "postgresql://host/db",
    "postgresql://host/db?user=user&sslmode=require",
    "postgresql:///db",
    "postgresql://user@[::1]:5432/db",
    "sqlite:///study.db",
    "sqlite:////home/me/study.db",
    "sqlite:////home/me@work:1/study.db",
    "sqlite://",
]


@pytest.mark.parametrize("url", WITH_PASSWORD)
def test_a_storage_parameter_with_a_password_is_refused(url: str) -> None:
    with pytest.raises(UserError) as caught:
        storage.check_url(url)
    message = str(caught.value)
    assert message.startswith("storage: must not carry a password")
    assert "PIPELINE_STORAGE" in message
    assert "sesame" not in message


@pytest.mark.parametrize("url", WITHOUT_PASSWORD)
def test_a_storage_parameter_without_a_password_is_taken(url: str) -> None:
    storage.check_url(url)


@pytest.mark.parametrize("url", WITH_PASSWORD)
def test_a_shown_url_has_no_password(url: str) -> None:
    shown = redacted(url)
    assert "sesame" not in shown
    assert shown.startswith(url.partition("://")[0])


@pytest.mark.parametrize("url", WITHOUT_PASSWORD)
def test_a_url_without_a_password_is_shown_as_it_is(url: str) -> None:
    assert redacted(url) == url


def test_a_shown_url_still_tells_where() -> None:
    assert redacted("postgresql://me:sesame@host:5432/db") == "postgresql://me:***@host:5432/db"


@given(url=st.text(max_size=30) | st.from_regex(r"[a-z]{1,9}://[a-z:@/?#\[\]%=]{0,20}", fullmatch=True))
@settings(max_examples=300, deadline=None, database=None)
def test_any_text_can_be_checked_and_shown(url: str) -> None:
    assert isinstance(redacted(url), str)
    with contextlib.suppress(UserError):
        storage.check_url(url)


# The journal


def test_a_study_lies_in_a_journal_below_studies_by_default(tmp_path: Path) -> None:
    assert storage.home("mine") == Path("studies/mine")
    with connected("", "mine") as opened:
        optuna.create_study(study_name="mine", storage=opened)
    assert isinstance(opened, JournalStorage)
    assert (tmp_path / "studies" / "mine" / "journal.log").stat().st_size > 0


def test_the_journal_lies_in_pipeline_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "deep" / "place"
    monkeypatch.setenv("PIPELINE_HOME", str(home))
    assert storage.home("mine") == home / "mine"
    with connected("", "mine") as opened:
        optuna.create_study(study_name="mine", storage=opened)
    assert (home / "mine" / "journal.log").exists()
    assert not (tmp_path / "studies").exists()


def test_an_empty_pipeline_home_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_HOME", "")
    assert storage.home("mine") == Path("studies/mine")


def test_asking_where_a_study_lies_makes_nothing(tmp_path: Path) -> None:
    storage.home("mine")
    assert list(tmp_path.iterdir()) == []


def test_a_journal_keeps_what_was_told() -> None:
    with connected("") as opened:
        study = optuna.create_study(study_name="iris", storage=opened)
        study.tell(study.ask(), 0.5)
    with connected("") as opened:
        assert optuna.load_study(study_name="iris", storage=opened).best_value == 0.5


@pytest.mark.parametrize("home", ["file", "file/below", "x" * 300])
def test_a_home_that_cannot_be_a_folder_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PIPELINE_HOME", home)
    message = fault_of("")
    assert message.startswith(f"PIPELINE_HOME: the study's journal {home}/iris/journal.log cannot be used: ")


def test_a_folder_in_place_of_the_journal_is_told() -> None:
    Path("studies/iris/journal.log").mkdir(parents=True)
    place = "PIPELINE_HOME: the study's journal studies/iris/journal.log cannot be used: "
    assert fault_of("").startswith(place)


@pytest.mark.parametrize(
    "content",
    [
        b"garbage\ngarbage\n",
        b"garbage\n{}\n",
        b"\n\n",
        b"\xff\xfe\n\xff\n",
        b"\0\0\0\0\n\0\0\n",
        b"{}\n",
        b"[]\n",
        b"1\n",
        b"null\n",
        b'{"op_code":0}\n',
        b'{"op_code":0,"worker_id":"w","study_name":"iris"}\n',
        b'{"op_code":0,"worker_id":"w","study_name":"iris","directions":[7]}\n',
    ],
)
def test_a_damaged_journal_is_told_with_its_place(content: bytes) -> None:
    file = Path("studies/iris/journal.log")
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    assert fault_of("").startswith(f"{file}: the study's journal is damaged: ")
    assert file.read_bytes() == content


def test_a_journal_of_a_newer_optuna_is_told_and_left_as_it_is() -> None:
    with connected("") as opened:
        optuna.create_study(study_name="iris", storage=opened)
    file = Path("studies/iris/journal.log")
    with file.open("ab") as journal:
        journal.write(b'{"op_code":99,"worker_id":"w","study_id":0,"something":"new"}\n')
    before = file.read_bytes()
    assert fault_of("") == (
        f"{file}: the study's journal is of a newer Optuna: line 2 has op_code 99, which Optuna"
        f" {optuna.__version__} does not know; go on with the Optuna that wrote it, or give another name by"
        " study="
    )
    assert file.read_bytes() == before


def test_a_journal_that_is_damaged_before_a_newer_line_is_damaged() -> None:
    file = Path("studies/iris/journal.log")
    file.parent.mkdir(parents=True)
    file.write_bytes(b'garbage\n{"op_code":99}\n')
    assert "the study's journal is damaged: " in fault_of("")


def test_a_line_that_a_killed_run_left_half_written_costs_no_study() -> None:
    with connected("") as opened:
        study = optuna.create_study(study_name="iris", storage=opened)
        study.tell(study.ask(), 0.5)
    with Path("studies/iris/journal.log").open("ab") as journal:
        journal.write(b'{"op_code":6,"worker_')
    with connected("") as opened:
        study = optuna.load_study(study_name="iris", storage=opened)
        study.tell(study.ask(), 0.25)
    with connected("") as opened:
        assert optuna.load_study(study_name="iris", storage=opened).best_value == 0.25


# Databases


def test_a_sqlite_url_works() -> None:
    with connected("sqlite:///study.db") as opened:
        study = optuna.create_study(study_name="iris", storage=opened)
        study.tell(study.ask(), 0.5)
    with connected("sqlite:///study.db") as opened:
        assert optuna.load_study(study_name="iris", storage=opened).best_value == 0.5
    assert not Path("studies").exists()


@pytest.mark.parametrize("driver", ["sqlite", "sqlite+pysqlite"])
def test_an_sqlite_study_is_one_process_s_from_whatever_home(
    driver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    url = f"{driver}:///{tmp_path / 'optuna.db'}"
    monkeypatch.setenv("PIPELINE_HOME", str(tmp_path / "one"))
    with storage.ours(url, "iris"):
        assert json.loads((tmp_path / "optuna.db.iris.lock").read_text())["pid"] == os.getpid()
        monkeypatch.setenv("PIPELINE_HOME", str(tmp_path / "two"))
        for named in (url, f"{driver}:///{tmp_path / 'link' / 'optuna.db'}", f"{driver}:///optuna.db"):
            held = pytest.raises(Busy, match=f"study iris: another process has it: pid {os.getpid()} ")
            with held, storage.ours(named, "iris"):
                pass
        # Other studies in the file, and the same name in another file, are other studies.
        with storage.ours(url, "mnist"), storage.ours(f"{url}2", "iris"):
            pass
    with storage.ours(url, "iris"):
        pass


def test_an_sqlite_file_in_no_folder_is_told_by_whoever_connects(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'nowhere' / 'optuna.db'}"
    with storage.ours(url, "iris"):
        assert "does not answer" in fault_of(url)
    assert not (tmp_path / "nowhere").exists()


def test_the_environment_names_a_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_STORAGE", "sqlite:///named.db")
    with connected("") as opened:
        assert isinstance(opened, RDBStorage)
    assert Path("named.db").exists()
    assert not Path("studies").exists()


def test_a_parameter_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_STORAGE", "sqlite:///named.db")
    with connected("sqlite:///given.db"):
        pass
    assert Path("given.db").exists()
    assert not Path("named.db").exists()


@pytest.mark.parametrize("url", ["nope", "study.db", "/home/me/study.db", "host=h user=u"])
def test_what_is_no_url_is_told(url: str) -> None:
    assert fault_of(url) == f"storage {url}: must be a database URL such as postgresql://user@host/name"


@pytest.mark.parametrize(
    "url",
    ["foo://host/db", "://", "postgresql://host:port/db", "postgresql://[::1/db", "sqlite:////no/such/a.db"],
)
def test_a_url_that_leads_nowhere_is_told_with_its_place(url: str) -> None:
    assert fault_of(url).startswith(f"storage {url}: ")


def test_a_driver_that_is_not_installed_is_told() -> None:
    assert fault_of("oracle://host/db") == (
        "storage oracle://host/db: the database driver for oracle is not installed"
    )


def test_a_server_that_does_not_answer_is_told_at_once() -> None:
    pytest.importorskip("psycopg", reason="the driver of PostgreSQL is not installed")
    started = time.monotonic()
    message = fault_of("postgresql://127.0.0.1:1/x")
    assert message.startswith("storage postgresql://127.0.0.1:1/x: does not answer: ")
    # Nobody listens there, so the system refuses at once; the silent ones get ten seconds.
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:sesame@127.0.0.1:1/x",
        "postgresql://user:open/sesame@127.0.0.1:1/x",
        "postgresql://user:ses@sesame@127.0.0.1:1/x",
        "postgresql://127.0.0.1:1/x?password=sesame",
        "foo://user:sesame@host/db",
        "user:sesame@host",
        "host=h user=u password=sesame",
    ],
)
def test_a_database_that_fails_is_told_without_its_password(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("PIPELINE_STORAGE", url)
    message = fault_of("")
    assert message.startswith("storage ")
    assert "sesame" not in message


@pytest.mark.parametrize("url", ["", "sqlite:///study.db"])
def test_optuna_is_quiet(capfd: pytest.CaptureFixture[str], url: str) -> None:
    with connected(url) as opened:
        optuna.create_study(study_name="iris", storage=opened)
    assert capfd.readouterr() == ("", "")


# Before a study is opened that must be there


def test_a_study_that_is_not_there_is_told_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        storage.check_there("", "mine")
    assert str(caught.value) == "study: there is no study named 'mine' in studies; search makes one"
    assert list(tmp_path.iterdir()) == []


def test_a_study_that_is_there_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    with connected("", "mine"):
        storage.check_there("", "mine")
    # Whether a database holds it, only the database can say.
    storage.check_there("sqlite:///study.db", "other")
    monkeypatch.setenv("PIPELINE_STORAGE", "sqlite:///study.db")
    storage.check_there("", "other")


# A database that is away for a while

AWAY = OperationalError("select 1", {}, Exception("the server closed the connection"))


def test_a_database_that_is_away_is_waited_for_and_that_is_told_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(outages, "_PAUSE_SECONDS", 0.01)
    left = [AWAY, AWAY]

    def act() -> str:
        if left:
            raise left.pop()
        return "found"

    assert storage.patiently(act) == "found"
    began, over = capsys.readouterr().out.splitlines()
    assert began.startswith("the study's storage does not answer ((builtins.Exception) the server closed the")
    assert began.endswith("; it is asked again for 600 s")
    assert over == "the study's storage answers again after 0 s"


def test_patience_has_an_end_and_is_for_outages_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outages, "_PAUSE_SECONDS", 0.01)

    def away() -> None:
        raise AWAY

    def wrong() -> None:
        raise ValueError("no")

    with pytest.raises(RunError, match=r"does not answer .*; the same command goes on"):
        storage.patiently(away, 0.05)
    with pytest.raises(OperationalError):
        storage.patiently(away, 0.0)
    with pytest.raises(ValueError, match="no"):
        storage.patiently(wrong)


def test_an_outage_is_told_in_the_database_s_own_words() -> None:
    error = StorageInternalError("typically invalid data in the commit")
    error.__cause__ = AWAY
    assert storage.is_outage(error)
    assert storage.why(error) == "(builtins.Exception) the server closed the connection"
    assert storage.why(ValueError("no")) == "no"


def test_processes_that_begin_at_once_in_an_empty_database_both_find_its_tables(
    postgresql: servers.Postgresql,
) -> None:
    engine = create_engine(postgresql.url("optuna"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("create database fresh"))
    engine.dispose()
    begin = threading.Barrier(4)

    def names(_: int) -> list[str]:
        begin.wait()
        with storage.connected(postgresql.url("fresh"), "s") as opened:
            return optuna.get_all_study_names(opened)

    # Python's filters of warnings are not a thread's own.
    with warnings.catch_warnings(), ThreadPoolExecutor(4) as pool:
        warnings.simplefilter("ignore")
        assert list(pool.map(names, range(4))) == [[]] * 4
