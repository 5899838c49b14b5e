"""A search that begins with what was best in an earlier study: real journals, and real small searches."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from mlflow import MlflowClient
from test_study import TEXT

from pipeline import options, search, storage, tasks, warm_start
from pipeline import space as spaces
from pipeline.__main__ import main
from pipeline.errors import UserError
from pipeline.job import open_search
from pipeline.metrics import CLASSIFICATION
from pipeline.result import Result
from pipeline.settings import BATCH_SIZE, DROPOUT, L2, LEARNING_RATE
from pipeline.space import Space
from pipeline.study import Start, Study
from pipeline.study_opening import Origin, open_study
from pipeline.tasks import iris
from pipeline.values import Outcome


def space_of(text: str) -> Space:
    return spaces.parse(text, Path("blobs.toml"), (LEARNING_RATE, BATCH_SIZE, DROPOUT, L2), CLASSIFICATION)


def opened(name: str, space: Space, **more: str) -> Study:
    origin = Origin(more.get("task", "blobs"), "full", 1, None, "blobs.toml", space.text)
    return open_study(
        name, storage.connect("", name), space, origin, "d1", pruner="none", sampler="random", seed=0
    )


def earlier(count: int = 8) -> list[Mapping[str, object]]:
    """A study `old`: the baseline, and drawn trials, each better than the one before; what was drawn."""
    study = opened("old", space_of(TEXT))
    drawn = []
    for place in range(count + 1):
        candidate = study.ask()
        drawn.append(study.drawn(candidate))
        # The baseline is best of all.
        study.tell(Outcome(candidate.number, value=place / 100 or 0.99, best_epoch=0))
    return drawn


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_HOME", str(tmp_path / "studies"))


def test_the_best_drawn_trials_are_found_best_first() -> None:
    drawn = earlier()
    found = warm_start.find("old", "", "blobs", space_of(TEXT))
    assert found.starts == tuple(Start(f"old/{number}", drawn[number]) for number in (8, 7, 6, 5, 4))
    assert found.told == ("warm_start: tried first: old/8, old/7, old/6, old/5, old/4",)


def test_settings_that_were_tried_twice_are_found_once() -> None:
    space = space_of(
        TEXT.replace("{ low = 1e-4, high = 1e-1, log = true }", "0.01").replace(
            "{ low = 0.0, high = 0.5 }", "0.1"
        )
    )
    study = opened("old", space)
    for number in range(9):
        study.tell(Outcome(study.ask().number, value=number / 10, best_epoch=0))
    found = warm_start.find("old", "", "blobs", space)
    assert sorted(start.drawn["batch_size"] for start in found.starts) == [16, 32]


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        ("high = 1e-1", "high = 1e-3", "is none of what is searched here"),
        ("[16, 32]", "[8, 64]", "is none of what is searched here"),
        ("dropout = { low = 0.0, high = 0.5 }", "dropout = 0.25", ", but 0.25 here"),
    ],
)
def test_what_the_space_cannot_make_is_told_and_left_out(before: str, now: str, said: str) -> None:
    drawn = earlier()
    space = space_of(TEXT.replace(before, now))
    found = warm_start.find("old", "", "blobs", space)
    kept = {int(start.label.partition("/")[2]) for start in found.starts}
    assert found.left_out
    assert all(said in why for why in found.left_out)
    if "1e-3" in now:
        fitting = {number for number in range(1, 9) if drawn[number]["learning_rate"] <= 1e-3}
        assert kept == set(sorted(fitting, reverse=True)[:5])
    else:
        assert kept == set()
        assert found.told[0] == "warm_start: nothing can be tried first"
        assert found.told[1].endswith("; and 5 more")


def test_a_setting_that_the_earlier_study_had_fixed_may_be_searched_now() -> None:
    study = opened("old", space_of(TEXT.replace("{ low = 0.0, high = 0.5 }", "0.25")))
    for number in range(2):
        study.tell(Outcome(study.ask().number, value=number / 10, best_epoch=0))
    (start,) = warm_start.find("old", "", "blobs", space_of(TEXT)).starts
    assert start.drawn["dropout"] == 0.25


def test_they_follow_the_baseline_once_and_are_known() -> None:
    drawn = earlier()
    space = space_of(TEXT)
    warm = warm_start.find("old", "", "blobs", space)
    study = opened("new", space)
    assert study.start_from("old", warm.starts)
    first = [study.ask() for _ in range(4)]
    assert study.is_baseline(0)
    assert [study.started_from(candidate.number) for candidate in first] == ["", "old/8", "old/7", "old/6"]
    assert [study.drawn(candidate) for candidate in first[1:]] == [drawn[8], drawn[7], drawn[6]]
    for candidate in first[:3]:
        study.tell(Outcome(candidate.number, value=0.5, best_epoch=0))
    study.interrupt(3, "interrupted")

    again = opened("new", space)
    assert not again.start_from("old", warm.starts[:1]), "whatever the earlier study has become since"
    rest = [again.ask() for _ in range(5)]
    # The interrupted one is tried again, each other one once; then the sampler draws.
    assert sorted(again.started_from(candidate.number) for candidate in rest) == [
        "", "", "old/4", "old/5", "old/6"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "sampler", "said"),
    [
        ("new", "tpe", "warm_start: must name another study, but new is the one that is searched"),
        ("old", "grid", "warm_start: has no use with sampler=grid"),
    ],
)
def test_what_makes_no_sense_is_refused(asked: str, sampler: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        warm_start.check(asked, "new", sampler)
    warm_start.check("old", "new", "tpe")


def test_a_study_that_cannot_be_begun_with_is_one_line() -> None:
    space = space_of(TEXT)
    with pytest.raises(UserError, match=r"^warm_start: there is no study named 'old' in .*studies$"):
        warm_start.find("old", "", "blobs", space)
    assert not storage.home("old").exists()
    study = opened("old", space)
    study.tell(Outcome(study.ask().number, value=0.5, best_epoch=0))
    with pytest.raises(UserError, match="no trial that the sampler drew completed in study old"):
        warm_start.find("old", "", "blobs", space)
    with pytest.raises(UserError, match="study old: is of the task blobs, and not of iris"):
        warm_start.find("old", "", "iris", space)


def test_a_study_in_a_database_is_looked_for_there(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    with pytest.raises(UserError, match=r"^warm_start: there is no study named 'old' in this storage$"):
        warm_start.find("old", url, "blobs", space_of(TEXT))


def test_a_search_tries_them_first_and_says_so(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(iris, "_WIDTHS", (8,))
    usual = {"task": "iris", "epochs": 1, "members": 1, "engine": "fit", "export": "none"}
    first = search(study="old", trials=3, **usual)
    assert isinstance(first, Result)
    capsys.readouterr()
    result = search(study="new", trials=2, warm_start="old", seed=1, **usual)
    assert isinstance(result, Result)
    assert "warm_start: tried first: old/" in capsys.readouterr().out
    client = MlflowClient()

    def children(of: Result) -> dict[str, tuple[Mapping[str, str], str]]:
        experiment = client.get_run(of.run_id).info.experiment_id
        runs = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{of.run_id}'")
        return {
            run.data.tags["pipeline.trial"]: (run.data.params, run.data.tags.get("pipeline.warm_start", ""))
            for run in runs
        }

    before, now = children(first), children(result)
    assert now["0"][1] == ""
    label = now["1"][1]
    assert label in ("old/1", "old/2")
    assert now["1"][0] == before[label.removeprefix("old/")][0]
    # The same command with more trials goes on with the second one, and then draws.
    again = search(study="new", trials=4, warm_start="old", seed=1, **usual)
    assert isinstance(again, Result)
    assert "tried first" not in capsys.readouterr().out
    labels = [label for _, label in children(again).values()]
    assert sorted(labels) == ["", "", "old/1", "old/2"]


def test_an_earlier_study_that_is_gone_is_not_needed_to_go_on(workplace: Path) -> None:
    given = {"task": "iris", "study": "new", "warm_start": "old", "engine": "fit"}
    space = tasks.find("iris").read_space(None)
    study = opened("old", space, task="iris")
    for _ in range(2):
        study.tell(Outcome(study.ask().number, value=0.5, best_epoch=0))
    with open_search(options.values("search", given)) as job:
        assert job.told
    shutil.rmtree(storage.home("old"))
    with open_search(options.values("search", given)) as job:
        assert not job.told
        assert job.study.ask()
        assert job.study.started_from(job.study.ask().number) == "old/1"
    # Another one is asked for by its own name.
    given["warm_start"] = "older"
    with (
        pytest.raises(UserError, match="there is no study named 'older'"),
        open_search(options.values("search", given)),
    ):
        pass


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--warm_start=nothing", "warm_start: there is no study named 'nothing'"),
        ("--warm_start=iris", "warm_start: must name another study"),
        ("--warm_start=../x", "warm_start: must be 1 to 100 letters"),
    ],
)
def test_a_search_with_a_wrong_one_begins_nothing(
    workplace: Path, argument: str, said: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(["search", "--task=iris", argument]) == 2
    assert said in capsys.readouterr().err
    assert not (workplace / "studies").exists()
