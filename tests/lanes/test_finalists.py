"""Further seeds of the best settings, trained side by side after the trials of a search in lanes."""

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from pipeline import search
from pipeline.result import Result
from pipeline.tasks import iris


@pytest.fixture(autouse=True)
def _one_hidden_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iris, "_WIDTHS", (8,))


def tiny(seeds: int) -> Result | None:
    return search(task="iris", trials=2, epochs=2, members=2, engine="lanes", lanes=4, seeds=seeds)


def members(parent: str) -> dict[str, Run]:
    client = MlflowClient()
    runs = client.search_runs(
        [client.get_run(parent).info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'"
    )
    assert sum("pipeline.trial" in run.data.tags for run in runs) == 2
    assert all(("pipeline.trial" in run.data.tags) != ("pipeline.member" in run.data.tags) for run in runs)
    return {run.data.tags["pipeline.member"]: run for run in runs if "pipeline.member" in run.data.tags}


def predictions(run: Run) -> np.ndarray:
    return np.load(mlflow.artifacts.download_artifacts(f"{run.info.artifact_uri}/validation_predictions.npy"))


@pytest.mark.usefixtures("workplace")
def test_they_are_trained_side_by_side_each_from_its_own_seed_and_once() -> None:
    first = tiny(seeds=3)
    assert isinstance(first, Result)
    found = members(first.run_id)
    assert sorted(found) == ["0-1", "0-2", "1-1", "1-2"]
    for run in found.values():
        assert run.info.status == "FINISHED"
        assert "best_val_log_loss" in run.data.metrics
    # Two lanes of one program and of the same settings: only their seeds make them differ.
    apart = np.abs(predictions(found["1-1"]) - predictions(found["1-2"]))
    assert apart.max(axis=1).min() > 1e-4
    begun = {run.info.start_time for run in found.values()}
    assert max(begun) < min(run.info.end_time for run in found.values())
    assert tiny(seeds=3) is None
    again = tiny(seeds=4)
    assert isinstance(again, Result)
    more = members(again.run_id)
    assert more.keys() - found.keys() == {"0-3", "1-3"}
    assert {more[label].info.run_id for label in found} == {run.info.run_id for run in found.values()}
