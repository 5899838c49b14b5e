"""Keras's metrics and scikit-learn's are the oracles of the project's own."""

import keras
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss

from pipeline import metrics

# Keras computes a row's log loss in float32: the probability's rounding, the clip at 1e-7, the logarithm and
# the normalisation are off by 2^-24 = 6e-8 each, relative to numbers of at most -log(1e-7) = 16.2.
KERAS_TOLERANCE = 4 * 2.0**-24 * 16.2


def random_probabilities(rows: int, classes: int, seed: int, sharpness: float = 1.0) -> np.ndarray:
    """(rows, classes) float32, as a softmax gives them."""
    logits = sharpness * np.random.default_rng(seed).normal(size=(rows, classes))
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)


def random_labels(rows: int, classes: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed + 1000).integers(0, classes, rows)


def by_keras(metric: keras.metrics.Metric, labels: np.ndarray, predictions: np.ndarray) -> float:
    metric.update_state(labels[:, None], predictions)
    return float(metric.result())


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("seed", [0, 1])
class TestSoftmax:
    def test_accuracy_equals_keras_and_scikit_learn(self, classes, seed):
        probabilities, labels = random_probabilities(500, classes, seed), random_labels(500, classes, seed)
        ours = metrics.score("accuracy", labels, probabilities)
        # Keras's mean of 500 zeros and ones in float32 is rounded once.
        assert ours == pytest.approx(
            by_keras(keras.metrics.SparseCategoricalAccuracy(), labels, probabilities), abs=2.0**-24
        )
        assert ours == pytest.approx(accuracy_score(labels, probabilities.argmax(axis=1)), abs=1e-15)

    @pytest.mark.parametrize("sharpness", [1.0, 5.0])
    def test_log_loss_equals_keras(self, classes, seed, sharpness):
        # The sharper ones reach the clip at 1e-7 from both sides.
        probabilities = random_probabilities(500, classes, seed, sharpness)
        labels = random_labels(500, classes, seed)
        ours = metrics.score("log_loss", labels, probabilities)
        theirs = by_keras(keras.metrics.SparseCategoricalCrossentropy(), labels, probabilities)
        assert ours == pytest.approx(theirs, abs=KERAS_TOLERANCE)

    def test_log_loss_equals_scikit_learn(self, classes, seed):
        probabilities = random_probabilities(500, classes, seed).astype(np.float64)
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        labels = random_labels(500, classes, seed)
        # None of these is near the clip, and both sum 500 logarithms below 16 in float64.
        theirs = log_loss(labels, probabilities, labels=range(classes))
        assert metrics.score("log_loss", labels, probabilities) == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("seed", [0, 1])
class TestSigmoid:
    def column(self, seed: int) -> np.ndarray:
        return random_probabilities(500, 2, seed, 3.0)[:, 1:]

    def test_accuracy_equals_keras(self, seed):
        column, labels = self.column(seed), random_labels(500, 2, seed)
        ours = metrics.score("accuracy", labels, metrics.class_probabilities(column))
        theirs = by_keras(keras.metrics.BinaryAccuracy(), labels, column)
        assert ours == pytest.approx(theirs, abs=2.0**-24)

    def test_log_loss_equals_keras_and_scikit_learn(self, seed):
        column, labels = self.column(seed), random_labels(500, 2, seed)
        ours = metrics.score("log_loss", labels, metrics.class_probabilities(column))
        # Keras's 1 - p is rounded before the logarithm, which divides the error by 1 - p: the largest.
        steepest = 2.0**-24 / float(np.minimum(column, 1 - column).min())
        theirs = by_keras(keras.metrics.BinaryCrossentropy(), labels, column)
        assert ours == pytest.approx(theirs, abs=KERAS_TOLERANCE + steepest)
        # scikit-learn clips at 2e-16: a row that is surer than 1 - 1e-7 costs less there, by 1e-7 at most.
        both = metrics.class_probabilities(column)
        assert ours == pytest.approx(log_loss(labels, both), abs=1e-7)


class TestPerRow:
    LABELS = np.array([0, 1, 2])
    PROBABILITIES = np.array([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25], [0.0, 0.0, 1.0]])

    def test_accuracy_is_one_where_the_likeliest_class_is_the_right_one(self):
        np.testing.assert_array_equal(
            metrics.per_row("accuracy", self.LABELS, self.PROBABILITIES), [1.0, 0.0, 1.0]
        )

    def test_log_loss_is_that_of_the_right_class(self):
        np.testing.assert_allclose(
            metrics.per_row("log_loss", self.LABELS, self.PROBABILITIES),
            [np.log(2), np.log(4), 1e-7],
            rtol=1e-7,
        )

    def test_log_loss_of_a_surely_wrong_row_is_finite_and_keras_own(self):
        wrong = np.array([[0.0, 1.0]], np.float32)
        ours = metrics.per_row("log_loss", np.array([0]), wrong)
        np.testing.assert_allclose(ours, [-np.log(1e-7)])
        theirs = by_keras(keras.metrics.SparseCategoricalCrossentropy(), np.array([0]), wrong)
        assert float(ours[0]) == pytest.approx(theirs, abs=KERAS_TOLERANCE)

    @pytest.mark.parametrize("metric", [metric.name for metric in metrics.CLASSIFICATION])
    def test_the_score_is_its_mean(self, metric):
        rows = metrics.per_row(metric, self.LABELS, self.PROBABILITIES)
        assert rows.shape == (3,)
        assert metrics.score(metric, self.LABELS, self.PROBABILITIES) == rows.mean()

    def test_an_unknown_metric_is_an_error(self):
        with pytest.raises(KeyError):
            metrics.score("f1", self.LABELS, self.PROBABILITIES)


@pytest.mark.parametrize("metric", [metric.name for metric in metrics.CLASSIFICATION])
@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_one_broken_probability_makes_the_score_nan(metric, broken):
    probabilities = np.full((4, 2), 0.5)
    probabilities[2, 1] = broken
    assert np.isnan(metrics.score(metric, np.zeros(4, int), probabilities))


class TestClassProbabilities:
    def test_a_sigmoid_column_becomes_two_classes(self):
        column = np.array([[0.25], [1.0], [0.0]], np.float32)
        np.testing.assert_array_equal(
            metrics.class_probabilities(column), [[0.75, 0.25], [0.0, 1.0], [1.0, 0.0]]
        )

    def test_a_softmax_stays_as_it_is(self):
        rows = random_probabilities(5, 3, 0)
        np.testing.assert_array_equal(metrics.class_probabilities(rows), rows)

    def test_they_are_float64(self):
        assert metrics.class_probabilities(np.zeros((2, 1), np.float32)).dtype == np.float64
        assert metrics.class_probabilities(np.zeros((2, 3), np.float16)).dtype == np.float64
