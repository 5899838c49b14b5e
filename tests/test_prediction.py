"""Files of rows to files of answers: every kind of file, and every way in which one can be wrong."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from pipeline.datasets import table_files
from pipeline.errors import RunError, UserError
from pipeline.prediction import arrays, command, reading, tables, verdict
from pipeline.tracking import answering
from pipeline.tracking.answering import RowError

COLUMNS = {
    "form": {"kind": "columns", "names": ["a", "b"]},
    "inputs": [{"name": "", "shape": [2], "dtype": "float32"}],
    "outputs": [{"name": "", "classes": ["no", "yes"], "link": ""}],
}
PICTURES = {
    "form": {"kind": "pictures", "white": 255.0, "drawing": None, "column": "image"},
    "inputs": [{"name": "", "shape": [4, 4, 1], "dtype": "uint8"}],
    "outputs": [{"name": "", "classes": ["no", "yes"], "link": ""}],
}
TEXTS = {
    "form": {"kind": "texts", "column": "text"},
    "inputs": [{"name": "", "shape": [5], "dtype": "int32"}],
    "outputs": [{"name": "", "classes": [], "link": ""}],
}
TWO = {
    "form": {"kind": "arrays", "words": {}},
    "inputs": [
        {"name": "text", "shape": [3], "dtype": "int32"},
        {"name": "question", "shape": [2], "dtype": "int32"},
    ],
    "outputs": [{"name": "", "classes": [], "link": ""}],
}


def first_number(rows: Any) -> np.ndarray:
    """A model's answers that tell which rows it was given."""
    if isinstance(rows, dict):
        return rows["text"][:, 0].astype(float)
    if isinstance(rows, pd.DataFrame) and "image" in rows:
        return np.array([float(np.asarray(Image.open(io.BytesIO(one)))[0, 0]) for one in rows["image"]])
    return rows.iloc[:, 0].to_numpy()


class Model:
    """Answers with each row's first number; bytes that are no picture it cannot read."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.told = told
        self.sizes: list[int] = []

    def answer(self, rows: Any) -> pd.DataFrame:
        if isinstance(rows, pd.DataFrame) and "image" in rows:
            for label, one in rows["image"].items():
                if one in (b"bad", b""):
                    raise RowError(f"row {label}, image: cannot be read", label)
        found = first_number(rows)
        self.sizes.append(len(found))
        return pd.DataFrame({"prediction": found}, index=getattr(rows, "index", None))


@pytest.fixture
def predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., pd.DataFrame]:
    """Runs the command on a file in the test's folder, with a model that tells so much."""

    def run(told: dict[str, Any], name: str, output: str = "answers.parquet") -> pd.DataFrame:
        model = Model(told)
        monkeypatch.setattr(answering, "load", lambda uri: model)
        asked = {
            "model": "models:/m@champion",
            "input": str(tmp_path / name),
            "output": str(tmp_path / output),
        }
        command.predict(asked)
        read = pd.read_parquet if output.endswith("parquet") else pd.read_csv
        return read(tmp_path / output)

    return run


def table(rows: int) -> pd.DataFrame:
    return pd.DataFrame({"id": [f"n{n}" for n in range(rows)], "b": 0.5, "a": np.arange(rows) / 4})


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet"])
@pytest.mark.parametrize("output", ["answers.csv", "answers.parquet"])
def test_a_table_of_several_batches_is_answered_row_by_row(
    predict, tmp_path: Path, kind: str, output: str
) -> None:
    rows = table(25_001)
    write = {
        "csv": lambda file: rows.to_csv(file, index=False),
        "tsv": lambda file: rows.to_csv(file, index=False, sep="\t"),
        "parquet": rows.to_parquet,
    }[kind]
    write(tmp_path / f"rows.{kind}")
    found = predict(COLUMNS, f"rows.{kind}", output)
    assert list(found) == ["id", "prediction"]
    assert list(found["id"]) == list(rows["id"])
    np.testing.assert_array_equal(found["prediction"], rows["a"])
    assert [file.name for file in tmp_path.glob(".*")] == []


def test_a_csv_is_read_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_files, "_BLOCK", 2048)
    lines = [f'"row\n{number}",{number}' for number in range(2000)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,id", *lines, "cut off"]))
    batches = reading.batches(tmp_path / "rows.csv", TEXTS)
    found = [next(batches)]
    # The end of the file has not been come to.
    assert len(found[0].rows) < 200
    with pytest.raises(
        UserError, match=r"rows.csv: row 2001 has 1 cells, but there are 2 names; the file may"
    ):
        found += batches
    (tmp_path / "rows.csv").write_text("\n".join(["text,id", *lines]))
    whole = list(reading.batches(tmp_path / "rows.csv", TEXTS))
    assert [text for batch in whole for text in batch.rows["text"]] == [f"row\n{n}" for n in range(2000)]
    assert [label for batch in whole for label in batch.kept.index] == list(range(1, 2001))


def test_texts_of_parquet_s_views_are_read(tmp_path: Path) -> None:
    views = {
        "text": pa.array(["a", "b", None], pa.string_view()),
        "id": pa.array(["x", None, "y"], pa.string_view()),
        "blob": pa.array([b"x", b"y", None], pa.binary_view()),
    }
    parquet.write_table(pa.table(views), tmp_path / "rows.parquet")
    (batch,) = reading.batches(tmp_path / "rows.parquet", TEXTS)
    assert batch.rows["text"].tolist()[:2] == ["a", "b"]
    assert batch.kept.columns.tolist() == ["id", "blob"]
    batch.kept.to_csv(tmp_path / "kept.csv")
    batch.kept.to_parquet(tmp_path / "kept.parquet")


@pytest.mark.parametrize("name", ["rows.csv", "rows.npy"])
def test_rows_are_numbered_from_one(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, "a,b\n1,2\n3,4\n" if name.endswith("csv") else np.ones((2, 2)))
    (batch,) = reading.batches(tmp_path / name, COLUMNS)
    assert list(batch.rows.index) == list(batch.kept.index) == [1, 2]


def test_a_table_that_excel_wrote_is_read(predict, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("﻿a,b\n1,2\n3,4\n", encoding="utf-8")
    assert list(predict(COLUMNS, "rows.csv")["prediction"]) == [1.0, 3.0]


def test_columns_that_the_model_does_not_take_are_as_they_were_written(predict, tmp_path: Path) -> None:
    cells = [f"{n:05d}" for n in range(12_000)]
    cells[11_000], cells[11_001], cells[3] = "", "k7", "1e5"
    rows = pd.DataFrame({"id": cells, "prediction": "mine", "a": 1.5, "b": 2})
    rows.to_csv(tmp_path / "rows.csv", index=False)
    found = predict(COLUMNS, "rows.csv")
    assert list(found) == ["id", "input_prediction", "prediction"]
    assert list(found["id"]) == cells
    typed = pd.DataFrame({"id": pd.array([1, None] * 6000, dtype="Int64"), "a": 1.5, "b": 2})
    typed.loc[:10_500, "id"] = 5
    typed.to_parquet(tmp_path / "rows.parquet")
    assert list(predict(COLUMNS, "rows.parquet")["id"].isna()) == list(typed["id"].isna())


def test_texts_are_what_is_written_also_where_pandas_would_see_numbers(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text('text\n12\nNA\n"a ""b"", c\nd"\n\n', encoding="utf-8")
    (batch,) = reading.batches(tmp_path / "rows.csv", TEXTS)
    assert list(batch.rows["text"]) == ["12", "NA", 'a "b", c\nd']


@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_are_read_some_rows_at_a_time(tmp_path: Path, compressed: bool) -> None:
    rng = np.random.default_rng(0)
    rows = {"question": rng.integers(0, 9, (1003, 2)), "text": rng.integers(0, 9, (1003, 3))}
    (np.savez_compressed if compressed else np.savez)(tmp_path / "rows.npz", **rows)
    found = list(arrays.batches(tmp_path / "rows.npz", ["text", "question"], most_bytes=4000))
    assert len(found) == 11
    assert max(sum(part.nbytes for part in one.values()) for one in found) <= 4000
    for name, whole in rows.items():
        np.testing.assert_array_equal(np.concatenate([one[name] for one in found]), whole)


def test_several_inputs_come_from_one_archive_in_the_models_types(predict, tmp_path: Path) -> None:
    rows = {"text": np.arange(30).reshape(10, 3), "question": np.zeros((10, 2)), "other": np.zeros(4)}
    np.savez(tmp_path / "rows.npz", **rows)
    assert list(predict(TWO, "rows.npz")["prediction"]) == list(range(0, 30, 3))
    (batch,) = reading.batches(tmp_path / "rows.npz", TWO)
    assert {name: part.dtype.name for name, part in batch.rows.items()} == {
        "text": "int32",
        "question": "int32",
    }


def test_a_bad_row_of_arrays_is_counted_from_one_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refuses(Model):
        def answer(self, rows: Any) -> pd.DataFrame:
            (bad,) = np.nonzero(rows["text"][:, 0] == 77)
            if len(bad):
                # As `served.py` does: arrays have no labels, so it counts from 0.
                raise RowError(f"row {bad[0]}, text: word numbers must be 0 to 76", int(bad[0]))
            return super().answer(rows)

    monkeypatch.setattr(answering, "load", lambda uri: Refuses(TWO))
    # Batches of ten rows, of five whole numbers of 8 bytes.
    monkeypatch.setattr(reading, "_BYTES", 400)
    text = np.zeros((100, 3), np.int64)
    text[34, 0] = 77
    np.savez(tmp_path / "rows.npz", text=text, question=np.zeros((100, 2), np.int64))
    asked = {"model": "m", "input": str(tmp_path / "rows.npz"), "output": str(tmp_path / "answers.csv")}
    with pytest.raises(UserError, match=r"^input: .*rows\.npz: row 35, text: word numbers must be 0 to 76$"):
        command.predict(asked)


@pytest.mark.parametrize("file", ["rows.npy", "rows.npz"])
def test_one_input_may_have_any_name(predict, tmp_path: Path, file: str) -> None:
    whole = np.arange(20.0).reshape(10, 2)
    np.save(tmp_path / file, whole) if file.endswith("npy") else np.savez(tmp_path / file, whatever=whole)
    assert list(predict(COLUMNS, file)["prediction"]) == list(whole[:, 0])


def picture(file: Path, grey: int) -> None:
    file.parent.mkdir(exist_ok=True)
    Image.new("L", (3, 3), grey).save(file)


def test_a_folder_is_answered_by_its_files_names_and_bad_pictures_are_listed(
    predict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for number in range(300):
        picture(tmp_path / "p" / f"{number:03d}.png", number % 256)
    picture(tmp_path / "p" / "deeper" / "x.PNG", 7)
    for bad in ("p/005.png", "p/299.png"):
        (tmp_path / bad).write_bytes(b"bad")
    (tmp_path / "p" / "notes.txt").write_text("no picture")
    (tmp_path / "p" / "nowhere.png").symlink_to(tmp_path / "none.png")
    found = predict(PICTURES, "p").set_index("file")["prediction"]
    assert len(found) == 299
    assert (found["004.png"], found["006.png"], found["298.png"], found["deeper/x.PNG"]) == (4, 6, 42, 7)
    said = capsys.readouterr()
    assert "299 rows answered, 3 left out" in said.out
    assert "left out: row 005.png, image: cannot be read" in said.err
    assert "left out: row 299.png, image: cannot be read" in said.err


@pytest.mark.parametrize("kind", ["csv", "parquet", "folder"])
def test_no_more_pictures_are_held_than_memory_should_hold(
    predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    for number in range(20):
        picture(tmp_path / "p" / f"{number:02d}.png", number)
    size = (tmp_path / "p" / "00.png").stat().st_size
    for module in (reading, tables):
        monkeypatch.setattr(module, "_BYTES", 3 * size)
    cells = [f"p/{number:02d}.png" for number in range(20)]
    pd.DataFrame({"id": range(20), "image": cells}).to_csv(tmp_path / "rows.csv", index=False)
    contents = [(tmp_path / cell).read_bytes() for cell in cells]
    pd.DataFrame({"id": range(20), "image": contents}).to_parquet(tmp_path / "rows.parquet")
    held = []
    for batch in reading.batches(tmp_path / ("p" if kind == "folder" else f"rows.{kind}"), PICTURES):
        held.append(len(batch.rows))
        assert list(batch.kept.index) == list(batch.rows.index)
    assert sum(held) == 20
    assert max(held) <= 4
    name = "p" if kind == "folder" else f"rows.{kind}"
    assert list(predict(PICTURES, name)["prediction"]) == list(range(20))


def test_a_folder_of_bad_pictures_is_an_error(predict, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "1.png").write_bytes(b"bad")
    with pytest.raises(RunError, match=r"no picture can be read: row 1.png"):
        predict(PICTURES, "p")


def test_pictures_named_in_a_table_lie_in_its_folder(predict, tmp_path: Path) -> None:
    picture(tmp_path / "p" / "9.png", 9)
    (tmp_path / "rows.csv").write_text("image,id\np/9.png,x\n")
    assert predict(PICTURES, "rows.csv").values.tolist() == [["x", 9.0]]
    secret = tmp_path.parent / "secret.png"
    picture(secret, 1)
    for outside in ("../secret.png", str(secret), "p/none.png", "x" * 300, "p/9.png\0"):
        pd.DataFrame({"image": ["p/9.png", outside]}).to_parquet(tmp_path / "rows.parquet")
        with pytest.raises(UserError, match=r"row 2: '.*' is no picture in its folder"):
            predict(PICTURES, "rows.parquet")


def write(file: Path, content: object) -> None:
    if isinstance(content, bytes | str):
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    elif isinstance(content, dict):
        np.savez(file, **content)
    elif isinstance(content, np.ndarray):
        np.save(file, content, allow_pickle=True)


@pytest.mark.parametrize(
    ("told", "name", "content", "why"),
    [
        (COLUMNS, "none.csv", None, "there is no such file"),
        (COLUMNS, "rows.txt", "a,b\n1,2\n", "must be a folder of pictures, or end in one of .csv"),
        (COLUMNS, "rows.csv", "", "is empty: it has 0 bytes"),
        (COLUMNS, "rows.csv", "a,b\n", "has no rows"),
        (COLUMNS, "rows.csv", "a,b\n1,2,3\n", "row 1 has 3 cells, but there are 2 names: '1,2,3'"),
        (COLUMNS, "rows.csv", "a,b\n1,2\n1,2,3\n", "row 2 has 3 cells, but there are 2 names: '1,2,3'"),
        (COLUMNS, "rows.csv", "a,b\n1,2\n4\n5,6\n", "row 2 has 1 cells, but there are 2 names; the file may"),
        (TEXTS, "rows.csv", "text,b,c\n1,2,3\n4,5", "row 2 has 2 cells, but there are 3 names; the file may"),
        (TEXTS, "rows.csv", 'text,b\n1,2\n4,"5', "a double quote is never closed; the file may be cut off"),
        (COLUMNS, "rows.csv", "a,b,a\n1,2,3\n", "has several columns of the name 'a'"),
        (COLUMNS, "rows.csv", "a,b\n1,\n", "row 1, b: must be a number, but is ''"),
        (COLUMNS, "rows.csv", "a,b\n1,True\n", "row 1, b: must be a number, but is 'True'"),
        (COLUMNS, "rows.npy", np.ones((0, 2)), "has no rows"),
        (COLUMNS, "rows.csv", "a,c\n1,2\n", "has no column b; its columns are a, c"),
        (COLUMNS, "rows.csv", "a,b\n1,2\n3,x y\n", "row 2, b: must be a number, but is 'x y'"),
        (COLUMNS, "rows.csv", b"a,b\n1,\xff\xfe\n", "is not UTF-8: byte 6 (line 2) is 0xff"),
        (COLUMNS, "rows.csv", 'a,b\n1,"2\n', "a double quote is never closed; the file may be cut off"),
        (COLUMNS, "rows.parquet", b"PAR1 no parquet", "cannot be read as parquet"),
        (COLUMNS, "rows.npz", b"no archive", "the arrays cannot be read: File is not a zip file"),
        (COLUMNS, "rows.npz", {"a": np.ones((2, 3))}, "must be numbers, (rows, 2)"),
        (COLUMNS, "rows.npz", {"a": np.ones(2), "c": np.ones(2)}, "the model takes one array: the only one"),
        (COLUMNS, "rows.npy", np.array([{}, {}]), "an array holds Python objects"),
        (COLUMNS, "rows.npy", np.asfortranarray(np.ones((3, 2))), "lies column by column"),
        (COLUMNS, "rows.npy", np.array(1.0), "an array has no rows"),
        (COLUMNS, "rows.png", b"x", "the model takes the columns a, b, no single pictures"),
        (TWO, "rows.csv", "a,b\n1,2\n", "takes an .npz file with the arrays text of (3,), question of (2,)"),
        (TWO, "rows.npz", {"text": np.ones((2, 3))}, "no array is named question; it holds text"),
        (
            TWO,
            "rows.npz",
            {"text": np.ones((2, 3)), "question": np.ones((3, 2))},
            "they need the same rows, but text: 2, question: 3",
        ),
        (
            TWO,
            "rows.npz",
            {"text": np.full((2, 3), 0.5), "question": np.ones((2, 2))},
            "text must be whole numbers that fit int32",
        ),
        (TWO, "rows.npy", np.ones((2, 3)), "save them by name in one .npz"),
    ],
)
def test_a_wrong_input_is_one_error_and_leaves_no_output(
    predict, tmp_path: Path, told: dict, name: str, content: object, why: str
) -> None:
    write(tmp_path / name, content)
    with pytest.raises(UserError) as caught:
        predict(told, name)
    assert str(caught.value).startswith(f"input: {tmp_path / name}")
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [file.name for file in tmp_path.iterdir() if file.name != name] == []


def test_a_cut_off_array_is_an_error(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.ones((100, 2)))
    whole = (tmp_path / "rows.npy").read_bytes()
    (tmp_path / "rows.npy").write_bytes(whole[:-8])
    with pytest.raises(UserError, match="it ends within a row"):
        list(arrays.batches(tmp_path / "rows.npy", [""], 64))


def test_a_fault_in_a_later_batch_leaves_the_old_output(predict, tmp_path: Path) -> None:
    rows = table(12_000)
    rows["a"] = rows["a"].astype(str)
    rows.loc[11_000, "a"] = "oops"
    rows.to_csv(tmp_path / "rows.csv", index=False)
    (tmp_path / "answers.csv").write_text("old\n")
    with pytest.raises(UserError, match="row 11001, a: must be a number, but is 'oops'"):
        predict(COLUMNS, "rows.csv", "answers.csv")
    assert (tmp_path / "answers.csv").read_text() == "old\n"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["answers.csv", "rows.csv"]


def test_the_input_is_not_written_over(predict, tmp_path: Path) -> None:
    table(3).to_csv(tmp_path / "rows.csv", index=False)
    before = (tmp_path / "rows.csv").read_text()
    with pytest.raises(UserError, match="must be another file than the input"):
        predict(COLUMNS, "rows.csv", "rows.csv")
    assert (tmp_path / "rows.csv").read_text() == before


@pytest.mark.parametrize(
    ("output", "why"),
    [("a.xlsx", "must end in one of .csv, .tsv, .parquet"), ("none/a.csv", "there is no folder")],
)
def test_a_wrong_output_is_said_before_anything_is_read(tmp_path: Path, output: str, why: str) -> None:
    asked = {"model": "models:/m/1", "input": str(tmp_path / "none.csv"), "output": str(tmp_path / output)}
    with pytest.raises(UserError, match=rf"^output: .*{why}"):
        command.predict(asked)


def test_a_table_without_an_output_goes_to_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(answering, "load", lambda uri: Model(COLUMNS))
    (tmp_path / "rows.csv").write_text('id,a,b\n"x, y",1,2\n')
    command.predict({"model": "m", "input": str(tmp_path / "rows.csv"), "output": None})
    assert capsys.readouterr().out == 'id,prediction\n"x, y",1.0\n'


def test_one_picture_is_told_in_words() -> None:
    names = [f"class {n}" for n in range(25)]
    chances = np.array([0.7, 0.2] + [0.1 / 23] * 23)
    answers = pd.DataFrame(
        {"class": ["class 0"], **{f"probability_{name}": [p] for name, p in zip(names, chances, strict=True)}}
    )
    lines = verdict.in_words("7.png", answers, [{"name": "", "classes": names}]).splitlines()
    assert lines[0] == "7.png: class 0 (70.0%)"
    assert lines[2].split() == ["class", "0", "70.0%", "█" * 28]
    assert lines[3].split() == ["class", "1", "20.0%", "█" * 8]
    assert lines[-1] == "  and 5 more"
    both = pd.DataFrame(
        {"age": [31.25], "sex_class": ["f"], "sex_probability_m": [0.1], "sex_probability_f": [0.9]}
    )
    told = verdict.in_words(
        "x", both, [{"name": "age", "classes": []}, {"name": "sex", "classes": ["m", "f"]}]
    )
    assert told.startswith("x: age 31.25\n\nx: sex f (90.0%)\n")


def test_a_model_of_someone_else_is_refused(workplace: Path) -> None:
    import mlflow

    class Other(mlflow.pyfunc.PythonModel):
        def predict(self, context: Any, model_input: pd.DataFrame) -> pd.DataFrame:
            return model_input

    mlflow.pyfunc.save_model("other", python_model=Other(), pip_requirements=[])
    with pytest.raises(UserError, match=r"^model: other: was not made by this pipeline"):
        answering.load("other")
    with pytest.raises(UserError, match=r"^model: models:/none@champion: cannot be loaded: "):
        answering.load("models:/none@champion")


def test_a_table_is_parted_as_in_training(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("\ufeffa;b;note\n1;2;x,y\n", encoding="utf-8")
    ((rows, kept),) = tables.batches(tmp_path / "rows.csv", ["a", "b"], "columns")
    assert rows.to_dict("list") == {"a": [1.0], "b": [2.0]}
    assert kept.to_dict("list") == {"note": ["x,y"]}
