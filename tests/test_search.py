"""The main job in process, on real data and real stores: search, go on, fail, stop, choose again."""

import io
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import keras
import mlflow
import numpy as np
import optuna
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from benchmarks.faults import servers
from pipeline import presence, search, storage
from pipeline.__main__ import main
from pipeline.closing import Closing, Wish
from pipeline.datasets import bundled
from pipeline.errors import RunError, UserError
from pipeline.result import Result
from pipeline.tasks import iris
from pipeline.tracking import outbox
from pipeline.values import SealedSplit


@pytest.fixture(autouse=True)
def _one_hidden_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFlow takes seconds to compile each layer of each trial; what is tested here needs only one."""
    monkeypatch.setattr(iris, "_WIDTHS", (8,))


def runs() -> dict[str, list[Run]]:
    """All runs of the store: the parents by themselves under "", trials by their parent's id."""
    client = MlflowClient()
    found: dict[str, list[Run]] = {}
    for experiment in client.search_experiments():
        for run in client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"]):
            found.setdefault(run.data.tags.get("mlflow.parentRunId", ""), []).append(run)
    return found


def tiny(**parameters: object) -> Result:
    """A search of iris that takes seconds."""
    result = search(
        **{"task": "iris", "trials": 2, "epochs": 2, "members": 2, "export": "none", **parameters}
    )
    assert isinstance(result, Result)
    return result


def test_a_search_leaves_what_the_design_promises(workplace: Path, capsys: pytest.CaptureFixture) -> None:
    result = tiny(trials=3)
    out = capsys.readouterr().out
    assert "3/3 trials" in out
    assert "\r" not in out
    assert [line.split()[0] for line in out.splitlines() if "[" in line] == [
        "baseline",
        "champion",
        "ensemble",
    ]
    (parent,) = runs()[""]
    trials = runs()[parent.info.run_id]
    assert parent.info.run_id == result.run_id
    assert parent.info.status == "FINISHED"
    assert MlflowClient().get_experiment(parent.info.experiment_id).name == "iris"

    tags = parent.data.tags
    assert (tags["pipeline.study"], tags["pipeline.task"], tags["pipeline.engine"]) == ("iris", "iris", "fit")
    assert "multivariate, constant liar" in tags["pipeline.sampler"]
    assert tags["version.keras"] == keras.__version__
    in_git = (Path(iris.__file__).parent.parent.parent / ".git").exists()
    assert len(tags.get("mlflow.source.git.commit", "")) == (40 if in_git else 0)
    metrics = parent.data.metrics
    assert (metrics["trials_completed"], metrics["trials_pruned"], metrics["trials_failed"]) == (3, 0, 0)
    assert metrics["trials_per_hour"] > 0
    for model in ("baseline", "champion", "ensemble"):
        for metric in ("accuracy", "log_loss"):
            name = f"{model}_test_{metric}"
            assert metrics[f"{name}_low"] <= metrics[name] <= metrics[f"{name}_high"]
            assert metrics[name] == result.scores[model][metric].value
    assert metrics["ensemble_test_roc_auc_low"] <= metrics["ensemble_test_roc_auc"]
    assert metrics["champion_test_recall_setosa"] <= 1
    for pair in ("ensemble_minus_champion", "champion_minus_baseline"):
        ours, theirs = pair.split("_minus_")
        assert metrics[f"{pair}_test_log_loss"] == pytest.approx(
            metrics[f"{ours}_test_log_loss"] - metrics[f"{theirs}_test_log_loss"], abs=1e-15
        )
    assert {entry.tags[0].value for entry in parent.inputs.dataset_inputs} == {
        "training",
        "validation",
        "testing",
    }

    assert sorted(run.data.tags["pipeline.trial"] for run in trials) == ["0", "1", "2"]
    for run in trials:
        assert run.info.status == "FINISHED"
        last = run.data.metrics
        for name in ("loss", "val_loss", "accuracy", "val_accuracy", "learning_rate", "best_epoch"):
            assert name in last
        assert last["best_val_log_loss"] == pytest.approx(
            min(point.value for point in MlflowClient().get_metric_history(run.info.run_id, "val_log_loss")),
            abs=1e-7,
        )
    searched = {"learning_rate", "batch_size", "dropout", "bn_momentum", "bn_epsilon", "l1", "l2", "max_norm"}
    by_trial = {run.data.tags["pipeline.trial"]: run for run in trials}
    assert by_trial["1"].data.params.keys() == searched
    assert by_trial["0"].data.params["batch_normalization"] == "False"

    artifacts = {file.path for file in MlflowClient().list_artifacts(result.run_id)}
    assert {
        "report.html",
        "plots",
        "models",
        "champion.json",
        "ensemble.json",
        "champion_summary.txt",
        "versions.json",
        "evaluation",
    } <= artifacts
    inside = {
        file.path
        for folder in ("evaluation", "plots")
        for file in MlflowClient().list_artifacts(result.run_id, folder)
    }
    assert {
        *(f"evaluation/{name}.csv" for name in ("scores", "differences", "per_class", "calibration")),
        *(f"plots/{name}.png" for name in ("differences", "confusion_matrix", "calibration", "history")),
    } <= inside
    page = mlflow.artifacts.load_text(f"{parent.info.artifact_uri}/report.html")
    assert "Confusion matrix of the ensemble" in page
    assert "<h2>The champion&#39;s layers</h2>" in page
    # Drawn, where there is Graphviz; in words, where there is none.
    assert ("plots/champion_diagram.png" in inside) == bool(shutil.which("dot"))
    assert ("<pre>Model: " in page) != bool(shutil.which("dot"))
    space = mlflow.artifacts.load_text(f"{parent.info.artifact_uri}/search_space/iris.toml")
    assert space == (Path(iris.__file__).parent.parent.parent / "search_spaces/iris.toml").read_text()
    names = sorted(model.name for model in MlflowClient().search_logged_models([parent.info.experiment_id]))
    assert names == ["champion", "ensemble"]
    assert sorted(file.name for file in (workplace / "studies" / "iris").iterdir()) == ["journal.log", "lock"]


def test_the_test_rows_are_opened_once_and_after_the_last_choice(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def noting(owner: type, name: str) -> None:
        real = getattr(owner, name)

        def noted(self: Any, *given: Any, **named: Any) -> Any:
            found = real(self, *given, **named)
            told.append(name)
            return found

        monkeypatch.setattr(owner, name, noted)

    noting(Closing, "_select")
    noting(Closing, "_models")
    noting(SealedSplit, "unseal")
    tiny(trials=1, epochs=1, register="flowers")
    assert told == ["_select", "_models", "unseal"]


def test_models_load_and_predict_what_was_scored(workplace: Path) -> None:
    result = tiny()
    test = bundled.iris("full").test.unseal()
    for name in ("champion", "ensemble"):
        file = MlflowClient().download_artifacts(result.run_id, f"models/{name}.keras")
        predictions = keras.models.load_model(file).predict(test.inputs, verbose=0)
        accuracy = float(np.mean(predictions.argmax(axis=1) == test.labels))
        assert accuracy == result.scores[name]["accuracy"].value
    (champion,) = MlflowClient().search_logged_models(["1"], "name = 'champion'")
    loaded = mlflow.pyfunc.load_model(f"models:/{champion.model_id}")
    answers = loaded.predict(pd.DataFrame(test.inputs, columns=bundled.iris_columns().names, dtype=float))
    accuracy = float(
        np.mean(answers["class"] == np.array(["setosa", "versicolor", "virginica"])[test.labels])
    )
    assert accuracy == result.scores["champion"]["accuracy"].value
    weights = json.loads(mlflow.artifacts.load_text(f"runs:/{result.run_id}/ensemble.json"))
    assert sum(weights.values()) == pytest.approx(1.0)


def test_more_trials_go_on_in_the_same_parent(workplace: Path) -> None:
    first = tiny(trials=2)
    again = tiny(trials=4)
    assert again.run_id == first.run_id
    assert len(runs()[""]) == 1
    assert sorted(int(run.data.tags["pipeline.trial"]) for run in runs()[first.run_id]) == [0, 1, 2, 3]
    assert MlflowClient().get_run(first.run_id).data.metrics["trials_completed"] == 4


def test_a_complete_study_trains_nothing_and_says_how_to_go_on(
    workplace: Path, capsys: pytest.CaptureFixture
) -> None:
    tiny()
    capsys.readouterr()
    assert search(task="iris", trials=2, epochs=2, members=2, export="none") is None
    out = capsys.readouterr().out
    assert "study iris is complete: 2 trials completed" in out
    assert "trials=" in out
    assert "study=" in out
    assert len(runs()[runs()[""][0].info.run_id]) == 2


def test_another_space_is_refused_with_what_differs(workplace: Path) -> None:
    tiny()
    with pytest.raises(UserError, match=r"\[budget\] epochs: was 2, now 3"):
        tiny(epochs=3)


def test_the_same_seed_finds_the_same(workplace: Path) -> None:
    first, again, other = (tiny(study=f"s{seed}{turn}", seed=seed) for seed, turn in ((1, 0), (1, 1), (2, 0)))
    assert first.champion.settings == again.champion.settings
    assert first.champion.value == pytest.approx(again.champion.value, rel=1e-3)
    assert other.champion.value != pytest.approx(first.champion.value, rel=1e-3)


def test_a_diverging_trial_is_recorded_and_the_study_goes_on(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    space = Path(iris.__file__).parent.parent.parent / "search_spaces" / "iris.toml"
    wild = space.read_text().replace(
        "learning_rate = { low = 3e-4, high = 3e-2, log = true }", "learning_rate = 1e38"
    )
    assert "1e38" in wild
    (workplace / "wild.toml").write_text(wild)
    result = tiny(space="wild.toml", trials=3)
    # Only the baseline, with its own learning rate, survives.
    assert result.champion.number == 0
    parent = MlflowClient().get_run(result.run_id)
    assert parent.data.metrics["trials_failed"] == 2
    failed = [run for run in runs()[result.run_id] if run.info.status == "FAILED"]
    assert len(failed) == 2
    assert all(run.data.tags["pipeline.reason"].startswith("diverged: ") for run in failed)
    assert "trial 1 failed: diverged: " in capsys.readouterr().out


def test_no_completed_trial_is_an_error_with_the_reasons(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*_: object) -> keras.Model:
        raise LookupError("no such layer")

    monkeypatch.setattr(iris, "TASK", iris.TASK.__class__(**{**vars(iris.TASK), "build": build}))
    with pytest.raises(RunError, match="no trial completed: LookupError: no such layer"):
        search(task="iris", trials=2, epochs=1)
    (parent,) = runs()[""]
    assert parent.info.status == "FAILED"
    assert "LookupError" in parent.data.tags["pipeline.reason"]


def test_the_time_ends_a_search_in_good_order(workplace: Path, capsys: pytest.CaptureFixture) -> None:
    # Far too short for a hundred trials, long enough for the first ones.
    result = tiny(trials=100, timeout=12)
    assert "the time is over with" in capsys.readouterr().out
    trials = runs()[result.run_id]
    assert MlflowClient().get_run(result.run_id).info.status == "FINISHED"
    by_status = {run.info.status for run in trials}
    assert by_status <= {"FINISHED", "KILLED"}
    assert [run.data.tags["pipeline.reason"] for run in trials if run.info.status == "KILLED"] in (
        [],
        ["the time is over"],
    )


def test_time_for_no_trial_at_all_is_no_error(workplace: Path, capsys: pytest.CaptureFixture) -> None:
    assert search(task="iris", trials=2, epochs=1000, timeout=0.5) is None
    assert "the time is over with 0 of 2 trials" in capsys.readouterr().out
    assert runs()[""][0].info.status == "FINISHED"


def test_pruned_trials_are_killed_runs_with_a_reason(workplace: Path) -> None:
    result = tiny(trials=9, epochs=5, pruner="median", sampler="random")
    parent = MlflowClient().get_run(result.run_id)
    killed = [run for run in runs()[result.run_id] if run.info.status == "KILLED"]
    assert len(killed) == parent.data.metrics["trials_pruned"] > 0
    assert all(run.data.tags["pipeline.reason"].startswith("pruned by median") for run in killed)
    assert parent.data.metrics["trials_completed"] + len(killed) == 9


def test_hyperband_runs_through(workplace: Path) -> None:
    result = tiny(trials=5, epochs=4, pruner="hyperband")
    metrics = MlflowClient().get_run(result.run_id).data.metrics
    assert metrics["trials_completed"] + metrics["trials_pruned"] == 5


def test_a_trial_that_a_killed_process_left_does_not_end_the_study_early(workplace: Path) -> None:
    from pipeline import storage

    first = tiny()
    # What kill -9 leaves: a trial that says it is running.
    import optuna

    study = optuna.load_study(study_name="iris", storage=storage.connect("", "iris"))
    study.ask()
    again = tiny(trials=4)
    assert MlflowClient().get_run(first.run_id).data.metrics["trials_completed"] == 4
    assert again.run_id == first.run_id


def test_a_study_whose_mlflow_run_was_deleted_says_how_to_bring_it_back(workplace: Path) -> None:
    first = tiny()
    MlflowClient().delete_run(first.run_id)
    with pytest.raises(UserError, match=rf"mlflow runs restore --run-id {first.run_id}"):
        tiny(trials=3)
    MlflowClient().restore_run(first.run_id)
    assert tiny(trials=3).run_id == first.run_id


def test_a_study_of_another_store_is_not_begun_anew_in_silence(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workplace / 'other.db'}")
    with pytest.raises(UserError, match=r"is not in sqlite:///.*other\.db .*set MLFLOW_TRACKING_URI"):
        tiny(trials=3)


def test_a_trial_without_its_model_is_said_and_left_out(
    workplace: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = tiny(trials=3)
    for run in runs()[first.run_id]:
        if run.data.tags["pipeline.trial"] in ("0", str(first.champion.number)):
            MlflowClient().delete_run(run.info.run_id)
    again = tiny(trials=4)
    assert again.champion.number not in (0, first.champion.number)
    assert "trial 0 (baseline)" in caplog.text


def test_a_study_of_somebody_else_is_left_alone(workplace: Path) -> None:
    import optuna

    url = f"sqlite:///{workplace / 'theirs.db'}"
    theirs = optuna.create_study(study_name="theirs", storage=url)
    theirs.tell(theirs.ask(), 1.0)
    with pytest.raises(UserError, match="study theirs: was not made by this program"):
        tiny(study="theirs", storage=url)
    assert theirs.user_attrs == {}
    theirs._storage._backend.engine.dispose()


def test_folds_are_scored_by_their_mean_and_members_trained_on_all_rows(workplace: Path) -> None:
    result = tiny(trials=3, folds=3, epochs=1, pruner="wilcoxon")
    children = runs()[result.run_id]
    trials = [run for run in children if "pipeline.trial" in run.data.tags]
    members = {run.data.tags["pipeline.member"] for run in children if "pipeline.member" in run.data.tags}
    assert len(trials) == 3
    assert {str(number) for number in result.ensemble.weights} <= members
    assert "0" in members, "the baseline has a model too"
    assert all(
        "pipeline.trial" not in run.data.tags for run in children if "pipeline.member" in run.data.tags
    )
    assert any(key.startswith("fold_1/") for key in trials[0].data.metrics)


def test_the_ensemble_can_be_made_again_by_another_method(workplace: Path) -> None:
    first = tiny(trials=3)
    assert main(["ensemble", "--study=iris", "--method=uniform", "--members=3"]) == 0
    exported = [file.path for file in MlflowClient().list_artifacts(first.run_id, "exports")]
    assert "exports/saved_model" in exported
    before = MlflowClient().get_run(first.run_id).data.metrics
    assert before["export_saved_model_difference"] < 1e-5
    # What is made again takes the place of all that there was.
    again = ["ensemble", "--study=iris", "--method=1", "--metric=accuracy", "--export=none"]
    assert main(again) == 0
    assert MlflowClient().list_artifacts(first.run_id, "exports") == []
    after = MlflowClient().get_run(first.run_id).data.metrics
    assert np.isnan(after["export_saved_model_difference"])
    for name in ("log_loss", "accuracy"):
        assert np.isfinite(after[f"ensemble_val_{name}"])
    assert after["ensemble_val_log_loss"] != before["ensemble_val_log_loss"]
    assert main(["ensemble", "--study=iris", "--method=uniform", "--members=3", "--export=none"]) == 0
    weights = json.loads(mlflow.artifacts.load_text(f"runs:/{first.run_id}/ensemble.json"))
    assert weights == {number: pytest.approx(1 / 3) for number in weights}
    assert len(weights) == 3
    assert len(runs()[""]) == 1
    assert MlflowClient().get_run(first.run_id).info.status == "FINISHED"


@pytest.mark.parametrize("method", ["simplex", "3,1"])
def test_the_ensemble_can_be_made_again_by_other_weights_and_another_metric(
    workplace: Path, method: str, capsys: pytest.CaptureFixture
) -> None:
    first = tiny(trials=3)
    assert main(["ensemble", "--study=iris", f"--method={method}", "--metric=accuracy", "--export=none"]) == 0
    weights = json.loads(mlflow.artifacts.load_text(f"runs:/{first.run_id}/ensemble.json"))
    assert sum(weights.values()) == pytest.approx(1)
    parent = MlflowClient().get_run(first.run_id)
    accuracy = parent.data.metrics["ensemble_val_accuracy"]
    validation = bundled.iris("full").validation
    file = MlflowClient().download_artifacts(first.run_id, "models/ensemble.keras")
    answered = keras.models.load_model(file).predict(validation.inputs, verbose=0)
    assert accuracy == np.mean(answered.argmax(axis=1) == validation.labels)
    assert "plots/ensemble_curve.png" in {
        artifact.path for artifact in MlflowClient().list_artifacts(first.run_id, "plots")
    }
    if method == "3,1":
        best = sorted(
            (run for run in runs()[first.run_id] if "pipeline.trial" in run.data.tags),
            key=lambda run: run.data.metrics["best_val_log_loss"],
        )
        assert weights == dict(
            zip((run.data.tags["pipeline.trial"] for run in best), (0.75, 0.25), strict=False)
        )
        assert "the weights' sum is 4: each is divided by it" in capsys.readouterr().out


def test_what_an_ensemble_cannot_do_is_one_message_and_changes_nothing(
    workplace: Path, capsys: pytest.CaptureFixture
) -> None:
    first = tiny(trials=2)
    before = MlflowClient().get_run(first.run_id)
    capsys.readouterr()
    for argument, said in (
        ("--metric=f1", "metric: must be one of task iris's, accuracy, log_loss, but is 'f1'"),
        (
            "--method=1,1,1",
            "method: must be at most as many weights as study iris has trials with models, 2, but is 3",
        ),
        ("--method=1,-1", "method: must be weights of 0 or more with commas between"),
    ):
        assert main(["ensemble", "--study=iris", argument]) == 2
        assert said in capsys.readouterr().err
    after = MlflowClient().get_run(first.run_id)
    assert after.info.status == "FINISHED"
    # NaN, which a class that was never predicted has for its precision, is equal to itself here.
    np.testing.assert_equal(after.data.metrics, before.data.metrics)


def test_an_ensemble_of_an_unknown_study_is_refused_and_makes_nothing(
    workplace: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["ensemble", "--study=nothing"]) == 2
    assert "there is no study named 'nothing'" in capsys.readouterr().err
    assert not (workplace / "studies").exists()


def test_an_interrupted_search_leaves_nothing_running_and_can_go_on(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from pipeline import loop

    def interrupt(*_: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_handle", interrupt)
        assert main(["search", "--task=iris", "--trials=2", "--epochs=2"]) == 130
    assert "interrupted" in capsys.readouterr().err
    (parent,) = runs()[""]
    assert parent.info.status == "KILLED"
    (trial,) = runs()[parent.info.run_id]
    assert trial.info.status == "KILLED"
    assert trial.data.tags["pipeline.reason"] == "interrupted"
    result = tiny()
    assert result.run_id == parent.info.run_id
    assert MlflowClient().get_run(result.run_id).data.metrics["trials_completed"] == 2


def test_what_is_left_to_another_process_is_said_and_done_later(
    workplace: Path,
    postgresql: servers.Postgresql,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    url = postgresql.url("optuna")
    monkeypatch.setenv("PIPELINE_STORAGE", url)
    wanted = {"task": "iris", "trials": 1, "epochs": 1, "members": 1, "export": "none", "study": "left"}
    with storage.connected(url, "left") as store, presence.shown(store, url, "left"):
        assert search(**wanted, register="flowers", refit="true") is None
        out = capsys.readouterr().out
    assert "another process trains the study still: it makes the ensemble and the scores\n" in out
    assert "register=flowers and refit=true: not done by this process; when that one has ended" in out
    assert MlflowClient().search_registered_models() == []
    again = search(**wanted, register="flowers")
    assert again is not None
    assert again.registered.startswith("flowers version 1 (")


def test_trials_that_end_while_the_study_is_closed_are_closed_too(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close, closings = Closing.close, []

    def closed(closing: Closing, wish: Wish) -> Result:
        found = close(closing, wish)
        if not closings:
            # As another process does that came and went.
            with storage.connected("", "iris") as store:
                optuna.load_study(study_name="iris", storage=store).add_trial(
                    optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL)
                )
        closings.append(closing.ended)
        return found

    monkeypatch.setattr(Closing, "close", closed)
    tiny(trials=2)
    assert closings == [2, 3]
    with storage.connected("", "iris") as store:
        attributes = optuna.load_study(study_name="iris", storage=store).user_attrs
        assert attributes["closed_at"] == 3


def test_records_that_come_late_are_in_the_ensemble_of_a_complete_study(workplace: Path) -> None:
    box = outbox.new(storage.home("iris") / outbox.HOME, tiny(trials=2).run_id)
    now = int(time.time() * 1000)
    box.put([outbox.Record(9, "start", ("t", {}, {"pipeline.trial": "9"}, now))])
    box.put([outbox.Record(9, "end", ("FINISHED", "", {}, "", now, ""))])
    box.close()
    assert tiny(trials=2)
    assert search(task="iris", trials=2, epochs=2, members=2, export="none") is None


@pytest.mark.parametrize("sampler", ["random", "cmaes"])
def test_every_sampler_runs_through(workplace: Path, sampler: str) -> None:
    result = tiny(trials=4, epochs=1, sampler=sampler)
    assert len(runs()[result.run_id]) == 4


def test_a_live_line_on_a_terminal(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    tiny(epochs=5)
    shown = terminal.getvalue()
    assert "\r" in shown
    assert "2/2 trials | best val_log_loss" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--space=nowhere.toml"], "nowhere.toml: there is no such search-space file"),
        (["--sampler=grid"], "sampler=grid: needs choices or a step"),
        (["--pruner=wilcoxon"], "pruner=wilcoxon"),
        (["--folds=90"], "folds"),
        (
            ["--storage=postgresql://me@127.0.0.1:1/db"],
            "storage postgresql://me@127.0.0.1:1/db: does not answer",
        ),
        (["--storage=sqlite://"], "storage sqlite://: names no file"),
        (["--storage=nonsense"], "storage nonsense: must be a database URL"),
    ],
)
def test_bad_input_is_one_message_before_the_first_trial(
    workplace: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(["search", *arguments]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err
    assert runs() == {}


def test_a_tracking_server_that_does_not_answer_is_one_message(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    started = time.monotonic()
    assert main(["search", "--task=iris"]) == 2
    assert "MLFLOW_TRACKING_URI http://127.0.0.1:1: " in capsys.readouterr().err
    assert time.monotonic() - started < 60, "minutes of retries are for a run under way"
    assert not (workplace / "studies").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("task", "accuracy"), [("mnist", 0.8), ("fashion_mnist", 0.7), ("imdb", 0.7)])
def test_real_data_sets_at_their_small_size(
    workplace: Path, real_data: Path, monkeypatch: pytest.MonkeyPatch, task: str, accuracy: float
) -> None:
    monkeypatch.setenv("PIPELINE_DATA", str(real_data))
    # Chance is 0.1, and 0.5 for imdb; runs of this length were seen well above these.
    result = tiny(task=task, size="small", epochs=3, trials=2)
    assert result.scores["ensemble"]["accuracy"].value > accuracy


@pytest.mark.slow
def test_digits_are_read(workplace: Path) -> None:
    # Chance is 0.1; a run of this length was seen at 0.88.
    result = tiny(task="digits", epochs=8)
    assert result.scores["champion"]["accuracy"].value > 0.7


def test_a_url_in_the_environment_serves_as_storage(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_STORAGE", f"sqlite:///{workplace / 'optuna.db'}")
    tiny(epochs=1)
    assert (workplace / "optuna.db").exists()
    assert not (workplace / "studies" / "iris" / "journal.log").exists()
    assert os.environ["PIPELINE_STORAGE"] not in str(runs())
