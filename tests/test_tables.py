"""A table of one's own becomes rows to learn from, to choose by and to test on, or is one clear error."""

import csv
import io
import math
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from pipeline import tasks
from pipeline.carried.encoding import CATEGORIES, NUMBERS
from pipeline.datasets import splits, tables
from pipeline.datasets.tables import ANSWER
from pipeline.errors import UserError
from pipeline.source import Source

ROWS = 60


def written(folder: Path, columns: dict[str, list], name: str = "t.csv") -> Path:
    file = folder / name
    with file.open("w", newline="", encoding="utf-8") as opened:
        out = csv.writer(opened)
        out.writerow(columns)
        out.writerows(zip(*columns.values(), strict=True))
    return file


def usual(**more: list) -> dict[str, list]:
    rng = np.random.default_rng(0)
    return {
        "size": [f"{number:.4f}" for number in rng.normal(size=ROWS)],
        "colour": [("red", "blue")[number % 2] for number in range(ROWS)],
        "kind": [("ant", "bee", "cat")[number % 3] for number in range(ROWS)],
        **more,
    }


def read(folder: Path, columns: dict[str, list], target: str = "kind", **source: str) -> tables.Table:
    return tables.read(Source(str(written(folder, columns)), target, **source), "full")


def test_rows_are_split_and_encoded_by_the_published_protocol(tmp_path: Path) -> None:
    found = read(tmp_path, usual()).data
    labels = np.arange(ROWS) % 3
    rest, test = train_test_split(
        np.arange(ROWS), test_size=0.2, random_state=11, stratify=labels, shuffle=True
    )
    train, check = train_test_split(
        rest, test_size=0.25, random_state=11, stratify=labels[rest], shuffle=True
    )
    assert found.classes == ("ant", "bee", "cat")
    for part, rows in ((found.train, train), (found.validation, check), (found.test.unseal(), test)):
        np.testing.assert_array_equal(part.labels, labels[rows])
        # blue is 1 and red 2, in the order of letters.
        np.testing.assert_array_equal(part.inputs[CATEGORIES][:, 0], np.where(rows % 2, 1, 2))
    assert found.train.inputs[NUMBERS].shape == (len(train), 1)


def test_rules_are_fitted_on_the_rows_to_learn_from_alone(tmp_path: Path) -> None:
    columns = usual()
    before = read(tmp_path, columns)
    learned = {float(columns["size"][row]) for row in _rows_of(columns)[0]}
    (rule,) = [rule for rule in before.rules if rule["kind"] == "number"]
    assert rule["centre"] == np.median(sorted(learned))
    # Whatever the other rows hold changes no rule.
    other = dict(columns, size=list(columns["size"]))
    for row in _rows_of(columns)[1]:
        other["size"][row] = "1e6"
    assert read(tmp_path, other).rules == before.rules


def _rows_of(columns: dict[str, list]) -> tuple[list[int], list[int]]:
    labels = np.arange(len(columns["kind"])) % 3
    rest, test = train_test_split(np.arange(len(labels)), test_size=0.2, random_state=11, stratify=labels)
    train, check = train_test_split(rest, test_size=0.25, random_state=11, stratify=labels[rest])
    return train.tolist(), [*check.tolist(), *test.tolist()]


def test_classes_that_are_rare_weigh_as_much_as_others(tmp_path: Path) -> None:
    columns = usual(kind=["rare" if number % 6 == 0 else "often" for number in range(ROWS)])
    found = read(tmp_path, columns).data
    for part in (found.train, found.validation):
        sums = [part.weights[part.labels == label].sum() for label in (0, 1)]
        assert sums[0] == pytest.approx(sums[1])
        assert part.weights.mean() == pytest.approx(1.0)


def test_a_number_is_learned_as_it_is(tmp_path: Path) -> None:
    found = read(tmp_path, usual(price=[str(1000.5 + number) for number in range(ROWS)]), "price").data
    assert dict(found.outputs) == {ANSWER: ()}
    assert found.train.targets[ANSWER].shape == (36, 1)
    assert found.train.targets[ANSWER].min() >= 1000.5


def test_rows_without_a_target_are_left_out_and_told(tmp_path: Path) -> None:
    columns = usual()
    columns["kind"][5] = columns["kind"][7] = ""
    found = read(tmp_path, columns)
    assert found.data.train.rows + found.data.validation.rows + found.data.test.rows == ROWS - 2
    assert found.notes[0] == "2 rows without a target are left out"


def test_groups_are_never_parted(tmp_path: Path) -> None:
    columns = usual(patient=[f"p{number // 4}" for number in range(ROWS)])
    found = read(tmp_path, columns, group="patient")
    parts = [
        set(part.groups.tolist())
        for part in (found.data.train, found.data.validation, found.data.test.unseal())
    ]
    assert set.union(*parts) == set(range(15))
    assert sum(map(len, parts)) == 15
    assert "patient" not in {rule["name"] for rule in found.rules}


def test_the_latest_rows_are_for_testing(tmp_path: Path) -> None:
    days = [f"2024-{1 + number % 12:02}-{1 + number // 12:02}" for number in range(ROWS)]
    found = read(tmp_path, usual(day=days), time="day").data
    train, check, test = (part.times for part in (found.train, found.validation, found.test.unseal()))
    assert train.max() < check.min() <= check.max() < test.min()
    assert (len(train), len(check), len(test)) == (36, 12, 12)


def test_folds_in_time_learn_from_before_alone(tmp_path: Path) -> None:
    days = [str(number // 7) for number in np.random.default_rng(1).permutation(ROWS)]
    whole = read(tmp_path, usual(day=days), time="day").data
    found = splits.folds(whole, 3)
    assert len(found) == 3
    for fold in found:
        assert fold.train.times.max() < fold.validation.times.min()
        for part in (fold.train, fold.validation):
            # Classes count alike in each part, whatever they did in the whole.
            sums = [part.weights[part.labels == label].sum() for label in np.unique(part.labels)]
            np.testing.assert_allclose(sums, sums[0])
    assert sum(fold.validation.rows for fold in found) + found[0].train.rows == whole.train.rows
    with pytest.raises(
        UserError, match=r"folds: must be at most \d for t, whose training rows have \d different"
    ):
        splits.folds(whole, 20)


def test_folds_of_groups_part_none(tmp_path: Path) -> None:
    whole = read(tmp_path, usual(patient=[f"p{number // 4}" for number in range(ROWS)]), group="patient").data
    for fold in splits.folds(whole, 3):
        assert not set(fold.train.groups.tolist()) & set(fold.validation.groups.tolist())


def test_a_column_without_a_name_is_left_out(tmp_path: Path) -> None:
    """pandas writes its index so."""
    found = read(tmp_path, {"": list(range(ROWS)), **usual()})
    assert {rule["name"] for rule in found.rules} == {"size", "colour"}
    assert found.notes == ("the column without a name is left out",)


def test_a_small_size_keeps_a_class_of_few_rows(tmp_path: Path) -> None:
    rows = 12_000
    columns = {
        "x": list(range(rows)),
        "kind": ["z" if number < 6 else "ab"[number % 2] for number in range(rows)],
    }
    found = tables.read(Source(str(written(tmp_path, columns)), "kind"), "small").data
    assert found.train.rows == 5_000


def test_whole_numbers_beyond_those_of_a_float_are_classes_of_their_own(tmp_path: Path) -> None:
    codes = [str(2**53 + number % 3) for number in range(ROWS)]
    assert len(read(tmp_path, usual(code=codes), "code", problem="classification").data.classes) == 3


def test_raw_rows_have_their_numbers_in_the_file(tmp_path: Path) -> None:
    columns = usual()
    source = Source(str(written(tmp_path, columns)), "kind")
    whole = tables.read(source, "full")
    (rows,) = tables.raw(source, whole.data.validation, whole.state)
    assert rows["size"].tolist() == [columns["size"][number - 1] for number in rows.index]
    assert "kind" not in rows


def test_a_served_example_is_rows_of_the_file(tmp_path: Path) -> None:
    found = read(tmp_path, usual(note=["" if number % 2 else "x" for number in range(ROWS)]))
    for row in found.example:
        assert isinstance(row["size"], float)
        assert row["colour"] in ("red", "blue")
        assert row["note"] in (None, "x")


def test_commas_in_numbers_are_told_and_shown_as_numbers(tmp_path: Path) -> None:
    columns = usual(price=[f"{number},25" for number in range(ROWS)], year=["1,950", "870", "12,500"] * 20)
    found = read(tmp_path, columns, "price")
    assert found.data.train.targets[ANSWER].max() < ROWS
    assert found.notes[:2] == (
        "target price: a comma stands for the point: '0,25' is read as 0.25",
        "column year: a comma parts thousands: '1,950' is read as 1950; write points if it stands for one",
    )
    assert {row["year"] for row in found.example} <= {870.0, 1950.0, 12500.0}


FAULTS: dict[str, tuple[dict[str, list], dict[str, str], str]] = {
    "no such column": (usual(), {"target": "prize"}, "target: .* has no column 'prize'; its columns are"),
    "no such group": (usual(), {"group": "who"}, "group: .* has no column 'who'"),
    "constant": (usual(kind=["a"] * ROWS), {}, "at least two different values, but all are 'a'"),
    "unique": (usual(kind=[f"a{n}" for n in range(ROWS)]), {}, "another value in each of the 60 rows"),
    "missing": (usual(kind=[""] * ROWS), {}, "is empty in all of the 60 rows"),
    "a class of one row": (usual(kind=["b", *["a", "c"] * 29, "a"]), {}, "one row alone has 'b'"),
    "no features": ({"kind": ["a", "b"] * 30}, {}, "data: has no column to learn from"),
    "infinite": (usual(x=["inf", *["1.5", "2"] * 29, "3"]), {}, "x: must be finite, but is 'inf'"),
    "two groups": (usual(g=["1", "2"] * 30), {"group": "g"}, "group: must have at least 5 different"),
    "two times": (usual(g=["1", "2"] * 30), {"time": "g"}, "time: must have at least 3 different"),
    "no times": (
        usual(g=["soon", "late"] * 30),
        {"time": "g"},
        "time: .* must have finite numbers, or",
    ),
    "an offset": (usual(y=[str(1.7e9 + n / 7) for n in range(ROWS)]), {"target": "y"}, "subtract an offset"),
    "too large": (usual(y=[f"{n}.5e20" for n in range(ROWS)]), {"target": "y"}, "must have numbers up to 1e"),
    "words for numbers": (usual(), {"problem": "regression"}, "must have numbers with problem=regression"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_what_cannot_be_learned_is_one_clear_error(case: str, tmp_path: Path) -> None:
    columns, source, fault = FAULTS[case]
    source = {"target": "kind", **source}
    with pytest.raises(UserError, match=fault) as caught:
        tables.read(Source(str(written(tmp_path, columns)), **source), "full")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 6])
def test_few_rows_are_split_or_refused(rows: int, tmp_path: Path) -> None:
    columns = {"x": list(range(rows)), "kind": [("a", "b")[n % 2] for n in range(rows)]}
    if rows < 6:
        with pytest.raises(UserError):
            read(tmp_path, columns)
        return
    found = read(tmp_path, columns).data
    assert (found.train.rows, found.validation.rows, found.test.rows) == (2, 2, 2)
    assert set(found.train.labels.tolist()) == {0, 1}


ODD = ("", "a,b", 'say "hi"', "two\nlines", "😀", "<b>&amp;</b>", "名前", "NA", "-0", "1e5", "007", " x ")
_CELLS = st.one_of(
    st.sampled_from(ODD),
    st.integers(-5, 5).map(str),
    st.floats(allow_nan=True, allow_infinity=True).map(str),
    st.booleans().map(str),
    st.dates().map(str),
    st.text(max_size=8),
)


@st.composite
def small_tables(draw: st.DrawFn) -> tuple[list[str], list[list[str]]]:
    """Names of columns and rows of cells, of any kind; often of one kind a column, as tables are."""
    width, height = draw(st.integers(1, 5)), draw(st.integers(0, 30))
    names = draw(
        st.lists(st.one_of(st.sampled_from(ODD), st.text(max_size=5)), min_size=width, max_size=width)
    )
    columns = []
    for _ in range(width):
        some = draw(st.lists(_CELLS, min_size=1, max_size=4))
        cells = draw(st.sampled_from([_CELLS, st.sampled_from(some), st.floats(-9, 9).map(str)]))
        columns.append(draw(st.lists(cells, min_size=height, max_size=height)))
    return names, [list(row) for row in zip(*columns, strict=True)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(small_tables(), st.sampled_from(["auto", "classification", "regression"]), st.booleans())
def test_any_small_table_is_read_or_refused(
    tmp_path: Path, table: tuple[list[str], list[list[str]]], problem: str, by_group: bool
) -> None:
    names, rows = table
    assume(names[-1])
    text = io.StringIO()
    csv.writer(text).writerows([names, *rows])
    file = tmp_path / "any.csv"
    file.write_text(text.getvalue(), encoding="utf-8", errors="surrogatepass", newline="")
    source = Source(str(file), names[-1], group=names[0] if by_group else "", problem=problem)
    try:
        found = tables.read(source, "full").data
    except UserError:
        return
    for part in (found.train, found.validation, found.test.unseal()):
        for array in part.arrays.values():
            assert np.isfinite(array).all()
    assert math.isfinite(sum(map(float, found.train.weights if found.classes else [1.0])))


@pytest.mark.parametrize(("towns", "searched"), [(0, False), (3, False), (20, True)])
def test_how_categories_come_in_is_searched_only_where_a_column_has_many(
    towns: int, searched: bool, tmp_path: Path
) -> None:
    columns = {name: values * 10 for name, values in usual().items()}
    columns["colour"] = [f"town {row % towns}" if towns else "1" for row in range(10 * ROWS)]
    task = tasks.find("table", Source(str(written(tmp_path, columns)), "kind"))
    space = task.read_space(None)
    assert ("categories" in space.searched) is searched
    assert task.parse_space(space.text, space.file).identity() == space.identity()
    # And a model is built of what the space then completes.
    assert task.build(space.complete({}), task.load("full")).count_params()


@pytest.mark.parametrize("skip", [True, False])
def test_a_table_s_model_is_saved_as_one_of_keras_s_own(skip: bool, tmp_path: Path) -> None:
    task = tasks.find("table", Source(str(written(tmp_path, usual())), "kind"))
    data = task.load("full")
    settings = {**task.read_space(None).complete({}), "skip": skip}
    model = task.build(settings, data)
    model.fit(data.train.inputs, data.train.labels, epochs=1, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert all(type(layer).__module__.startswith("keras.") for layer in loaded._flatten_layers())
    kept = [layer.scale for layer in loaded.layers if isinstance(layer, keras.layers.Rescaling)]
    assert kept == [float(skip)] * (settings["hidden_layers"] - 1)
    inputs = data.validation.inputs
    np.testing.assert_allclose(loaded.predict(inputs, verbose=0), model.predict(inputs, verbose=0), rtol=1e-5)
