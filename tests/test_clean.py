"""What `clean` takes away and what stays, in real stores: files, a server, one that cannot delete."""

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from sqlalchemy import text

from benchmarks.faults import servers
from benchmarks.faults.servers import free_port, wait_for
from pipeline import presence, search, storage
from pipeline.__main__ import main
from pipeline.errors import RunError
from pipeline.result import Result
from pipeline.tasks import iris
from pipeline.tracking import weights

WEIGHTS = {"model.keras", "validation_predictions.npy"}


@pytest.fixture(autouse=True)
def _one_hidden_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iris, "_WIDTHS", (8,))


def tiny(**parameters: object) -> Result:
    usual = {"task": "iris", "trials": 6, "epochs": 2, "members": 1, "engine": "fit", "export": "none"}
    result = search(**{**usual, **parameters})
    assert isinstance(result, Result)
    return result


def children(result: Result) -> dict[str, Run]:
    """The child runs, `3` of a trial, `3 member` and `3 refit` of what was trained after it."""
    client = MlflowClient()
    experiment = client.get_run(result.run_id).info.experiment_id
    found = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{result.run_id}'")
    kinds = {"pipeline.trial": "", "pipeline.member": " member", "pipeline.refit": " refit"}
    return {
        f"{run.data.tags[tag]}{kind}": run
        for run in found
        for tag, kind in kinds.items()
        if tag in run.data.tags
    }


def files(run: Run) -> set[str]:
    return {file.path for file in MlflowClient().list_artifacts(run.info.run_id)}


def holding(result: Result) -> set[str]:
    return {label for label, run in children(result).items() if "model.keras" in files(run)}


def ranked(result: Result) -> list[str]:
    trials = {label: run for label, run in children(result).items() if " " not in label}
    return sorted(trials, key=lambda label: trials[label].data.metrics["best_val_log_loss"])


def clean(*arguments: str) -> int:
    return main(["clean", "--study=iris", *arguments])


def test_a_dry_run_tells_what_would_go_and_removes_nothing(
    workplace: Path, capsys: pytest.CaptureFixture
) -> None:
    result = tiny()
    before = children(result)
    parent = MlflowClient().get_run(result.run_id)
    capsys.readouterr()
    assert clean("--keep=2") == 0
    out = capsys.readouterr().out
    stay = {*ranked(result)[:2], "0", *map(str, result.ensemble.weights)}
    told = {line.split()[1] for line in out.splitlines() if line.startswith("trial ")}
    assert told == before.keys() - stay
    sizes = [
        file.file_size
        for label in told
        for file in MlflowClient().list_artifacts(before[label].info.run_id)
        if file.path in WEIGHTS
    ]
    assert f"{len(sizes)} files, {sum(sizes):,} bytes would go" in out
    assert "python -m pipeline clean --study=iris --keep=2 --apply=true" in out
    assert "mlflow gc" in out
    after = children(result)
    assert holding(result) == after.keys()
    assert {label: run.data.tags for label, run in after.items()} == {
        label: run.data.tags for label, run in before.items()
    }
    assert MlflowClient().get_run(result.run_id).info.end_time == parent.info.end_time


def test_the_best_the_baseline_and_the_members_stay_and_the_study_goes_on(
    workplace: Path, capsys: pytest.CaptureFixture
) -> None:
    result = tiny(callbacks="csv,checkpoint", members=2)
    before, parent = children(result), MlflowClient().get_run(result.run_id)
    capsys.readouterr()
    assert clean("--keep=2", "--apply=true") == 0
    out = capsys.readouterr().out
    stay = {*ranked(result)[:2], "0", *map(str, result.ensemble.weights)}
    gone = before.keys() - stay
    assert gone
    assert "bytes were removed" in out
    after = children(result)
    for label, run in after.items():
        assert run.data.metrics == before[label].data.metrics
        assert run.data.params == before[label].data.params
        assert run.info.status == "FINISHED"
        if label in gone:
            assert files(run) == {"log.csv"}, "curves stay"
            assert run.data.tags["pipeline.cleaned"] == "true"
        else:
            assert files(run) == {*WEIGHTS, "log.csv", "checkpoint.keras"}
            assert "pipeline.cleaned" not in run.data.tags
    now = MlflowClient().get_run(result.run_id)
    # NaN, which a class that was never predicted has for its precision, is equal to itself here.
    np.testing.assert_equal(now.data.metrics, parent.data.metrics)
    assert (now.info.status, now.info.end_time) == ("FINISHED", parent.info.end_time)

    # Twice is once.
    assert clean("--keep=2", "--apply=true") == 0
    assert "there was nothing to remove" in capsys.readouterr().out
    # What is made of the study afterwards is made of what is left.
    assert main(["ensemble", "--study=iris", "--method=uniform", "--members=6", "--export=none"]) == 0
    chosen = json.loads(mlflow.artifacts.load_text(f"runs:/{result.run_id}/ensemble.json"))
    assert chosen.keys() == stay
    again = tiny(trials=7, callbacks="csv,checkpoint", members=7)
    assert again.run_id == result.run_id
    assert {str(member) for member in again.ensemble.weights} <= stay | {"6"}


def test_members_and_what_was_trained_again_go_with_their_trial(workplace: Path) -> None:
    result = tiny(trials=4, folds=2, epochs=1, members=3, seeds=2, refit="true")
    stay = {ranked(result)[0], "0", *(str(member.trial) for member in result.ensemble.weights)}
    kept = {str(member) for member in result.ensemble.weights}
    before = holding(result)
    assert clean("--keep=1", "--apply=true") == 0
    best = {ranked(result)[0], "0"}
    expected = {
        label for label in before if label.split()[0] in kept or label.split()[0].partition("-")[0] in best
    }
    assert holding(result) == expected
    assert stay <= {label.split()[0].partition("-")[0] for label in expected}
    # Complete is complete: what was taken away is not trained anew.
    assert (
        search(task="iris", trials=4, folds=2, epochs=1, members=3, seeds=2, refit="true", engine="fit")
        is None
    )
    assert main(["ensemble", "--study=iris", "--members=2", "--export=none"]) == 0


def test_an_interrupted_one_goes_on(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = tiny()
    order = ranked(result)
    deleted: list[str] = []

    def interrupted(parent: object, uri: str, name: str) -> None:
        if len(deleted) == 1:
            raise KeyboardInterrupt
        deleted.append(name)
        really(parent, uri, name)

    really = weights.delete_artifacts
    with monkeypatch.context() as patch:
        patch.setattr(weights, "delete_artifacts", interrupted)
        assert clean("--keep=1", "--apply=true") == 130
    assert deleted == ["model.keras"]
    (half,) = [run for run in children(result).values() if "pipeline.cleaned" in run.data.tags]
    assert files(half) == WEIGHTS - {"model.keras"}
    # Nobody looks for the model that is gone.
    assert main(["ensemble", "--study=iris", "--members=1", "--export=none"]) == 0
    assert clean("--keep=1", "--apply=true") == 0
    assert files(children(result)[half.data.tags["pipeline.trial"]]) == set()
    assert holding(result) <= {order[0], "0"}


def test_a_tag_without_a_removal_is_taken_back(workplace: Path) -> None:
    result = tiny(trials=4)
    second = ranked(result)[1]
    MlflowClient().set_tag(children(result)[second].info.run_id, "pipeline.cleaned", "true")
    assert clean("--keep=2", "--apply=true") == 0
    assert "pipeline.cleaned" not in children(result)[second].data.tags


def test_a_study_that_is_trained_on_is_left_alone(workplace: Path, capsys: pytest.CaptureFixture) -> None:
    result = tiny(trials=4)
    MlflowClient().update_run(result.run_id, status="RUNNING")
    assert clean("--keep=1", "--apply=true") == 2
    assert f"its MLflow run {result.run_id} is RUNNING" in capsys.readouterr().err
    assert len(holding(result)) == 4
    assert clean("--keep=1") == 0


def test_nothing_is_removed_while_another_process_trains_the_study(
    workplace: Path,
    postgresql: servers.Postgresql,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    url = postgresql.url("optuna")
    monkeypatch.setenv("PIPELINE_STORAGE", url)
    result = tiny(trials=4, study="cleaned")
    with storage.connected(url, "cleaned") as store:
        # One that has just begun, or whose MLflow is away: the run is not RUNNING yet.
        with presence.shown(store, url, "cleaned"):
            assert clean("--study=cleaned", "--keep=1", "--apply=true") == 2
            assert "study cleaned: a search trains on it" in capsys.readouterr().err
            assert len(holding(result)) == 4
            assert clean("--study=cleaned", "--keep=1") == 0

        began: list[bool] = []
        remove = weights.remove

        def removed(*given: object) -> None:
            remove(*given)
            # What begins now would read what is going: it waits.
            with store.engine.connect() as connection:
                name = {"name": "regatta cleaned"}
                tried = "select pg_try_advisory_lock(hashtext(:name))"
                began.append(connection.execute(text(tried), name).scalar_one())

        monkeypatch.setattr(weights, "remove", removed)
        assert clean("--study=cleaned", "--keep=1", "--apply=true") == 0
    assert began
    assert not any(began)
    assert len(holding(result)) < 4


def test_what_is_not_there_is_one_line(workplace: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["clean", "--study=nothing"]) == 2
    assert "there is no study named 'nothing'" in capsys.readouterr().err
    assert main(["clean"]) == 2
    assert "study: must be given" in capsys.readouterr().err
    assert not (workplace / "studies").exists()


class _Keeper(http.server.BaseHTTPRequestHandler):
    """An artifact server as MLflow speaks to one, which takes files and never gives one up."""

    files: dict[str, bytes] = {}  # noqa: RUF012  # of one server a test
    refusal = 405

    def do_PUT(self) -> None:
        self.files[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200, b"{}")

    def do_GET(self) -> None:
        path, asked, query = self.path.partition("?path=")
        if not asked:
            self._answer(200 if path in self.files else 404, self.files.get(path, b""))
            return
        folder = f"{path}/{query.replace('%2F', '/')}/"
        inside = {
            name.removeprefix(folder): part for name, part in self.files.items() if name.startswith(folder)
        }
        told = {name.partition("/")[0]: ("/" in name, len(part)) for name, part in inside.items()}
        listed = [
            {"path": name, "is_dir": is_dir, **({} if is_dir else {"file_size": size})}
            for name, (is_dir, size) in told.items()
        ]
        self._answer(200, json.dumps({"files": listed}).encode())

    def do_DELETE(self) -> None:
        self._answer(self.refusal, b"{}")

    def _answer(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(params=[405, 200], ids=["refuses", "says-that-it-has"])
def keeper(request: pytest.FixtureRequest) -> Iterator[str]:
    """The artifact root of a server that keeps everything."""
    handler = type("Handler", (_Keeper,), {"files": {}, "refusal": request.param})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/api/2.0/mlflow-artifacts/artifacts/root"
        server.shutdown()
        thread.join()


def test_a_store_that_cannot_delete_is_one_error_and_changes_nothing(
    workplace: Path, keeper: str, capsys: pytest.CaptureFixture
) -> None:
    MlflowClient().create_experiment("iris", artifact_location=keeper)
    result = tiny(trials=4)
    assert holding(result) == children(result).keys()
    capsys.readouterr()
    assert clean("--keep=1", "--apply=true") == 1
    err = capsys.readouterr().err
    assert "model.keras cannot be removed from http://127.0.0.1" in err
    assert len(err.splitlines()) == 1
    assert holding(result) == children(result).keys()
    assert all("pipeline.cleaned" not in run.data.tags for run in children(result).values())


@pytest.mark.slow
def test_a_server_of_mlflow_deletes_for_its_clients(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
        *("--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}"),
        *("--artifacts-destination", str(tmp_path / "kept"), "--workers", "1"),
    ]
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path, start_new_session=True)
    try:
        wait_for(f"{url}/health", server)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        result = tiny(trials=4)
        assert clean("--keep=1", "--apply=true") == 0
        stay = {ranked(result)[0], "0", *map(str, result.ensemble.weights)}
        assert holding(result) == stay
        on_disk = {file.parent.parent.name for file in (tmp_path / "kept").glob("*/*/artifacts/model.keras")}
        assert on_disk == {children(result)[label].info.run_id for label in stay}
    finally:
        # The server starts workers: the whole group ends.
        os.killpg(server.pid, 15)
        server.wait(30)


def test_an_ensemble_file_that_names_nothing_ends_it_before_anything_goes(
    workplace: Path, capsys: pytest.CaptureFixture
) -> None:
    result = tiny(trials=4)
    MlflowClient().log_text(result.run_id, "[]]", "ensemble.json")
    assert clean("--keep=1", "--apply=true") == RunError("").exit_code
    assert "ensemble.json of run" in capsys.readouterr().err
    assert len(holding(result)) == 4
