"""The command `report`: of a closed study, of its trials so far, of what is gone; MLflow stays as it is."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient

from pipeline import search
from pipeline.__main__ import main
from pipeline.evaluation import judging, reading, tables
from pipeline.evaluation.findings import Evaluation
from pipeline.metrics import CLASSIFICATION
from pipeline.result import Result
from pipeline.tasks import iris
from pipeline.values import Metric


@pytest.fixture(autouse=True)
def _one_hidden_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iris, "_WIDTHS", (8,))


def tiny(**parameters: object) -> Result:
    usual = {"task": "iris", "trials": 3, "epochs": 2, "members": 2, "engine": "fit", "export": "none"}
    result = search(**{**usual, **parameters})
    assert isinstance(result, Result)
    return result


def state_of(run_id: str) -> tuple[object, ...]:
    """All that MLflow says of a run and its children."""
    client = MlflowClient()
    run = client.get_run(run_id)
    found = client.search_runs([run.info.experiment_id])
    listed = {file.path for file in client.list_artifacts(run_id)}
    return json.dumps([one.to_dictionary() for one in (run, *found)], default=str, sort_keys=True), listed


def without_pictures(page: str) -> str:
    return "\n".join(line for line in page.splitlines() if not line.startswith("<img"))


def test_a_closed_study_is_reported_as_it_was_and_mlflow_stays_as_it_is(
    workplace: Path, capsys: pytest.CaptureFixture
) -> None:
    result = tiny()
    before = state_of(result.run_id)
    kept = mlflow.artifacts.load_text(f"runs:/{result.run_id}/report.html")
    capsys.readouterr()
    assert main(["report"]) == 0
    assert "iris.html: the report of study iris" in capsys.readouterr().out
    drawn = (workplace / "iris.html").read_text(encoding="utf-8")
    assert drawn.count("<img") == kept.count("<img")
    # The pages differ in one note: how many near duplicates were left out is not drawn again.
    again, first = without_pictures(drawn).splitlines(), without_pictures(kept).splitlines()
    assert [line for line in again if line not in first] == []
    assert [line for line in first if line not in again and "Left out before" not in line] == []
    assert state_of(result.run_id) == before
    # To any file, in place of what was there.
    (workplace / "mine.html").write_text("old")
    assert main(["report", "--study=iris", f"--output={workplace / 'mine.html'}"]) == 0
    assert (workplace / "mine.html").read_text(encoding="utf-8") == drawn
    assert not list(workplace.glob(".*unfinished"))


def test_rows_that_are_texts_are_shown_in_words_with_the_champions_verdict(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def texts(inputs: np.ndarray) -> list[str]:
        return [f"a petal of {row[2]:.1f} centimetres" for row in inputs]

    monkeypatch.setattr(iris, "TASK", replace(iris.TASK, texts=texts))
    result = tiny(trials=2)
    kept = mlflow.artifacts.load_text(f"runs:/{result.run_id}/report.html")
    assert main(["report"]) == 0
    for page in (kept, (workplace / "iris.html").read_text(encoding="utf-8")):
        section = page.partition("<h2>What the champion reads</h2>")[2].partition("<h2>")[0]
        rows = re.findall(
            r"<tr><td>(.*?)</td><td>(\w+) \((.*)%\)</td><td>(\w+)</td><td>(.*)</td></tr>", section
        )
        assert len(rows) > 4
        for kind, says, sure, is_it, text in rows:
            assert (says == is_it) or kind != "sure and right"
            assert (says != is_it) or kind != "sure and wrong"
            assert 100 / 3 <= float(sure) <= 100
            assert re.fullmatch(r"a petal of \d\.\d centimetres", text)


def test_a_study_without_a_closing_is_reported_by_its_trials_so_far(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from pipeline import commands

    def killed(*_: object) -> Result:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(commands, "_close", killed)
        usual = ["--task=iris", "--trials=2", "--epochs=2", "--engine=fit"]
        assert main(["search", *usual]) == 130
    assert main(["report", "--output=so_far.html"]) == 0
    assert "of its trials so far" in capsys.readouterr().out
    page = (workplace / "so_far.html").read_text(encoding="utf-8")
    assert "2 completed, 0 pruned, 0 failed" in page
    assert "0 (baseline)" in page
    assert page.count("<img") == 2
    assert "test rows have not been looked at" in page


def test_scores_that_newer_trials_have_no_part_in_say_so(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline import commands

    tiny(trials=2)

    def killed(*_: object) -> Result:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(commands, "_close", killed)
        assert main(["search", "--task=iris", "--trials=3", "--epochs=2", "--engine=fit"]) == 130
    assert main(["report"]) == 0
    assert "Trials have ended since these were made" in (workplace / "iris.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--study=nothing"], "there is no study named 'nothing'"),
        (["--output=nowhere/x.html"], "output: nowhere/x.html: must be a file in a folder"),
        (["--output=."], "output: .: must be a file in a folder"),
    ],
)
def test_what_cannot_be_reported_is_one_line(
    workplace: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(["report", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not (workplace / "studies").exists()


def evaluated(outputs: Mapping[str, tuple[str, ...]], metrics: tuple[Metric, ...]) -> Evaluation:
    rng = np.random.default_rng(0)
    rows = 40
    targets = {name: rng.integers(0, len(classes), rows) for name, classes in outputs.items()}

    def answers() -> dict[str, np.ndarray]:
        return {name: rng.dirichlet(np.ones(len(classes)), rows) for name, classes in outputs.items()}

    answered = {model: answers() for model in ("baseline", "champion", "ensemble")}
    if list(outputs) == [""]:
        return judging.judge(
            targets[""], {model: found[""] for model, found in answered.items()}, outputs, metrics, 0
        )
    return judging.judge(targets, answered, outputs, metrics, 0)


@pytest.mark.parametrize(
    ("outputs", "metrics"),
    [
        ({"": ("a", "b", "c")}, CLASSIFICATION),
        (
            {"one": ("a", "b"), "two": ("x", "y, z", 'q"')},
            (Metric("one_accuracy", "maximize", "one"), Metric("two_log_loss", "minimize", "two")),
        ),
    ],
    ids=["one-output", "several"],
)
def test_an_evaluation_is_read_as_it_was_written(
    outputs: Mapping[str, tuple[str, ...]], metrics: tuple[Metric, ...]
) -> None:
    made = evaluated(outputs, metrics)
    found = reading.evaluation(tables.files(made), metrics)
    assert found.own == made.own
    assert dict(found.metrics) == dict(made.metrics)
    # NaN, of what is not defined, is equal to itself here.
    np.testing.assert_equal(found.scores, made.scores)
    assert [(one.model, one.other, one.metric) for one in found.differences] == [
        (one.model, one.other, one.metric) for one in made.differences
    ]
    for output, by_model in made.details.items():
        assert list(found.details[output]) == list(by_model)
        for model, one in by_model.items():
            np.testing.assert_array_equal(found.details[output][model].confusion, one.confusion)
    assert tables.files(found) == tables.files(made), "and so is every number"


def test_a_file_with_something_else_in_it_is_an_error() -> None:
    texts = {"scores.csv": "model,value\nchampion,1\n", "differences.csv": ""}
    with pytest.raises(ValueError, match="misses 'score'"):
        reading.evaluation(texts, CLASSIFICATION)
