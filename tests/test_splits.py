"""Rows with several targets: parts and folds have all their classes together in the same shares."""

import numpy as np
import pytest

from pipeline.datasets import splits
from pipeline.errors import UserError
from pipeline.values import Data, Split

RNG = np.random.default_rng(0)
# 600 rows: two of the three targets are classes, one in a column; their six pairs are not as frequent.
KIND = RNG.choice(3, 600, p=[0.5, 0.3, 0.2])
SIDE = RNG.choice(2, 600, p=[0.7, 0.3])[:, None]
AGE = RNG.normal(size=(600, 1))
INPUTS = {"number": np.arange(600), "wide": np.arange(1200).reshape(600, 2)}
TARGETS = {"age": AGE, "kind": KIND, "side": SIDE}


def pairs(split: Split) -> np.ndarray:
    """How many rows each pair of classes has, (6,)."""
    return np.bincount(2 * split.targets["kind"] + split.targets["side"].reshape(-1), minlength=6)


def rows_of(split: Split) -> list[int]:
    return split.inputs["number"].tolist()


def data() -> Data:
    outputs = {"age": (), "kind": ("a", "b", "c"), "side": ("left", "right")}
    return splits.data("several", "made up", (), splits.three_ways(INPUTS, TARGETS), outputs=outputs)


def test_every_pair_of_classes_has_its_share_in_each_part() -> None:
    whole = pairs(Split(INPUTS, TARGETS))
    for part, share in zip(splits.three_ways(INPUTS, TARGETS), (0.6, 0.2, 0.2), strict=True):
        # Rounded up or down, twice for what is split twice.
        assert np.abs(pairs(part) - share * whole).max() <= 2
        assert part.rows == share * 600


def test_rows_stay_together_and_none_is_lost() -> None:
    parts = splits.three_ways(INPUTS, TARGETS)
    assert sorted(row for part in parts for row in rows_of(part)) == list(range(600))
    for part in parts:
        for name, target in TARGETS.items():
            np.testing.assert_array_equal(part.targets[name], target[rows_of(part)])
        np.testing.assert_array_equal(part.inputs["wide"][:, 0], 2 * part.inputs["number"])


def test_folds_have_every_pair_of_classes_in_its_share() -> None:
    whole = data()
    found = splits.folds(whole, 3)
    assert sorted(row for fold in found for row in rows_of(fold.validation)) == sorted(rows_of(whole.train))
    for fold in found:
        assert np.abs(pairs(fold.validation) - pairs(whole.train) / 3).max() <= 1
        assert fold.outputs == whole.outputs


def test_folds_are_at_most_as_many_as_the_rarest_pair_has_rows() -> None:
    whole = data()
    rarest = int(pairs(whole.train).min())
    assert len(splits.folds(whole, rarest)) == rarest
    with pytest.raises(UserError, match=f"folds: must be at most {rarest} for several"):
        splits.folds(whole, rarest + 1)


def test_a_part_too_small_for_every_pair_is_drawn_from_any_rows() -> None:
    rest, part = splits.hold_out(Split(INPUTS, TARGETS), 597)
    assert (rest.rows, part.rows) == (3, 597)
