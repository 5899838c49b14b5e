"""A column becomes classes or numbers by a rule that can be told, or one error says why it cannot."""

import numpy as np
import pandas as pd
import pytest

from pipeline.datasets import targets
from pipeline.errors import UserError


def _cells(*cells: object, dtype: object = "str") -> "pd.Series[object]":
    return pd.Series(list(cells), name="y", dtype=dtype)


def test_words_are_classes_by_letters() -> None:
    found = targets.read(_cells("b", "a", " b", "a", 'a,\n"<b>😀', 'a,\n"<b>😀'))
    assert found.classes == ("a", 'a,\n"<b>😀', "b")
    assert found.values.tolist() == [2, 0, 2, 0, 1, 1]
    assert found.values.dtype == np.int32
    assert found.rows.tolist() == [0, 1, 2, 3, 4, 5]


def test_few_whole_numbers_are_classes_by_their_numbers() -> None:
    found = targets.read(_cells("10", "9", "10", "9.0", "?"))
    # Nine is written in two ways.
    assert found.classes == ("9", "10")
    assert found.values.tolist() == [1, 0, 1, 0]
    assert found.left_out == 1


def test_codes_of_numbers_keep_their_names() -> None:
    assert targets.read(_cells("007", "08", "007", "08")).classes == ("007", "08")


@pytest.mark.parametrize(
    ("cells", "is_number"),
    [
        ([str(n % 20) for n in range(40)], False),
        ([str(n % 21) for n in range(42)], True),
        (["1", "2", "1", "2.5"], True),
        (["1e0", "2", "1", "2.00"], False),
        (["1", "2", "1", "x", "x", "2"], False),
    ],
)
def test_auto_tells_numbers_from_classes(cells: list[str], is_number: bool) -> None:
    assert targets.read(_cells(*cells)).is_number is is_number


def test_the_problem_may_be_said() -> None:
    assert targets.read(_cells("1", "2", "1", "2"), "regression").values.tolist() == [1.0, 2.0, 1.0, 2.0]
    assert targets.read(_cells("1.5", "2", "1.5", "2"), "classification").classes == ("1.5", "2")


def test_rows_without_a_target_are_left_out_and_counted() -> None:
    words = targets.read(_cells("a", "", "b", " ", "NaN", "null", "a", "b", "None", "None"))
    assert (words.rows.tolist(), words.left_out) == ([0, 2, 6, 7, 8, 9], 4)
    # Among words, None may be one.
    assert words.classes == ("None", "a", "b")
    numbers = targets.read(_cells("1.5", "NA", "2", "None", "-", ""))
    assert (numbers.rows.tolist(), numbers.left_out) == ([0, 2], 4)
    assert numbers.values.tolist() == [1.5, 2.0]


@pytest.mark.parametrize(
    ("cells", "dtype"),
    [
        (["True", "false", "TRUE", "False"], "str"),
        (["true", "False", "true", "FALSE"], "string[pyarrow]"),
        ([True, False, True, False], "bool[pyarrow]"),
    ],
)
def test_truths_have_the_same_names_however_they_are_written(cells: list[object], dtype: str) -> None:
    found = targets.read(_cells(*cells, dtype=dtype))
    assert found.classes == ("false", "true")
    assert found.values.tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize("problem", ["auto", "regression"])
def test_a_comma_may_stand_for_the_point(problem: str) -> None:
    found = targets.read(_cells(*(f"{n},5" for n in range(25)), "?"), problem)  # type: ignore[arg-type]
    assert found.values.tolist() == [n + 0.5 for n in range(25)]
    assert found.notes == ("target y: a comma stands for the point: '0,5' is read as 0.5",)


def test_a_comma_may_part_thousands() -> None:
    found = targets.read(_cells(*(f"{950 + 17 * n:,}" for n in range(25))))
    assert found.values.tolist() == [950.0 + 17 * n for n in range(25)]
    assert found.notes[0].startswith("target y: a comma parts thousands: '1,001' is read as 1001")


def test_classes_with_commas_keep_their_names() -> None:
    found = targets.read(_cells("1,0", "2,0", "1,0", "2,0"))
    assert (found.classes, found.notes) == (("1,0", "2,0"), ())
    assert targets.read(_cells("1,5", "2,5", "1,5", "2,5"), "classification").classes == ("1,5", "2,5")


def test_columns_of_parquet_have_the_same_rules() -> None:
    numbers = targets.read(_cells(1.5, None, 2.0, dtype="double[pyarrow]"))
    assert (numbers.values.tolist(), numbers.left_out) == ([1.5, 2.0], 1)
    truths = targets.read(_cells(True, False, True, False, dtype="bool[pyarrow]"))
    assert truths.classes == ("false", "true")


@pytest.mark.parametrize(
    ("cells", "problem", "fault"),
    [
        (["a", "a"], "auto", "'y' must have at least two different values, but all are 'a'"),
        (["1.5", "1.5"], "auto", "'y' must have at least two different values, but all are '1.5'"),
        (["3", "3"], "regression", "at least two different values, but all are '3.0'"),
        (["", "NaN"], "auto", "'y' is empty in all of the 2 rows"),
        (["?", "-"], "regression", "'y' is empty in all of the 2 rows"),
        (["a", "b", "c"], "auto", "has another value in each of the 3 rows"),
        (["a", "b", "a", "c"], "auto", "one row alone has 'b', 'c'; leave"),
        (["1.5", "x", "2"], "regression", "must have numbers with problem=regression, but row 2 is 'x'"),
        (["1,5", "2,5", "x"], "regression", "but row 3 is 'x'"),
        (["1.5", "2", "inf"], "auto", "must have finite numbers, but row 3 is inf"),
        # Classes, but for the infinite one.
        (["0", "1", "inf", "0", "1", "inf"], "auto", "must have finite numbers, but row 3 is inf"),
        (["0", "1", "-Infinity"] * 2, "classification", "must have finite numbers, but row 3 is -inf"),
        ([repr(1e9 + n / 100) for n in range(60)], "auto", "which 32 bits cannot tell: subtract an offset"),
        (["1e300", "2.5", "1"], "auto", "'y' must have numbers up to 1e+15, but has 1e+300"),
        (["1e400", "2", "3"], "regression", "must have finite numbers, but row 1 is inf"),
        (["x" * 1000, "y", "y"], "auto", f"one row alone has '{'x' * 57}...'"),
    ],
)
def test_what_cannot_be_learned_is_told(cells: list[str], problem: str, fault: str) -> None:
    with pytest.raises(UserError) as caught:
        targets.read(_cells(*cells), problem)  # type: ignore[arg-type]
    assert fault in str(caught.value)
    assert str(caught.value).startswith("target: ")


def test_many_classes_of_one_row_are_not_all_listed() -> None:
    with pytest.raises(UserError, match="'7' and 2 more; leave"):
        targets.read(_cells("a", "a", *(str(n % 10) * (n // 10 + 1) for n in range(12))))


def test_equal_cells_are_one_group() -> None:
    found = targets.groups(_cells("p", "q", "p ", "r"))
    assert found.tolist() == [0, 1, 0, 2]
    with pytest.raises(UserError, match=r"^group: the column 'y' must have a value in each row, but row 2"):
        targets.groups(_cells("p", ""))


def test_times_are_numbers_or_dates() -> None:
    assert targets.times(_cells("3", "1.5")).tolist() == [3.0, 1.5]
    dates = targets.times(_cells("2024-03-01", "2024-02-28 12:00", "2024-03-01T01:00:00+02:00"))
    assert np.argsort(dates).tolist() == [1, 2, 0]
    with pytest.raises(
        UserError, match=r"must have finite numbers, or dates such as 2024-03-31, in all rows, but row 2"
    ):
        targets.times(_cells("2024-03-01", "03/04/2024"))
    with pytest.raises(UserError, match=r"^time: the column 'y' must have a value in each row"):
        targets.times(_cells("1", ""))


@pytest.mark.parametrize(
    ("cells", "row"),
    [
        (["0", "1", "2", "inf", "4"], "row 4 is 'inf'"),
        (["0", "1", "soon"], "row 3 is 'soon'"),
        (["2024-03-01", "2024-03-02", "03/04/2024"], "row 3 is '03/04/2024'"),
        (["7", "2024-03-02"], "row 2 is '2024-03-02'"),
        (["2024-03-02", "2024-03-03", "7"], "row 3 is '7'"),
    ],
)
def test_the_row_that_is_no_time_is_told(cells: list[str], row: str) -> None:
    with pytest.raises(UserError, match=f"in all rows, but {row}$"):
        targets.times(_cells(*cells))


def test_numbers_that_are_equal_are_none_that_cannot_be_told() -> None:
    targets.check_numbers(np.full(3, 5.0), "y")
    targets.check_numbers(np.array([-1e9, 1e9]), "y")
