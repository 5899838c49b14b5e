"""A search that ends while it opens its study: no run is left RUNNING, nothing of its origin is lost."""

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from pipeline import options, provenance
from pipeline.job import open_existing, open_search
from pipeline.provenance import record_origin
from pipeline.stops import Stops
from pipeline.study import Study
from pipeline.tracking.parent import Parent, ending


class Killed(BaseException):
    """What nothing of the program sees: as SIGKILL, in one process."""


@contextlib.contextmanager
def killed_in(owner: object, name: str) -> Iterator[None]:
    """For a block that ends as by SIGKILL where it calls that."""

    def killed(*_: object, **__: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, killed)
        with pytest.raises(Killed):
            yield


def asked() -> Mapping[str, object]:
    return options.values("search", {"task": "iris", "trials": "1", "engine": "fit"})


def runs() -> list[Run]:
    client = MlflowClient()
    return list(client.search_runs([found.experiment_id for found in client.search_experiments()]))


def test_a_kill_before_the_run_is_noted_leaves_no_second_one(workplace: Path) -> None:
    with killed_in(Study, "set_parent_run"), open_search(asked()):
        pass
    (left,) = runs()
    assert left.info.status == "RUNNING"
    with open_search(asked()) as job:
        assert (job.parent.run_id, job.parent.resumed) == (left.info.run_id, False)
    (found,) = runs()
    assert found.info.status == "FINISHED"


@pytest.mark.parametrize("resumed", [False, True])
def test_a_stop_while_the_run_is_opened_ends_it_with_its_reason(workplace: Path, resumed: bool) -> None:
    if resumed:
        with open_search(asked()):
            pass
    noted = Study.set_parent_run

    def stopped(study: Study, run: str) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        noted(study, run)

    stops = Stops()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Study, "set_parent_run", stopped)
            with pytest.raises(KeyboardInterrupt), open_search(asked()):
                raise AssertionError("it is stopped before anything is trained")
    finally:
        stops.restore()
    (run,) = runs()
    assert (run.info.status, run.data.tags["pipeline.reason"]) == ("KILLED", "interrupted")
    # It goes on, and why it ended before is no more so.
    with open_search(asked()):
        pass
    (run,) = runs()
    assert run.info.status == "FINISHED"
    assert "pipeline.reason" not in run.data.tags


def test_an_error_in_a_search_is_its_run_s(workplace: Path) -> None:
    with pytest.raises(ValueError, match="no"), open_search(asked()):
        raise ValueError("no")
    (run,) = runs()
    assert (run.info.status, run.data.tags["pipeline.reason"]) == ("FAILED", "no")


def test_a_study_that_is_looked_at_keeps_its_status(workplace: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_search(asked()):
        raise KeyboardInterrupt
    given = options.values("ensemble", {"study": "iris"})
    with pytest.raises(ValueError, match="no"), open_existing(given):
        raise ValueError("no")
    assert [(run.info.status, run.data.tags["pipeline.reason"]) for run in runs()] == [
        ("KILLED", "interrupted")
    ]
    with open_existing(given) as job, ending(job.parent):
        assert [run.info.status for run in runs()] == ["RUNNING"]
    assert [run.info.status for run in runs()] == ["FINISHED"]


@pytest.mark.parametrize(
    ("owner", "name"),
    [(provenance, "record_program"), (Parent, "params"), (Parent, "data"), (Parent, "text")],
    ids=["before", "params", "data", "space"],
)
def test_a_kill_in_the_origin_s_record_loses_nothing_of_it(workplace: Path, owner: object, name: str) -> None:
    with killed_in(owner, name), open_search(asked()) as job:
        record_origin(job)
    with open_search(asked()) as job:
        record_origin(job)
    (run,) = runs()
    assert run.data.params["objective.metric"] == job.space.objective.metric
    assert run.data.params["study.folds"] == "1"
    assert len(run.inputs.dataset_inputs) == 3
    assert job.parent.read("search_space/iris.toml") == job.space.text
    # Once, and never more.
    with open_search(asked()) as job, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Parent, "data", None)
        record_origin(job)
