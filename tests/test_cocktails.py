"""Tables by a published protocol: any folder of CSV files is searched to its end, and what failed is told."""

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from benchmarks import searches
from benchmarks.cocktails import __main__ as cocktails
from benchmarks.cocktails import boosting
from pipeline.datasets import tables
from pipeline.source import Source


def written(folder: Path, name: str, text: str | bytes) -> Path:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_boosting_takes_texts_of_many_values(tmp_path: Path) -> None:
    lines = [f"town {min(n, 600 - n)},{n / 4},{'ab'[n % 2]}" for n in range(600)]
    rows, labels = boosting._read(str(written(tmp_path, "t.csv", "\n".join(["town,x,target", *lines]))))
    assert rows["town"].nunique() == 255
    model = HistGradientBoostingClassifier(max_iter=2, categorical_features="from_dtype")
    assert model.fit(rows, labels).predict_proba(rows).shape == (600, 2)


def test_boosting_learns_from_the_rows_that_a_search_learns_from(tmp_path: Path) -> None:
    lines = [f"{n},5;{'?' if n % 9 == 4 else 'rg'[n % 2]};{('', 'a', 'b')[n % 3]}" for n in range(90)]
    file = written(tmp_path, "t.csv", "\n".join(["x;colour;target", *lines]))
    rows, labels = boosting._read(str(file))
    data = tables.read(Source(str(file), "target"), "full").data
    assert len(rows) == len(labels) == 60
    assert len(rows) == data.train.rows + data.validation.rows + data.test.rows
    np.testing.assert_array_equal(rows["x"], [n + 0.5 for n in range(90) if n % 3])
    assert labels.tolist() == [n % 3 - 1 for n in range(90) if n % 3]
    assert rows["colour"].isna().tolist() == [n % 9 == 4 for n in range(90) if n % 3]


def test_tables_are_those_whose_last_column_is_the_target(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path, "comma.csv", "\ufeffx,target\n1,a\n")
    written(tmp_path, "semicolon.csv", 'x;"target"\n1;a\n')
    written(tmp_path, "latin.csv", "größe,target\n1,a\n".encode("latin-1"))
    written(tmp_path, "other.csv", "target,x\na,1\n")
    files, failed = cocktails._files(tmp_path, None)
    assert [file.name for file in files] == ["comma.csv", "semicolon.csv"]
    assert list(failed) == ["latin"]
    assert "utf-8" in failed["latin"]
    assert "left out: other.csv: its last column is 'x'" in capsys.readouterr().err
    assert cocktails._files(tmp_path, "comma") == ([tmp_path / "comma.csv"], {})
    with pytest.raises(SystemExit, match=r"--only: .* has no none.csv$"):
        cocktails._files(tmp_path, "comma,none")


def test_what_cannot_be_written_is_told_first(tmp_path: Path) -> None:
    given = [f"--tables={tmp_path}", "--minutes=1"]
    for output in (tmp_path / "none" / "found.json", tmp_path):
        with pytest.raises(SystemExit, match=r"--output: .*there is no folder"):
            cocktails.main([*given, f"--output={output}"])
    with pytest.raises(SystemExit, match=r"--minutes: must be more than 0.7, but is 0.5"):
        cocktails.main([given[0], "--minutes=0.5", f"--output={tmp_path / 'found.json'}"])


def test_a_search_without_a_model_is_told(tmp_path: Path) -> None:
    """Such a search ends in good order, and its run has no score."""
    with sqlite3.connect(searches.store(tmp_path)) as store:
        store.execute("CREATE TABLE tags (run_uuid, key, value)")
        store.execute("CREATE TABLE latest_metrics (run_uuid, key, value)")
        store.execute("INSERT INTO tags VALUES ('a', 'pipeline.study', 'table-t')")
    with pytest.raises(searches.Failed, match="before a trial had a model"):
        cocktails._score(tmp_path)


@pytest.mark.slow
def test_sets_that_fail_are_told_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "sets"
    folder.mkdir()
    for name in ("a", "c"):
        written(folder, f"{name}.csv", "x,target\n" + "1,a\n2,a\n" * 10)
    written(folder, "b.csv", "größe,target\n1,a\n".encode("latin-1"))
    output = tmp_path / "found.json"
    assert cocktails.main([f"--tables={folder}", "--minutes=1", f"--output={output}"]) == 1
    found = json.loads(output.read_text())
    assert sorted(found) == ["a", "b", "c"]
    for name in ("a", "c"):
        assert "must have at least two different values, but all are 'a'" in found[name]["failed"]
    assert "failed: c: " in capsys.readouterr().out
