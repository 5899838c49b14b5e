"""Trainings after the trials: the best settings from further seeds, as members and never as trials."""

import io
import json
import math
from collections.abc import Mapping
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from pipeline import finalists, search
from pipeline.__main__ import main
from pipeline.engines.engine import Event, Times
from pipeline.finalists import Finalist, chosen, train
from pipeline.progress import ProgressLine
from pipeline.result import Result
from pipeline.seeds import derived
from pipeline.study import Finished
from pipeline.tasks import iris
from pipeline.values import Candidate, Member, Objective, Outcome

# Best first.
FINISHED = [
    Finished(number, 100 + number, 0.1, {"dropout": 0.0}, number == 3) for number in (7, 2, 9, 4, 5, 3)
]


def members_of(found: list[Finalist]) -> list[str]:
    return [str(finalist.member) for finalist in found]


class TestChosen:
    def test_nothing_without_folds_and_further_seeds(self):
        assert chosen(FINISHED, 8, 1, (), folds=False) == []

    def test_with_folds_the_best_and_the_baseline(self):
        assert members_of(chosen(FINISHED, 2, 1, (), folds=True)) == ["7", "2", "3"]

    def test_further_seeds_of_the_best_four_each_setting_once_before_any_twice(self):
        expected = ["7-1", "2-1", "9-1", "4-1", "7-2", "2-2", "9-2", "4-2"]
        assert members_of(chosen(FINISHED, 8, 3, (), folds=False)) == expected

    def test_of_no_more_settings_than_members(self):
        assert members_of(chosen(FINISHED, 1, 3, (), folds=False)) == ["7-1", "7-2"]

    def test_both(self):
        assert members_of(chosen(FINISHED, 1, 2, (), folds=True)) == ["7", "3", "7-1"]

    def test_what_is_there_is_not_trained_again(self):
        there = [Member(7), Member(7, 1), Member(2, 2)]
        assert members_of(chosen(FINISHED, 2, 3, there, folds=True)) == ["2", "3", "2-1", "7-2"]

    def test_seeds_derive_from_the_trials_and_all_differ(self):
        found = chosen(FINISHED, 4, 20, (), folds=True)
        seeds = [finalist.seed for finalist in found]
        assert len(set(seeds)) == len(seeds)
        for finalist in found:
            own = finalist.trial.seed
            assert finalist.seed == (derived(own, finalist.copy) if finalist.copy else own)


@pytest.mark.parametrize("member", [Member(0), Member(12), Member(12, 1), Member(3, 19)])
def test_a_member_is_known_by_its_text(member: Member) -> None:
    assert Member.of(str(member)) == member


class Echo:
    """An engine of three places, in which every training ends in its first step."""

    def __init__(self) -> None:
        self.candidates: list[Candidate] = []
        self._running: list[int] = []

    def free(self) -> int:
        return 3 - len(self._running)

    def add(self, candidate: Candidate) -> None:
        self.candidates.append(candidate)
        self._running.append(candidate.number)

    def step(self) -> list[Event]:
        done, self._running = self._running, []
        return [Outcome(number, value=0.5, best_epoch=1, metrics={"val_loss": 0.5}) for number in done]

    def drop(self, number: int) -> None:
        raise AssertionError

    def times(self) -> Times:
        return Times()

    def close(self) -> None:
        raise AssertionError


class Notes:
    """A recorder that keeps what it is told."""

    def __init__(self) -> None:
        self.tags: dict[int, Mapping[str, str]] = {}
        self.ends: dict[int, str] = {}

    def start(self, number: int, name: str, settings: object, tags: Mapping[str, str]) -> None:
        assert number not in self.tags
        self.tags[number] = tags

    def end(self, number: int, status: str, **_: object) -> None:
        self.ends[number] = status


def line(models: int, log: io.StringIO) -> ProgressLine:
    return ProgressLine(Objective("val_accuracy", "maximize"), models, 0, None, log, what="models")


def test_each_training_has_a_number_of_its_own_and_its_trials_settings() -> None:
    engine, notes, wanted = Echo(), Notes(), chosen(FINISHED, 4, 3, (), folds=True)
    log = io.StringIO()
    train(wanted, engine, notes, line(len(wanted), log))
    assert len(engine.candidates) == len(notes.tags) == len(wanted)
    for candidate, finalist in zip(engine.candidates, wanted, strict=True):
        assert (candidate.seed, candidate.settings) == (finalist.seed, finalist.trial.settings)
        assert notes.tags[candidate.number] == {
            "pipeline.member": str(finalist.member),
            "pipeline.seed": str(finalist.seed),
        }
    assert set(notes.ends.values()) == {"FINISHED"}
    told = [text.partition(" | ")[::2] for text in log.getvalue().splitlines()]
    assert [text for text, _ in told] == [f"trial {one.trial.number} trained once more" for one in wanted]
    assert told[1][1].startswith(f"2/{len(wanted)} models | ")


def test_none_is_trained_after_the_deadline() -> None:
    engine = Echo()
    train(chosen(FINISHED, 4, 3, (), folds=True), engine, Notes(), line(0, io.StringIO()), -math.inf)
    assert engine.candidates == []


# In a search, by fit


@pytest.fixture
def _one_hidden_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iris, "_WIDTHS", (8,))


def tiny(**parameters: object) -> Result | None:
    return search(**{"task": "iris", "trials": 2, "epochs": 2, "members": 2, **parameters})


def children() -> dict[str, Run]:
    """The runs of trials by their number, those of members by `m` and their label."""
    found: dict[str, Run] = {}
    for experiment in MlflowClient().search_experiments():
        for run in MlflowClient().search_runs([experiment.experiment_id], order_by=["attributes.start_time"]):
            tags = run.data.tags
            assert not {"pipeline.trial", "pipeline.member"} <= tags.keys()
            if "mlflow.parentRunId" in tags:
                label = tags.get("pipeline.trial") or f"m{tags['pipeline.member']}"
                # An interrupted one is trained again as another run.
                assert label not in found or found[label].info.status == "KILLED"
                found[label] = run
    return found


def predictions(run: Run) -> np.ndarray:
    return np.load(mlflow.artifacts.download_artifacts(f"{run.info.artifact_uri}/validation_predictions.npy"))


@pytest.mark.usefixtures("_one_hidden_layer")
def test_further_seeds_are_members_that_a_selection_may_take(
    workplace: Path, capsys: pytest.CaptureFixture
) -> None:
    first = tiny(seeds=2)
    assert isinstance(first, Result)
    found = children()
    assert sorted(found) == ["0", "1", "m0-1", "m1-1"]
    assert MlflowClient().get_run(first.run_id).data.metrics["trials_completed"] == 2
    for number in ("0", "1"):
        trial, copy = found[number], found[f"m{number}-1"]
        assert copy.info.status == "FINISHED"
        assert copy.data.tags["pipeline.seed"] != trial.data.tags["pipeline.seed"]
        assert trial.data.params.items() <= copy.data.params.items()
        # Models from other first weights agree in no row to float32's digits.
        assert np.abs(predictions(copy) - predictions(trial)).max(axis=1).min() > 1e-4
    # Of the best eight at equal weights, all four.
    assert main(["ensemble", "--study=iris", "--method=uniform"]) == 0
    assert "0.25 × trial 0 seed 1" in capsys.readouterr().out
    weights = json.loads(mlflow.artifacts.load_text(f"runs:/{first.run_id}/ensemble.json"))
    assert weights == dict.fromkeys(["0", "0-1", "1", "1-1"], 0.25)

    # The same command trains nothing; more seeds train what is missing, and nothing else.
    assert tiny(seeds=2) is None
    assert children().keys() == found.keys()
    again = tiny(seeds=3)
    assert isinstance(again, Result)
    assert again.run_id == first.run_id
    more = children()
    assert more.keys() - found.keys() == {"m0-2", "m1-2"}
    assert {label: more[label].info.run_id for label in found} == {
        label: run.info.run_id for label, run in found.items()
    }
    assert MlflowClient().get_run(first.run_id).data.metrics["trials_completed"] == 2


@pytest.mark.usefixtures("_one_hidden_layer")
def test_an_interrupted_search_goes_on_with_the_members_that_are_missing(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    end = finalists._end

    def interrupt(outcome: Outcome, *rest: object) -> None:
        if ended:
            raise KeyboardInterrupt
        ended.append(outcome.number)
        end(outcome, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(finalists, "_end", interrupt)
        assert main(["search", "--task=iris", "--trials=2", "--epochs=2", "--members=2", "--seeds=2"]) == 130
    before = children()
    members = {label: run.info.status for label, run in before.items() if label.startswith("m")}
    assert sorted(members.values()) == ["FINISHED", "KILLED"]
    assert isinstance(tiny(seeds=2), Result)
    after = children()
    for label, run in before.items():
        assert (after[label].info.run_id == run.info.run_id) == (run.info.status == "FINISHED")
        assert after[label].info.status == "FINISHED"


@pytest.mark.usefixtures("_one_hidden_layer")
def test_with_folds_too(workplace: Path) -> None:
    result = tiny(folds=2, epochs=1, members=1, seeds=2)
    assert isinstance(result, Result)
    best = result.champion.number
    # The baseline is trained once more, whether or not it is the best.
    assert sorted(children()) == sorted({"0", "1", "m0", f"m{best}", f"m{best}-1"})
    assert main(["ensemble", "--study=iris", "--method=uniform", "--members=3"]) == 0
    weights = json.loads(mlflow.artifacts.load_text(f"runs:/{result.run_id}/ensemble.json"))
    assert set(weights) == {"0", str(best), f"{best}-1"}
