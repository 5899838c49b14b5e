"""Arrays that a person brings: which go with which model, and what is said where they do not."""

import contextlib
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.datasets import arrays
from pipeline.datasets.arrays import Goal, Rows
from pipeline.errors import UserError
from pipeline.prediction import arrays as prediction_arrays

THREE = Goal("classes", 3, {"": (4,)})
NUMBERS = Goal("numbers", 1, {"": (4,)})
X = np.arange(240, dtype=np.float64).reshape(60, 4)
Y = np.repeat([0, 1, 2], 20)


def whole(y: Any = Y, x: Any = X, **more: Any) -> Rows:
    return Rows(((x, np.asarray(y)),), "here", **more)


def saved(folder: Path, **parts: Any) -> Path:
    np.savez(folder / "rows.npz", **parts)
    return folder / "rows.npz"


def test_all_rows_are_split_and_numbers_are_as_wide_as_keras_has_them() -> None:
    data = arrays.data("mine", whole(), THREE)
    assert (data.train.rows, data.validation.rows, data.test.rows) == (36, 12, 12)
    assert data.train.one_input.dtype == np.float32
    assert data.classes == ("0", "1", "2")
    # Each class is as frequent in each part.
    assert np.array_equal(np.bincount(data.train.labels), [12, 12, 12])


def test_parts_that_were_made_stay_and_rows_to_choose_by_are_taken_from_those_to_learn_from(
    tmp_path: Path,
) -> None:
    three = {
        f"{name}_{part}": value for part in ("train", "val", "test") for name, value in (("x", X), ("y", Y))
    }
    found = arrays.data("mine", arrays.read(saved(tmp_path, **three)), THREE)
    assert (found.train.rows, found.validation.rows, found.test.rows) == (60, 60, 60)
    two = {name: value for name, value in three.items() if "val" not in name}
    found = arrays.data("mine", arrays.read(saved(tmp_path, **two)), THREE)
    assert (found.train.rows, found.validation.rows, found.test.rows) == (48, 12, 60)


def test_several_inputs_go_by_name(tmp_path: Path) -> None:
    rows = arrays.read(saved(tmp_path, x_left=X, x_right=X[:, :2], y=Y, classes=["a", "b", "c"]))
    goal = Goal("classes", 3, {"left": (4,), "right": (2,)})
    data = arrays.data("mine", rows, goal)
    assert {name: part.shape for name, part in data.train.inputs.items()} == {
        "left": (36, 4),
        "right": (36, 2),
    }
    assert data.classes == ("a", "b", "c")
    with pytest.raises(UserError, match="the model has the inputs up, down, but x has left, right"):
        arrays.data("mine", rows, Goal("classes", 3, {"up": (4,), "down": (2,)}))


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (Y + 5, ("5", "6", "7")),
        (Y[:, None], ("0", "1", "2")),
        (np.eye(3)[Y], ("0", "1", "2")),
        (np.array(["cat", "dog", "ant"])[Y], ("ant", "cat", "dog")),
        (Y.astype(float), ("0", "1", "2")),
    ],
)
def test_classes_may_be_numbers_names_or_one_hot(y: Any, classes: tuple[str, ...]) -> None:
    data = arrays.data("mine", whole(y), THREE)
    assert data.classes == classes
    assert sorted(np.unique(data.train.labels)) == [0, 1, 2]


def test_class_numbers_that_the_model_knows_stay_as_they_are() -> None:
    data = arrays.data("mine", whole(Y * 3), Goal("classes", 10, {"": (4,)}))
    assert np.array_equal(np.unique(data.train.labels), [0, 3, 6])
    assert len(data.classes) == 10


def test_one_hot_column_and_numbers_have_their_shapes() -> None:
    assert np.shape(arrays.data("mine", whole(), Goal("one_hot", 3, {})).train.targets) == (36, 3)
    assert np.shape(arrays.data("mine", whole(Y > 0), Goal("sigmoid", 1, {})).train.targets) == (36, 1)
    numbers = arrays.data("mine", whole(X.sum(axis=1)), NUMBERS)
    assert np.shape(numbers.train.targets["prediction"]) == (36, 1)
    assert numbers.outputs == {"prediction": ()}


@pytest.mark.parametrize(
    ("rows", "goal", "says"),
    [
        (whole(x=X[:, :3]), THREE, "here: x has rows of the shape (3,), but the model takes (4,)"),
        (whole(x=X.astype(str)), THREE, "here: x must be numbers, but is <U"),
        (whole(x=np.where(X == 7, np.nan, X)), THREE, "here: x must be finite, but 1 of its numbers"),
        (whole(Y[:50]), THREE, "here: x has 60 rows, but y has 50 rows"),
        (whole(Y[:0], X[:0]), THREE, "here: x has no rows"),
        (whole(Y * 0), THREE, "here: y must have two classes at least, but all rows are 0"),
        (whole(Y * 5), Goal("classes", 4, {}), "the model tells 4 classes apart, but y has 3: 0, 5, 10"),
        (
            whole(Y + 0.5),
            THREE,
            "here: y must be classes, as the model's loss asks for, but has numbers with",
        ),
        (whole(np.eye(2)[Y % 2]), THREE, "here: y of the shape (60, 2) must have a 1 and else 0"),
        (whole(np.zeros((60, 2, 2), int)), THREE, "here: y must be one class a row, but has the shape"),
        (whole(Y.astype(object)), THREE, "here: y must be numbers or texts, but is object"),
        (whole(classes=("a",)), THREE, "the model tells 3 classes apart, but 1 are named"),
        (whole(np.eye(3)[Y]), NUMBERS, "here: y must be one number a row"),
        (whole(np.where(Y == 1, np.inf, 0.0)), NUMBERS, "here: y must be finite, but 20 are not"),
        (whole(1e9 + np.arange(60) / 100), NUMBERS, "here: y has numbers up to 1e+09 that differ by 0.17"),
        (whole(np.where(Y == 1, 1e300, 0.0)), NUMBERS, "here: y must have numbers up to 1e+15, but has 1e+"),
        (whole(Y), Goal("numbers", 2, {}), "must have one output unit here, but has 2"),
        (
            whole(Y),
            Goal("classes", 3, {"a": (4,), "b": (4,)}),
            "has the inputs a, b, so x needs an array for",
        ),
    ],
)
def test_rows_that_do_not_go_with_the_model_are_one_error(rows: Rows, goal: Goal, says: str) -> None:
    with pytest.raises(UserError) as caught:
        arrays.data("mine", rows, goal)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"x": X}, "must hold x and y, or x_train, y_train, x_test and y_test"),
        ({"x_train": X, "y_train": Y}, "must hold x and y, or"),
        ({"y": Y}, "y has no x beside it"),
        ({"x": X, "y": Y, "z": Y}, "z: belongs to nothing; the parts are x and y"),
        ({"x": X.astype(object), "y": Y}, "cannot be read as an NPZ file of plain arrays"),
    ],
)
def test_a_file_of_other_arrays_is_refused(parts: dict, says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        arrays.read(saved(tmp_path, **parts))
    assert says in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04broken", b"no archive at all"])
def test_a_broken_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "rows.npz").write_bytes(content)
    with pytest.raises(UserError, match="cannot be read as an NPZ file"):
        arrays.read(tmp_path / "rows.npz")
    with pytest.raises(UserError, match="there is no such file"):
        arrays.read(tmp_path / "none.npz")


def _archive(folder: Path, damage: str) -> Path:
    """An archive of x and y that is broken in a way."""
    file = folder / "rows.npz"
    np.savez_compressed(file, x=X, y=Y)
    content = bytearray(file.read_bytes())
    match damage:
        case "packed bytes":
            # Behind the first member's name.
            content[80:90] = bytes(10)
        case "half":
            content = content[: len(content) // 2]
        case "encrypted":
            content[content.index(b"PK\x01\x02") + 8] |= 1
    file.write_bytes(content)
    header = io.BytesIO()
    shape = {"huge": (10**7, 10**6), "beyond": (10**15, 10**15), "below": (-5, 4)}.get(damage)
    if shape:
        described = {"descr": "<f8", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, described)
    longer = io.BytesIO()
    np.save(longer, X)
    other = {
        "no array": ("x.txt", b"hello"),
        "no header": ("x.npy", b"hello"),
        "no dict": ("x.npy", b"\x93NUMPY\x01\x00\x06\x00[1,2]\n"),
        "more": ("x.npy", longer.getvalue() + b"x"),
        "bzip2": ("x.npy", longer.getvalue()),
    }
    if shape or damage in other:
        name, held = ("x.npy", header.getvalue()) if shape else other[damage]
        packing = zipfile.ZIP_BZIP2 if damage == "bzip2" else zipfile.ZIP_STORED
        with zipfile.ZipFile(file, "w", packing) as archive:
            archive.writestr(name, held)
    return file


@pytest.mark.parametrize(
    "damage",
    [
        "packed bytes",
        "half",
        "encrypted",
        "huge",
        "beyond",
        "below",
        "no array",
        "no header",
        "no dict",
        "more",
        "bzip2",
    ],
)
def test_a_damaged_archive_is_one_error_for_training_and_for_use(damage: str, tmp_path: Path) -> None:
    file = _archive(tmp_path, damage)
    with pytest.raises(UserError, match=r"cannot be read as an NPZ file of plain arrays: .+"):
        arrays.read(file)
    # It reads no further than the rows go.
    if damage != "more":
        with pytest.raises(UserError, match=r"the arrays cannot be read: .+"):
            list(prediction_arrays.batches(file, ["x"], 10**6))


def test_any_damage_to_an_archive_is_told(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "whole.npz", x=X, y=Y)
    np.savez(tmp_path / "plain.npz", x=X, y=Y)
    rng = np.random.default_rng(0)
    for whole_file in ("whole.npz", "plain.npz"):
        content = (tmp_path / whole_file).read_bytes()
        for _ in range(300):
            changed = bytearray(content)
            for place in rng.integers(0, len(changed), rng.choice([1, 2, 5])):
                changed[place] = rng.integers(256)
            file = tmp_path / "rows.npz"
            file.write_bytes(changed[: rng.integers(1, len(changed))] if rng.random() < 0.2 else changed)
            with contextlib.suppress(UserError):
                arrays.read(file)


def test_one_array_alone_is_no_rows(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    with pytest.raises(UserError, match=r"x\.npy: holds one array, but x and y are needed"):
        arrays.read(tmp_path / "x.npy")


def test_arrays_that_lie_by_columns_are_read_as_they_are_meant(tmp_path: Path) -> None:
    text = np.array(["a", "b", "c"])[Y]
    rows = arrays.read(saved(tmp_path, x=np.asfortranarray(X), y=text))
    ((x, y),) = rows.parts
    assert np.array_equal(np.asarray(x), X)
    assert y.tolist() == text.tolist()
    # A model's own training may write to them.
    assert y.flags.writeable


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        (np.array(5.0), Y, "x must be an array of rows, but is a single"),
        (X, np.array(3), "y must be an array of rows, but is a single"),
        ([[1, 2], [1], [3]], [0, 1, 1], "x must be an array, but: "),
        ({"a": 5}, Y, "x a must be an array of rows, but is a single int"),
        ({}, Y, "x is an empty dict"),
        ((row for row in X), Y, "x must be an array of rows, but is a single generator"),
    ],
)
def test_a_number_and_a_ragged_list_are_no_rows(x: Any, y: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        arrays.of_value([x, y], "load")
    assert f"load: {says}" in str(caught.value)
    if isinstance(x, np.ndarray):
        with pytest.raises(UserError, match=says):
            arrays.read(saved(tmp_path, x=x, y=y))


@pytest.mark.parametrize("value", [None, (X,), (X, Y, Y), [(X, Y), (X,)], 3])
def test_what_a_function_gives_must_be_rows(value: Any) -> None:
    with pytest.raises(UserError, match=r"load must give \(x, y\), or"):
        arrays.of_value(value, "load")


def test_what_a_function_gives_may_be_all_rows_or_parts() -> None:
    assert len(arrays.of_value((X, Y), "load").parts) == 1
    assert len(arrays.of_value(({"a": X}, Y), "load").parts) == 1
    assert len(arrays.of_value(((X, Y), (X, Y)), "load").parts) == 2
    assert len(arrays.of_value([(X, Y)] * 3, "load").parts) == 3
