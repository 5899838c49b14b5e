"""A person's file of rows is read as it is written, or refused by one error that says where."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from pipeline.datasets import columns, table_files
from pipeline.datasets.table_files import as_text, column, read
from pipeline.errors import UserError


def _file(folder: Path, content: bytes, name: str = "rows.csv") -> Path:
    file = folder / name
    file.write_bytes(content)
    return file


@pytest.mark.parametrize(
    ("content", "name", "columns"),
    [
        (b"a,b\n007,NA\n1e3,\n", "rows.csv", {"a": ["007", "1e3"], "b": ["NA", ""]}),
        (b"a,b\n1,2", "no_last_line_break.csv", {"a": ["1"], "b": ["2"]}),
        (b"\xef\xbb\xbfa;b\r\n1,5;2\r\n", "excel.csv", {"a": ["1,5"], "b": ["2"]}),
        (b"a|b\r1|2\r", "mac.csv", {"a": ["1"], "b": ["2"]}),
        (b"a,c\tb\n1\t2\n", "tabs.tsv", {"a,c": ["1"], "b": ["2"]}),
        (b"a\tb\n1\t2\n", "tabs.csv", {"a": ["1"], "b": ["2"]}),
        (b'"a;""x""",b\n"1\n2",",;"\n', "quotes.csv", {'a;"x"': ["1\n2"], "b": [",;"]}),
        (b'a,b\n5" pipe,3\n', "inches.csv", {"a": ['5" pipe'], "b": ["3"]}),
        (b"a,b\n\n1,2\n \n\n3,4\n\n", "empty_lines.csv", {"a": ["1", "3"], "b": ["2", "4"]}),
        (b'a\n"x\n\ny"\n""\nz\n', "one.csv", {"a": ["x\n\ny", "", "z"]}),
        ("größe,😀\n<b>,\u2028\n".encode(), "words.csv", {"größe": ["<b>"], "😀": ["\u2028"]}),
        (b",a\n0,1\n", "with_numbers.csv", {"": ["0"], "a": ["1"]}),
    ],
)
def test_cells_are_as_they_are_written(
    tmp_path: Path, content: bytes, name: str, columns: dict[str, list[str]]
) -> None:
    table = read(_file(tmp_path, content, name))
    assert table.to_dict("list") == columns
    assert set(table.dtypes) == {pd.StringDtype("pyarrow", na_value=float("nan"))}
    assert list(table.index) == list(range(len(table)))


@pytest.mark.parametrize(
    ("content", "name", "fault"),
    [
        (b"", "rows.csv", "is empty: it has 0 bytes"),
        (b"", "rows.parquet", "is empty: it has 0 bytes"),
        (b"\n\n", "rows.csv", "is empty: all its lines are"),
        (b"a,b\n", "rows.csv", "has no rows"),
        (b"a,b\n1,2\n3,4,5\n", "rows.csv", "row 2 has 3 cells, but there are 2 names: '3,4,5'"),
        (b"a,b\n1,2\n3\n4,5\n", "rows.csv", "row 2 has 1 cells, but there are 2 names"),
        (b"a,b\n1,2\n3", "rows.csv", "the file may be cut off: '3'"),
        (b'a,b\n1,2\n3,"x', "rows.csv", "a double quote is never closed; the file may be cut off"),
        (b'a,b\n1,"2\n3,4\n', "rows.csv", "a double quote is never closed; the file may be cut off"),
        (b'a,b\n"1,2\n3,4\n', "rows.csv", "a double quote is never closed; the file may be cut off"),
        (b"a,b,a\n1,2,3\n", "rows.csv", "has several columns of the name 'a'"),
        ("a,b\n1,é\n".encode("latin-1"), "rows.csv", "is not UTF-8: byte 6 (line 2) is 0xe9; save it"),
        ("a,b\n1,é\n".encode("utf-16"), "rows.csv", "is not UTF-8: byte 0 (line 1) is 0xff; save it"),
        (b"a,b\n1,\0\n", "rows.csv", "is no text file: it holds a zero byte"),
        (b"a,b\n1,2\n", "rows.xlsx", "must end in one of .csv, .tsv, .parquet"),
        (b"a,b\n1,2\n", "rows.parquet", "cannot be read as parquet: "),
    ],
)
def test_a_file_that_cannot_be_read_says_where(tmp_path: Path, content: bytes, name: str, fault: str) -> None:
    file = _file(tmp_path, content, name)
    with pytest.raises(UserError) as caught:
        read(file, "data")
    assert str(caught.value).startswith(f"data: {file}: ")
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_byte_is_found_behind_the_first_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_files, "_BLOCK", 64)
    # Letters of two bytes lie across the blocks' borders.
    lines = "aé,b\n".encode() * 100
    with pytest.raises(UserError, match=r"byte 600 \(line 101\) is 0xe9"):
        read(_file(tmp_path, lines + b"\xe9,b\n"))


def test_no_such_file_and_a_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^input: .*none\.csv: there is no such file$"):
        read(tmp_path / "none.csv", "input")
    with pytest.raises(UserError, match="must be a file, but is a folder"):
        read(tmp_path)


def test_parquet_has_its_own_types_and_may_be_read_as_text(tmp_path: Path) -> None:
    made = pd.DataFrame(
        {
            "number": [1.0, 2.5, None],
            "word": ["x", None, ""],
            "kind": pd.Categorical(["u", "v", "u"]),
            "yes": [True, False, True],
        },
        index=[3, 4, 5],
    )
    made.to_parquet(tmp_path / "rows.parquet")
    table = read(tmp_path / "rows.parquet")
    assert list(table.columns) == ["number", "word", "kind", "yes"]
    assert all(isinstance(dtype, pd.ArrowDtype) for dtype in table.dtypes)
    assert table["number"].isna().tolist() == [False, False, True]
    assert {name: as_text(table[name]).tolist() for name in table} == {
        "number": ["1", "2.5", ""],
        "word": ["x", "", ""],
        "kind": ["u", "v", "u"],
        "yes": ["true", "false", "true"],
    }


def test_views_are_held_as_types_that_can_be_calculated_with(tmp_path: Path) -> None:
    names = ["a", "b", None, "a", "b"] * 4
    views = {"word": pa.array(names, pa.string_view()), "blob": pa.array([b"x"] * 20, pa.binary_view())}
    parquet.write_table(pa.table(views), tmp_path / "rows.parquet")
    table = read(tmp_path / "rows.parquet")
    fitted = columns.fit(table)
    assert [rule["values"] for rule in fitted.rules] == [["", "a", "b"]]
    assert fitted.notes == ("left out, as they hold no single values: blob",)


def test_parquet_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    whole = tmp_path / "rows.parquet"
    pd.DataFrame({"a": [1, 2]}).to_parquet(whole)
    with pytest.raises(UserError, match="cannot be read as parquet"):
        read(_file(tmp_path, whole.read_bytes()[:-20], "cut.parquet"))


def test_lists_are_no_texts(tmp_path: Path) -> None:
    pd.DataFrame({"a": [[1], [2]]}).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(UserError, match="'a': must hold texts or numbers, but holds list"):
        as_text(read(tmp_path / "rows.parquet")["a"])


def test_a_missing_column_names_those_that_are_there(tmp_path: Path) -> None:
    table = read(_file(tmp_path, b"a,b\n1,2\n"))
    assert column(table, "a", "rows.csv", "target").tolist() == ["1"]
    with pytest.raises(UserError, match=r"^target: rows.csv has no column 'c'; its columns are a, b$"):
        column(table, "c", "rows.csv", "target")


def test_ten_thousand_columns_are_read(tmp_path: Path) -> None:
    names = [f"c{number}" for number in range(10_000)]
    row = ",".join(["1"] * len(names))
    table = read(_file(tmp_path, f"{','.join(names)}\n{row}\n{row}\n".encode()))
    assert table.shape == (2, 10_000)


@pytest.mark.slow
def test_a_million_rows_are_read_within_two_gibibytes(tmp_path: Path) -> None:
    line = ",".join(f"{number}.25" for number in range(28))
    file = tmp_path / "rows.csv"
    with file.open("w") as opened:
        opened.write(",".join(f"c{number}" for number in range(28)) + "\n")
        for _ in range(100):
            opened.write(f"{line}\n" * 10_000)
    # Not `ru_maxrss`: a program starts with the peak of the one that started it, here the tests' own.
    program = (
        "import sys; from pathlib import Path; from pipeline.datasets.table_files import read;"
        "assert read(sys.argv[1]).shape == (1_000_000, 28);"
        "peak = next(line for line in Path('/proc/self/status').open() if line.startswith('VmHWM:'));"
        "print(peak.split()[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(file)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) * 1024 < 2 * 2**30
