"""What `benchmarks.faults` notices: every way in which a study can be incomplete, on a real one."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from benchmarks import searches
from benchmarks.faults import findings
from benchmarks.faults.__main__ import main, report
from benchmarks.faults.cases import Moments, Row, Usual, row
from benchmarks.faults.findings import Findings
from benchmarks.faults.places import Place, Search, none_left, wait_for

TRIALS, EPOCHS = 3, 2


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A search of its own process that nobody disturbs."""
    folder = tmp_path_factory.mktemp("faults") / "whole"
    folder.mkdir()
    place = Place(folder, folder.parent / "cache", TRIALS, EPOCHS)
    search = place.finish()
    assert search.process.returncode == 0, search.said()
    return place


@pytest.fixture
def place(searched: Place, tmp_path: Path) -> Iterator[Place]:
    """A copy of it, to be broken; its artifacts are the first one's, and are brought back after the test."""
    copy = tmp_path / searched.folder.name
    shutil.copytree(searched.folder, copy)
    yield replace(searched, folder=copy)
    shutil.copytree(copy / "mlruns", searched.folder / "mlruns", dirs_exist_ok=True)


def client(place: Place) -> MlflowClient:
    return MlflowClient(place.environment["MLFLOW_TRACKING_URI"])


def runs(place: Place) -> list[Run]:
    (experiment,) = [found for found in client(place).search_experiments() if found.name == place.study]
    return list(client(place).search_runs([experiment.experiment_id]))


def trial(place: Place, number: int = 1) -> Run:
    (found,) = [run for run in runs(place) if run.data.tags.get("pipeline.trial") == str(number)]
    return found


def parent(place: Place) -> Run:
    (found,) = [run for run in runs(place) if "pipeline.study" in run.data.tags]
    return found


def artifact(run: Run, name: str) -> Path:
    """The artifact's file."""
    return Path(run.info.artifact_uri.removeprefix("file://")) / name


def lose(place: Place) -> None:
    client(place).delete_run(trial(place).info.run_id)


def double(place: Place) -> None:
    run = trial(place)
    made = client(place).create_run(run.info.experiment_id, tags=run.data.tags)
    client(place).set_terminated(made.info.run_id, "FINISHED")


def tear(place: Place) -> None:
    with sqlite3.connect(searches.store(place.folder)) as database:
        changed = database.execute(
            "delete from metrics where key = 'val_loss' and step = 1 and run_uuid = ?",
            (trial(place).info.run_id,),
        )
        assert changed.rowcount == 1


def leave_running(place: Place) -> None:
    client(place).update_run(trial(place).info.run_id, status="RUNNING")


def kill_without_a_reason(place: Place) -> None:
    run = trial(place)
    made = client(place).create_run(run.info.experiment_id, tags=run.data.tags)
    client(place).set_terminated(made.info.run_id, "KILLED")


def take_its_model(place: Place) -> None:
    artifact(trial(place), "model.keras").unlink()


def take_the_report(place: Place) -> None:
    artifact(parent(place), "report.html").unlink()


def fail(place: Place) -> None:
    client(place).set_terminated(parent(place).info.run_id, "FAILED")


@pytest.mark.slow
def test_a_whole_study_is_fine(place: Place) -> None:
    assert findings.look(place, findings.trials_of(place)) == Findings()
    assert findings.status_of_parent(place) == "FINISHED"
    assert len(findings.seconds_of(place)) == TRIALS


def test_a_study_that_was_never_made_has_lost_all_its_trials(tmp_path: Path) -> None:
    folder = tmp_path / "none"
    folder.mkdir()
    found = findings.look(Place(folder, tmp_path / "cache", TRIALS, 2), None)
    assert found.lost == TRIALS
    assert found.faults == ["the study has 0 runs of its own"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broken", "lost", "twice", "fault"),
    [
        (lose, 1, 0, ""),
        (double, 0, 1, "trial 1: its curve has the epochs [], and not 2"),
        (tear, 0, 0, "trial 1: its curve has the epochs [0], and not 2"),
        (leave_running, 1, 0, "1 runs are said to run"),
        (kill_without_a_reason, 0, 0, "trial 1: a run is KILLED without a reason"),
        (take_its_model, 0, 0, "trial 1: has no model"),
        (take_the_report, 0, 0, "the study's run has no report.html"),
        (fail, 0, 0, "the study's run is FAILED: None"),
    ],
)
def test_what_is_broken_is_found(
    broken: Callable[[Place], None], lost: int, twice: int, fault: str, place: Place
) -> None:
    broken(place)
    found = findings.look(place, None)
    assert (found.lost, found.twice) == (lost, twice)
    assert fault in found.faults if fault else not found.faults
    assert not found.fine


@pytest.mark.slow
def test_what_differs_from_the_undisturbed_study_is_found(place: Place) -> None:
    other = findings.trials_of(place)
    other[1] |= {"value": 0.5, "seed": 7}
    other[3] = other[2]
    assert findings.look(place, other).faults == [
        "trials [3] are in one of both only",
        f"trial 1: seed is {findings.trials_of(place)[1]['seed']}, undisturbed 7",
        f"trial 1: value is {findings.trials_of(place)[1]['value']}, undisturbed 0.5",
    ]


@pytest.mark.slow
def test_a_trial_that_was_to_fail_and_did_not_is_found(place: Place) -> None:
    assert findings.look(place, None, failed=[1]).faults == ["trial 1 is COMPLETE, and not FAIL"]


def test_no_search_outlives_the_program(tmp_path: Path) -> None:
    folder = tmp_path / "short"
    folder.mkdir()
    begun: list[Search] = []

    def fail_in_mid_search() -> None:
        begun.append(Place(folder, tmp_path / "cache", TRIALS, EPOCHS).start())
        assert begun[0].running()
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"), none_left():
        fail_in_mid_search()
    (search,) = begun
    assert not search.running()
    assert not wait_for(lambda: False, search), "it is not waited for any more"


def test_moments_lie_in_a_search_s_life_whose_length_is_learned() -> None:
    moments = Moments(0, 100.0)
    drawn = [moments.draw() for _ in range(200)]
    assert 0 <= min(drawn) < 10
    assert 90 < max(drawn) <= 100
    moments.learn(20.0)
    moments.learn(50.0)
    assert max(moments.draw() for _ in range(200)) <= 20


def test_nothing_has_survived_where_anything_is_wrong() -> None:
    assert row("kill -9", 5, Findings(), []).survived == 5
    for found, faults in [
        (Findings(lost=1), []),
        (Findings(twice=1), []),
        (Findings(), ["exit code 1"]),
    ]:
        assert row("kill -9", 5, found, faults).survived == 0


def test_the_report_has_a_row_for_each_fault_and_says_what_is_wrong_below() -> None:
    rows = [Row("kill -9", 5, 5, 0, 0, None, []), Row("SIGTERM", 3, 0, 1, 0, 2.25, ["an end took 12.0 s"])]
    assert report(rows).splitlines() == [
        "| fault | injected | survived | trials lost | recorded twice | slowest end (s) |",
        "| --- | --- | --- | --- | --- | --- |",
        "| kill -9 | 5 | 5 | 0 | 0 |  |",
        "| SIGTERM | 3 | 0 | 1 | 0 | 2.2 |",
        "",
        "SIGTERM: an end took 12.0 s",
    ]


def test_a_case_that_cannot_be_done_is_not_survived(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.faults.cases.usual", lambda place: Usual(place, {}, 1.0, 1.0))
    monkeypatch.setattr("benchmarks.faults.servers.postgresql_programs", lambda: None)
    assert main(["--kills=0", "--terms=0", "--outage=5"]) == 1
    assert "without PostgreSQL: it is not on this machine" in capsys.readouterr().out
