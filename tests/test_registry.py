"""From a search to the registry: who becomes champion there, and that what is registered answers alone."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from sklearn.datasets import load_iris

from pipeline import search
from pipeline.errors import UserError
from pipeline.result import Result
from pipeline.study import Study
from pipeline.tracking import registry

NAME = "flowers"


def registered(trials: int, epochs: int, study: str, **more: object) -> Result:
    found = search(
        task="iris",
        trials=trials,
        epochs=epochs,
        study=study,
        members=2,
        engine="fit",
        export="none",
        register=NAME,
        **more,
    )
    assert found is not None
    return found


def aliases() -> dict[str, str]:
    (model,) = MlflowClient().search_registered_models(f"name = '{NAME}'")
    return {alias: str(number) for alias, number in model.aliases.items()}


def test_only_a_better_model_becomes_champion(workplace: Path, capsys: pytest.CaptureFixture) -> None:
    first = registered(1, 3, "first")
    assert aliases() == {"champion": "1"}
    assert first.registered.startswith(f"{NAME} version 1 (")
    assert first.registered.endswith("is the champion: there was none")
    assert f"models:/{first.registered}" in capsys.readouterr().out

    worse = registered(1, 1, "worse")
    assert aliases() == {"champion": "1", "challenger": "2"}
    assert "is the challenger: not better than" in worse.registered

    better = registered(2, 40, "better")
    assert aliases() == {"champion": "3", "challenger": "2"}
    assert "is the champion: better than" in better.registered
    tags = MlflowClient().get_run(better.run_id).data.tags
    assert tags["pipeline.registered"] == better.registered
    # Both were scored on the validation rows, by what the study optimises.
    version = MlflowClient().get_model_version(NAME, "3")
    assert version.tags["pipeline.study"] == "better"
    assert version.tags["pipeline.task"] == "iris"
    assert version.tags["pipeline.model"] in ("champion", "ensemble")
    scored = better.scores[version.tags["pipeline.model"]]
    # As text of six digits.
    assert float(version.tags["test_accuracy"]) == pytest.approx(scored["accuracy"].value, rel=1e-5)
    metrics = MlflowClient().get_run(better.run_id).data.metrics
    assert float(version.tags["val_log_loss"]) < metrics["registered_champion_val_log_loss"]
    # The version that is there answers as the model that was registered.
    (chosen,) = MlflowClient().search_logged_models(
        MlflowClient().get_run(better.run_id).info.experiment_id.split(),
        f"name = '{version.tags['pipeline.model']}' and source_run_id = '{better.run_id}'",
    )
    assert version.source in (f"models:/{chosen.model_id}", chosen.artifact_location)
    info = mlflow.models.get_model_info(f"models:/{NAME}@champion")
    assert (info.metadata["study"], info.metadata["task"]) == ("better", "iris")
    assert (
        info.metadata["scores"]["accuracy"] == better.scores[version.tags["pipeline.model"]]["accuracy"].value
    )


def test_a_complete_study_registers_once(workplace: Path, capsys: pytest.CaptureFixture) -> None:
    quick = {"task": "iris", "trials": 1, "epochs": 1, "members": 1, "engine": "fit", "export": "none"}
    first = search(**quick)
    later = search(**quick, register=NAME)
    assert (later.run_id, aliases()) == (first.run_id, {"champion": "1"})
    assert search(**quick, register=NAME) is None
    assert "is complete" in capsys.readouterr().out
    assert len(MlflowClient().search_model_versions(f"name = '{NAME}'")) == 1


def test_a_run_that_was_ended_on_the_way_enters_the_next_time(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(registry, "point", ended)
        with pytest.raises(KeyboardInterrupt):
            registered(1, 1, "s")
    assert aliases() == {}
    registered(1, 1, "s")
    assert aliases() == {"champion": "2"}
    assert [one.version for one in MlflowClient().search_model_versions(f"name = '{NAME}'")] == [2]


def test_a_version_that_is_in_use_outlives_an_end_right_after_its_alias(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*_: object) -> None:
        raise KeyboardInterrupt

    def versions() -> dict[str, str]:
        found = MlflowClient().search_model_versions(f"name = '{NAME}'")
        return {str(one.version): one.tags.get("pipeline.entered_as", "") for one in found}

    # The alias is there, and what notes it never came.
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_model_version_tag", ended)
        with pytest.raises(KeyboardInterrupt):
            registered(1, 1, "s")
    assert (aliases(), versions()) == ({"champion": "1"}, {"1": ""})
    # The same models again are the version that is there.
    again = registered(1, 1, "s")
    assert (aliases(), set(versions())) == ({"champion": "1"}, {"1"})
    assert again.registered.startswith(f"{NAME} version 1 (")
    assert again.registered.endswith("is the champion: it was added before")
    assert MlflowClient().get_run(again.run_id).data.tags["pipeline.registered"] == again.registered
    # Others are another one, and the first is noted as what it is.
    registered(2, 1, "s")
    assert set(aliases().values()) == {"1", "2"} or aliases() == {"champion": "2"}
    assert versions()["1"] == "champion"


def test_a_search_that_was_ended_before_its_study_was_closed_registers_once(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Study, "close", ended)
        with pytest.raises(KeyboardInterrupt):
            registered(1, 1, "s")
    first = MlflowClient().get_model_version(NAME, "1")
    again = registered(1, 1, "s")
    assert again.registered.startswith(f"{NAME} version 1 (")
    assert again.registered.endswith("is the champion: there was none")
    (only,) = MlflowClient().search_model_versions(f"name = '{NAME}'")
    assert (only.source, aliases()) == (first.source, {"champion": "1"})


def test_a_name_of_another_task_is_refused_before_the_first_trial(workplace: Path) -> None:
    client = MlflowClient()
    client.create_registered_model(NAME)
    version = client.create_model_version(NAME, source=str(workplace), tags={"pipeline.task": "mnist"})
    client.set_registered_model_alias(NAME, "champion", version.version)
    with pytest.raises(UserError, match=r"the champion of flowers \(version 1\) is of the task mnist"):
        registered(1, 1, "s")
    client.delete_model_version_tag(NAME, version.version, "pipeline.task")
    with pytest.raises(UserError, match="was not made by this pipeline"):
        registered(1, 1, "s")
    assert (
        client.search_runs(
            [e.experiment_id for e in client.search_experiments()], "tags.`pipeline.trial` != ''"
        )
        == []
    )


def test_a_champion_that_is_gone_is_not_replaced(workplace: Path) -> None:
    client = MlflowClient()
    client.create_registered_model(NAME)
    version = client.create_model_version(NAME, source=str(workplace), tags={"pipeline.task": "iris"})
    client.set_registered_model_alias(NAME, "champion", version.version)
    found = registered(1, 1, "s")
    assert "is the challenger: version 1 cannot be scored" in found.registered
    assert aliases() == {"champion": "1", "challenger": "2"}


@pytest.mark.parametrize("name", ["a/b", "a:b", "it's", 'a"b', "x" * 300])
def test_a_name_that_mlflow_cannot_have_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="register: must be a name of at most 256 characters without"):
        search(task="iris", trials=1, register=name)


# Runs where this project cannot be imported, as on a machine that only uses the model.
ALONE = """
import sys
sys.modules["pipeline"] = None
import pandas as pd
rows = pd.read_csv("rows.csv")
if sys.argv[1] == "keras":
    import keras
    model = keras.saving.load_model(sys.argv[2])
    answers = pd.DataFrame(model.predict(rows.to_numpy("float32"), verbose=0))
else:
    import mlflow
    answers = mlflow.pyfunc.load_model(sys.argv[2]).predict(rows)
answers.to_csv("answers.csv", index=False)
"""


@pytest.mark.parametrize("kind", ["champion", "ensemble"])
def test_models_answer_alike_without_this_project(workplace: Path, kind: str) -> None:
    result = registered(3, 5, "alone", sampler="random")
    bunch = load_iris(as_frame=True)
    bunch.data.to_csv("rows.csv", index=False)
    file = MlflowClient().download_artifacts(result.run_id, f"models/{kind}.keras")
    expected = keras.saving.load_model(file).predict(bunch.data.to_numpy("float32"), verbose=0)
    experiment = MlflowClient().get_run(result.run_id).info.experiment_id
    (logged,) = MlflowClient().search_logged_models([experiment], f"name = '{kind}'")

    def alone(how: str, what: str) -> pd.DataFrame:
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", ALONE, how, what],
            check=True,
            capture_output=True,
            env={**os.environ, "PYTHONPATH": ""},
        )
        return pd.read_csv("answers.csv")

    np.testing.assert_allclose(alone("keras", file), expected, rtol=1e-5, atol=1e-7)
    served = alone("mlflow", f"models:/{logged.model_id}")
    names = [str(name) for name in bunch.target_names]
    np.testing.assert_allclose(
        served[[f"probability_{name}" for name in names]], expected, rtol=1e-5, atol=1e-7
    )
    assert list(served["class"]) == [names[place] for place in expected.argmax(axis=1)]
    signature = mlflow.models.get_model_info(f"models:/{logged.model_id}").signature
    assert signature.inputs.input_names() == list(bunch.feature_names)
