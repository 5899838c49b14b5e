"""The scores of test rows against scikit-learn's, and their intervals against scoring every resample anew."""

import warnings
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import bootstrap
from sklearn import metrics as oracle

from pipeline.evaluation import scores
from pipeline.evaluation.classes import bins_of
from pipeline.evaluation.measures import Measure
from pipeline.evaluation.resampling import resample
from pipeline.metrics import BALANCED_ACCURACY, BALANCED_LOG_LOSS, LOG_LOSS, per_row
from pipeline.metrics import score as scored
from pipeline.values import Metric

SEED = 5
RESAMPLES = 2000


def answered(rows: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and probabilities in hundredths, so that many are tied; about two thirds are right."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    parts = rng.gamma(0.7, size=(rows, classes))
    parts[np.arange(rows), labels] += rng.gamma(1.5, size=rows)
    rounded = np.round(100 * parts / parts.sum(axis=1, keepdims=True))
    rounded[:, 0] += 100 - rounded.sum(axis=1)
    # Rounding may have taken more from the first column than it had.
    rounded = np.maximum(rounded, 0.0)
    return labels, rounded / rounded.sum(axis=1, keepdims=True)


def estimated(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers far from zero, as years are, and answers to them."""
    rng = np.random.default_rng(seed)
    targets = 2000 + rng.normal(size=rows)
    return targets, targets + 0.5 * rng.normal(size=rows)


def values(targets: np.ndarray, answers: np.ndarray, output: str = "") -> dict[str, np.ndarray]:
    return {
        metric.name: measure.value() for metric, measure in scores.of_output(output, targets, answers).items()
    }


def drawn_rows(rows: int) -> np.ndarray:
    """The row numbers of each resample, (2000, rows)."""
    return np.random.default_rng(SEED).integers(0, rows, (RESAMPLES, rows))


def area(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Over the classes that have both members and others, as the area of one class is defined by both."""
    areas = [
        oracle.roc_auc_score(labels == number, probabilities[:, number])
        for number in ([1] if probabilities.shape[1] == 2 else np.unique(labels))
        if 0 < (labels == number).sum() < len(labels)
    ]
    return float(np.mean(areas)) if areas else np.nan


def calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Guo et al. 2017, bin by bin."""
    top, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    error = 0.0
    for number in range(15):
        inside = (top > number / 15) & (top <= (number + 1) / 15)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - top[inside].mean())
    return error


def by_class(kind: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    def score(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        found: np.ndarray = getattr(oracle, f"{kind}_score")(
            labels,
            probabilities.argmax(axis=1),
            labels=range(probabilities.shape[1]),
            average=None,
            zero_division=np.nan,
        )
        return found

    return score


CLASSES: dict[str, Callable[[np.ndarray, np.ndarray], object]] = {
    "accuracy": lambda labels, found: oracle.accuracy_score(labels, found.argmax(axis=1)),
    "balanced_accuracy": lambda labels, found: np.nanmean(by_class("recall")(labels, found)),
    "log_loss": lambda labels, found: per_row("log_loss", labels, found).mean(),
    "roc_auc": area,
    "ece": calibration_error,
    "precision": by_class("precision"),
    "recall": by_class("recall"),
}
NUMBERS: dict[str, Callable[[np.ndarray, np.ndarray], object]] = {
    "rmse": oracle.root_mean_squared_error,
    "mae": oracle.mean_absolute_error,
    "r2": oracle.r2_score,
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("rows", "classes"), [(40, 2), (60, 3), (25, 6), (300, 12)])
def test_scores_of_classes_are_scikit_learns(rows, classes, seed):
    labels, probabilities = answered(rows, classes, seed)
    found = values(labels, probabilities)
    assert found.keys() == CLASSES.keys()
    for name, value in found.items():
        # Sums of at most 300 numbers of at most 16 (the logarithm of 1e-7), some ulps of 2e-16 each.
        np.testing.assert_allclose(value, CLASSES[name](labels, probabilities), rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_area_is_that_of_scikit_learn_over_all_classes(classes):
    labels, probabilities = answered(200, classes, 7)
    asked = probabilities[:, 1] if classes == 2 else probabilities
    # Sums of counts of pairs, exact, and one quotient a class.
    assert values(labels, probabilities)["roc_auc"] == pytest.approx(
        oracle.roc_auc_score(labels, asked, multi_class="ovr"), rel=1e-14
    )


def test_balanced_accuracy_is_scikit_learns():
    labels, probabilities = answered(200, 5, 3)
    assert values(labels, probabilities)["balanced_accuracy"] == pytest.approx(
        oracle.balanced_accuracy_score(labels, probabilities.argmax(axis=1)), rel=1e-14
    )


@pytest.mark.parametrize("seed", range(4))
def test_scores_of_numbers_are_scikit_learns(seed):
    targets, answers = estimated(50, seed)
    found = values(targets, answers, "year")
    assert found.keys() == {f"year_{name}" for name in NUMBERS}
    for name, score in NUMBERS.items():
        # Targets of 2000 hold 1e-13 of rounding, beside distances of about 1.
        assert found[f"year_{name}"] == pytest.approx(score(targets, answers), rel=1e-11)


class TestResamples:
    """Each resample scored again, from the same row numbers."""

    def check(self, targets, answers, expected) -> None:
        measures = scores.of_output("", targets, answers)
        found = resample(measures, len(targets), SEED)
        rows = drawn_rows(len(targets))[::40]
        for metric, one in found.items():
            assert one.drawn.shape[-1] == RESAMPLES
            with warnings.catch_warnings():
                # Of resamples in which every class is missing that has a score.
                warnings.simplefilter("ignore", RuntimeWarning)
                again = np.stack(
                    [np.asarray(expected[metric.name](targets[chosen], answers[chosen])) for chosen in rows],
                    axis=-1,
                )
            # As of all rows; the sums of a resample are taken in another order. 1e-13 where they cancel.
            np.testing.assert_allclose(
                one.drawn[..., ::40], again, rtol=1e-10, atol=1e-13, err_msg=metric.name
            )

    # With 8 rows of 4 classes, most resamples lack a class, and some models never say one.
    @pytest.mark.parametrize(("rows", "classes"), [(8, 2), (8, 4), (90, 3), (60, 10)])
    def test_of_classes(self, rows, classes):
        self.check(*answered(rows, classes, 1), CLASSES)

    def test_of_numbers(self):
        self.check(*estimated(40, 1), NUMBERS)

    def test_a_resample_of_one_class_has_no_area_and_is_left_out_of_its_interval(self):
        labels, probabilities = np.array([0, 0, 1]), np.array([[0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
        (one,) = (
            found
            for metric, found in resample(scores.of_output("", labels, probabilities), 3, SEED).items()
            if metric.name == "roc_auc"
        )
        same = np.array([len(set(labels[chosen])) == 1 for chosen in drawn_rows(3)])
        assert 0 < same.sum() < RESAMPLES
        np.testing.assert_array_equal(np.isnan(one.drawn), same)
        score = one.score()
        assert (score.value, score.low, score.high) == (0.5, 0.0, 1.0)

    def test_the_interval_is_scipys_percentile_bootstrap(self):
        labels, probabilities = answered(70, 3, 2)
        losses = per_row("log_loss", labels, probabilities)
        score = resample({"loss": scores.of_task([LOG_LOSS], labels, probabilities)[LOG_LOSS]}, 70, SEED)[
            "loss"
        ].score()
        expected = bootstrap(
            (losses,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(SEED)
        ).confidence_interval
        # The same draws; sums of 70 losses below 17 in two orders.
        assert (score.low, score.high) == pytest.approx((expected.low, expected.high), rel=1e-12)


class TestNotDefined:
    def test_a_class_that_is_never_said_has_no_precision_and_one_that_no_row_has_no_recall(self):
        labels = np.array([0, 0, 1, 1])
        probabilities = np.array([[0.9, 0.1, 0.0], [0.2, 0.1, 0.7], [0.8, 0.2, 0.0], [0.6, 0.4, 0.0]])
        found = values(labels, probabilities)
        np.testing.assert_array_equal(found["precision"], [1 / 3, np.nan, 0.0])
        np.testing.assert_array_equal(found["recall"], [0.5, 0.0, np.nan])
        assert found["balanced_accuracy"] == 0.25

    def test_rows_of_one_class_have_no_area(self):
        labels, probabilities = np.zeros(3, int), np.array([[0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
        assert np.isnan(values(labels, probabilities)["roc_auc"])
        assert np.isnan(values(labels, np.hstack([probabilities / 2, [[0.5]] * 3]))["roc_auc"])

    # 0.1 and 1e6 + 0.1 are no sums of powers of two, so that their mean is not one of them.
    @pytest.mark.parametrize("target", [0.0, 0.1, 1e6 + 0.1])
    def test_equal_targets_have_no_explained_variance(self, target):
        targets = np.full(7, target)
        measures = scores.of_output("", targets, targets + np.arange(7.0))
        found = resample(measures, 7, SEED)[Metric("r2", "maximize")]
        assert np.isnan(found.value)
        assert np.isnan(found.drawn).all()

    @pytest.mark.parametrize("seed", range(3))
    def test_nor_has_a_resample_of_one_row_drawn_again_and_again(self, seed):
        targets, answers = estimated(3, seed)
        found = resample(scores.of_output("", targets, answers), 3, SEED)[Metric("r2", "maximize")]
        same = np.array([len(set(chosen)) == 1 for chosen in drawn_rows(3)])
        assert 0 < same.sum() < RESAMPLES
        np.testing.assert_array_equal(np.isnan(found.drawn), same)

    @pytest.mark.parametrize("broken", [np.nan, np.inf])
    def test_of_an_answer_that_is_not_finite_nothing_is(self, broken):
        labels, probabilities = answered(20, 3, 0)
        probabilities[4, 1] = broken
        targets, answers = estimated(20, 0)
        answers[3] = broken
        for found in (
            scores.of_output("", labels, probabilities),
            scores.of_output("", targets, answers),
            scores.of_task([LOG_LOSS], labels, probabilities),
        ):
            for one in resample(found, 20, SEED).values():
                assert np.isnan(one.value).all()
                assert np.isnan(one.drawn).all()


@pytest.mark.parametrize("top", [k / 15 for k in range(16)])
def test_a_bin_holds_its_upper_edge(top):
    probabilities = np.array([[top, 0.0]])
    error = values(np.array([0]), probabilities)["ece"]
    assert error == pytest.approx(1 - top, abs=1e-15)
    assert bins_of(probabilities) == max(round(15 * top) - 1, 0)


def test_a_measure_may_be_read_of_any_counts():
    labels, probabilities = answered(30, 3, 9)
    counts = np.random.default_rng(1).integers(0, 3, 30)
    measure: Measure = scores.of_output("", labels, probabilities)[Metric("recall", "maximize")]
    rows = np.repeat(np.arange(30), counts)
    np.testing.assert_allclose(
        measure.of(counts[:, None].astype(float))[:, 0],
        by_class("recall")(labels[rows], probabilities[rows]),
        rtol=1e-14,
    )


@pytest.mark.parametrize(("rows", "classes"), [(200, 3), (40, 2), (60, 7)])
def test_balanced_scores_are_means_of_the_classes(rows: int, classes: int) -> None:
    labels, probabilities = answered(rows, classes, rows)
    found = scores.of_task([BALANCED_ACCURACY, BALANCED_LOG_LOSS], labels, probabilities)
    hits = probabilities.argmax(axis=1)
    assert found[BALANCED_ACCURACY].value() == pytest.approx(oracle.balanced_accuracy_score(labels, hits))
    losses = [mean_loss(labels[labels == one], probabilities[labels == one]) for one in np.unique(labels)]
    assert found[BALANCED_LOG_LOSS].value() == pytest.approx(np.mean(losses))
    # Selection on validation rows scores the same.
    for metric, measure in found.items():
        assert scored(metric.name, labels, probabilities) == pytest.approx(float(measure.value()))
    # No resample leaves 0 to 1, as one of the rows' shares of the whole would.
    drawn = resample({("m", BALANCED_ACCURACY): found[BALANCED_ACCURACY]}, rows, SEED)
    interval = drawn["m", BALANCED_ACCURACY].score()
    assert 0 <= interval.low <= interval.value <= interval.high <= 1


def mean_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    return float(per_row("log_loss", labels, probabilities).mean())
