"""The record in a real MLflow store: parent, children, batches, models."""

import contextlib
import http.server
import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import keras
import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST

from pipeline import outages
from pipeline.datasets import bundled, splits
from pipeline.errors import RunError, UserError
from pipeline.forms import Arrays
from pipeline.secrets import redacted
from pipeline.tracking import connection, models, trials
from pipeline.tracking.apart import Process
from pipeline.tracking.connection import Client, connect
from pipeline.tracking.parent import Parent, ending, open_parent
from pipeline.tracking.recorder import FAILED, FINISHED, KILLED, MEMBER, TRIAL, Recorder
from pipeline.values import Data, Member, Progress


@pytest.fixture
def client(workplace: Path) -> MlflowClient:
    return connect()


@pytest.fixture
def parent(client: MlflowClient) -> Parent:
    return open_parent(client, "s", "iris", "")


@pytest.fixture(scope="module")
def data() -> Data:
    rng = np.random.default_rng(0)
    targets = np.repeat(np.arange(2), 20).astype(np.int32)
    parts = splits.three_ways(rng.normal(size=(40, 4)).astype(np.float32), targets)
    return splits.data("blobs", "made up", "ab", parts)


def children(parent: Parent) -> dict[str, mlflow.entities.Run]:
    """A study's child runs as the UI nests them, by their trial's number."""
    found = parent.client.search_runs(
        [parent.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.run_id}'"
    )
    return {run.data.tags[TRIAL]: run for run in found if TRIAL in run.data.tags}


def test_a_new_study_gets_a_run_in_the_task_s_experiment(client: MlflowClient) -> None:
    parent = open_parent(client, "my-study", "iris", "")
    run = client.get_run(parent.run_id)
    assert client.get_experiment(run.info.experiment_id).name == "iris"
    assert run.info.run_name == "my-study"
    assert run.info.status == "RUNNING"
    assert not parent.resumed


def test_the_run_of_mlflow_run_is_adopted_once(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    made = client.create_run("0", run_name="brave-fish-12")
    monkeypatch.setenv("MLFLOW_RUN_ID", made.info.run_id)
    parent = open_parent(client, "s", "iris", "")
    assert parent.run_id == made.info.run_id
    assert parent.experiment_id == "0"
    assert client.get_run(parent.run_id).info.run_name == "s"
    assert open_parent(client, "s2", "iris", "").run_id != made.info.run_id


def test_a_resumed_study_goes_on_in_its_parent_and_the_new_run_becomes_a_child(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_parent(client, "s", "iris", "")
    first.end("FINISHED")
    made = client.create_run("0")
    monkeypatch.setenv("MLFLOW_RUN_ID", made.info.run_id)
    again = open_parent(client, "s", "iris", first.run_id)
    assert again.run_id == first.run_id
    assert again.resumed
    assert client.get_run(first.run_id).info.status == "FINISHED"
    again.begin()
    assert client.get_run(first.run_id).info.status == "RUNNING"
    tags = client.get_run(made.info.run_id).data.tags
    assert tags["mlflow.parentRunId"] == first.run_id
    assert tags["pipeline.resumes"] == "s"
    assert not {"pipeline.study", "pipeline.trial"} & tags.keys()
    again.end("FAILED", "because")
    for run_id in (first.run_id, made.info.run_id):
        run = client.get_run(run_id)
        assert run.info.status == "FAILED"
        assert run.data.tags["pipeline.reason"] == "because"


def test_a_deleted_experiment_is_said(client: MlflowClient) -> None:
    first = open_parent(client, "s", "iris", "")
    client.delete_experiment(first.experiment_id)
    with pytest.raises(UserError, match=r"experiment 'iris' was deleted; .* restore -x 1"):
        open_parent(client, "s", "iris", "")


@pytest.mark.parametrize("apart", [False, True], ids=["by a thread", "by a process"])
def test_a_trial_is_a_nested_run_with_params_curves_and_files(
    parent: Parent, tmp_path: Path, *, apart: bool
) -> None:
    file = tmp_path / "model.keras"
    file.write_bytes(b"weights")
    with closing(Recorder(parent, folds=1, apart=Process() if apart else None)) as recorder:
        recorder.start(3, "trial-0003", {"dropout": 0.5, "max_norm": "none"}, {TRIAL: "3"})
        for epoch in range(5):
            metrics = {"loss": 1.0 / (epoch + 1), "val_loss": 2.0, "learning_rate": 0.1}
            recorder.epoch(Progress(3, 0, epoch, metrics, 2.0))
        recorder.end(3, FINISHED, metrics={"best_epoch": 4, "best_val_loss": 2.0}, files=(file,))
    (run,) = children(parent).values()
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "trial-0003"
    assert run.data.params == {"dropout": "0.5", "max_norm": "none"}
    assert run.data.metrics["best_epoch"] == 4
    history = parent.client.get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(e, 1.0 / (e + 1)) for e in range(5)]
    assert trials.curve(parent, TRIAL, 3, "loss") == [1.0 / (epoch + 1) for epoch in range(5)]
    assert not file.exists(), "files are moved, not copied"
    assert trials.fetch(parent, TRIAL, 3, "model.keras", tmp_path).read_bytes() == b"weights"


@pytest.mark.parametrize(("status", "apart"), [(KILLED, False), (FAILED, True)])
def test_a_trial_that_did_not_finish_has_its_reason(parent: Parent, status: str, *, apart: bool) -> None:
    with closing(Recorder(parent, folds=1, apart=Process() if apart else None)) as recorder:
        recorder.start(0, "t", {}, {TRIAL: "0"})
        recorder.end(0, status, reason="diverged: loss is nan", detail="Traceback …")
    run = children(parent)["0"]
    assert run.info.status == status
    assert run.data.tags["pipeline.reason"] == "diverged: loss is nan"
    assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/traceback.txt") == "Traceback …"


def test_a_long_curve_and_many_params_are_cut_into_requests(parent: Parent) -> None:
    with closing(Recorder(parent, folds=1)) as recorder:
        recorder.start(0, "t", {f"p{place}": place for place in range(250)}, {TRIAL: "0"})
        for epoch in range(1500):
            recorder.epoch(Progress(0, 0, epoch, {"loss": float(epoch), "val_loss": 0.0}, 0.0))
        recorder.end(0, FINISHED)
    assert len(children(parent)["0"].data.params) == 250
    assert trials.curve(parent, TRIAL, 0, "loss") == [float(epoch) for epoch in range(1500)]


def test_recording_takes_few_requests(parent: Parent, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[int] = []
    log_batch = parent.client._client.log_batch

    def counted(run_id: str, metrics: tuple = (), **more: object) -> None:
        requests.append(len(metrics))
        log_batch(run_id, metrics=metrics, **more)

    monkeypatch.setattr(parent.client._client, "log_batch", counted)
    with closing(Recorder(parent, folds=1)) as recorder:
        recorder.start(0, "t", {"a": 1}, {TRIAL: "0"})
        for epoch in range(400):
            recorder.epoch(Progress(0, 0, epoch, {"loss": 0.0, "val_loss": 0.0}, 0.0))
        recorder.end(0, FINISHED)
    assert sum(requests) == 800
    # Params, metrics; one more when the five seconds of a flush end just then.
    assert len(requests) <= 3


def test_folds_keep_their_curves_apart(parent: Parent) -> None:
    with closing(Recorder(parent, folds=2)) as recorder:
        recorder.start(0, "t", {}, {TRIAL: "0"})
        for fold in range(2):
            recorder.epoch(Progress(0, fold, 0, {"loss": float(fold)}, 0.0))
        recorder.end(0, FINISHED)
    assert children(parent)["0"].data.metrics == {"fold_0/loss": 0.0, "fold_1/loss": 1.0}


def test_a_store_that_fails_for_good_is_an_error_of_the_run(
    parent: Parent, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError("disk full\nmore")

    monkeypatch.setattr(parent.client._client, "create_run", broken)
    recorder = Recorder(parent, folds=1)
    recorder.start(0, "t", {}, {TRIAL: "0"})
    with pytest.raises(
        RunError, match=r"MLflow cannot be written any more \(MLflow: disk full\); .* same command again"
    ):
        recorder.close()


def test_a_store_that_fails_another_process_is_an_error_of_the_run(parent: Parent, workplace: Path) -> None:
    recorder = Recorder(parent, folds=1, apart=Process())
    recorder.start(0, "t", {}, {TRIAL: "0"})
    (workplace / "mlflow.db").write_bytes(b"no database " * 1000)

    def go_on() -> None:
        for epoch in range(100_000):
            recorder.epoch(Progress(0, 0, epoch, {"loss": 0.0}, 0.0))
            time.sleep(0.01)

    with pytest.raises(RunError, match=r"MLflow cannot be written any more \(.*database.*\); the study is"):
        go_on()
    with pytest.raises(RunError, match="MLflow cannot be written any more"):
        recorder.close()


def test_a_writer_that_is_killed_is_an_error_of_the_run(parent: Parent) -> None:
    recorder = Recorder(parent, folds=1, apart=Process())
    writer = recorder._writer._process
    # What a stop sends to every process of a search leaves this one writing.
    deadline = time.monotonic() + 60
    recorder.start(0, "t", {}, {TRIAL: "0"})
    while not children(parent):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    writer.send_signal(signal.SIGINT)
    writer.send_signal(signal.SIGTERM)
    recorder.end(0, FINISHED)
    while children(parent)["0"].info.status != "FINISHED":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    writer.kill()
    with pytest.raises(RunError, match=r"MLflow cannot be written any more \(the process .* exit code -9\)"):
        recorder.close()


def test_a_process_that_gets_nothing_to_write_ends_in_good_order() -> None:
    process = Process()
    process.close()
    process.close()
    assert process.failure == ""


def test_finished_children_are_counted_by_their_tag(parent: Parent) -> None:
    with closing(Recorder(parent, folds=1)) as recorder:
        for number, status in enumerate((FINISHED, KILLED, FINISHED)):
            recorder.start(number, "t", {}, {TRIAL: str(number)})
            recorder.end(number, status)
        recorder.start(7, "m", {}, {MEMBER: str(Member(7, 1))})
        recorder.end(7, FINISHED)
    assert trials.ended(parent, TRIAL) == {"0", "2"}
    assert trials.ended(parent, TRIAL, (KILLED,)) == {"1"}
    assert trials.ended(parent, TRIAL, (KILLED, FINISHED)) == {"0", "1", "2"}
    assert trials.ended(parent, MEMBER) == {"7-1"}


def test_a_resumed_parent_is_as_it_was_until_its_end_is_seen_to(client: MlflowClient) -> None:
    first = open_parent(client, "s", "iris", "")
    first.end("KILLED", "interrupted")
    again = open_parent(client, "s", "iris", first.run_id)

    def found() -> tuple[str, str | None]:
        run = client.get_run(first.run_id)
        return run.info.status, run.data.tags.get("pipeline.reason")

    assert found() == ("KILLED", "interrupted")
    with ending(again):
        assert found() == ("RUNNING", None)
    # Why it ended once is not why it ended now.
    assert found() == ("FINISHED", None)


def test_a_run_whose_process_was_killed_before_it_was_noted_is_taken_up(client: MlflowClient) -> None:
    lost = open_parent(client, "s", "iris", "", "key")
    other = open_parent(client, "s", "iris", "", "another key")
    found = open_parent(client, "s", "iris", "", "key")
    assert found.run_id == lost.run_id != other.run_id
    assert not found.resumed


@pytest.mark.parametrize("by", ["mlflow run", "another experiment"])
def test_a_run_that_cannot_be_taken_up_is_closed(
    by: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = open_parent(client, "s", "iris", "", "key")
    if by == "mlflow run":
        monkeypatch.setenv("MLFLOW_RUN_ID", client.create_run("0").info.run_id)
    else:
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "elsewhere")
    found = open_parent(client, "s", "iris", "", "key")
    assert found.run_id != lost.run_id
    assert client.get_run(found.run_id).info.status == "RUNNING"
    left = client.get_run(lost.run_id)
    assert (left.info.status, left.data.tags["pipeline.reason"]) == ("KILLED", "its process was gone")


class _Deaf(MlflowClient):
    """Loses the store's first answer to whatever makes something."""

    def __init__(self) -> None:
        super().__init__()
        self.lost: set[str] = set()

    def _answer(self, what: str, answer: object) -> object:
        if what not in self.lost:
            self.lost.add(what)
            raise ConnectionResetError("the answer was lost")
        return answer

    def create_experiment(self, *given: object, **more: object) -> object:
        return self._answer("experiment", super().create_experiment(*given, **more))

    def create_run(self, *given: object, **more: object) -> object:
        return self._answer("run", super().create_run(*given, **more))


def test_an_answer_that_was_lost_makes_no_second_run(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outages, "_PAUSE_SECONDS", 0.01)
    deaf = _Deaf()
    parent = open_parent(Client(deaf, patience=60.0), "s", "iris", "")
    assert deaf.lost == {"experiment", "run"}
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert [run.info.run_id for run in runs] == [parent.run_id]


class _Beaten(MlflowClient):
    """Another process writes the same first, so many times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.left = times

    def log_inputs(self, *given: object, **more: object) -> None:
        if self.left:
            self.left -= 1
            raise MlflowException(
                '(psycopg.errors.UniqueViolation) duplicate key value violates "dataset_pk"', BAD_REQUEST
            )
        super().log_inputs(*given, **more)


def test_data_that_another_process_names_at_the_same_time_are_recorded(client: MlflowClient) -> None:
    parent = open_parent(Client(_Beaten(3)), "s", "iris", "")
    parent.data(bundled.iris("full"))
    assert len(client.get_run(parent.run_id).inputs.dataset_inputs) == 3


def test_what_collides_for_ever_is_an_error(client: MlflowClient) -> None:
    parent = open_parent(Client(_Beaten(1000)), "s", "iris", "")
    with pytest.raises(RunError, match=r"MLflow: .*UniqueViolation"):
        parent.data(bundled.iris("full"))


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "FINISHED"), (KeyboardInterrupt(), "KILLED"), (RunError("no"), "FAILED")],
    ids=["finished", "interrupted", "failed"],
)
def test_a_parent_that_others_go_on_with_stays_running(
    error: BaseException | None, status: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_parent(client, "s", "iris", "")
    own = client.create_run(first.experiment_id).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", own)
    again = open_parent(client, "s", "iris", first.run_id)
    raised = pytest.raises(type(error)) if error else contextlib.nullcontext()
    with raised, ending(again, lambda: False):
        if error:
            raise error
    assert client.get_run(own).info.status == status
    left = client.get_run(first.run_id)
    assert left.info.status == "RUNNING"
    assert "pipeline.reason" not in left.data.tags


def test_a_file_that_is_gone_is_an_error_of_the_run(parent: Parent, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="trial 4: MLflow has no finished run of it"):
        trials.fetch(parent, TRIAL, 4, "model.keras", tmp_path)
    with closing(Recorder(parent, folds=1)) as recorder:
        recorder.start(4, "t", {}, {TRIAL: "4"})
        recorder.end(4, FINISHED)
    with pytest.raises(RunError, match=r"trial 4: its model\.keras cannot be read from MLflow"):
        trials.fetch(parent, TRIAL, 4, "model.keras", tmp_path)


def test_the_data_set_is_an_input_of_the_parent(parent: Parent, data: Data) -> None:
    parent.data(data)
    inputs = parent.client.get_run(parent.run_id).inputs.dataset_inputs
    contexts = {entry.tags[0].value: entry.dataset for entry in inputs}
    assert contexts.keys() == {"training", "validation", "testing"}
    assert contexts["training"].digest == data.digests["train"][:36]
    assert json.loads(contexts["testing"].profile)["num_rows"] == 8


def test_more_metrics_than_mlflow_takes_in_one_call_are_all_recorded(parent: Parent) -> None:
    metrics = {f"m{number}": number / 2 for number in range(1001)}
    parent.metrics(metrics)
    assert parent.client.get_run(parent.run_id).data.metrics == metrics


def test_a_logged_model_has_signature_example_and_pins_and_predicts(
    parent: Parent, data: Data, tmp_path: Path
) -> None:
    shape = data.train.one_input.shape[1:]
    layers = [keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(len(data.classes), "softmax")]
    model = keras.Sequential(layers)
    model.compile("sgd", "sparse_categorical_crossentropy")
    file = tmp_path / "any.keras"
    model.save(file)
    parent.metrics({"champion_test_accuracy": 0.9})
    servable = models.Servable(model, data, Arrays())
    model_id = models.log(parent, "champion", servable, file, tmp_path, {"task": "iris"})
    (logged,) = parent.client.search_logged_models([parent.experiment_id])
    assert (logged.model_id, logged.name, logged.source_run_id) == (model_id, "champion", parent.run_id)
    assert logged.status == "READY"
    assert [metric.key for metric in logged.metrics] == ["champion_test_accuracy"]
    info = mlflow.models.get_model_info(f"models:/{model_id}")
    assert info.metadata == {"task": "iris"}
    assert info.signature.inputs.inputs[0].shape == (-1, *shape)
    named = [f"probability_{name}" for name in data.classes]
    assert info.signature.outputs.input_names() == ["class", *named]
    pins = Path(mlflow.pyfunc.get_model_dependencies(f"models:/{model_id}")).read_text().splitlines()
    assert {f"keras=={keras.__version__}", f"mlflow=={mlflow.__version__}"} <= set(pins)
    assert not any("regatta" in pin or "optuna" in pin for pin in pins)
    loaded = mlflow.pyfunc.load_model(f"models:/{model_id}")
    example = loaded.input_example
    expected = model.predict(example, verbose=0)
    np.testing.assert_allclose(loaded.predict(example)[named], expected, rtol=1e-6)


@pytest.fixture
def refusing_server() -> Iterator[str]:
    class Refuses(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(500)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Refuses) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://user:secret@127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_server_that_answers_with_errors_is_said_without_its_password(
    workplace: Path, refusing_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", refusing_server)
    with pytest.raises(UserError, match=r"MLFLOW_TRACKING_URI http://user:\*\*\*@127.0.0.1") as error:
        connect()
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1:1", "nosuchscheme://x", "postgresql://u:secret@127.0.0.1:1/db"]
)
def test_a_store_that_does_not_answer_is_said_quickly(
    workplace: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI") as error:
        connect()
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)


def test_patience_comes_back_after_the_probe(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "5")
    connect()
    assert connection.os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "5"
    assert connection.os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "30"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
        ("https://host/path", "https://host/path"),
        ("https://me:pw@host:5000/path?token=x", "https://me:***@host:5000/path?token=***"),
        ("postgresql://me:p@ss@host/db", "postgresql://me:***@host/db"),
        ("http://[bad:pw@host", "http://[bad:***@host"),
    ],
)
def test_uris_are_shown_without_secrets(uri: str, shown: str) -> None:
    assert redacted(uri) == shown
