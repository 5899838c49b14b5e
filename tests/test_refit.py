"""What was chosen is trained again on training and validation rows together; that is what is delivered."""

from pathlib import Path

import keras
import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from pipeline import search
from pipeline.__main__ import main
from pipeline.result import Result
from pipeline.tasks import iris


@pytest.fixture(autouse=True)
def _one_hidden_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iris, "_WIDTHS", (8,))


def tiny(**parameters: object) -> Result | None:
    usual = {"task": "iris", "trials": 2, "epochs": 4, "members": 2, "engine": "fit", "export": "none"}
    return search(**{**usual, **parameters})


def children(result: Result, tag: str) -> dict[str, Run]:
    client = MlflowClient()
    run = client.get_run(result.run_id)
    found = client.search_runs(
        [run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{result.run_id}' and tags.`{tag}` LIKE '%'"
    )
    return {child.data.tags[tag]: child for child in found}


def weights(uri: str, folder: Path) -> list[np.ndarray]:
    file = mlflow.artifacts.download_artifacts(uri, dst_path=str(folder))
    return keras.models.load_model(file).get_weights()


def test_the_chosen_are_trained_again_and_delivered(workplace: Path, tmp_path: Path) -> None:
    result = tiny(refit="true", register="flower")
    assert result is not None
    assert result.refit
    again, trials = children(result, "pipeline.refit"), children(result, "pipeline.trial")
    chosen = {str(member) for member in result.ensemble.weights} | {str(result.champion.number)}
    assert again.keys() == chosen
    client = MlflowClient()
    for label, run in again.items():
        assert run.info.status == "FINISHED"
        # As many epochs as led to the trial's model, whatever they score.
        epochs = trials[label].data.metrics["best_epoch"] + 1
        assert len(client.get_metric_history(run.info.run_id, "loss")) == epochs
        assert run.data.metrics["best_epoch"] == epochs - 1
        # And at rates that go down as far.
        rates, its = (
            sorted(client.get_metric_history(one.info.run_id, "learning_rate"), key=lambda point: point.step)
            for one in (run, trials[label])
        )
        assert rates[0].value == its[0].value
        if epochs > 3:
            assert rates[-1].value == pytest.approx(its[int(epochs) - 1].value)
    champion = str(result.champion.number)
    (tmp_path / "a").mkdir()
    delivered = weights(f"runs:/{result.run_id}/models/champion.keras", tmp_path / "a")
    refitted = weights(f"runs:/{again[champion].info.run_id}/model.keras", tmp_path / "a")
    before = weights(f"runs:/{trials[champion].info.run_id}/model.keras", tmp_path / "a")
    for mine, its in zip(delivered, refitted, strict=True):
        np.testing.assert_array_equal(mine, its)
    assert any((mine != old).any() for mine, old in zip(delivered, before, strict=True))

    # The registry compares what it was before, as it has learned from the validation rows.
    version = client.get_model_version("flower", "1")
    assert version.tags["pipeline.refit"] == "true"
    judged = weights("models:/flower/1/artifacts/judged.keras", tmp_path / "a")
    assert len(judged) == len(
        weights(f"runs:/{result.run_id}/models/{version.tags['pipeline.model']}.keras", tmp_path / "a")
    )
    # The same models again: equal is not better.
    other = tiny(study="other", refit="true", register="flower")
    assert other is not None
    assert "is the challenger: not better than" in other.registered


def test_a_study_that_is_complete_is_refitted_when_that_is_asked_for(
    workplace: Path, capsys: pytest.CaptureFixture
) -> None:
    first = tiny()
    assert first is not None
    assert not first.refit
    assert children(first, "pipeline.refit") == {}
    second = tiny(refit="true")
    assert second is not None
    assert second.refit
    assert "training 2 models again" in capsys.readouterr().out or len(second.ensemble.weights) == 1
    there = children(second, "pipeline.refit")
    assert there
    assert tiny(refit="true") is None, "nothing is left to do"
    # `ensemble` takes those that are there.
    assert main(["ensemble", "--study=iris", "--refit=true", "--export=none"]) == 0
    assert "trained again on all other rows" in capsys.readouterr().out
    kept = children(second, "pipeline.refit")
    assert {run.info.run_id for run in there.values()} <= {run.info.run_id for run in kept.values()}
