"""The values that flow between the rooms: what they refuse, and how rows are taken and weighed."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import keras
import numpy as np
import pytest

from pipeline.values import Array, Data, Fold, SealedSplit, Split

INPUTS = {"left": np.arange(12).reshape(6, 2), "right": np.arange(6) * 10}
TARGETS = {"kind": np.arange(6) % 3, "side": (np.arange(6) % 2)[:, None]}

BY_CLASS = {0: 2.0, 2: 0.25}


def plain(rows: int = 6, classes: int = 3) -> Split:
    return Split(np.arange(rows), np.arange(rows) % classes)


def named() -> Split:
    return Split(MappingProxyType(INPUTS), MappingProxyType(TARGETS), np.arange(6.0))


class TestSplit:
    @pytest.mark.parametrize(
        ("inputs", "targets", "weights", "message"),
        [
            (np.zeros(3), np.zeros(4), None, "but inputs: 3, targets: 4"),
            (np.zeros(3), np.zeros(3), np.ones(2), "but inputs: 3, targets: 3, weights: 2"),
            (
                {"left": np.zeros(3), "right": np.zeros(2)},
                np.zeros(3),
                None,
                "but inputs left: 3, inputs right: 2, targets: 3",
            ),
            (
                np.zeros(3),
                {"kind": np.zeros(3), "side": np.zeros(1)},
                None,
                "targets kind: 3, targets side: 1",
            ),
            (np.zeros(0), np.zeros(0), None, "at least one row"),
            ({"left": np.zeros(0)}, np.zeros(0), None, "at least one row"),
            ({}, np.zeros(3), None, "a split needs inputs, but has none"),
            (np.zeros(3), {}, None, "a split needs targets, but has none"),
            (np.zeros(3), np.zeros(3), np.ones((3, 1)), r"must be \(rows,\), but have the shape \(3, 1\)"),
            (np.zeros(3), np.zeros(3), np.array([1.0, -1e-9, 1.0]), "must be finite and 0 or more"),
            (np.zeros(3), np.zeros(3), np.array([1.0, np.nan, 1.0]), "must be finite and 0 or more"),
            (np.zeros(3), np.zeros(3), np.array([1.0, np.inf, 1.0]), "must be finite and 0 or more"),
        ],
    )
    def test_what_does_not_belong_together_is_refused(self, inputs, targets, weights, message):
        with pytest.raises(ValueError, match=message):
            Split(inputs, targets, weights)

    def test_rows_are_those_of_every_array(self):
        assert plain().rows == 6
        assert named().rows == 6

    def test_arrays_are_found_by_their_place(self):
        places = [
            ("inputs", "left"),
            ("inputs", "right"),
            ("targets", "kind"),
            ("targets", "side"),
            ("weights",),
        ]
        assert list(named().arrays) == places
        assert list(plain().arrays) == [("inputs",), ("targets",)]
        assert named().arrays["inputs", "right"] is INPUTS["right"]

    def test_taken_rows_stay_together(self):
        taken = plain().take(np.array([4, 1]))
        assert (taken.inputs.tolist(), taken.targets.tolist(), taken.weights) == ([4, 1], [1, 1], None)

    def test_taken_rows_stay_together_by_name_and_with_their_weights(self):
        rows = np.array([5, 0, 3])
        taken = named().take(rows)
        for got, whole in ((taken.inputs, INPUTS), (taken.targets, TARGETS)):
            assert isinstance(got, Mapping)
            assert got.keys() == whole.keys()
            for name, array in got.items():
                np.testing.assert_array_equal(array, whole[name][rows])
        np.testing.assert_array_equal(taken.weights, [5.0, 0.0, 3.0])

    @pytest.mark.parametrize("shape", [(6,), (6, 1)])
    def test_labels_are_the_class_numbers_of_a_single_target(self, shape):
        split = Split(np.arange(6), (np.arange(6) % 3).reshape(shape))
        assert split.labels.tolist() == [0, 1, 2, 0, 1, 2]

    def test_labels_of_several_targets_are_an_error(self):
        with pytest.raises(TypeError, match="one target is needed, but the targets are kind, side"):
            _ = named().labels

    def test_labels_of_a_one_hot_target_are_its_columns(self):
        assert Split(np.arange(6), np.eye(6)[[2, 0, 1, 5, 4, 3]]).labels.tolist() == [2, 0, 1, 5, 4, 3]

    def test_labels_of_a_target_in_tables_are_an_error(self):
        shape = r"one class number a row, but the targets' shape is \(6, 3, 2\)"
        with pytest.raises(TypeError, match=shape):
            _ = Split(np.arange(6), np.zeros((6, 3, 2))).labels

    def test_one_input_is_the_single_one(self):
        assert plain().one_input.tolist() == [0, 1, 2, 3, 4, 5]
        with pytest.raises(TypeError, match="one input is needed, but the inputs are left, right"):
            _ = named().one_input


class TestWeighted:
    @pytest.mark.parametrize(
        "targets",
        [
            np.array([0, 1, 2, 2]),
            np.array([[0], [1], [2], [2]]),
            np.array([0.0, 1.0, 1.9999, 2.0], np.float32),
            np.eye(3)[[0, 1, 2, 2]],
        ],
        ids=["numbers", "a column", "floats", "one column a class"],
    )
    def test_each_row_weighs_what_keras_makes_its_class_weigh(self, targets: Array):
        # The loss of one row without its weight is 1.
        losses = []
        split = Split(np.zeros((4, 1)), targets).weighted(BY_CLASS)
        for row in range(4):
            model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
            model.compile(loss=_one)
            losses.append(
                model.train_on_batch(np.zeros((1, 1)), targets[row : row + 1], class_weight=BY_CLASS)
            )
        assert split.weights is not None
        assert split.weights.dtype == np.float32
        assert split.weights.tolist() == [2.0, 1.0, 0.25, 0.25] == losses

    def test_weights_that_rows_have_are_multiplied(self):
        split = replace(plain(4), weights=np.array([1.0, 3.0, 4.0, 0.0])).weighted(BY_CLASS)
        np.testing.assert_array_equal(split.weights, [2.0, 3.0, 1.0, 0.0])

    def test_nothing_else_changes(self):
        before = plain()
        after = before.weighted(BY_CLASS)
        assert after.inputs is before.inputs
        assert after.targets is before.targets
        assert before.weights is None

    def test_several_targets_are_an_error(self):
        with pytest.raises(TypeError, match="one target is needed"):
            named().weighted(BY_CLASS)

    def test_a_weight_below_zero_is_an_error(self):
        with pytest.raises(ValueError, match="must be finite and 0 or more"):
            plain().weighted({1: -1.0})


def _one(targets: Array, answers: Array) -> Array:
    return 0.0 * answers[:, 0] + 1.0


@pytest.mark.parametrize(("learn", "check"), [(3, 2), (4, 1)])
def test_a_fold_numbers_as_many_rows_as_its_splits_have(learn: int, check: int) -> None:
    fold = Fold(np.arange(learn), np.arange(check))
    with pytest.raises(ValueError, match=rf"the fold numbers \({learn}, {check}\) rows, but .* \(4, 2\)"):
        Data("d", "made up", ("a", "b"), plain(4), plain(2), SealedSplit(plain(1)), {}, fold)


class TestMoments:
    PICTURES = np.random.default_rng(0).integers(0, 256, (5, 3, 2, 4)).astype(np.uint8)

    def test_they_are_those_of_each_last_axis_in_float64(self):
        split = Split(self.PICTURES, np.zeros(5))
        flat = self.PICTURES.reshape(-1, 4).astype(np.float64)
        mean, variance = split.moments
        low, high = split.extremes
        assert {part.dtype for part in (mean, variance, low, high)} == {np.dtype(np.float64)}
        np.testing.assert_allclose(mean, flat.mean(axis=0), rtol=1e-14)
        np.testing.assert_allclose(variance, flat.var(axis=0), rtol=1e-14)
        np.testing.assert_array_equal(low, flat.min(axis=0))
        np.testing.assert_array_equal(high, flat.max(axis=0))

    def test_float32_rows_are_added_in_float64(self):
        rows = np.full((100_000, 1), 0.1, np.float32)
        mean, variance = Split(rows, np.zeros(len(rows))).moments
        # As a sum of float32 numbers it would be off by 1e-4 or so.
        assert mean[0] == pytest.approx(float(rows[0, 0]), rel=1e-12)
        assert variance[0] < 1e-20

    @pytest.mark.parametrize("most", [1, 24, 50, 120])
    def test_many_rows_are_never_all_in_64_bits_at_once(self, most: int, monkeypatch: pytest.MonkeyPatch):
        whole = Split(self.PICTURES, np.zeros(5)).moments[1]
        monkeypatch.setattr("pipeline.values._MOST_WIDE", most)
        np.testing.assert_allclose(Split(self.PICTURES, np.zeros(5)).moments[1], whole, rtol=1e-13)

    def test_those_of_taken_rows_are_their_own(self):
        split = Split(np.arange(6.0)[:, None], np.zeros(6))
        assert split.moments[0] == 2.5
        assert split.take(np.array([0, 1])).moments[0] == 0.5
        assert split.take(np.array([0, 5])).extremes[1] == 5.0

    def test_several_inputs_have_none(self):
        for part in ("moments", "extremes"):
            with pytest.raises(TypeError, match="one input is needed"):
                getattr(named(), part)


class TestOutputs:
    def data(self, classes: tuple[str, ...], outputs: dict[str, tuple[str, ...]]) -> Data:
        return Data("d", "made up", classes, plain(4), plain(2), SealedSplit(plain(1)), {}, outputs=outputs)

    @pytest.mark.parametrize(
        ("classes", "outputs"),
        [
            (("a", "b"), {}),
            ((), {"age": ()}),
            ((), {"age": (), "kind": ("a", "b", "c"), "side": ("left", "right")}),
        ],
    )
    def test_one_output_has_classes_and_several_have_their_own_or_are_numbers(self, classes, outputs):
        data = self.data(classes, outputs)
        assert (data.classes, data.outputs) == (classes, outputs)

    @pytest.mark.parametrize(
        ("classes", "outputs", "message"),
        [
            ((), {}, "at least two classes are needed, but classes = "),
            (("a",), {}, "at least two classes are needed, but classes = "),
            (("a", "b"), {"kind": ("a", "b")}, "its outputs have their own classes, but classes = "),
            ((), {"age": (), "kind": ("a",)}, "at least two classes are needed, but the classes of kind = "),
        ],
    )
    def test_anything_else_is_an_error(self, classes, outputs, message):
        with pytest.raises(ValueError, match=message):
            self.data(classes, outputs)
