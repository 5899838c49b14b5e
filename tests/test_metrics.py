"""Keras's metrics and scikit-learn's are the oracles of the project's own."""

from collections.abc import Mapping

import keras
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss

from pipeline import answers, metrics
from pipeline.datasets import splits
from pipeline.values import Answers, Metric, Objective, Split

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


# Numbers

LAYERS = keras.layers


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("column", [True, False])
@pytest.mark.parametrize(
    ("metric", "kind"), [("mse", keras.metrics.MeanSquaredError), ("mae", keras.metrics.MeanAbsoluteError)]
)
def test_errors_of_numbers_equal_keras(metric, kind, column, seed):
    rng = np.random.default_rng(seed)
    targets = rng.normal(size=(500, 1)).astype(np.float32)
    answers = (targets + rng.normal(size=(500, 1))).astype(np.float32)
    theirs = kind()
    theirs.update_state(targets, answers)
    ours = metrics.score(metric, targets if column else targets[:, 0], answers.astype(np.float64))
    # Differences of about 1 and their mean over 500 rows, in float32.
    assert ours == pytest.approx(float(theirs.result()), rel=4 * 2.0**-23)


def test_errors_are_a_row_each():
    targets, answers = np.array([1.0, 2.0, 3.0]), np.array([[1.5], [0.0], [3.0]])
    np.testing.assert_array_equal(metrics.per_row("mse", targets, answers), [0.25, 4.0, 0.0])
    np.testing.assert_array_equal(metrics.per_row("mae", targets, answers), [0.5, 2.0, 0.0])


def test_errors_of_large_numbers_are_of_their_difference():
    # As float32 differences, these would be zero.
    targets, answers = np.array([1e8]), np.array([[1e8 + 1.0]])
    assert metrics.score("mse", targets, answers) == 1.0
    assert metrics.score("mae", targets, answers) == 1.0


@pytest.mark.parametrize("metric", ["mse", "mae"])
@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_one_broken_number_makes_the_score_nan(metric, broken):
    with np.errstate(invalid="ignore"):
        assert np.isnan(metrics.score(metric, np.zeros(2), np.array([[1.0], [broken]])))


# Several outputs, by name, and fixed means of their scores

_KIND, _AGE = Metric("kind_log_loss", "minimize", "kind"), Metric("age_mse", "minimize", "age")
_FLAG, _HITS = Metric("flag_log_loss", "minimize", "flag"), Metric("kind_accuracy", "maximize", "kind")
# Of two and of three outputs; the shares sum to one, or to none in particular.
MEANS = {
    "two": Metric("two", "minimize", parts=((_KIND, 0.25), (_AGE, 0.75))),
    "three": Metric("three", "minimize", parts=((_KIND, 0.1), (_AGE, 2.0), (_FLAG, 0.5))),
    "mixed": Metric("mixed", "maximize", parts=((_HITS, 1.0), (_AGE, -0.5))),
}
OBJECTIVE = Objective(
    "val_two",
    "minimize",
    tuple((mean.name, tuple((part.name, share) for part, share in mean.parts)) for mean in MEANS.values()),
)
ROWS = 48


def three_outputs(seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((4,))
    hidden = LAYERS.Dense(6, activation="tanh")(inputs)
    # In no order of the alphabet.
    outputs = {
        "kind": LAYERS.Dense(3, activation="softmax", name="kind")(hidden),
        "flag": LAYERS.Dense(1, name="flag")(hidden),
        "age": LAYERS.Dense(1, name="age")(hidden),
    }
    model = keras.Model(inputs, outputs)
    logit = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(
        "sgd",
        {"kind": "sparse_categorical_crossentropy", "flag": logit, "age": "mse"},
        loss_weights={"kind": 3.0, "flag": 0.5, "age": 0.1},
        metrics={
            "kind": [
                keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
                keras.metrics.SparseCategoricalCrossentropy(name="log_loss"),
            ],
            "flag": [keras.metrics.BinaryCrossentropy(name="log_loss", from_logits=True)],
            "age": [keras.metrics.MeanSquaredError(name="mse"), keras.metrics.MeanAbsoluteError(name="mae")],
        },
    )
    return model


def three_targets(seed: int) -> Split:
    rng = np.random.default_rng(seed)
    targets = {
        "kind": rng.integers(0, 3, ROWS).astype(np.int32),
        "flag": rng.integers(0, 2, (ROWS, 1)).astype(np.int32),
        "age": rng.normal(size=(ROWS, 1)).astype(np.float32),
    }
    return Split(rng.normal(size=(ROWS, 4)).astype(np.float32), targets)


@pytest.fixture(scope="module")
def epoch() -> tuple[dict[str, float], Mapping[str, np.ndarray], Answers]:
    """What Keras logs of an epoch, the means added; the validation targets, and what the model answers."""
    train, check = three_targets(0), three_targets(1)
    outputs = {"kind": ("a", "b", "c"), "flag": ("n", "y"), "age": ()}
    data = splits.data("made up", "made up", (), (train, check, check), outputs=outputs)
    model = three_outputs(2)
    history = model.fit(
        train.inputs,
        dict(train.targets),
        batch_size=16,
        epochs=1,
        validation_data=(check.inputs, dict(check.targets)),
        validation_batch_size=20,
        verbose=0,
    )
    logs = OBJECTIVE.with_means({name: values[0] for name, values in history.history.items()})
    return logs, check.targets, answers.read(model, model.predict(check.inputs, verbose=0), data)


# Sums of some float32 numbers of about 1: Keras's mean over batches against ours over rows.
LOGGED = 1e-5


@pytest.mark.parametrize("mean", MEANS)
def test_a_mean_of_scores_is_what_the_objective_adds_to_the_logs(mean, epoch):
    logs, targets, found = epoch
    assert metrics.score_of(MEANS[mean], targets, found) == pytest.approx(logs[f"val_{mean}"], rel=LOGGED)
    # Of training, too, whose weights move on while it is measured.
    assert np.isfinite(logs[mean])
    assert logs[mean] != pytest.approx(logs[f"val_{mean}"], rel=1e-2)


@pytest.mark.parametrize("metric", [_KIND, _AGE, _FLAG, _HITS, Metric("age_mae", "minimize", "age")])
def test_the_metric_of_an_output_is_what_keras_logs_of_it(metric, epoch):
    logs, targets, found = epoch
    assert metrics.score_of(metric, targets, found) == pytest.approx(logs[f"val_{metric.name}"], rel=LOGGED)


def test_a_mean_of_scores_is_a_mean_of_rows(epoch):
    _, targets, found = epoch
    for mean in MEANS.values():
        rows = metrics.rows_of(mean, targets, found)
        assert rows.shape == (ROWS,)
        assert metrics.score_of(mean, targets, found) == rows.mean()
        by_hand = sum(share * metrics.score_of(part, targets, found) for part, share in mean.parts)
        assert rows.mean() == pytest.approx(by_hand, rel=1e-12)


def test_means_of_means_add_up(epoch):
    _, targets, found = epoch
    whole = Metric("whole", "minimize", parts=((MEANS["two"], 0.5), (_FLAG, 2.0)))
    by_hand = 0.5 * metrics.score_of(MEANS["two"], targets, found) + 2 * metrics.score_of(
        _FLAG, targets, found
    )
    assert metrics.score_of(whole, targets, found) == pytest.approx(by_hand, rel=1e-12)


def test_a_metric_without_output_scores_the_only_one():
    labels, probabilities = random_labels(20, 3, 0), random_probabilities(20, 3, 0)
    for metric in metrics.CLASSIFICATION:
        found = metrics.rows_of(metric, labels, probabilities)
        np.testing.assert_array_equal(found, metrics.per_row(metric.name, labels, probabilities))


def test_one_broken_answer_makes_the_mean_of_scores_nan(epoch):
    _, targets, found = epoch
    broken = {**found, "age": np.where(np.arange(ROWS)[:, None] == 3, np.nan, found["age"])}
    rows = metrics.rows_of(MEANS["two"], targets, broken)
    assert np.flatnonzero(np.isnan(rows)).tolist() == [3]
    assert np.isnan(metrics.score_of(MEANS["two"], targets, broken))
    assert np.isfinite(metrics.score_of(_KIND, targets, broken))


class TestMeansOfLogs:
    def test_nothing_is_added_where_a_part_is_missing(self):
        logs = {"kind_log_loss": 1.0, "val_kind_log_loss": 2.0, "val_age_mse": 4.0}
        assert OBJECTIVE.with_means(logs) == {**logs, "val_two": 3.5}

    def test_the_logs_are_left_alone(self):
        logs = {"kind_log_loss": 1.0, "age_mse": 1.0}
        assert OBJECTIVE.with_means(logs)["two"] == 1.0
        assert list(logs) == ["kind_log_loss", "age_mse"]

    def test_an_objective_without_means_adds_none(self):
        assert Objective("val_loss", "minimize").with_means({"loss": 1.0}) == {"loss": 1.0}
