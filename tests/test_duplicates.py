"""Which models count as answering the same."""

import numpy as np
import pytest

from pipeline.ensemble.duplicates import NEAR, distance, without

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, 50)
NUMBERS = RNG.normal(size=(50, 1)) * 7 + 40
PROBABILITIES = RNG.dirichlet([2, 2, 2], 50)


def moved(answers: np.ndarray, by: float) -> np.ndarray:
    """Answers that are so much larger in the first column and so much smaller in the second."""
    signs = np.zeros(answers.shape[1])
    signs[:2] = (1, -1)[: len(signs)]
    return answers + by * signs


# The mean of 50 float64 differences is exact to far less than a hundredth of the border.
@pytest.mark.parametrize(("share", "kept"), [(0.0, 1), (0.99, 1), (1.01, 2), (100.0, 2)])
def test_of_classes_it_is_the_probability_that_lies_elsewhere(share, kept):
    found, left_out = without({8: PROBABILITIES, 2: moved(PROBABILITIES, share * NEAR)}, LABELS)
    assert list(found) == [8, 2][:kept]
    assert left_out == (2,)[: 2 - kept]


@pytest.mark.parametrize("classes", [2, 3, 500])
def test_the_number_of_classes_changes_nothing(classes):
    certain = np.eye(classes)
    assert distance(certain, np.roll(certain, 1, axis=1), np.arange(classes)) == 1.0
    assert distance(certain, 0.75 * certain + 0.25 * np.roll(certain, 1, axis=1), LABELS) == 0.25


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e6])
@pytest.mark.parametrize(("share", "kept"), [(0.0, 1), (0.99, 1), (1.01, 2)])
def test_numbers_are_compared_in_deviations_of_their_targets(share, kept, unit):
    targets = NUMBERS * unit
    other = moved(targets, share * NEAR * float(targets.std()))
    assert len(without({0: targets, 1: other}, targets)[0]) == kept


def test_targets_without_a_spread_leave_numbers_as_they_are():
    same = np.full((4, 1), 5.0)
    assert distance(same, same + 0.25, same) == 0.25


def test_models_that_differ_in_one_output_differ():
    targets = {"kind": LABELS, "age": NUMBERS}
    one = {"kind": PROBABILITIES, "age": NUMBERS}
    for name, part in one.items():
        other = {**one, name: moved(part, 1.0)}
        assert distance(one, other, targets) == pytest.approx(distance(part, other[name], targets[name]))
        assert len(without({0: one, 1: other}, targets)[0]) == 2
    assert without({0: one, 1: {**one}}, targets)[1] == (1,)


def test_only_those_that_are_kept_count_as_better():
    # 1 is near to 0, and 2 near to 1 only.
    library = {place: moved(PROBABILITIES, 0.8 * place * NEAR) for place in range(3)}
    found, left_out = without(library, LABELS)
    assert (list(found), left_out) == ([0, 2], (1,))
