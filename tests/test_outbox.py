"""Records wait on disk until MLflow has them, whatever is killed and whatever does not answer."""

import contextlib
import copy
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, TEMPORARILY_UNAVAILABLE
from requests import Response
from requests.exceptions import HTTPError
from sqlalchemy.exc import OperationalError
from urllib3.exceptions import ResponseError

from pipeline.__main__ import main
from pipeline.errors import RunError, UserError
from pipeline.tracking import outbox
from pipeline.tracking.apart import Process
from pipeline.tracking.connection import Client, connect, is_outage
from pipeline.tracking.outbox import Outbox, Record
from pipeline.tracking.parent import Parent, open_parent
from pipeline.tracking.recorder import FINISHED, TRIAL, Recorder
from pipeline.tracking.writer import Writer, obey
from pipeline.values import Progress


@pytest.fixture
def parent(workplace: Path) -> Parent:
    return open_parent(connect(), "s", "iris", "")


def children(parent: Parent) -> list[mlflow.entities.Run]:
    return list(
        parent.client.search_runs(
            [parent.experiment_id],
            f"tags.`mlflow.parentRunId` = '{parent.run_id}' and tags.`{TRIAL}` LIKE '%'",
        )
    )


def delivered(parent: Parent, box: Outbox, *, again: bool = True, say: Callable[[str], None] = print) -> None:
    client = parent.client.impatient
    obey(Writer(client, parent.run_id, parent.experiment_id, box, again=again), box, lambda: True, say)


def start(number: int) -> Record:
    return Record(number, "start", ("t", {"a": 1}, {TRIAL: str(number)}, 1_000 + number))


def epoch(number: int, place: int) -> Record:
    return Record(number, "epoch", ({"loss": 1.0 / (1 + place)}, place, 2_000 + place, None, 0))


def end(number: int, files: str = "", status: str = FINISHED) -> Record:
    return Record(number, "end", (status, "", {"best": 0.5}, "", 3_000, files))


def a_trial(number: int, epochs: int = 3) -> list[Record]:
    return [start(number), *(epoch(number, place) for place in range(epochs)), end(number)]


# What is put in


def test_records_come_out_in_their_order_and_stay_until_they_are_forgotten(tmp_path: Path) -> None:
    with closing(Outbox(tmp_path / "box")) as box:
        box.put(a_trial(0))
        box.put(a_trial(1))
        found = box.after(0, 100)
        assert [record for _, record in found] == [*a_trial(0), *a_trial(1)]
        assert box.after(found[4][0], 2) == found[5:7]
        box.done(found[4][0])
        assert box.waiting() == 5
        assert box.after(0, 100) == found[5:]


def test_what_is_put_in_is_there_for_the_next_process(tmp_path: Path) -> None:
    program = f"""
import os
from pathlib import Path
from pipeline.tracking.outbox import Outbox, Record
box = Outbox(Path({str(tmp_path / "box")!r}))
box.put([Record(0, "epoch", ({{"loss": 0.5}}, 0, 1, None, 0))])
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    with closing(Outbox(tmp_path / "box")) as box:
        assert [record.arguments[0] for _, record in box.after(0, 10)] == [{"loss": 0.5}]


def test_an_end_is_held_back_until_the_study_knows(tmp_path: Path) -> None:
    with closing(Outbox(tmp_path / "box")) as box:
        box.put(a_trial(0), note={"number": 0, "value": 0.25})
        box.put([start(1)])
        seen = box.after(0, 100)
        assert [record.method for _, record in seen] == ["start", "epoch", "epoch", "epoch", "start"]
        assert box.held() == [{"number": 0, "value": 0.25}]
        box.done(seen[-1][0])
        assert box.waiting() == 1
        box.release(0)
        # Behind what the writer has passed.
        assert [record for _, record in box.after(seen[-1][0], 100)] == [end(0)]
        assert box.held() == []


def test_what_was_trained_again_elsewhere_ends_as_killed(tmp_path: Path) -> None:
    with closing(Outbox(tmp_path / "box")) as box:
        box.put(a_trial(0), note={"number": 0})
        box.revoke(0, "trained again")
        (_, last) = box.after(0, 100)[-1]
        assert last.arguments[:3] == ("KILLED", "trained again", {"best": 0.5})


def test_files_go_with_their_record(tmp_path: Path) -> None:
    with closing(Outbox(tmp_path / "box")) as box:
        first, second = box.place(), box.place()
        assert first != second
        (first / "model.keras").write_bytes(b"weights")
        box.put([end(0, first.name), end(1, second.name)])
        assert box.bytes() > len(b"weights")
        assert box.files(f"../../{first.name}") == first
        box.done(box.after(0, 1)[0][0])
        assert not first.exists()
        assert second.exists()


def test_records_of_trials_that_are_still_needed_stay(tmp_path: Path) -> None:
    with closing(Outbox(tmp_path / "box")) as box:
        box.put([start(0), *a_trial(1), epoch(0, 0)])
        box.done(box.after(0, 100)[-1][0], but=[0])
        assert [record.number for _, record in box.after(0, 100)] == [0, 0]


def test_a_disk_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="records of trials cannot be kept there: Not a directory"):
        Outbox(tmp_path / "file" / "box")


# What is left


def test_records_of_another_layout_are_told_and_left_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "host-1-1"
    with closing(Outbox(folder)) as box:
        box.put(a_trial(0))
    with closing(sqlite3.connect(folder / "records.db")) as database:
        database.execute("pragma user_version = 3")
        database.execute("alter table records rename column held to kept")
    before = (folder / "records.db").read_bytes()
    for look in (outbox.check_left, lambda home: list(outbox.left(home, "", print))):
        with pytest.raises(UserError) as caught:
            look(tmp_path)
        assert str(caught.value) == (
            f"{folder}: holds records of trials in layout 3, and this version of the program reads layout 2:"
            " run the same command with the version that wrote them, which hands them to MLflow; or remove"
            " the folder, and with it what those trials recorded"
        )
    assert (folder / "records.db").read_bytes() == before


def test_records_of_another_layout_that_a_process_has_open_are_its_own(tmp_path: Path) -> None:
    with closing(Outbox(tmp_path / "host-1-1")):
        with closing(sqlite3.connect(tmp_path / "host-1-1" / "records.db")) as database:
            database.execute("pragma user_version = 3")
        outbox.check_left(tmp_path)
        assert list(outbox.left(tmp_path, "", print)) == []


def test_a_search_stops_at_records_of_another_layout_before_anything_is_made(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = workplace / "studies" / "iris" / outbox.HOME / "box"
    with closing(Outbox(folder)) as box:
        box.put(a_trial(0))
    with closing(sqlite3.connect(folder / "records.db")) as database:
        database.execute("pragma user_version = 3")
    before = (workplace / "mlflow.db").read_bytes()
    assert main(["search", "--task=iris", "--engine=fit", "--trials=1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "holds records of trials in layout 3" in line
    assert (workplace / "mlflow.db").read_bytes() == before
    assert not (workplace / "studies" / "iris" / "journal.log").exists()


def test_only_what_nobody_has_open_is_left(tmp_path: Path) -> None:
    mine = outbox.new(tmp_path, "")
    mine.put([start(0)])
    assert list(outbox.left(tmp_path, "", print)) == []
    mine.close()
    (found,) = outbox.left(tmp_path, "", print)
    assert found.folder == mine.folder
    found.close()


def test_what_is_of_another_study_of_the_name_is_told_and_stays(tmp_path: Path) -> None:
    """Such as one in another storage, whose trials have the same numbers."""
    said: list[str] = []
    mine = outbox.new(tmp_path, "a1b2")
    mine.put(a_trial(0), note={"number": 0})
    mine.close()
    assert list(outbox.left(tmp_path, "c3d4", said.append)) == []
    assert said == [
        f"{mine.folder}: records of another study of this name (its MLflow run is a1b2) stay there: a search"
        " in that one's storage writes them"
    ]
    (found,) = outbox.left(tmp_path, "a1b2", said.append)
    with closing(found):
        assert found.held() == [{"number": 0}]
    assert len(said) == 1


def gone() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


class Killed(BaseException):
    """Ends a process's work where it stands."""


@pytest.mark.parametrize("statements", range(12))
def test_one_whose_process_was_killed_as_it_made_it_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statements: int
) -> None:
    """Wherever that was: nobody was told of it, so nothing is in it, and nobody will look for it."""
    left = statements

    class Database(sqlite3.Connection):
        def execute(self, *given: Any) -> sqlite3.Cursor:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return super().execute(*given)

        def executescript(self, script: str) -> sqlite3.Cursor:
            for statement in filter(None, map(str.strip, script.split(";"))):
                self.execute(statement)
            return self.cursor()

    # What the system takes back from a process that is gone.
    opened: list[Any] = []
    connect_really, lock_really = sqlite3.connect, outbox._locked

    def connect_to_be_killed(*given: Any, **named: Any) -> sqlite3.Connection:
        opened.append(connect_really(*given, **named, factory=Database))
        return opened[-1]

    def lock(folder: Path, kind: int) -> Any:
        opened.append(lock_really(folder, kind))
        return opened[-1]

    with monkeypatch.context() as patched:
        patched.setattr(sqlite3, "connect", connect_to_be_killed)
        patched.setattr(outbox, "_locked", lock)
        with contextlib.suppress(Killed):
            Outbox(tmp_path / f"{socket.gethostname()}-{gone()}-1", "a1b2")
        for one in opened:
            one.close()
    said: list[str] = []
    outbox.check_left(tmp_path)
    for found in outbox.left(tmp_path, "c3d4", said.append):
        found.close()
    # Once its owner is written it is another study's, and says so.
    assert not list(tmp_path.iterdir()) or "a1b2" in said[0]


def test_one_without_a_database_goes_when_its_process_is_gone(tmp_path: Path) -> None:
    (tmp_path / f"{socket.gethostname()}-{gone()}-1" / "files").mkdir(parents=True)
    # Of another machine's process, or of one that lives: it may be about to make it.
    kept = {"elsewhere-1-1", f"{socket.gethostname()}-{os.getpid()}-1"}
    for name in kept:
        (tmp_path / name).mkdir()
    assert list(outbox.left(tmp_path, "a1b2", print)) == []
    assert {folder.name for folder in tmp_path.iterdir()} == kept


def test_an_empty_one_leaves_nothing(tmp_path: Path) -> None:
    outbox.new(tmp_path, "").close()
    assert list(tmp_path.iterdir()) == []


# What is written


def test_a_record_that_is_written_twice_changes_nothing(parent: Parent, tmp_path: Path) -> None:
    for _ in range(2):
        with closing(Outbox(tmp_path / "box")) as box:
            folder = box.place()
            (folder / "model.keras").write_bytes(b"weights")
            box.put([*a_trial(0)[:-1], end(0, folder.name)])
            delivered(parent, box)
            assert not box.waiting()
    (run,) = children(parent)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"a": "1"}
    history = parent.client.get_metric_history(run.info.run_id, "loss")
    assert sorted(point.step for point in history) == [0, 1, 2]
    assert [file.path for file in parent.client.list_artifacts(run.info.run_id)] == ["model.keras"]


@pytest.mark.parametrize("fails", ["create_run", "log_batch", "log_artifacts", "set_terminated"])
def test_a_writer_that_ends_anywhere_is_followed_by_one_that_goes_on(
    fails: str, parent: Parent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after kill -9: the store has done what was asked for, and nobody has heard of it."""
    real = getattr(parent.client._client, fails)

    def gone(*args: Any, **kwargs: Any) -> None:
        real(*args, **kwargs)
        raise MlflowException("killed here", INVALID_PARAMETER_VALUE)

    box = Outbox(tmp_path / "box")
    folder = box.place()
    (folder / "model.keras").write_bytes(b"weights")
    box.put([*a_trial(0)[:-1], end(0, folder.name), *a_trial(1)])
    with monkeypatch.context() as patched:
        patched.setattr(parent.client._client, fails, gone)
        with pytest.raises(RunError, match="killed here"):
            delivered(parent, box, again=False)
    box.close()
    with closing(Outbox(tmp_path / "box")) as again:
        delivered(parent, again)
    found = {run.data.tags[TRIAL]: run for run in children(parent)}
    assert len(children(parent)) == len(found) == 2
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    for run in found.values():
        history = parent.client.get_metric_history(run.info.run_id, "loss")
        assert [(point.step, point.value) for point in sorted(history, key=lambda point: point.step)] == [
            (place, 1 / (1 + place)) for place in range(3)
        ]


def started(number: int, at: int) -> Record:
    return Record(number, "start", ("t", {}, {TRIAL: str(number)}, at))


@pytest.mark.parametrize("killed_after", [None, 2, 3, 4, 5], ids=lambda place: f"killed after {place}")
def test_a_trial_that_is_trained_again_in_the_same_process_gets_a_run_of_its_own(
    killed_after: int | None, parent: Parent, tmp_path: Path
) -> None:
    """As after its program ran out of memory."""
    first = [started(0, 1_000), epoch(0, 0), end(0, status="KILLED")]
    second = [started(0, 2_000), epoch(0, 0), epoch(0, 1), end(0)]
    with closing(Outbox(tmp_path / "box")) as box:
        box.put([*first, *second])
        if killed_after:
            writer = Writer(parent.client.impatient, parent.run_id, parent.experiment_id, box)
            places = box.after(0, killed_after)
            for _, record in places:
                writer.write(record)
            writer.flush()
            box.done(places[-1][0])
    with closing(Outbox(tmp_path / "box")) as box:
        delivered(parent, box, again=True)
        assert not box.waiting()
    epochs = {
        run.info.status: len(parent.client.get_metric_history(run.info.run_id, "loss"))
        for run in children(parent)
    }
    assert len(children(parent)) == 2
    assert epochs == {"KILLED": 1, "FINISHED": 2}


def test_a_run_whose_making_was_not_answered_is_not_made_twice(
    parent: Parent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, lost = parent.client._client.create_run, [True, True]

    def create_run(*args: Any, **kwargs: Any) -> Any:
        made = real(*args, **kwargs)
        if lost:
            lost.pop()
            raise ConnectionError("the answer was lost")
        return made

    monkeypatch.setattr(parent.client._client, "create_run", create_run)
    monkeypatch.setattr("pipeline.tracking.writer._MOST_PAUSE_SECONDS", 0.1)
    with closing(Outbox(tmp_path / "box")) as box:
        box.put(a_trial(0))
        delivered(parent, box, again=False)
    assert [run.info.status for run in children(parent)] == ["FINISHED"]


def test_a_start_that_was_written_before_is_gone_on_with(parent: Parent, tmp_path: Path) -> None:
    box = Outbox(tmp_path / "box")
    box.put([start(0), epoch(0, 0)])
    delivered(parent, box, again=False)
    box.put([epoch(0, 1), end(0)])
    box.close()
    with closing(Outbox(tmp_path / "box")) as again:
        delivered(parent, again)
    (run,) = children(parent)
    assert run.info.status == "FINISHED"
    assert len(parent.client.get_metric_history(run.info.run_id, "loss")) == 2


def test_curves_become_files_though_the_first_writer_was_killed(parent: Parent, tmp_path: Path) -> None:
    box = Outbox(tmp_path / "box")
    box.put([Record(-1, "keep", ({"csv": True, "events": False, "own": []},)), start(0), epoch(0, 0)])
    client = parent.client.impatient
    writer = Writer(client, parent.run_id, parent.experiment_id, box)
    places = box.after(0, 100)
    for _, record in places:
        writer.write(record)
    writer.flush()
    box.done(places[-1][0], writer.unfinished())
    folder = box.place()
    box.put([epoch(0, 1), end(0, folder.name)])
    box.close()
    with closing(Outbox(tmp_path / "box")) as again:
        delivered(parent, again)
    (run,) = children(parent)
    assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/log.csv").splitlines() == [
        "epoch,loss",
        "0,1.0",
        "1,0.5",
    ]


def test_an_outage_is_borne_and_told_once(
    parent: Parent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, down = parent.client._client.log_batch, [True, True, True]

    def log_batch(*args: Any, **kwargs: Any) -> None:
        if down:
            down.pop()
            raise MlflowException("the server is away", TEMPORARILY_UNAVAILABLE)
        real(*args, **kwargs)

    monkeypatch.setattr(parent.client._client, "log_batch", log_batch)
    monkeypatch.setattr("pipeline.tracking.writer._MOST_PAUSE_SECONDS", 0.1)
    said: list[str] = []
    with closing(Outbox(tmp_path / "box")) as box:
        box.put(a_trial(0))
        delivered(parent, box, say=said.append)
    assert len(said) == 2
    assert said[0].startswith("MLflow does not answer (the server is away); what is recorded waits")
    assert said[1].startswith("MLflow answers again after ")
    assert [run.info.status for run in children(parent)] == ["FINISHED"]


def test_what_a_store_that_stays_away_has_not_got_waits_for_the_next_search(
    parent: Parent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise MlflowException("the server is away", TEMPORARILY_UNAVAILABLE)

    monkeypatch.setattr("pipeline.tracking.recorder._PATIENCE_SECONDS", 0.5)
    recorder = Recorder(parent, folds=1, outbox=outbox.new(tmp_path, parent.run_id))
    with monkeypatch.context() as patched:
        patched.setattr(parent.client._client, "create_run", away)
        recorder.start(0, "t", {}, {TRIAL: "0"})
        recorder.epoch(Progress(0, 0, 0, {"loss": 0.5}, 0.5))
        recorder.end(0, FINISHED)
        with pytest.raises(RunError, match=r"MLflow does not answer: 3 records wait in .*; the same command"):
            recorder.close()
    (left,) = outbox.left(tmp_path, parent.run_id, print)
    with closing(left):
        delivered(parent, left)
    assert [run.info.status for run in children(parent)] == ["FINISHED"]


def test_a_stop_while_the_store_is_away_is_a_stop(
    parent: Parent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def away(*_: object, **__: object) -> None:
        raise MlflowException("the server is away", TEMPORARILY_UNAVAILABLE)

    monkeypatch.setattr("pipeline.tracking.recorder._STOP_SECONDS", 0.5)
    monkeypatch.setattr("pipeline.stops.asked", lambda: True)
    recorder = Recorder(parent, folds=1, outbox=outbox.new(tmp_path, parent.run_id))
    monkeypatch.setattr(parent.client._client, "create_run", away)
    recorder.start(0, "t", {}, {TRIAL: "0"})
    recorder.end(0, "KILLED", reason="interrupted")
    recorder.close()
    assert "MLflow does not answer: 2 records wait in" in capsys.readouterr().out


@pytest.mark.parametrize("apart", [False, True], ids=["by a thread", "by a process"])
def test_a_store_that_neither_answers_nor_refuses_does_not_hold_up_a_stop(
    parent: Parent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, apart: bool
) -> None:
    monkeypatch.setattr("pipeline.tracking.recorder._STOP_SECONDS", 0.5)
    monkeypatch.setattr("pipeline.tracking.apart._STOP_SECONDS", 0.5)
    monkeypatch.setattr("pipeline.stops.asked", lambda: True)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        address = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        stuck = copy.copy(parent)
        stuck.client, stuck.store = Client(mlflow.MlflowClient(address)), address
        recorder = Recorder(
            stuck, folds=1, apart=Process() if apart else None, outbox=outbox.new(tmp_path, parent.run_id)
        )
        recorder.start(0, "t", {}, {TRIAL: "0"})
        began = time.monotonic()
        recorder.close()
        assert time.monotonic() - began < 30, "MLflow alone waits for longer"
    with closing(Outbox(recorder.folder)) as left:
        assert left.waiting() == 1


def test_too_much_that_waits_ends_the_search_and_not_the_disk(
    parent: Parent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.tracking.recorder._MOST_BYTES", 1000)
    monkeypatch.setattr("pipeline.tracking.recorder._LOOK_SECONDS", 0.0)
    recorder = Recorder(parent, folds=1, outbox=outbox.new(tmp_path, parent.run_id))
    with pytest.raises(RunError, match=r"MLflow has not answered for long: .* GiB of records wait in"):
        recorder.start(0, "t", {}, {TRIAL: "0"})
    recorder.close()


@pytest.mark.parametrize("apart", [False, True], ids=["by a thread", "by a process"])
def test_a_search_that_is_killed_loses_nothing_that_it_has_handed_over(
    parent: Parent, tmp_path: Path, *, apart: bool
) -> None:
    program = f"""
import os, time
from pathlib import Path
from pipeline.tracking import outbox
from pipeline.tracking.apart import Process
from pipeline.tracking.connection import connect
from pipeline.tracking.parent import open_parent
from pipeline.tracking.recorder import Recorder
from pipeline.values import Progress
parent = open_parent(connect(), "s", "iris", {parent.run_id!r})
process = Process() if {apart} else None
recorder = Recorder(parent, 1, process, outbox=outbox.new(Path({str(tmp_path / "boxes")!r}), parent.run_id))
for number in range(40):
    recorder.start(number, "t", {{}}, {{{TRIAL!r}: str(number)}})
    recorder.epoch(Progress(number, 0, 0, {{"loss": 0.5}}, 0.5))
    recorder.end(number, "FINISHED", note={{"number": number}})
    recorder.release(number)
    print(number, flush=True)
    time.sleep(0.1)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment
    ) as one:
        said = [one.stdout.readline() for _ in range(25)]
        one.kill()
    handed_over = int(said[-1]) + 1
    for left in outbox.left(tmp_path / "boxes", parent.run_id, print):
        with closing(left):
            delivered(parent, left)
    found = sorted(int(run.data.tags[TRIAL]) for run in children(parent) if run.info.status == "FINISHED")
    assert found[:handed_over] == list(range(handed_over))
    assert len(set(found)) == len(found)
    assert list((tmp_path / "boxes").iterdir()) == []


def answered(status: int) -> HTTPError:
    """What MLflow raises where a server of artifacts refuses a file."""
    response = Response()
    response.status_code = status
    return HTTPError(f"{status} Error", response=response)


def of_amazon(status: int) -> dict[str, Any]:
    return {"ResponseMetadata": {"HTTPStatusCode": status}}


def made(module: str, name: str, **attributes: object) -> Exception:
    """An error such as a cloud's own client raises, which is not installed here."""
    error: Exception = type(name, (Exception,), {"__module__": module, **attributes})()
    return error


@pytest.mark.parametrize(
    ("error", "outage"),
    [
        (MlflowException("x", TEMPORARILY_UNAVAILABLE), True),
        (MlflowException("API request failed"), True),
        (MlflowException("no such run", INVALID_PARAMETER_VALUE), False),
        (MlflowException("(sqlite3.OperationalError) database is locked"), True),
        (MlflowException("(sqlite3.OperationalError) database or disk is full"), False),
        (OperationalError("select 1", {}, Exception("server closed the connection")), True),
        (ConnectionRefusedError("no"), True),
        (TimeoutError("no"), True),
        (OSError(28, "No space left on device"), False),
        (ResponseError("no answer"), True),
        (answered(502), True),
        (answered(429), True),
        (answered(403), False),
        (answered(413), False),
        (made("botocore.exceptions", "EndpointConnectionError"), True),
        (made("botocore.exceptions", "NoCredentialsError"), False),
        (
            made(
                "botocore.exceptions", "ClientError", response={"ResponseMetadata": {"HTTPStatusCode": 503}}
            ),
            True,
        ),
        (
            made(
                "botocore.exceptions", "ClientError", response={"ResponseMetadata": {"HTTPStatusCode": 403}}
            ),
            False,
        ),
        (made("azure.core.exceptions", "ServiceRequestError"), True),
        (made("google.api_core.exceptions", "Forbidden", code=403), False),
        (made("google.api_core.exceptions", "ServiceUnavailable", code=503), True),
        (ValueError("no"), False),
    ],
)
def test_an_outage_is_told_from_a_refusal(error: Exception, outage: bool) -> None:
    told = RunError("MLflow: …")
    told.__cause__ = error
    assert is_outage(told) is outage
