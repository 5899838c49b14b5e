"""Weights on the simplex against grids, formulas and the conditions of a least value."""

import itertools
import logging

import numpy as np
import pytest

from pipeline.ensemble import simplex
from pipeline.metrics import ACCURACY, LOG_LOSS, score, score_of
from pipeline.values import Metric

ROWS = 60
AGE = Metric("age_mse", "minimize", "age")
KIND = Metric("kind_log_loss", "minimize", "kind")
MSE = Metric("mse", "minimize")
# In steps of a hundredth, each of three weights.
GRID = [
    (first / 100, second / 100, (100 - first - second) / 100)
    for first, second in itertools.product(range(101), repeat=2)
    if first + second <= 100
]


def classes(seed: int, members: int = 3) -> tuple[dict[int, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, ROWS)
    logits = rng.normal(size=(members, ROWS, 3)) * 1.5 + (labels[:, None] == np.arange(3))
    return dict(enumerate(np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True))), labels


def numbers(seed: int, members: int = 3) -> tuple[dict[int, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = rng.normal(size=(ROWS, 1)) * 20 + 40
    return {place: targets + rng.normal(place, 5.0, size=(ROWS, 1)) for place in range(members)}, targets


def mean_of(library, weights):
    return sum(weight * library[number] for number, weight in weights.items())


@pytest.mark.parametrize("seed", range(5))
class TestAgainstAGrid:
    # Weights may be from the least value by their tolerance (1e-12 of it) and the members of less than a
    # thousandth that are left out: the slope of a loss along the simplex, where it has such a member, is
    # below 1 a unit of weight here, so less than 2e-3 with two of them, and mostly nothing at all.
    LEFT_OUT = 2e-3

    def test_log_loss(self, seed):
        library, labels = classes(seed)
        found = simplex.weights(library, labels, LOG_LOSS, 3)
        best = min(score("log_loss", labels, mean_of(library, dict(enumerate(weights)))) for weights in GRID)
        value = score("log_loss", labels, mean_of(library, found))
        assert value <= best * (1 + 1e-9 if len(found) == 3 else 1 + self.LEFT_OUT)

    def test_squared_error(self, seed):
        library, targets = numbers(seed)
        found = simplex.weights(library, targets, MSE, 3)
        best = min(score("mse", targets, mean_of(library, dict(enumerate(weights)))) for weights in GRID)
        value = score("mse", targets, mean_of(library, found))
        assert value <= best * (1 + 1e-9 if len(found) == 3 else 1 + self.LEFT_OUT)

    def test_a_fixed_mean_of_both(self, seed):
        metric = Metric("score", "minimize", parts=((KIND, 1.0), (AGE, 0.01)))
        (kinds, labels), (ages, targets) = classes(seed), numbers(seed)
        library = {place: {"kind": kinds[place], "age": ages[place]} for place in range(3)}
        wanted = {"kind": labels, "age": targets}

        def value(weights):
            blended = {"kind": mean_of(kinds, weights), "age": mean_of(ages, weights)}
            return score_of(metric, wanted, blended)

        found = simplex.weights(library, wanted, metric, 3)
        best = min(value(dict(enumerate(weights))) for weights in GRID)
        assert value(found) <= best * (1 + 1e-9 if len(found) == 3 else 1 + self.LEFT_OUT)
        # Each part alone finds others.
        for part in (KIND, AGE):
            assert simplex.weights(library, wanted, part, 3) != pytest.approx(found, abs=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_two_numbers_have_the_weights_of_the_formula(seed):
    library, targets = numbers(seed, 2)
    first, second = (library[place] - targets for place in range(2))
    # The least of |w a + (1 - w) b|².
    share = float((second * (second - first)).sum() / np.square(first - second).sum())
    assert 0.01 < share < 0.99
    found = simplex.weights(library, targets, MSE, 2)
    # Where the loss is within 1e-12 of its least, a parabola's argument is within about 1e-6.
    assert found == pytest.approx({0: share, 1: 1 - share}, abs=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_log_loss_meets_the_conditions_of_a_least_value(seed):
    library, labels = classes(seed, members=12)
    found = simplex.weights(library, labels, LOG_LOSS, 12)
    of_target = {number: part[np.arange(ROWS), labels] for number, part in library.items()}
    blended = mean_of(of_target, found)
    for number, part in of_target.items():
        # Kuhn and Tucker: 1 for what is in it, at most 1 for the rest. Shares below a thousandth that were
        # left out move each by up to some thousandths.
        slope = float((part / blended).mean())
        assert slope == pytest.approx(1, abs=0.01) if number in found else slope < 1.01


@pytest.mark.parametrize("members", [1, 2, 3, 12])
def test_it_keeps_to_its_members_and_to_the_simplex(members):
    library, labels = classes(0, members=12)
    found = simplex.weights(library, labels, LOG_LOSS, members)
    assert 1 <= len(found) <= members
    assert min(found.values()) >= simplex.SMALLEST
    assert sum(found.values()) == pytest.approx(1, abs=1e-15 * 12)
    assert found == simplex.weights(library, labels, LOG_LOSS, members), "it is the same every time"


def test_fewer_members_are_weighed_again():
    library, labels = classes(3, members=12)
    found = simplex.weights(library, labels, LOG_LOSS, 3)
    assert len(found) == 3
    alone = simplex.weights({number: library[number] for number in found}, labels, LOG_LOSS, 3)
    assert found == pytest.approx(alone, abs=1e-5)


def test_a_perfect_model_is_alone():
    library, labels = classes(0)
    library[1] = np.eye(3)[labels]
    assert simplex.weights(library, labels, LOG_LOSS, 3) == {1: 1.0}


def test_perfect_numbers_are_no_division_by_zero():
    targets = np.ones((4, 1))
    assert simplex.weights({0: targets, 1: targets.copy()}, targets, MSE, 2) == {0: 0.5, 1: 0.5}


def test_what_is_not_smooth_has_a_loss_that_stands_for_it():
    library, labels = classes(1)
    assert simplex.weights(library, labels, ACCURACY, 3) == simplex.weights(library, labels, LOG_LOSS, 3)
    ages, targets = numbers(1)
    absolute = Metric("mae", "minimize")
    assert simplex.weights(ages, targets, absolute, 3) == simplex.weights(ages, targets, MSE, 3)


def test_rows_that_no_model_thinks_possible_are_no_infinity():
    library = {place: np.array([[1.0, 0.0], [0.5 + place / 10, 0.5 - place / 10]]) for place in range(2)}
    found = simplex.weights(library, np.array([1, 0]), LOG_LOSS, 2)
    assert found == {1: 1.0}


def test_weights_that_are_far_from_the_least_loss_are_said(monkeypatch, caplog):
    library, labels = classes(2, members=12)
    with caplog.at_level(logging.WARNING):
        simplex.weights(library, labels, LOG_LOSS, 12)
        assert not caplog.records
        monkeypatch.setattr(simplex, "_ROUNDS", 1)
        simplex.weights(library, labels, LOG_LOSS, 12)
    assert "from the least" in caplog.text
