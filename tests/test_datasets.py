"""Rows and where they come from: splits, folds, digests, and the sets of `keras.datasets`."""

import gc
import gzip
import hashlib
import io
import json
import os
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import keras
import numpy as np
import pytest

from pipeline.datasets import bundled, digests, keras_sets, published, splits
from pipeline.errors import UserError
from pipeline.values import Data, Split


def numbered(rows: int, classes: int, seed: int = 0) -> Split:
    """Rows that are their own numbers, with uneven classes."""
    labels = np.random.default_rng(seed).integers(0, classes, rows) ** 2 // classes
    return Split(np.arange(rows), labels.astype(np.int32))


def assert_proportional(part: Split, whole: Split, rows: float = 1.0) -> None:
    """Each class of `part` is within `rows` rows of its share of `whole`."""
    classes = int(whole.labels.max()) + 1
    share = np.bincount(whole.labels, minlength=classes) * part.rows / whole.rows
    assert np.abs(np.bincount(part.labels, minlength=classes) - share).max() <= rows


def union(*parts: Split) -> Split:
    return Split(np.concatenate([p.inputs for p in parts]), np.concatenate([p.targets for p in parts]))


def as_set(split: Split) -> set[int]:
    return set(split.inputs.tolist())


class TestSplits:
    def test_three_ways_takes_60_20_20_percent_of_the_rows_and_loses_none(self):
        whole = numbered(500, 5)
        train, validation, test = splits.three_ways(whole.inputs, whole.targets)
        assert (train.rows, validation.rows, test.rows) == (300, 100, 100)
        assert as_set(train) | as_set(validation) | as_set(test) == set(range(500))

    def test_each_part_has_its_share_of_every_class(self):
        whole = numbered(497, 5)
        train, validation, test = splits.three_ways(whole.inputs, whole.targets)
        rest = union(train, validation)
        # Each of the two cuts rounds each class once, by less than a row.
        assert_proportional(test, whole)
        assert_proportional(rest, whole)
        assert_proportional(validation, rest)
        assert_proportional(train, rest)

    def test_hold_out_takes_exactly_that_many_rows_stratified(self):
        whole = numbered(700, 4)
        train, validation = splits.hold_out(whole, 123)
        assert (train.rows, validation.rows) == (577, 123)
        assert as_set(train).isdisjoint(as_set(validation))
        assert_proportional(validation, whole)

    def test_targets_stay_with_their_rows(self):
        whole = numbered(300, 3)
        for part in splits.three_ways(whole.inputs, whole.targets):
            np.testing.assert_array_equal(part.targets, whole.targets[part.inputs])

    def test_small_cuts_to_5000_1000_1000_stratified_rows_of_the_same_parts(self):
        parts = (numbered(6_000, 4), numbered(1_200, 4), numbered(1_300, 4))
        cut = splits.small(*parts)
        assert [part.rows for part in cut] == [5_000, 1_000, 1_000]
        for part, whole in zip(cut, parts, strict=True):
            assert as_set(part) < as_set(whole)
            assert_proportional(part, whole)

    def test_small_keeps_what_is_small_already(self):
        parts = (numbered(5_000, 4), numbered(1_000, 4), numbered(7, 2))
        assert splits.small(*parts) == parts

    def test_small_cuts_fewer_rows_than_there_are_classes(self):
        cut, _, _ = splits.small(numbered(5_003, 10), numbered(50, 2), numbered(50, 2))
        assert cut.rows == 5_000


class TestFolds:
    @pytest.fixture
    def whole(self) -> Data:
        rows = numbered(500, 4)
        return splits.data("numbered", "made up", "abcd", splits.three_ways(rows.inputs, rows.targets))

    @pytest.mark.parametrize("count", [2, 3, 5])
    def test_they_partition_the_training_rows(self, whole, count):
        folds = splits.folds(whole, count)
        assert len(folds) == count
        checked = np.concatenate([fold.validation.inputs for fold in folds])
        assert sorted(checked) == sorted(whole.train.inputs)
        for fold in folds:
            assert as_set(fold.train).isdisjoint(as_set(fold.validation))
            assert as_set(fold.train) | as_set(fold.validation) == as_set(whole.train)

    def test_they_are_stratified(self, whole):
        for fold in splits.folds(whole, 5):
            # 300 rows in 5 folds of 60: scikit-learn deals each class's rows round, so within one.
            assert_proportional(fold.validation, whole.train)
            assert_proportional(fold.train, whole.train)

    def test_they_never_touch_the_validation_and_test_rows(self, whole):
        unseen = as_set(whole.validation) | as_set(whole.test.unseal())
        for fold in splits.folds(whole, 3):
            assert (as_set(fold.train) | as_set(fold.validation)).isdisjoint(unseen)
            assert fold.test is whole.test

    def test_they_are_the_same_on_every_call(self, whole):
        for first, second in zip(splits.folds(whole, 3), splits.folds(whole, 3), strict=True):
            np.testing.assert_array_equal(first.train.inputs, second.train.inputs)
            np.testing.assert_array_equal(first.validation.inputs, second.validation.inputs)

    def test_one_fold_is_the_data_itself(self, whole):
        (only,) = splits.folds(whole, 1)
        assert only is whole
        assert only.fold is None

    def test_their_row_numbers_lead_to_their_rows(self, whole):
        for fold in splits.folds(whole, 3):
            for part, numbers in ((fold.train, fold.fold.learn), (fold.validation, fold.fold.check)):
                np.testing.assert_array_equal(whole.train.inputs[numbers], part.inputs)
                np.testing.assert_array_equal(whole.train.targets[numbers], part.targets)

    def test_weights_and_names_stay_with_their_rows(self, whole):
        rows = whole.train.inputs
        train = Split({"number": rows, "half": rows / 2}, whole.train.targets, rows * 2.0)
        for fold in splits.folds(replace(whole, train=train), 3):
            for part in (fold.train, fold.validation):
                np.testing.assert_array_equal(part.inputs["half"] * 2, part.inputs["number"])
                np.testing.assert_array_equal(part.weights, part.inputs["number"] * 2.0)

    @pytest.mark.parametrize("count", [31, 91])
    def test_more_folds_than_a_class_has_rows_is_an_error_for_the_user(self, count):
        with pytest.raises(UserError, match="folds"):
            splits.folds(bundled.iris("full"), count)


class TestBundled:
    @pytest.mark.parametrize(
        ("load", "rows", "shape", "dtype"),
        [
            (bundled.iris, (90, 30, 30), (4,), np.float32),
            # 1797: scikit-learn rounds the parts that it takes out up, 359.4 to 360 and 359.25 to 360.
            (bundled.digits, (1077, 360, 360), (8, 8, 1), np.uint8),
        ],
    )
    def test_rows_shapes_and_types(self, load, rows, shape, dtype):
        data = load("full")
        parts = (data.train, data.validation, data.test.unseal())
        assert tuple(part.rows for part in parts) == rows
        for part in parts:
            assert part.inputs.shape[1:] == shape
            assert part.inputs.dtype == dtype
            assert set(part.labels.tolist()) == set(range(len(data.classes)))

    @pytest.mark.parametrize("load", [bundled.iris, bundled.digits])
    def test_classes_are_proportional(self, load):
        data = load("full")
        whole = union(data.train, data.validation, data.test.unseal())
        assert_proportional(data.test.unseal(), whole)
        # Two cuts, and a class may lose less than a row in each.
        assert_proportional(data.validation, whole, rows=2.0)
        assert_proportional(data.train, whole, rows=2.0)

    @pytest.mark.parametrize("load", [bundled.iris, bundled.digits])
    @pytest.mark.parametrize("size", ["full", "small"])
    def test_the_rows_are_the_same_on_every_call(self, load, size):
        assert load(size).digests == load(size).digests

    def test_digits_are_disjoint_between_parts(self):
        data = bundled.digits("full")
        # No two of scikit-learn's 1,797 digits are equal.
        seen = [
            {image.tobytes() for image in part.inputs}
            for part in (data.train, data.validation, data.test.unseal())
        ]
        assert sum(map(len, seen)) == len(set.union(*seen)) == 1797

    def test_digests_are_those_of_the_parts(self):
        data = bundled.iris("full")
        assert data.digests == {
            "train": digests.of_split(data.train),
            "validation": digests.of_split(data.validation),
            "test": digests.of_split(data.test.unseal()),
        }


class TestDigests:
    NUMBERS = np.arange(6, dtype=np.int32)

    @pytest.mark.parametrize(
        "other",
        [
            NUMBERS.astype(np.int64),
            NUMBERS.astype(np.float32),
            NUMBERS.astype(np.uint32),
            NUMBERS.reshape(2, 3),
            NUMBERS[:, None],
            NUMBERS[::-1],
            NUMBERS + 1,
            NUMBERS[:5],
        ],
    )
    def test_type_shape_order_and_contents_count(self, other):
        assert digests.of_arrays(other) != digests.of_arrays(self.NUMBERS)

    @pytest.mark.parametrize("dtype", ["i2", "i8", "u4", "f4", "f8"])
    def test_byte_order_and_memory_order_do_not_count(self, dtype):
        matrix = np.arange(6).reshape(2, 3)
        little, big = matrix.astype(f"<{dtype}"), matrix.astype(f">{dtype}")
        assert digests.of_arrays(little) == digests.of_arrays(big)
        assert digests.of_arrays(np.asfortranarray(little)) == digests.of_arrays(little)
        assert digests.of_arrays(np.repeat(little, 2, axis=0)[::2]) == digests.of_arrays(little)

    def test_the_order_of_arrays_and_where_they_end_count(self):
        a, b = self.NUMBERS[:2], self.NUMBERS[2:]
        assert digests.of_arrays(a, b) != digests.of_arrays(b, a)
        assert digests.of_arrays(a, b) != digests.of_arrays(self.NUMBERS[:3], self.NUMBERS[3:])

    def test_ragged_rows_count_by_contents_and_by_where_they_end(self):
        rows = ragged([1, 2], [3], [])
        assert digests.of_arrays(rows) == digests.of_arrays(ragged((1, 2), np.array([3], np.int16), []))
        for other in (ragged([1], [2, 3], []), ragged([3], [1, 2], []), ragged([1, 2], [4], [])):
            assert digests.of_arrays(other) != digests.of_arrays(rows)

    def test_a_digest_is_sha256_in_hex_and_stays_what_it_is(self):
        # By hand: SHA-256 of b"<i4(2,)" and the bytes 1 0 0 0 2 0 0 0.
        assert digests.of_arrays(np.array([1, 2], ">i4")) == (
            "eaafd2ce99b57536a8a2eee76b874e61bb3305a2c820dc445fe0bb1cf6df3a38"
        )

    def test_of_split_sees_inputs_and_targets(self):
        split = Split(self.NUMBERS, self.NUMBERS % 2)
        assert digests.of_split(split) == digests.of_arrays(self.NUMBERS, self.NUMBERS % 2)
        assert digests.of_split(Split(self.NUMBERS, self.NUMBERS % 3)) != digests.of_split(split)

    def test_of_split_of_one_array_each_stays_what_it_is(self):
        # By hand: SHA-256 of b"<i4(2,)", the bytes of 1 and 2, b"<i4(2,)" and the bytes of 0 and 1.
        split = Split(np.array([1, 2], "<i4"), np.array([0, 1], "<i4"))
        content = b"<i4(2,)" + bytes([1, 0, 0, 0, 2, 0, 0, 0]) + b"<i4(2,)" + bytes([0, 0, 0, 0, 1, 0, 0, 0])
        assert digests.of_split(split) == hashlib.sha256(content).hexdigest()

    def test_of_split_of_named_arrays_is_that_of_places_and_digests_in_order(self):
        a, b = self.NUMBERS, self.NUMBERS + 1
        split = Split({"b": b, "a": a}, self.NUMBERS % 2, np.ones(6))
        arrays = (
            (["inputs", "a"], a),
            (["inputs", "b"], b),
            (["targets"], self.NUMBERS % 2),
            (["weights"], np.ones(6)),
        )
        places = json.dumps([[*place, digests.of_arrays(array)] for place, array in arrays])
        assert digests.of_split(split) == hashlib.sha256(places.encode()).hexdigest()
        assert digests.of_split(Split({"a": a, "b": b}, self.NUMBERS % 2, np.ones(6))) == digests.of_split(
            split
        )

    def test_of_split_tells_names_weights_and_places_apart(self):
        a, b = self.NUMBERS, self.NUMBERS + 1
        different = [
            Split(a, a),
            Split(a, a, np.ones(6)),
            Split(a, a, np.arange(6.0)),
            Split({"a": a}, a),
            Split({"b": a}, a),
            Split(a, {"a": a}),
            Split({"a": a}, {"a": a}),
            Split({"a": a, "b": b}, a),
            Split({"a": b, "b": a}, a),
            Split({"a": a}, {"b": b}),
            Split({"b": b}, {"a": a}),
        ]
        assert len({digests.of_split(split) for split in different}) == len(different)


def ragged(*rows) -> np.ndarray:
    out = np.empty(len(rows), dtype=object)
    out[:] = rows
    return out


# A mirror is a folder with the files in Keras's formats; these are of few rows.
# hold_out takes 10,000 rows for validation (5,000 of imdb), so a little more than that are needed.
IMAGE_ROWS, REVIEW_ROWS, TEST_ROWS = 10_040, 5_040, 50


def little_images() -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(5)

    def part(rows: int) -> tuple[np.ndarray, np.ndarray]:
        return rng.integers(0, 256, (rows, 28, 28), np.uint8), (np.arange(rows) % 10).astype(np.uint8)

    return *part(IMAGE_ROWS), *part(TEST_ROWS)


def little_reviews(rows: int = REVIEW_ROWS, test_rows: int = TEST_ROWS) -> tuple[np.ndarray, ...]:
    """Raw word ranks, some beyond the cut at 10,000, with labels; the first review is empty."""
    rng = np.random.default_rng(6)

    def part(count: int) -> tuple[np.ndarray, np.ndarray]:
        reviews = [rng.integers(1, 12_000, rng.integers(1, 9)).tolist() for _ in range(count - 1)]
        return ragged([], *reviews), np.arange(count) % 2

    return *part(rows), *part(test_rows)


NAMES = ("x_train", "y_train", "x_test", "y_test")


def write_npz(file: Path, arrays: tuple[np.ndarray, ...]) -> None:
    np.savez(file, allow_pickle=True, **dict(zip(NAMES, arrays, strict=True)))


def write_mnist(folder: Path, arrays: tuple[np.ndarray, ...]) -> Path:
    write_npz(folder / "mnist.npz", arrays)
    return folder / "mnist.npz"


def write_imdb(folder: Path, arrays: tuple[np.ndarray, ...]) -> Path:
    write_npz(folder / "imdb.npz", arrays)
    return folder / "imdb.npz"


def write_fashion_mnist(folder: Path, arrays: tuple[np.ndarray, ...]) -> Path:
    """The idx format: magic number and sizes as big-endian 32 bits, then a byte a number."""
    (folder / "fashion-mnist").mkdir(exist_ok=True)
    for part, images, labels in (("train", *arrays[:2]), ("t10k", *arrays[2:])):
        for kind, magic, values in (("images-idx3", 0x803, images), ("labels-idx1", 0x801, labels)):
            header = np.array([magic, *values.shape], ">i4").tobytes()
            file = folder / "fashion-mnist" / f"{part}-{kind}-ubyte.gz"
            file.write_bytes(gzip.compress(header + values.tobytes(), 1))
    return folder / "fashion-mnist" / "train-images-idx3-ubyte.gz"


WRITERS = {"mnist": write_mnist, "fashion_mnist": write_fashion_mnist, "imdb": write_imdb}
LOADERS = {"mnist": keras_sets.mnist, "fashion_mnist": keras_sets.fashion_mnist, "imdb": keras_sets.imdb}


def little(name: str) -> tuple[np.ndarray, ...]:
    return little_reviews() if name == "imdb" else little_images()


def keras_imdb(file: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, ...]:
    """What Keras's own loader makes of a raw file."""
    monkeypatch.setattr("keras.src.datasets.imdb.get_file", lambda **_: str(file))
    (x_train, y_train), (x_test, y_test) = keras.datasets.imdb.load_data(num_words=published.IMDB_WORDS)
    return x_train, y_train, x_test, y_test


@pytest.fixture
def mirror(tmp_path, monkeypatch) -> Path:
    """An empty folder that PIPELINE_DATA names."""
    monkeypatch.setenv("PIPELINE_DATA", str(tmp_path))
    return tmp_path


def user_error(name: str) -> str:
    with pytest.raises(UserError) as caught:
        LOADERS[name]("small")
    return str(caught.value)


class TestMirror:
    @pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
    def test_images_are_read_and_split_as_published(self, name, mirror, monkeypatch):
        arrays = little_images()
        WRITERS[name](mirror, arrays)
        monkeypatch.setitem(published.PUBLISHED, name, digests.of_arrays(*arrays))
        data = LOADERS[name]("full")
        test = data.test.unseal()
        assert (data.train.rows, data.validation.rows, test.rows) == (40, 10_000, TEST_ROWS)
        assert data.train.inputs.shape[1:] == (28, 28, 1)
        assert data.train.inputs.dtype == np.uint8
        assert len(data.classes) == 10
        np.testing.assert_array_equal(test.inputs[..., 0], arrays[2])
        np.testing.assert_array_equal(test.labels, arrays[3])
        whole = Split(np.arange(IMAGE_ROWS), arrays[1])
        assert_proportional(data.train, whole)
        pictures = {image.tobytes() for image in (*data.train.inputs, *data.validation.inputs)}
        assert pictures == {image.tobytes() for image in arrays[0]}

    def test_reviews_are_read_and_split_as_published(self, mirror, monkeypatch):
        arrays = keras_imdb(write_imdb(mirror, little_reviews()), monkeypatch)
        monkeypatch.setitem(published.PUBLISHED, "imdb", digests.of_arrays(*arrays))
        data = keras_sets.imdb("full")
        test = data.test.unseal()
        assert (data.train.rows, data.validation.rows, test.rows) == (40, 5_000, TEST_ROWS)
        assert data.train.inputs.dtype == np.uint8
        assert data.train.targets.shape == (40, 1)
        np.testing.assert_array_equal(test.inputs, keras_sets.multi_hot(arrays[2], 10_000))
        np.testing.assert_array_equal(test.labels, arrays[3])
        # 20 of each class are left of 5,040 with two equal classes.
        np.testing.assert_array_equal(np.bincount(data.train.labels), [20, 20])

    @pytest.mark.parametrize("size", ["full", "small"])
    def test_imdb_sequences_are_the_rows_of_imdb_in_order(self, size, mirror, monkeypatch):
        arrays = keras_imdb(write_imdb(mirror, little_reviews(11_000, 1_100)), monkeypatch)
        monkeypatch.setitem(published.PUBLISHED, "imdb", digests.of_arrays(*arrays))
        hot, ordered = keras_sets.imdb(size), keras_sets.imdb_sequences(size)
        assert (ordered.name, ordered.classes, ordered.source) == ("imdb_conv1d", hot.classes, hot.source)
        assert ordered.words == {"": 2_000}
        assert hot.words == {}
        for one, other in (
            (hot.train, ordered.train),
            (hot.validation, ordered.validation),
            (hot.test.unseal(), ordered.test.unseal()),
        ):
            assert other.inputs.dtype == np.int32
            assert other.inputs.shape == (one.rows, 500)
            np.testing.assert_array_equal(other.targets, one.targets)
            # Of words below 2,000 both say the same, but for padding and the mark of rare words.
            again = keras_sets.multi_hot(other.inputs, 2_000)
            np.testing.assert_array_equal(again[:, 3:], one.inputs[:, 3:2_000])
            np.testing.assert_array_equal(again[:, 1], 1)

    def test_imdb_sequences_are_as_keras_makes_them(self, mirror, monkeypatch):
        raw = little_reviews()
        for part, longest in ((0, 700), (2, 499)):
            # Reviews that are cut, that fit, and that are padded.
            for row, words in enumerate((longest, 500, 499, 498, 0)):
                raw[part][row] = np.random.default_rng(row).integers(1, 12_000, words).tolist()
        file = write_imdb(mirror, raw)
        arrays = keras_imdb(file, monkeypatch)
        monkeypatch.setitem(published.PUBLISHED, "imdb", digests.of_arrays(*arrays))
        (x_train, _), (x_test, y_test) = keras.datasets.imdb.load_data(num_words=2_000)
        data = keras_sets.imdb_sequences("full")
        test = data.test.unseal()
        np.testing.assert_array_equal(test.inputs, keras.utils.pad_sequences(x_test, maxlen=500))
        np.testing.assert_array_equal(test.labels, y_test)
        seen = np.concatenate([data.train.inputs, data.validation.inputs])
        expected = keras.utils.pad_sequences(x_train, maxlen=500)
        assert sorted(row.tobytes() for row in seen) == sorted(row.tobytes() for row in expected)

    @pytest.mark.parametrize("size", ["full", "small"])
    def test_a_set_is_the_same_on_every_call(self, size, mirror, monkeypatch):
        arrays = little_images()
        write_mnist(mirror, arrays)
        monkeypatch.setitem(published.PUBLISHED, "mnist", digests.of_arrays(*arrays))
        assert keras_sets.mnist(size).digests == keras_sets.mnist(size).digests

    @pytest.mark.parametrize("name", LOADERS)
    def test_a_missing_file_is_named_with_what_to_do(self, name, mirror):
        message = user_error(name)
        assert str(mirror) in message
        assert "no such file" in message
        assert "unset PIPELINE_DATA" in message

    @pytest.mark.parametrize("name", LOADERS)
    @pytest.mark.parametrize("left", [0, 1, 40, 0.5, 0.999])
    def test_a_truncated_file_is_damaged(self, name, left, mirror):
        file = WRITERS[name](mirror, little(name) if name == "fashion_mnist" else tiny(name))
        content = file.read_bytes()
        file.write_bytes(content[: left if isinstance(left, int) else int(left * len(content))])
        message = user_error(name)
        assert str(mirror) in message
        assert "damaged" in message
        assert "replace it by the published one" in message
        # A file left open would be reported here, and on Windows could not be replaced.
        gc.collect()

    @pytest.mark.parametrize("name", LOADERS)
    def test_a_file_of_something_else_is_damaged(self, name, mirror):
        file = WRITERS[name](mirror, tiny(name))
        file.write_text("<html>404 Not Found</html>")
        assert "damaged" in user_error(name)

    @pytest.mark.parametrize("name", ["mnist", "imdb"])
    def test_one_array_where_an_archive_should_be_is_damaged(self, name, mirror):
        with (mirror / f"{name}.npz").open("wb") as file:
            np.save(file, np.arange(3))
        assert "damaged" in user_error(name)

    @pytest.mark.parametrize("name", ["mnist", "imdb"])
    def test_an_archive_that_lacks_an_array_is_damaged(self, name, mirror):
        np.savez(mirror / f"{name}.npz", x_train=np.arange(3))
        assert "damaged" in user_error(name)

    @pytest.mark.parametrize(
        "arrays",
        [
            (ragged([1], [2]), np.arange(1), ragged([1]), np.arange(1)),
            (ragged(["a"], ["b"]), np.arange(2), ragged([1]), np.arange(1)),
            (ragged(1, 2), np.arange(2), ragged([1]), np.arange(1)),
            (np.zeros((2, 3, 3)), np.arange(2), ragged([1]), np.arange(1)),
        ],
        ids=["fewer labels than reviews", "words", "numbers", "images"],
    )
    def test_reviews_that_are_none_are_one_error_of_the_user(self, arrays, mirror):
        write_imdb(mirror, arrays)
        message = user_error("imdb")
        assert str(mirror / "imdb.npz") in message
        assert "PIPELINE_DATA" in message

    @pytest.mark.parametrize("name", LOADERS)
    def test_other_arrays_than_the_published_ones_are_refused(self, name, mirror):
        WRITERS[name](mirror, tiny(name))
        message = user_error(name)
        assert str(mirror) in message
        assert "not the published ones" in message
        assert published.PUBLISHED[name][:12] in message
        assert "unset PIPELINE_DATA" in message

    def test_one_changed_pixel_is_refused(self, mirror, monkeypatch):
        arrays = little_images()
        monkeypatch.setitem(published.PUBLISHED, "mnist", digests.of_arrays(*arrays))
        arrays[2][7, 3, 3] ^= 1
        write_mnist(mirror, arrays)
        assert "not the published ones" in user_error("mnist")

    @pytest.mark.parametrize("name", ["mnist", "imdb"])
    @pytest.mark.parametrize("where", ["an element", "the whole member"])
    def test_a_pickle_that_runs_a_program_is_refused_and_not_run(self, name, where, mirror, tmp_path):
        class Program:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "it ran"),)

        hostile = np.empty(1, dtype=object)
        hostile[0] = Program()
        member = io.BytesIO()
        np.lib.format.write_array(member, hostile, allow_pickle=True)
        content = member.getvalue()
        if where == "the whole member":
            header = content[: content.index(b"\x80")]
            content = header + pickle.dumps(Program())
        with zipfile.ZipFile(mirror / f"{name}.npz", "w") as archive:
            for array in NAMES:
                archive.writestr(f"{array}.npy", content)
        message = user_error(name)
        assert str(mirror / f"{name}.npz") in message
        assert "replace it by the published one" in message
        assert not (tmp_path / "it ran").exists()


def tiny(name: str) -> tuple[np.ndarray, ...]:
    """A few rows in the set's form, which no digest accepts."""
    if name == "imdb":
        return little_reviews(8, 6)
    x_train, y_train, x_test, y_test = little_images()
    return x_train[:8], y_train[:8], x_test[:6], y_test[:6]


class TestImdbDecoding:
    def test_it_equals_keras(self, tmp_path, monkeypatch):
        file = write_imdb(tmp_path, little_reviews(30, 20))
        ours = published._imdb_from_mirror(file)
        for mine, theirs in zip(ours, keras_imdb(file, monkeypatch), strict=True):
            assert [np.asarray(row).tolist() for row in mine] == [np.asarray(row).tolist() for row in theirs]

    def test_multi_hot_marks_each_word_of_a_review_once(self):
        out = keras_sets.multi_hot(ragged([1, 3, 3], [], [0]), 5)
        np.testing.assert_array_equal(out, [[0, 1, 0, 1, 0], [0] * 5, [1, 0, 0, 0, 0]])
        assert out.dtype == np.uint8


class TestImdbWords:
    RANKS: ClassVar = {"and": 2, "the": 1, "café": 4, "of": 3}
    WORDS = ("<padding>", "<start>", "<rare>", "<unused>", "the", "and", "of", "café")

    @pytest.fixture
    def downloads(self, monkeypatch) -> list[dict[str, int]]:
        """What Keras downloads: the only element, taken when it is asked for; none means that it fails."""
        left = []
        monkeypatch.setattr(keras.datasets.imdb, "get_word_index", left.pop)
        return left

    def test_they_are_read_from_the_mirror(self, mirror, downloads, caplog):
        index = json.dumps(self.RANKS, ensure_ascii=False)
        (mirror / "imdb_word_index.json").write_text(index, encoding="utf-8")
        assert keras_sets.imdb_words() == self.WORDS
        assert not caplog.records

    def test_where_there_is_a_mirror_nothing_is_downloaded(self, mirror, downloads, caplog):
        downloads.append(self.RANKS)
        assert keras_sets.imdb_words() is None
        assert downloads == [self.RANKS]
        assert len(caplog.records) == 1

    def test_without_a_mirror_no_file_of_the_working_folder_is_read(self, tmp_path, monkeypatch, downloads):
        (tmp_path / "imdb_word_index.json").write_text("{}", encoding="utf-8")
        monkeypatch.chdir(tmp_path)
        downloads.append(self.RANKS)
        assert keras_sets.imdb_words() == self.WORDS

    def test_without_any_there_are_none_and_one_warning(self, downloads, caplog):
        assert keras_sets.imdb_words() is None
        (record,) = caplog.records
        assert record.levelname == "WARNING"
        assert "imdb" in record.getMessage()

    @pytest.mark.parametrize("content", ["", "<html>", "[]", '["the"]', "3", '{"the": 1, "of": 3}', "\udcff"])
    def test_a_damaged_file_gives_none_and_one_warning(self, content, mirror, downloads, caplog):
        file = mirror / "imdb_word_index.json"
        file.write_bytes(content.encode("utf-8", "surrogateescape"))
        assert keras_sets.imdb_words() is None
        assert len(caplog.records) == 1

    def test_they_are_numbered_as_the_reviews_are(self, mirror, monkeypatch):
        (mirror / "imdb_word_index.json").write_text(json.dumps(self.RANKS), encoding="utf-8")
        words = keras_sets.imdb_words()
        # Ranks of "of the café", as they lie in a raw file.
        (review,) = published._as_keras(ragged([3, 1, 4]))
        assert [words[number] for number in review] == ["<start>", "of", "the", "café"]

    def test_the_published_ones_are_complete(self, real_data, monkeypatch):
        if not (real_data / "imdb_word_index.json").exists():
            pytest.skip(f"no word index in {real_data}")
        monkeypatch.setenv("PIPELINE_DATA", str(real_data))
        words = keras_sets.imdb_words()
        assert len(words) == len(set(words)) == 88_584 + 4
        assert words[4:9] == ("the", "and", "a", "of", "to")


class TestDownload:
    @pytest.fixture(autouse=True)
    def _no_mirror(self, monkeypatch):
        monkeypatch.delenv("PIPELINE_DATA", raising=False)

    @pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
    def test_what_keras_downloads_is_taken(self, name, monkeypatch):
        arrays = little_images()
        monkeypatch.setitem(published.PUBLISHED, name, digests.of_arrays(*arrays))
        monkeypatch.setattr(getattr(keras.datasets, name), "load_data", lambda: (arrays[:2], arrays[2:]))
        data = LOADERS[name]("full")
        assert (data.train.rows, data.validation.rows, data.test.rows) == (40, 10_000, TEST_ROWS)
        assert data.source == f"keras.datasets.{name}"

    def test_imdb_is_asked_for_its_10000_commonest_words(self, tmp_path, monkeypatch):
        arrays = keras_imdb(write_imdb(tmp_path, little_reviews()), monkeypatch)
        monkeypatch.setitem(published.PUBLISHED, "imdb", digests.of_arrays(*arrays))
        data = keras_sets.imdb("full")
        assert (data.train.rows, data.validation.rows, data.test.rows) == (40, 5_000, TEST_ROWS)

    @pytest.mark.parametrize("name", LOADERS)
    def test_a_failed_download_says_how_to_go_on_without_a_network(self, name, monkeypatch):
        def fail(**_):
            raise Exception("URL fetch failure on https://…: None -- [Errno -3]")

        monkeypatch.setattr(getattr(keras.datasets, name), "load_data", fail)
        message = user_error(name)
        assert f"keras.datasets.{name}: the download failed (URL fetch failure" in message
        assert "PIPELINE_DATA" in message

    @pytest.mark.parametrize("name", LOADERS)
    def test_another_file_than_the_published_one_says_what_to_delete(self, name, monkeypatch):
        arrays = tiny(name)
        monkeypatch.setattr(getattr(keras.datasets, name), "load_data", lambda **_: (arrays[:2], arrays[2:]))
        assert "delete Keras's copy in ~/.keras/datasets" in user_error(name)

    def test_an_empty_variable_means_no_mirror(self, monkeypatch):
        monkeypatch.setenv("PIPELINE_DATA", "")
        monkeypatch.setattr(keras.datasets.mnist, "load_data", lambda: (tiny("mnist")[:2], tiny("mnist")[2:]))
        assert user_error("mnist").startswith("keras.datasets.mnist: ")


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [("mnist", (28, 28, 1), 10), ("fashion_mnist", (28, 28, 1), 10), ("imdb", (10_000,), 2)],
)
def test_the_published_files_are_accepted(name, shape, classes, real_data, monkeypatch):
    monkeypatch.setenv("PIPELINE_DATA", str(real_data))
    data = LOADERS[name]("small")
    parts = (data.train, data.validation, data.test.unseal())
    assert [part.rows for part in parts] == [5_000, 1_000, 1_000]
    for part in parts:
        assert part.inputs.shape[1:] == shape
        assert part.inputs.dtype == np.uint8
        assert len(np.unique(part.labels)) == len(data.classes) == classes
    assert data.source == "PIPELINE_DATA mirror"
