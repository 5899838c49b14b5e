"""All that the test rows say: scores and intervals, differences, details, and the files made of them."""

import csv
import io
import math
import re
from dataclasses import dataclass

import keras
import numpy as np
import pytest
from mlflow.utils.validation import _validate_metric_name

from pipeline import metrics
from pipeline.datasets import splits
from pipeline.evaluation import record, tables
from pipeline.evaluation.findings import Classified, Estimated, Evaluation, Score
from pipeline.evaluation.judging import judge
from pipeline.evaluation.scoring import score_test
from pipeline.values import Data, Metric, Split


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
    return score_test(data_of(test), {"model": Answers()}, metrics.CLASSIFICATION, seed).scores["model"]


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
    found = score_test(data, models, metrics.CLASSIFICATION, 0)
    assert list(found.scores) == ["baseline", "champion"]
    assert found.own == ("accuracy", "log_loss")
    assert list(found.scores["baseline"]) == [
        "accuracy",
        "log_loss",
        "balanced_accuracy",
        "roc_auc",
        "ece",
    ]
    assert found.scores["baseline"] == found.scores["champion"]


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
    found = score_test(data_of(test), {"model": model}, metrics.CLASSIFICATION, 0)
    for name, oracle in zip(found.own, oracles, strict=True):
        score = found.scores["model"][name]
        oracle.update_state(labels, model(test.inputs))
        # Float32 probabilities, their logarithms below 5: some roundings of 6e-8 * 5, and 1 - p beside p.
        assert score.value == pytest.approx(float(oracle.result()), abs=3e-6)


AGE, INCOME = Metric("age_mse", "minimize", "age"), Metric("income_log_loss", "minimize", "income")
MEAN = Metric("score", "minimize", parts=((AGE, 0.5), (INCOME, 0.5)))
OUTPUTS = {"age": (), "income": ("low", "middle", "high")}


def several(rows: int = 60, seed: int = 0) -> Evaluation:
    """Three models that answer with a number and a class, each a little better than the one before."""
    rng = np.random.default_rng(seed)
    targets = {"age": rng.normal(size=(rows, 1)).astype(np.float32), "income": rng.integers(0, 3, rows)}
    answers = {}
    for model, skill in (("baseline", 0.5), ("champion", 1.0), ("ensemble", 2.0)):
        logits = skill * (targets["income"][:, None] == range(3)) + rng.normal(size=(rows, 3))
        answers[model] = {
            "age": targets["age"] + rng.normal(size=(rows, 1)) / skill,
            "income": np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True),
        }
    return judge(targets, answers, OUTPUTS, (AGE, INCOME, MEAN), 0)


def judged(labels: np.ndarray, classes: tuple[str, ...], seed: int = 0, **broken: np.ndarray) -> Evaluation:
    """A champion and an ensemble that guess."""
    rng = np.random.default_rng(seed)
    answers = {model: rng.dirichlet(np.ones(len(classes)), len(labels)) for model in ("champion", "ensemble")}
    return judge(labels, {**answers, **broken}, {"": classes}, metrics.CLASSIFICATION, 0)


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


class TestDifferences:
    def test_they_are_of_the_pairs_by_every_score(self):
        found = several()
        assert [(one.model, one.other, one.metric.name) for one in found.differences] == [
            (*pair, name)
            for pair in (("ensemble", "champion"), ("champion", "baseline"))
            for name in found.scores["champion"]
        ]

    def test_the_value_is_the_difference_of_the_values(self):
        found = several()
        for one in found.differences:
            ours, theirs = (found.scores[model][one.metric.name].value for model in (one.model, one.other))
            assert one.score.value == ours - theirs
            assert one.score.low < one.score.value < one.score.high

    def test_equal_models_differ_by_nothing_in_every_resample(self):
        same = random_test(60)
        answers = dict.fromkeys(("champion", "ensemble"), same.inputs)
        found = judge(same.labels, answers, {"": ("a", "b")}, metrics.CLASSIFICATION, 0)
        assert {one.score for one in found.differences} == {Score(0.0, 0.0, 0.0)}

    def test_the_pairs_tell_more_than_the_two_intervals(self):
        # The ensemble is right where the champion is, and in some rows more.
        labels = np.zeros(200, int)
        champion = np.repeat([[0.9, 0.1], [0.1, 0.9]], (120, 80), axis=0)
        ensemble = np.repeat([[0.9, 0.1], [0.1, 0.9]], (130, 70), axis=0)
        answers = {"champion": champion, "ensemble": ensemble}
        found = judge(labels, answers, {"": ("a", "b")}, (metrics.ACCURACY,), 0)
        low = found.scores["ensemble"]["accuracy"].low
        assert low < found.scores["champion"]["accuracy"].high
        (difference,) = (one.score for one in found.differences if one.metric == metrics.ACCURACY)
        # Ten of 200 rows differ: of binomial draws the 2.5 % quantile is 4 rows, the 97.5 % quantile 16. One
        # row more or less, as of 2,000 resamples.
        assert difference.value == pytest.approx(0.05, abs=1e-15)
        assert difference.low == pytest.approx(4 / 200, abs=1.01 / 200)
        assert difference.high == pytest.approx(16 / 200, abs=1.01 / 200)

    def test_without_a_baseline_there_is_one_pair(self):
        found = judged(np.arange(30) % 3, ("a", "b", "c"))
        assert {(one.model, one.other) for one in found.differences} == {("ensemble", "champion")}


class TestDetails:
    def test_confusions_count_every_row_once(self):
        labels = np.array([0, 0, 1, 2])
        answers = np.eye(3)[[0, 1, 1, 0]]
        found = judged(labels, ("a", "b", "c"), ensemble=answers).details[""]["ensemble"]
        assert isinstance(found, Classified)
        np.testing.assert_array_equal(found.confusion, [[1, 1, 0], [0, 1, 0], [1, 0, 0]])
        assert [(one.name, one.rows, one.said) for one in found.by_class] == [
            ("a", 2, 2),
            ("b", 1, 2),
            ("c", 1, 0),
        ]
        assert [one.recall.value for one in found.by_class] == [0.5, 1.0, 0.0]
        np.testing.assert_array_equal([one.precision.value for one in found.by_class], [0.5, 0.5, np.nan])

    def test_bins_hold_every_row_once_and_make_up_the_calibration_error(self):
        found = judged(np.arange(90) % 3, ("a", "b", "c"))
        for model, detail in found.details[""].items():
            assert isinstance(detail, Classified)
            filled = [one for one in detail.bins if one.rows]
            assert sum(one.rows for one in filled) == 90
            assert all(one.low < one.confidence <= one.high for one in filled)
            error = sum(one.rows * abs(one.accuracy - one.confidence) for one in filled) / 90
            # Sums of 90 probabilities in two orders.
            assert found.scores[model]["ece"].value == pytest.approx(error, rel=1e-12)

    @pytest.mark.parametrize(("rows", "classes"), [(30, 3), (1_000, 2), (1_000, 10)])
    def test_the_interval_of_the_calibration_error_holds_it_though_noise_raises_it(self, rows, classes):
        for seed in range(10):
            rng = np.random.default_rng(seed)
            # Perfectly calibrated: labels are drawn by the answers themselves.
            answers = rng.dirichlet(np.ones(classes), rows)
            labels = (answers.cumsum(axis=1) < rng.random(rows)[:, None]).sum(axis=1).clip(max=classes - 1)
            names = tuple(map(str, range(classes)))
            score = judge(labels, {"champion": answers}, {"": names}, (), seed).scores["champion"]["ece"]
            assert 0 <= score.low <= score.value <= score.high

    def test_a_class_without_a_name_goes_by_its_number(self):
        answers = np.eye(3)[[0, 1, 2, 2]]
        found = judge(np.array([0, 1, 0, 1]), {"champion": answers}, {"": ("a", "b")}, (), 0)
        detail = found.details[""]["champion"]
        assert isinstance(detail, Classified)
        assert [(one.name, one.said) for one in detail.by_class] == [("a", 1), ("b", 1), ("2", 2)]

    def test_numbers_are_kept_as_they_are(self):
        found = several().details["age"]["ensemble"]
        assert isinstance(found, Estimated)
        assert found.targets.shape == found.answers.shape == (60,)

    def test_of_a_model_whose_answers_are_not_finite_there_are_none_and_its_scores_are_nan(self):
        broken = np.full((30, 3), 1 / 3)
        broken[7, 2] = np.inf
        found = judged(np.arange(30) % 3, ("a", "b", "c"), ensemble=broken)
        assert list(found.details[""]) == ["champion"]
        assert all(math.isnan(score.low) for score in found.scores["ensemble"].values())
        assert all(math.isfinite(score.low) for score in found.scores["champion"].values())
        assert all(math.isnan(one.score.value) for one in found.differences)


class TestSeveralOutputs:
    def test_each_output_has_the_scores_that_suit_it(self):
        of_income = [f"income_{kind}" for kind in ("accuracy", "balanced_accuracy", "roc_auc", "ece")]
        assert list(several().scores["ensemble"]) == [
            "age_mse",
            "income_log_loss",
            "score",
            "age_rmse",
            "age_mae",
            "age_r2",
            *of_income,
        ]

    def test_a_mean_of_scores_is_one_in_every_resample(self):
        found = several()
        for scores in found.scores.values():
            mean = (scores["age_mse"].value + scores["income_log_loss"].value) / 2
            # Sums of 60 numbers in two orders.
            assert scores["score"].value == pytest.approx(mean, rel=1e-13)

    def test_the_root_of_the_task_s_own_squared_error_is_the_same_score(self):
        for scores in several().scores.values():
            own, root = scores["age_mse"], scores["age_rmse"]
            # Roots keep the order, so the quantiles are the same resamples' but for the step between two.
            for end in ("value", "low", "high"):
                assert getattr(root, end) ** 2 == pytest.approx(getattr(own, end), rel=1e-4)


class TestMetrics:
    def test_what_is_not_defined_of_a_class_is_nan(self):
        answers = {"ensemble": np.eye(3)[[0, 1, 1, 0]]}
        found = record.as_metrics(judge(np.array([0, 0, 1, 2]), answers, {"": ("a", "b", "c")}, (), 0))
        assert math.isnan(found["ensemble_test_precision_c"])
        assert found["ensemble_test_recall_c"] == 0.0

    def test_names_are_as_promised(self):
        found = record.as_metrics(several())
        for name in (
            "champion_test_age_rmse",
            "ensemble_test_income_log_loss_low",
            "baseline_test_income_roc_auc_high",
            "ensemble_minus_champion_test_age_r2",
            "champion_minus_baseline_test_score_low",
            "ensemble_test_income_precision_middle",
            "ensemble_test_income_recall_high",
        ):
            assert name in found
        assert record.as_metrics(judged(np.arange(30) % 2, ("a", "b"))).keys() >= {
            "champion_test_roc_auc",
            "champion_test_precision_a",
            "ensemble_minus_champion_test_ece_high",
        }

    def test_the_only_output_has_no_name_in_them(self):
        """As of a table whose target is a number, and whose metrics are `mse` and `mae`."""
        targets, answers = {"prediction": np.arange(30.0)}, {"prediction": np.arange(30.0)[:, None] + 1}
        own = tuple(Metric(kind, "minimize", "prediction") for kind in ("mse", "mae"))
        found = judge(targets, {"ensemble": answers}, {"prediction": ()}, own, 0)
        assert list(found.scores["ensemble"]) == ["mse", "mae", "rmse", "r2"]
        assert list(found.details) == [""]
        assert record.as_metrics(found)["ensemble_test_rmse"] == 1.0

    @pytest.mark.parametrize(
        "classes",
        [
            ("a/b", "a:b", "a b"),
            ("../..", "/", ""),
            ("cat", "Cat", "CAT"),
            ("x" * 400, "x" * 401, "y"),
            ("x" * 400, "\n", "ß"),
            ("0_a", "a", "A"),
            ("猫", "犬", "鳥"),
        ],
    )
    def test_any_classes_have_names_of_their_own_that_mlflow_takes(self, classes):
        found = record.as_metrics(judged(np.arange(60) % 3, classes))
        per_class = [name for name in found if re.search("_(precision|recall)_", name)]
        assert len({name.lower() for name in per_class}) == 2 * 2 * 3
        for name in found:
            _validate_metric_name(name)
            assert len(name) <= 250

    @pytest.mark.parametrize(("classes", "many"), [(20, False), (21, True)])
    def test_of_very_many_classes_each_one_is_in_its_table_only(self, classes, many):
        found = judged(np.arange(60) % classes, tuple(map(str, range(classes))))
        assert any("recall_" in name for name in record.as_metrics(found)) != many
        assert len(rows_of(tables.files(found)["per_class.csv"])) == 2 * classes


class TestTables:
    def test_every_number_is_in_a_file(self):
        found = several()
        files = {name: rows_of(text) for name, text in tables.files(found).items()}
        assert list(files) == [
            "scores.csv",
            "differences.csv",
            "per_class.csv",
            "confusion_matrix.csv",
            "calibration.csv",
        ]
        for row in files["scores.csv"]:
            score = found.scores[row["model"]][row["score"]]
            assert (float(row["value"]), float(row["low"])) == (score.value, score.low)
            assert row["output"] == found.metrics[row["score"]].output
        assert len(files["scores.csv"]) == 3 * len(found.metrics)
        assert len(files["differences.csv"]) == 2 * len(found.metrics)
        assert len(files["per_class.csv"]) == 3 * 3
        assert len(files["calibration.csv"]) == 3 * 15
        for model in found.scores:
            counts = [int(row["rows"]) for row in files["confusion_matrix.csv"] if row["model"] == model]
            assert sum(counts) == 60
            assert min(counts) > 0

    def test_any_class_name_survives(self):
        classes = ("a, b", 'say "c"', "two\nlines")
        files = tables.files(judged(np.arange(30) % 3, classes))
        assert [row["class"] for row in rows_of(files["per_class.csv"])][:3] == list(classes)
        assert {row["predicted_class"] for row in rows_of(files["confusion_matrix.csv"])} <= set(classes)

    def test_numbers_alone_have_no_files_of_classes(self):
        targets = np.arange(5.0)[:, None]
        metric = Metric("age_mse", "minimize", "age")
        answers = {"champion": {"age": targets + 1}}
        found = judge({"age": targets}, answers, {"age": ()}, (metric,), 0)
        assert list(tables.files(found)) == ["scores.csv", "differences.csv"]
