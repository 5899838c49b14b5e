"""What a trial keeps besides its model: Keras's callbacks are the oracle, and training does not notice."""

import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import keras
import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin
from tensorboard.util import tensor_util
from werkzeug.test import Client
from werkzeug.wrappers import Request

from pipeline import search
from pipeline.datasets import splits
from pipeline.engines import callbacks
from pipeline.engines.callbacks import Activations, activations, first_row, save_activations
from pipeline.engines.engine import Event
from pipeline.engines.fit import FitEngine
from pipeline.errors import UserError
from pipeline.options import CALLBACKS, values
from pipeline.tasks import iris
from pipeline.tracking.apart import Process
from pipeline.tracking.connection import connect
from pipeline.tracking.curves import CurveFiles, Point
from pipeline.tracking.parent import Parent, open_parent
from pipeline.tracking.recorder import FAILED, KILLED, TRIAL, Recorder
from pipeline.values import Budget, Candidate, Data, Objective, Progress, Settings

EVERYTHING = ("tensorboard", "checkpoint", "activations")
# The graph has an event file of its own.
FROM_KERAS = ["tensorboard/train/events", "tensorboard/train/events", "tensorboard/validation/events"]
OBJECTIVE = Objective("val_loss", "minimize")
SETTINGS = {"learning_rate": 0.05, "batch_size": 16, "shuffle": True, "dropout": 0.3}
# A plateau after each epoch: the rate that belongs to an epoch is not the one after it.
BUDGET = Budget(4, "val_loss", "min", 10, 0.0, 0.5, 1, 10.0, 0, 0.0)


def build(settings: Settings, data: Data) -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input(data.train.inputs.shape[1:]),
            keras.layers.Dense(6, activation="relu", name="hidden"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dropout(settings["dropout"], name="dropout"),
            keras.layers.Dense(3, activation="softmax", name="answer"),
        ]
    )
    model.compile(
        keras.optimizers.Adam(settings["learning_rate"]),
        "sparse_categorical_crossentropy",
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
    return model


@pytest.fixture(scope="module")
def kept(data: Data, tmp_path_factory: pytest.TempPathFactory) -> list[Event]:
    """All events of a trial that keeps everything."""
    return train(data, tmp_path_factory.mktemp("kept"), EVERYTHING)


@pytest.fixture(scope="module")
def data() -> Data:
    rng = np.random.default_rng(0)
    targets = np.repeat(np.arange(3), 30).astype(np.int32)
    inputs = (rng.normal(size=(90, 4)) + targets[:, None]).astype(np.float32)
    return splits.data("blobs", "made up", "abc", splits.three_ways(inputs, targets))


def train(
    data: Data | Sequence[Data], folder: Path, keeps: Sequence[str] = (), build=build, **settings: object
) -> list[Event]:
    """All events of a trial, the last one its outcome."""
    folds = [data] if isinstance(data, Data) else data
    folder.mkdir(exist_ok=True)
    events: list[Event] = []
    with closing(FitEngine(build, folds, BUDGET, OBJECTIVE, folder, keeps=keeps)) as engine:
        engine.add(Candidate(0, 7, {**SETTINGS, **settings}))
        while not engine.free():
            events += engine.step()
    return events


def curve(events: Sequence[Event]) -> list[Point]:
    """As the record gets it."""
    told = [event for event in events if isinstance(event, Progress)]
    return [Point(event.epoch, event.steps, 1000.0 + event.epoch, event.metrics) for event in told]


def names(folder: Path) -> list[str]:
    """Every file in a folder, event files and weights without their numbers."""
    found = [file.relative_to(folder) for file in folder.rglob("*") if file.is_file()]
    return sorted(str(file.parent / file.name.split(".out.")[0]) for file in found)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """By tag, (step, value) of an event folder's scalars."""
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    return {
        tag: [(one.step, float(tensor_util.make_ndarray(one.tensor_proto))) for one in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
        if events.SummaryMetadata(tag).plugin_data.plugin_name == "scalars"
    }


# The parameter


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", None),
        ("csv", ("csv",)),
        ("tensorboard,csv", ("csv", "tensorboard")),
        (" activations , checkpoint,checkpoint", ("checkpoint", "activations")),
        (",".join(CALLBACKS), CALLBACKS),
    ],
)
def test_callbacks_are_names_with_commas_between(text: str, found: tuple[str, ...] | None) -> None:
    assert values("search", {"callbacks": text})["callbacks"] == found


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("foo", ""),
        ("csv,tensorbord", " (did you mean tensorboard?)"),
        ("csv,", ""),
        ("csv;checkpoint", " (did you mean checkpoint?)"),
    ],
)
def test_any_other_name_is_one_clear_error(text: str, hint: str) -> None:
    with pytest.raises(UserError) as error:
        values("search", {"callbacks": text})
    rule = f"must be some of csv, tensorboard, checkpoint, activations, with commas between{hint}"
    assert str(error.value) == f"callbacks: {rule}, but is {text!r}"


# Curves as files


def test_the_log_is_that_of_keras_byte_by_byte(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    logs = [
        dict(zip(["val_loss", "loss", "accuracy"], map(float, rng.random(3)), strict=True)) for _ in "abc"
    ]
    logs[1]["loss"] = 1e-17
    oracle = keras.callbacks.CSVLogger(tmp_path / "keras.csv")
    oracle.on_train_begin()
    for epoch, one in enumerate(logs):
        oracle.on_epoch_end(epoch, one)
    oracle.on_train_end()
    points = [Point(epoch, 0, 0.0, one) for epoch, one in enumerate(logs)]
    CurveFiles(csv=True, events=False).write(points, tmp_path)
    assert (tmp_path / "log.csv").read_bytes() == (tmp_path / "keras.csv").read_bytes()
    assert names(tmp_path) == ["keras.csv", "log.csv"]


def test_scalars_are_those_of_keras_by_tag_step_folder_and_value(kept: list[Event], tmp_path: Path) -> None:
    *events, outcome = kept
    theirs = outcome.folder / "tensorboard"
    CurveFiles(csv=False, events=True).write(curve(events), tmp_path / "ours")
    ours = tmp_path / "ours" / "tensorboard"
    assert sorted(folder.name for folder in ours.iterdir()) == ["train", "validation"]
    for part in ("train", "validation"):
        assert scalars(ours / part) == scalars(theirs / part)
    assert scalars(ours / "train").keys() == {"epoch_accuracy", "epoch_loss", "epoch_learning_rate"}
    rates = [value for _, value in scalars(ours / "train")["epoch_learning_rate"]]
    np.testing.assert_allclose(rates, [0.05, 0.05, 0.025, 0.0125], rtol=1e-6)
    # 54 rows by 16: four steps an epoch.
    steps = [step for step, _ in scalars(ours / "validation")["evaluation_loss_vs_iterations"]]
    assert steps == [4, 8, 12, 16]


def test_a_metric_that_keras_does_not_know_is_in_no_evaluation_of_its(tmp_path: Path) -> None:
    metrics = {"loss": 1.0, "mean": 0.5, "val_loss": 2.0, "val_mean": 0.25}
    CurveFiles(csv=False, events=True, own=("mean",)).write([Point(0, 3, 0.0, metrics)], tmp_path)
    assert scalars(tmp_path / "tensorboard" / "train") == {"epoch_loss": [(0, 1.0)], "epoch_mean": [(0, 0.5)]}
    assert scalars(tmp_path / "tensorboard" / "validation") == {
        "evaluation_loss_vs_iterations": [(3, 2.0)],
        "epoch_loss": [(0, 2.0)],
        "epoch_mean": [(0, 0.25)],
    }


def test_event_files_are_written_without_tensorflow_and_keras(tmp_path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from pipeline.tracking.curves import CurveFiles, Point
CurveFiles(True, True).write([Point(0, 1, 0.0, {{"loss": 1.0, "val_loss": 1.0}})], Path({str(tmp_path)!r}))
print(sorted({{"tensorflow", "keras", "jax"}} & sys.modules.keys()))
"""
    said = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], check=True, timeout=60, capture_output=True, text=True
    )
    assert said.stdout == "[]\n"
    assert names(tmp_path) == ["log.csv", "tensorboard/train/events", "tensorboard/validation/events"]


# By fit


def test_a_trial_keeps_everything_and_its_training_does_not_notice(
    data: Data, kept: list[Event], tmp_path: Path
) -> None:
    *plain, without = train(data, tmp_path)
    *events, outcome = kept
    assert [event.metrics for event in events] == [event.metrics for event in plain]
    assert without.folder is None
    assert names(outcome.folder) == [
        "activations.npz",
        "checkpoint.keras",
        *FROM_KERAS,
    ]
    assert without.predictions_file.read_bytes() == outcome.predictions_file.read_bytes()


def test_event_files_have_histograms_of_each_epoch_and_the_graph(kept: list[Event]) -> None:
    events = EventAccumulator(str(kept[-1].folder / "tensorboard" / "train"), {"tensors": 0}).Reload()
    plugins = {tag: events.SummaryMetadata(tag).plugin_data.plugin_name for tag in events.Tags()["tensors"]}
    assert [tag for tag, plugin in plugins.items() if plugin == "graph_keras_model"] == ["keras"]
    # TensorFlow's own, which TensorBoard opens first.
    assert any(node.name.startswith("sequential") for node in events.Graph().ListFields()[0][1])
    histograms = [tag for tag, plugin in plugins.items() if plugin == "histograms"]
    assert [tag for tag in histograms if "hidden/kernel" in tag] == ["sequential/hidden/kernel/histogram"]
    for tag in histograms:
        assert [one.step for one in events.Tensors(tag)] == [0, 1, 2, 3]


def test_the_checkpoint_is_the_best_epoch_by_the_monitor(data: Data, kept: list[Event]) -> None:
    outcome = kept[-1]
    checkpoint = keras.models.load_model(outcome.folder / "checkpoint.keras")
    loss = checkpoint.evaluate(data.validation.inputs, data.validation.targets, batch_size=128, verbose=0)[0]
    assert loss == pytest.approx(outcome.value, rel=1e-6)
    # Its optimiser is that epoch's, too.
    assert int(checkpoint.optimizer.iterations) == 4 * (outcome.best_epoch + 1)


def test_activations_are_of_each_epoch_the_first_validation_row_s(data: Data, kept: list[Event]) -> None:
    outcome = kept[-1]
    model = keras.models.load_model(outcome.model_file)
    with np.load(outcome.folder / "activations.npz") as found:
        assert found["epochs"].tolist() == [0, 1, 2, 3]
        assert found["left_out"].tolist() == []
        layers = {name: found[name] for name in found.files if name.startswith("layer/")}
    assert {name: array.shape for name, array in layers.items()} == {
        "layer/hidden": (4, 6),
        "layer/norm": (4, 6),
        "layer/dropout": (4, 6),
        "layer/answer": (4, 3),
    }
    best = model.predict(data.validation.inputs[:1], verbose=0)[0]
    np.testing.assert_allclose(layers["layer/answer"][outcome.best_epoch], best, rtol=1e-5)
    np.testing.assert_array_equal(layers["layer/norm"], layers["layer/dropout"])
    assert not np.array_equal(layers["layer/answer"][0], layers["layer/answer"][3])


def test_each_fold_has_event_files_of_its_own(data: Data, tmp_path: Path) -> None:
    outcome = train(splits.folds(data, 2), tmp_path, ["tensorboard"])[-1]
    assert {name.split("/")[0] for name in names(outcome.folder)} == {"fold_0", "fold_1"}
    for fold in ("fold_0", "fold_1"):
        tags = scalars(outcome.folder / fold / "tensorboard" / "train")
        assert [step for step, _ in tags["epoch_loss"]] == [0, 1, 2, 3]


def test_a_trial_that_diverges_keeps_what_led_to_it(data: Data, tmp_path: Path) -> None:
    outcome = train(data, tmp_path, EVERYTHING, learning_rate=1e30)[-1]
    assert outcome.failure.startswith("diverged: ")
    assert "tensorboard/train/events" in names(outcome.folder)


def test_a_trial_that_is_dropped_or_raises_leaves_nothing_behind(data: Data, tmp_path: Path) -> None:
    def unsaved(settings: Settings, data: Data) -> keras.Model:
        model = build(settings, data)
        if settings["learning_rate"] == 1.0:
            model.save = refuse
        return model

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "no space left")

    with closing(FitEngine(unsaved, [data], BUDGET, OBJECTIVE, tmp_path, keeps=EVERYTHING)) as engine:
        engine.add(Candidate(0, 0, SETTINGS))
        engine.step()
        assert names(tmp_path)
        engine.drop(0)
        assert not names(tmp_path)
        engine.add(Candidate(1, 0, {**SETTINGS, "learning_rate": 1.0}))
        events = [event for _ in range(5) for event in engine.step()]
    assert events[-1].failure.startswith("OSError: ")
    assert events[-1].folder is None
    assert not names(tmp_path)


def test_the_projector_finds_the_vectors_of_embeddings(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    targets = np.repeat(np.arange(2), 20).astype(np.int32)
    words = rng.integers(0, 12, (40, 5)).astype(np.int32)
    data = splits.data("words", "made up", "ab", splits.three_ways(words, targets))

    def reader(settings: Settings, data: Data) -> keras.Model:
        layers = [keras.layers.Embedding(12, 3, name="words"), keras.layers.Flatten(), keras.layers.Dense(2)]
        model = keras.Sequential([keras.Input((5,), dtype="int32"), *layers])
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    outcome = train(data, tmp_path, ["tensorboard"], reader)[-1]
    board = outcome.folder / "tensorboard"
    vectors = keras.models.load_model(outcome.model_file).get_layer("words").get_weights()[0]
    # Whether TensorBoard is shown this trial or, as a person who compares, the folder of many.
    for logdir, run in ((board, "train"), (tmp_path, str(board.relative_to(tmp_path) / "train"))):
        asked = projector(logdir)
        assert asked.get("/runs").get_json() == [run]
        place = {"run": run, "name": "words"}
        (told,) = asked.get("/info", query_string=place).get_json()["embeddings"]
        assert (told["tensorName"], told["tensorShape"]) == ("words", [12, 3])
        found = np.frombuffer(asked.get("/tensor", query_string=place).get_data(), np.float32)
        np.testing.assert_allclose(found.reshape(12, 3), vectors, rtol=1e-5)
    # Keras would keep the whole model's weights after each epoch, which nothing reads.
    assert not list(board.rglob("*.h5"))


def projector(logdir: Path) -> Client:
    """TensorBoard's own projector, asked as a browser asks it."""
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(logdir))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(logdir))
    plugin = ProjectorPlugin(TBContext(logdir=str(logdir), data_provider=provider))
    pages = plugin.get_plugin_apps()

    @Request.application
    def serve(request: Request) -> object:
        return pages[request.path]

    return Client(serve)


# Activations


def test_a_layer_s_later_calls_and_answers_are_kept_by_number() -> None:
    shared = keras.layers.LSTM(2, return_state=True, name="reader")
    one, other = keras.Input((3, 1), name="one"), keras.Input((3, 1), name="other")
    model = keras.Model(
        [one, other], keras.layers.Concatenate(name="both")([shared(one)[0], shared(other)[0]])
    )
    inputs = {"one": np.ones((1, 3, 1), np.float32), "other": np.zeros((1, 3, 1), np.float32)}
    found = activations(model, inputs).outputs
    assert list(found) == ["reader", *(f"reader:{number}" for number in range(1, 6)), "both"]
    np.testing.assert_array_equal(found["both"], [*found["reader"], *found["reader:3"]])
    assert not any("call" in vars(layer) for layer in model.layers)


def test_any_kind_of_model_is_read_and_large_outputs_are_left_out_and_named() -> None:
    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.wide = keras.layers.Dense(10_001, name="wide")
            self.narrow = keras.layers.Dense(2, name="narrow")

        def call(self, inputs):
            return self.narrow(self.wide(inputs))

    model, row = Own(), np.ones((1, 3), np.float32)
    model(row)
    found = activations(model, row)
    assert list(found.outputs) == ["narrow"]
    assert found.left_out == ("wide (10001,)",)


def test_a_layer_may_have_any_name(tmp_path: Path) -> None:
    named = {name: np.ones(1, np.float32) for name in ("epochs", "file", "left_out", "a:1")}
    save_activations({3: Activations(named, ("wide (7,)",))}, tmp_path / "new")
    with np.load(tmp_path / "new" / "activations.npz") as found:
        assert found["epochs"].tolist() == [3]
        assert found["left_out"].tolist() == ["wide (7,)"]
        assert {f"layer/{name}" for name in named} == {*found.files} - {"epochs", "left_out"}


def test_half_precision_is_read_by_every_numpy(data: Data) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, dtype="mixed_bfloat16", name="half")])
    found = activations(model, first_row(data.validation, model)).outputs
    assert found["half"].dtype == np.float32


def test_of_a_long_training_fewer_epochs_are_kept_and_always_the_best(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 21 numbers an epoch: two epochs.
    monkeypatch.setattr(callbacks, "_MOST_OF_A_TRIAL", 50)
    outcome = train(data, tmp_path, ["activations"])[-1]
    with np.load(outcome.folder / "activations.npz") as found:
        assert found["epochs"].tolist() == sorted({0, 2, outcome.best_epoch})
        best = found["layer/answer"][found["epochs"].tolist().index(outcome.best_epoch)]
    answers = keras.models.load_model(outcome.model_file).predict(data.validation.inputs[:1], verbose=0)
    np.testing.assert_allclose(best, answers[0], rtol=1e-5)


# In the record


@pytest.fixture
def parent(workplace: Path) -> Parent:
    return open_parent(connect(), "s", "iris", "")


@pytest.mark.parametrize("apart", [False, True], ids=["by a thread", "by a process"])
def test_a_trial_that_does_not_finish_has_its_curves_too(
    parent: Parent, tmp_path: Path, *, apart: bool
) -> None:
    folder = tmp_path / "kept"
    (folder / "tensorboard").mkdir(parents=True)
    (folder / "tensorboard" / "keras.txt").write_text("the engine's own")
    files = CurveFiles(csv=True, events=True)
    with closing(Recorder(parent, 1, Process() if apart else None, files)) as recorder:
        for number in range(3):
            recorder.start(number, "t", {}, {TRIAL: str(number)})
        for number in range(2):
            recorder.epoch(Progress(number, 0, 0, {"loss": 0.5, "val_loss": 1.0}, 1.0, 3))
        recorder.end(0, KILLED, reason="pruned")
        recorder.end(1, FAILED, reason="diverged", folder=folder)
        recorder.end(2, FAILED, reason="no epoch")
    assert not folder.exists(), "its content is moved, not copied"
    found = {number: artifacts(run) for number, run in children(parent.run_id).items()}
    assert found["0"] == ["log.csv", "tensorboard/train/events", "tensorboard/validation/events"]
    assert found["1"] == ["log.csv", "tensorboard/keras.txt"]
    assert found["2"] == []


def children(parent: str) -> dict[str, Run]:
    """A parent's child runs by their tag's kind and number."""
    found = {}
    for experiment in MlflowClient().search_experiments():
        for run in MlflowClient().search_runs(
            [experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'"
        ):
            tags = run.data.tags
            found[tags.get(TRIAL) or f"member {tags['pipeline.member']}"] = run
    return found


def artifacts(run: Run) -> list[str]:
    return names(Path(run.info.artifact_uri.removeprefix("file://")))


MODEL = ["model.keras", "validation_predictions.npy"]


@pytest.fixture
def _small_iris(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iris, "_WIDTHS", (8,))


@pytest.mark.usefixtures("_small_iris")
def test_a_search_keeps_nothing_more_unless_it_is_asked(workplace: Path) -> None:
    result = search(task="iris", trials=1, epochs=2, engine="fit", export="none")
    assert [artifacts(run) for run in children(result.run_id).values()] == [MODEL]


@pytest.mark.usefixtures("_small_iris")
def test_a_search_keeps_what_it_is_asked_for(workplace: Path, capsys: pytest.CaptureFixture) -> None:
    result = search(
        task="iris", trials=2, epochs=2, engine="fit", export="none", callbacks=",".join(CALLBACKS)
    )
    trials = children(result.run_id)
    assert len(trials) == 2
    for run in trials.values():
        assert artifacts(run) == sorted(
            [*MODEL, "log.csv", *FROM_KERAS, "activations.npz", "checkpoint.keras"]
        )
        text = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/log.csv")
        header, *rows = [line.split(",") for line in text.splitlines()]
        assert [row[0] for row in rows] == ["0", "1"]
        history = MlflowClient().get_metric_history(run.info.run_id, "val_log_loss")
        assert [float(row[header.index("val_log_loss")]) for row in rows] == [one.value for one in history]
        assert header[1:] == sorted(header[1:])
        assert {"loss", "val_loss", "learning_rate", "accuracy", "val_accuracy"} < {*header}
    assert "callbacks:" not in capsys.readouterr().out


@pytest.mark.usefixtures("_small_iris")
def test_with_folds_the_members_alone_have_what_is_of_models(
    workplace: Path, capsys: pytest.CaptureFixture
) -> None:
    result = search(
        task="iris",
        trials=1,
        epochs=2,
        members=1,
        folds=2,
        engine="fit",
        export="none",
        callbacks=",".join(CALLBACKS),
    )
    found = {name: artifacts(run) for name, run in children(result.run_id).items()}
    assert found["0"] == sorted(
        f"fold_{fold}/{name}" for fold in range(2) for name in ["log.csv", *FROM_KERAS]
    )
    assert found["member 0"] == sorted(
        [*MODEL, "log.csv", *FROM_KERAS, "activations.npz", "checkpoint.keras"]
    )
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("callbacks:")]
    assert notes == ["callbacks: checkpoint, activations: not of trials, as with folds they keep no models"]
