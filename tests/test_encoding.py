"""Cells of a table become numbers by fitted rules: the same in training and when a model is asked."""

import math
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from pipeline.carried import encoding
from pipeline.carried.encoding import CATEGORIES, NUMBERS, CellError
from pipeline.datasets import columns, commas, table_files
from pipeline.errors import UserError

AGE = {
    "name": "age",
    "kind": "number",
    "fill": 40.0,
    "centre": 40.0,
    "scale": 0.1,
    "marked": True,
    "strays": ["unknown"],
    "comma": "",
}
COLOUR = {"name": "colour", "kind": "category", "values": ["blue", "red"], "whole": False}


def texts(**cells: list) -> pd.DataFrame:
    """A table as it is read from a CSV file."""
    return pd.DataFrame(cells, dtype="str")


def test_a_number_is_scaled_and_bounded_smoothly() -> None:
    found = encoding.encode([AGE], texts(age=["40", "50", "1e9", "-1e9"]))[NUMBERS]
    # One scale from the centre, by x / sqrt(1 + (x / 3)^2); far numbers come near 3.
    np.testing.assert_allclose(found[:, 0], [0.0, 1 / math.sqrt(1 + 1 / 9), 3.0, -3.0], atol=1e-6)
    assert found[:, 1].tolist() == [0.0] * 4
    assert found.dtype == np.float32


@pytest.mark.parametrize("missing", ["", " ", "NA", "nan", "NULL", "?", "None", "unknown"])
def test_a_missing_number_is_filled_and_marked(missing: str) -> None:
    found = encoding.encode([AGE], texts(age=[missing, "40"]))[NUMBERS]
    assert found.tolist() == [[0.0, 1.0], [0.0, 0.0]]


@pytest.mark.parametrize("cells", [[None, 50.0], [math.nan, 50], [None, "50"], [None, " 50 "]])
def test_cells_of_a_request_are_read_as_those_of_a_file(cells: list) -> None:
    request = encoding.encode([AGE], pd.DataFrame({"age": cells}, dtype=object))[NUMBERS]
    np.testing.assert_array_equal(request, encoding.encode([AGE], texts(age=["", "50"]))[NUMBERS])


@pytest.mark.parametrize("cell", ["abc", "12 years", "inf", "-Infinity", "1,5"])
def test_what_is_no_number_is_told_with_row_and_column(cell: str) -> None:
    with pytest.raises(CellError, match=r"^age: must be a number, but is ") as caught:
        encoding.encode([AGE], texts(age=["1", cell]))
    assert caught.value.row == 1
    assert repr(cell) in str(caught.value)


def test_what_is_no_number_is_shown_as_it_was_sent() -> None:
    # Pandas holds a request's truths and numbers as NumPy's.
    with pytest.raises(CellError, match=r"^age: must be a number, but is True$"):
        encoding.encode([AGE], pd.DataFrame({"age": [True, False]}))
    day = {**AGE, "kind": "date", "format": "%Y-%m-%d"}
    with pytest.raises(CellError, match=r"^age: must be a date, but is 20240304$"):
        encoding.encode([day], pd.DataFrame({"age": [20240304]}))


def test_codes_of_categories_follow_each_other() -> None:
    size = {"name": "size", "kind": "category", "values": ["1", "2"], "whole": True, "comma": ""}
    rules = [COLOUR, size]
    found = encoding.encode(rules, texts(colour=["red", "green", "blue", ""], size=["2", "9", "1", "x"]))
    # 0 to 2 are colours, 3 to 5 sizes; the first of each is any other value.
    assert found[CATEGORIES].tolist() == [[2, 5], [0, 3], [1, 4], [0, 3]]
    assert encoding.tokens(rules) == 6


@pytest.mark.parametrize(("cell", "text"), [(1, "1"), (1.0, "1"), (True, "true"), (1.5, "1.5"), (" a ", "a")])
def test_a_value_is_known_however_it_is_sent(cell: object, text: str) -> None:
    rule = {"name": "a", "kind": "category", "values": [text], "whole": False}
    found = encoding.encode([rule], pd.DataFrame({"a": [cell]}, dtype=object))
    assert found[CATEGORIES].tolist() == [[1]]


def test_a_missing_value_of_its_own_is_one() -> None:
    rule = {"name": "a", "kind": "category", "values": ["", "x"], "whole": False}
    found = encoding.encode([rule], pd.DataFrame({"a": [None, "NA", "x", "y"]}, dtype=object))
    assert found[CATEGORIES].tolist() == [[1], [1], [2], [0]]


def test_words_of_a_text_are_told_apart() -> None:
    rule = {"name": "a", "kind": "words", "words": ["good", "bad"]}
    found = encoding.encode([rule], texts(a=["Good, good!", "not BAD", "", "goods"]))
    assert found[NUMBERS].tolist() == [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]]


def test_a_date_has_its_size_and_its_seasons() -> None:
    fitted = columns.fit(texts(day=["2024-01-01", "2024-01-08", "2024-07-02", "2025-01-01T12:00:00"]))
    found = encoding.encode(fitted.rules, texts(day=["2024-01-01", "2024-01-08"]))[NUMBERS]
    assert found.shape == (2, 5)
    assert found[0, 0] < found[1, 0]
    # The same day of the week.
    np.testing.assert_allclose(found[0, 1:3], found[1, 1:3], atol=1e-5)


# What a column is


def kinds(table: pd.DataFrame) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for rule in columns.fit(table).rules:
        found.setdefault(rule["name"], []).append(rule["kind"])
    return found


def test_columns_are_what_their_cells_say() -> None:
    rows = 60
    table = texts(
        measured=[str(number / 7) for number in range(rows)],
        few=[str(number % 4) for number in range(rows)],
        yes=["yes" if number % 3 else "no" for number in range(rows)],
        flag=["0" if number % 3 else "1" for number in range(rows)],
        day=[f"{1 + number % 28:02}.03.2024" for number in range(rows)],
        words=[
            f"the {number}th parcel came {'late' if number % 2 else 'soon'} today" for number in range(rows)
        ],
        same=["x"] * rows,
        nothing=[""] * rows,
        number_of_row=[f"customer-{number}" for number in range(rows)],
    )
    assert kinds(table) == {
        "measured": ["number"],
        # Sizes or codes: both.
        "few": ["number", "category"],
        "yes": ["category"],
        "flag": ["number"],
        "day": ["date"],
        "words": ["words"],
    }
    assert columns.fit(table).notes == (
        "column words: taken as text, by its words",
        "left out, as every row has the same: same",
        "left out, as every cell is missing: nothing",
        "left out, as hardly two rows have the same: number_of_row",
    )


def test_a_few_cells_that_are_no_numbers_count_as_missing_and_are_told() -> None:
    fitted = columns.fit(texts(age=[*map(str, range(60)), "about 40", "?"]))
    (rule,) = fitted.rules
    assert (rule["kind"], rule["strays"], rule["marked"]) == ("number", ["about 40"], True)
    assert fitted.notes == ("column age: cells that are no numbers count as missing: 'about 40'",)
    assert encoding.encode([rule], texts(age=["about 40"]))[NUMBERS][0, 1] == 1.0


def test_an_infinite_cell_is_refused() -> None:
    with pytest.raises(UserError, match=r"^data: row 3, age: must be finite, but is 'inf'$"):
        columns.fit(texts(age=["1", "2", "inf", "4"]))


def test_a_table_that_tells_no_rows_apart_is_refused() -> None:
    with pytest.raises(UserError, match=r"^data: has no column to learn from \(left out, as every row"):
        columns.fit(texts(a=["1", "1"], b=["", ""]))


def test_rare_values_are_one_and_common_ones_are_kept() -> None:
    (rule,) = columns.fit(texts(a=["x", "y", "x", "y", "rare", "x"])).rules
    assert rule["values"] == ["x", "y"]


def test_a_column_of_equal_quartiles_is_scaled_by_its_range() -> None:
    (rule,) = columns.fit(texts(a=["0"] * 90 + ["10.5"] * 5 + ["5.25"] * 5)).rules
    assert rule["scale"] == pytest.approx(2 / 10.5)


def test_types_of_parquet_are_read_as_texts_are() -> None:
    frame = pd.DataFrame(
        {
            "number": [1.5, None, 2.5, 9.0],
            "flag": [True, False, None, True],
            "day": pd.to_datetime(["2024-01-01", "2024-02-01", None, "2024-03-01"]),
            "word": ["a", "b", "a", None],
        }
    )
    arrow = pa.Table.from_pandas(frame).to_pandas(types_mapper=pd.ArrowDtype)
    rules = columns.fit(arrow).rules
    assert [rule["kind"] for rule in rules] == ["number", "category", "date", "category"]
    found = encoding.encode(rules, arrow)
    as_sent = [{"number": 1.5, "flag": True, "day": "2024-01-01", "word": "a"}]
    asked = encoding.encode(rules, pd.DataFrame(as_sent, dtype=object))
    np.testing.assert_array_equal(found[NUMBERS][:1], asked[NUMBERS])
    np.testing.assert_array_equal(found[CATEGORIES][:1], asked[CATEGORIES])


@pytest.mark.parametrize("written", ["{}", "{}.0", "00{}", " {} "])
def test_codes_of_numbers_are_the_same_however_they_are_written(written: str) -> None:
    cells = [written.format(number % 4) for number in range(60)]
    rules = columns.fit(texts(code=["", *cells])).rules
    assert [rule["kind"] for rule in rules] == ["number", "category"]
    as_read = encoding.encode(rules, texts(code=cells))
    for kind in (float, int):
        sent = pd.DataFrame({"code": [kind(number % 4) for number in range(60)]})
        for name, array in encoding.encode(rules, sent).items():
            np.testing.assert_array_equal(array, as_read[name])
    assert sorted(set(as_read[CATEGORIES][:, 0].tolist())) == [1, 2, 3, 4]


@pytest.mark.parametrize("words", [("True", "False"), ("true", "false"), ("TRUE", "FALSE")])
def test_truths_are_the_same_however_they_are_written(words: tuple[str, str]) -> None:
    cells = [words[number % 2] for number in range(20)]
    (rule,) = columns.fit(texts(flag=cells)).rules
    as_read = encoding.encode([rule], texts(flag=cells))[CATEGORIES]
    sent = pd.DataFrame({"flag": [number % 2 == 0 for number in range(20)]})
    np.testing.assert_array_equal(encoding.encode([rule], sent)[CATEGORIES], as_read)
    assert len(set(as_read[:, 0].tolist())) == 2


def test_a_comma_may_stand_for_the_point() -> None:
    cells = [f"{number},{number % 10}" for number in range(40)]
    fitted = columns.fit(texts(price=[*cells, "7"]))
    (rule,) = fitted.rules
    assert (rule["kind"], rule["comma"]) == ("number", "point")
    assert fitted.notes == ("column price: a comma stands for the point: '0,0' is read as 0.0",)
    points = encoding.encode([rule], pd.DataFrame({"price": [12.2]}))[NUMBERS]
    np.testing.assert_array_equal(encoding.encode([rule], texts(price=["12,2"]))[NUMBERS], points)


def test_a_comma_may_part_thousands() -> None:
    numbers = [950, 1_234, 12_500, -20_000, 1_000_000] * 8
    fitted = columns.fit(texts(price=[f"{number:,}" for number in numbers]))
    rule, *_ = fitted.rules
    assert rule["comma"] == "thousands"
    assert fitted.notes == (
        "column price: a comma parts thousands: '1,234' is read as 1234; write points if it stands for one",
    )
    asked = ["1,234", " 12,500 ", "950", "1,234.50"]
    plain = encoding.encode([rule], pd.DataFrame({"price": [1234.0, 12500.0, 950.0, 1234.5]}))[NUMBERS]
    np.testing.assert_array_equal(encoding.encode([rule], texts(price=asked))[NUMBERS], plain)
    sent = pd.DataFrame({"price": asked}, dtype=object)
    np.testing.assert_array_equal(encoding.encode([rule], sent)[NUMBERS], plain)
    # What cannot be thousands is no number here, rather than another one.
    with pytest.raises(CellError, match=r"^price: must be a number, but is '12,5'$"):
        encoding.encode([rule], texts(price=["12,5"]))


@pytest.mark.parametrize(
    ("cells", "comma"),
    [
        (["1,234", "950"], "thousands"),
        (["1,234,567", "-1,234"], "thousands"),
        (["1,234", "1,234.50"], "thousands"),
        # One cell tells that it is the point.
        (["1,234", "0,950"], "point"),
        (["1,234", "-0,950"], "point"),
        (["1,234", "12,5"], "point"),
        (["1,234", "1234,567"], "point"),
        (["1,2345", "7"], "point"),
        (["1.5", "7"], ""),
        (["a, b", "c"], ""),
        (["1,5", "about, or so"], ""),
    ],
)
@pytest.mark.parametrize("kind", ["str", "string[pyarrow]", pd.ArrowDtype(pa.large_string())])
def test_a_column_tells_what_its_commas_are(cells: list[str], comma: str, kind: object) -> None:
    assert commas.read(pd.Series(cells, dtype=kind)) == comma  # type: ignore[call-overload]


def test_odd_cells_do_not_change_what_most_of_a_column_s_commas_are() -> None:
    fitted = columns.fit(texts(price=[*["1,234,567", "9,876,543"] * 40, "12,50"]))
    rule, *_ = fitted.rules
    assert (rule["comma"], rule["strays"]) == ("thousands", ["12,50"])
    assert "cells that are no numbers count as missing: '12,50'" in fitted.notes[0]


@pytest.mark.parametrize(("written", "comma"), [("{},0", "point"), ("{},000", "thousands")])
def test_codes_of_numbers_with_commas_are_told_apart(written: str, comma: str) -> None:
    cells = [written.format(1 + number % 4) for number in range(40)]
    rules = columns.fit(texts(code=cells)).rules
    assert [(rule["kind"], rule["comma"]) for rule in rules] == [("number", comma), ("category", comma)]
    found = encoding.encode(rules, texts(code=cells[:4]))[CATEGORIES]
    assert found[:, 0].tolist() == [1, 2, 3, 4]


KINDS = {
    "number": [str(number * 1.5) for number in range(40)],
    "category": ["x", "y"] * 20,
    "date": [f"2024-01-{1 + number % 28:02}" for number in range(40)],
    "words": [f"hello big world {number % 20} again {number % 19}" for number in range(40)],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("cell", "fault"),
    [
        ("\ud800", r"a: must be Unicode, but is '\ud800'"),
        (10**400, "a: must be less than 2^1024, but has 1329 bits"),
        (-(10**6000), "a: must be less than 2^1024, but has 19932 bits"),
        (["x"], "a: must be one value, but is ['x']"),
        ({"x": 1}, "a: must be one value, but is {'x': 1}"),
        (np.array([1.0]), "a: must be one value, but is array([1.])"),
    ],
    ids=["half a character", "large", "too large to be written", "list", "mapping", "array"],
)
def test_a_cell_that_no_file_can_hold_is_told_in_every_kind_of_column(
    kind: str, cell: object, fault: str
) -> None:
    (rule,) = columns.fit(texts(a=KINDS[kind])).rules
    assert rule["kind"] == kind
    sent = pd.DataFrame({"a": pd.Series([KINDS[kind][0], cell], dtype=object, index=["first", "second"])})
    with pytest.raises(CellError) as caught:
        encoding.encode([rule], sent)
    assert (str(caught.value), caught.value.row) == (fault, "second")


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e200, 1e308])
def test_no_size_of_numbers_overflows(scale: float) -> None:
    cells = [repr(scale * (number / 40)) for number in range(-40, 40)] + ["1e308", "-1e308"]
    rules = columns.fit(texts(x=cells)).rules
    found = encoding.encode(rules, texts(x=cells))[NUMBERS]
    assert np.isfinite(found).all()
    assert (np.diff(found[:80, 0]) >= 0).all()


@pytest.mark.parametrize("cells", [["-1e308", "1e308"] * 20, ["5e-324", "0.0", "1e-323"] * 20])
def test_numbers_whose_differences_are_no_floats_are_encoded(cells: list[str]) -> None:
    rules = columns.fit(texts(x=cells)).rules
    assert np.isfinite(encoding.encode(rules, texts(x=cells))[NUMBERS]).all()


def test_a_word_for_infinity_among_words_is_a_word() -> None:
    (rule,) = columns.fit(texts(model=["Infinity", "Focus", "Golf"] * 5)).rules
    assert rule["kind"] == "category"


def test_days_and_months_are_told_by_all_cells() -> None:
    cells = [f"0{1 + number % 9}/0{1 + number % 8}/2024" for number in range(150)]
    (rule,) = columns.fit(texts(day=[*cells, "28/02/2024"])).rules
    assert rule["format"] == "%d/%m/%Y"


@pytest.mark.parametrize("time", ["", " 10:30"])
def test_dates_that_may_be_read_in_two_ways_are_told(time: str) -> None:
    cells = [f"0{2 + number % 7}/{1 + number % 12:02}/2024{time}" for number in range(60)]
    cells.append(f"01/02/9999{time}")
    fitted = columns.fit(texts(day=cells))
    (rule,) = fitted.rules
    assert rule["format"].startswith("%m/%d/%Y")
    (note,) = fitted.notes
    assert note == (
        "column day: the month is taken to stand before the day, as no cell tells:"
        f" '02/01/2024{time}' is read as 2024-02-01; write dates so if it does not"
    )
    # One day beyond 12 tells, either way.
    for day, written in (("28/02/2024", "%d/%m/%Y"), ("02/28/2024", "%m/%d/%Y")):
        sure = columns.fit(texts(day=[*cells, f"{day}{time}"]))
        assert sure.rules[0]["format"].startswith(written)
        assert sure.notes == ()


def test_dates_that_are_the_same_in_both_ways_are_not_told() -> None:
    cells = [f"{1 + number % 12:02}/{1 + number % 12:02}/2024" for number in range(60)]
    assert columns.fit(texts(day=cells)).notes == ()


def test_cells_that_are_no_values_are_left_out(tmp_path: Path) -> None:
    table = pa.table(
        {
            "x": pa.array([1.5, 2.5, float("nan"), None, 9.0]),
            "price": pa.array([Decimal("1.10"), None, Decimal("2.20"), Decimal("3.30"), Decimal("4.40")]),
            "half": pa.array(np.arange(5, dtype=np.float16)),
            "bytes": pa.array([b"\xff", b"a", b"b", b"c", b"d"]),
            "list": pa.array([[1], [2], [3], [4], [5]]),
        }
    )
    file = tmp_path / "t.parquet"
    parquet.write_table(table, file)
    read = table_files.read(file)
    fitted = columns.fit(read)
    assert {rule["name"]: rule["kind"] for rule in fitted.rules if rule["kind"] == "number"} == {
        "x": "number",
        "price": "number",
        "half": "number",
    }
    assert fitted.notes == ("left out, as they hold no single values: bytes, list",)
    # What is not a number is missing, as what is not there.
    found = encoding.encode(fitted.rules[:1], read)[NUMBERS]
    assert found[:, 1].tolist() == [0.0, 0.0, 1.0, 1.0, 0.0]
