"""Test scores and their bootstrap intervals."""

from dataclasses import dataclass

import keras
import numpy as np
import pytest

from pipeline import evaluation, metrics
from pipeline.datasets import splits
from pipeline.evaluation import Score
from pipeline.values import Data, Split


@dataclass(frozen=True)
class Answers:
    """A model that answers with the rows it is given."""

    def predict(self, rows: np.ndarray, **_: object) -> np.ndarray:
        return rows


def data_of(test: Split) -> Data:
    """Data whose test inputs are the answers of `Answers`."""
    some = Split(test.inputs[:1], test.targets[:1])
    return splits.data("made_up", "made up", ("a", "b"), (some, some, test))


def random_test(rows: int, seed: int = 3) -> Split:
    """Answers in two columns, right in about 80 % of the rows."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, rows)
    of_right = rng.beta(4, 2, rows)
    probabilities = np.where(labels[:, None] == [0, 1], of_right[:, None], 1 - of_right[:, None])
    return Split(probabilities, labels)


def scores_of(test: Split, seed: int = 0) -> dict[str, Score]:
    return evaluation.score_test(data_of(test), {"model": Answers()}, metrics.CLASSIFICATION, seed)["model"]


@pytest.mark.parametrize("metric", [metric.name for metric in metrics.CLASSIFICATION])
class TestInterval:
    def test_the_value_is_the_metric_and_lies_within(self, metric):
        test = random_test(200)
        score = scores_of(test)[metric]
        # The mean of the same rows, in float64.
        assert score.value == pytest.approx(metrics.score(metric, test.labels, test.inputs), rel=1e-14)
        assert score.low < score.value < score.high

    def test_it_derives_from_the_seed(self, metric):
        test = random_test(200)
        assert scores_of(test, 5) == scores_of(test, 5)
        # Log loss has no ties: two draws of resamples never end in the same quantiles.
        assert scores_of(test, 5)["log_loss"] != scores_of(test, 6)["log_loss"]
        assert scores_of(test, 5)[metric].value == scores_of(test, 6)[metric].value

    def test_it_agrees_with_the_normal_approximation_of_2000_rows(self, metric):
        test = random_test(2_000)
        score = scores_of(test)[metric]
        error = metrics.per_row(metric, test.labels, test.inputs).std() / np.sqrt(2_000)
        # A 2.5 % quantile of 2,000 resamples has a standard error of sqrt(0.025 * 0.975 / 2000) / 0.0584 =
        # 0.060 standard errors (0.0584 is the normal density there): three of these, and a little skew.
        tolerance = 0.2 * error
        assert score.low == pytest.approx(score.value - 1.96 * error, abs=tolerance)
        assert score.high == pytest.approx(score.value + 1.96 * error, abs=tolerance)

    def test_one_row_has_an_interval_of_no_width(self, metric):
        score = scores_of(random_test(1))[metric]
        assert score.low == score.value == score.high

    def test_equal_rows_have_an_interval_of_no_width(self, metric):
        certain = Split(np.tile([1.0, 0.0], (50, 1)), np.zeros(50, int))
        score = scores_of(certain)[metric]
        assert score.low == pytest.approx(score.value, abs=1e-15)
        assert score.high == pytest.approx(score.value, abs=1e-15)

    def test_a_broken_answer_makes_the_score_nan_as_in_selection(self, metric):
        test = random_test(20)
        test.inputs[4] = np.nan
        score = scores_of(test)[metric]
        assert np.isnan([score.value, score.low, score.high]).all()


def test_all_right_is_an_accuracy_of_one_without_doubt():
    certain = Split(np.tile([0.1, 0.9], (50, 1)), np.ones(50, int))
    assert scores_of(certain)["accuracy"] == Score(1.0, 1.0, 1.0)


def test_every_model_is_scored_by_every_metric_on_the_same_resamples():
    data = data_of(random_test(60))
    models = {"baseline": Answers(), "champion": Answers()}
    scores = evaluation.score_test(data, models, metrics.CLASSIFICATION, 0)
    assert list(scores) == ["baseline", "champion"]
    assert list(scores["baseline"]) == ["accuracy", "log_loss"]
    assert scores["baseline"] == scores["champion"]


@pytest.mark.parametrize(("units", "activation"), [(3, "softmax"), (1, "sigmoid")])
def test_a_keras_model_scores_as_its_own_metrics_say(units, activation):
    keras.utils.set_random_seed(4)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(units, activation=activation)])
    rng = np.random.default_rng(0)
    # One sigmoid's targets are a column.
    labels = rng.integers(0, max(units, 2), (100, 1))
    test = Split(rng.normal(size=(100, 5)).astype(np.float32), labels)
    oracles = (
        [keras.metrics.BinaryAccuracy(), keras.metrics.BinaryCrossentropy()]
        if units == 1
        else [keras.metrics.SparseCategoricalAccuracy(), keras.metrics.SparseCategoricalCrossentropy()]
    )
    scores = evaluation.score_test(data_of(test), {"model": model}, metrics.CLASSIFICATION, 0)["model"]
    for score, oracle in zip(scores.values(), oracles, strict=True):
        oracle.update_state(labels, model(test.inputs))
        # Float32 probabilities, their logarithms below 5: some roundings of 6e-8 * 5, and 1 - p beside p.
        assert score.value == pytest.approx(float(oracle.result()), abs=3e-6)
