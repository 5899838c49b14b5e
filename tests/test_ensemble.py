"""Which members an ensemble has, and that the one model made of them answers as their mean."""

import copy
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from itertools import combinations_with_replacement
from pathlib import Path
from typing import ClassVar

import keras
import numpy as np
import pytest

from pipeline import answers, ensemble
from pipeline.ensemble import Judge
from pipeline.metrics import ACCURACY, CLASSIFICATION, LOG_LOSS, score, score_of
from pipeline.values import Answers, Data, Metric, SealedSplit, Split

Predictions = Mapping[int, np.ndarray]
METHODS = ["greedy", "uniform", "simplex"]


def random_library(seed: int, members: int = 4, rows: int = 12) -> tuple[dict[int, np.ndarray], np.ndarray]:
    """Probabilities of three classes by trial number, the trials in no order, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, rows)
    library = {}
    for number in rng.permutation(20)[:members].tolist():
        logits = rng.normal(size=(rows, 3)) + 0.8 * (labels[:, None] == [0, 1, 2])
        library[number] = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return library, labels


def rank(metric: Metric, labels: np.ndarray, probabilities: np.ndarray) -> tuple[float, float]:
    sign = -1.0 if metric.direction == "maximize" else 1.0
    return sign * score(metric.name, labels, probabilities), score("log_loss", labels, probabilities)


def mean_of(library: Predictions, chosen: Iterable[int]) -> np.ndarray:
    return np.mean([library[number] for number in chosen], axis=0)


def select_by_hand(library: Predictions, labels: np.ndarray, metric: Metric, rounds: int) -> list[int]:
    """Caruana et al. 2004, as slow as it is plain: every bag that one more member can make is scored."""
    bags = [greedy_bag(library, labels, metric, size) for size in range(1, rounds + 1)]
    return min(bags, key=lambda bag: (rank(metric, labels, mean_of(library, bag)), len(bag)))


def greedy_bag(library: Predictions, labels: np.ndarray, metric: Metric, rounds: int) -> list[int]:
    """What greedy selection has after so many rounds, before it is cut back."""
    bag: list[int] = []
    for _ in range(rounds):
        grown = [[*bag, number] for number in library]
        bag = min(grown, key=lambda one: rank(metric, labels, mean_of(library, one)))
    return bag


def assert_weights(found: Mapping[int, float], expected: Mapping[int, float]) -> None:
    assert dict(found) == pytest.approx(dict(expected), rel=1e-12)


def greedy(library: Predictions, labels: np.ndarray, metric: Metric, members: int) -> ensemble.Ensemble:
    return select("greedy", library, labels, metric, members)


def select(
    method: str, library: Predictions, labels: np.ndarray, metric: Metric, members: int
) -> ensemble.Ensemble:
    return ensemble.select(method, library, Judge(labels, metric, LOG_LOSS), members)


@pytest.mark.parametrize("metric", CLASSIFICATION, ids=lambda metric: metric.name)
@pytest.mark.parametrize("seed", range(5))
class TestGreedyOnRandomLibraries:
    def test_it_makes_the_choices_of_a_search_by_hand(self, metric, seed):
        library, labels = random_library(seed)
        bag = select_by_hand(library, labels, metric, 6)
        found = greedy(library, labels, metric, 6)
        assert_weights(found.weights, {number: bag.count(number) / len(bag) for number in bag})

    def test_one_member_is_the_best_single_model(self, metric, seed):
        library, labels = random_library(seed)
        best = min(library, key=lambda number: rank(metric, labels, library[number]))
        found = greedy(library, labels, metric, 1)
        assert (found.weights, found.size) == ({best: 1.0}, 1)
        assert found.value == score(metric.name, labels, library[best])

    def test_the_best_single_model_is_always_in_it(self, metric, seed):
        library, labels = random_library(seed)
        best = min(library, key=lambda number: rank(metric, labels, library[number]))
        assert best in greedy(library, labels, metric, 6).weights

    @pytest.mark.parametrize("members", [2, 3, 10])
    def test_it_is_never_worse_than_the_best_single_model_or_a_shorter_one(self, metric, seed, members):
        library, labels = random_library(seed)
        sign = -1.0 if metric.direction == "maximize" else 1.0
        value = sign * greedy(library, labels, metric, members).value
        for fewer in (1, members - 1):
            # The same probabilities summed in another order: roundings of float64.
            assert value <= sign * greedy(library, labels, metric, fewer).value + 1e-12

    def test_no_bag_of_that_size_is_better_than_an_exhaustive_search_finds(self, metric, seed):
        library, labels = random_library(seed)
        bags = [bag for size in (1, 2, 3) for bag in combinations_with_replacement(library, size)]
        best = min(rank(metric, labels, mean_of(library, bag)) for bag in bags)
        found = greedy(library, labels, metric, 3)
        blended = ensemble.blend(library, found.weights)
        # The same probabilities summed in another order: roundings of float64.
        assert rank(metric, labels, blended) >= (best[0] - 1e-12, best[1] - 1e-12)

    @pytest.mark.parametrize("method", METHODS)
    def test_weights_are_positive_and_sum_to_one(self, metric, seed, method):
        library, labels = random_library(seed)
        found = select(method, library, labels, metric, 7)
        assert set(found.weights) <= set(library)
        assert min(found.weights.values()) > 0
        assert sum(found.weights.values()) == pytest.approx(1, abs=1e-15 * 7)

    @pytest.mark.parametrize("method", METHODS)
    def test_its_value_is_the_score_of_its_blend(self, metric, seed, method):
        library, labels = random_library(seed)
        found = select(method, library, labels, metric, 5)
        assert found.value == score(metric.name, labels, ensemble.blend(library, found.weights))


def two_classes(*of_first: float) -> np.ndarray:
    """(rows, 2) from the first class's probabilities."""
    return np.array([[value, 1 - value] for value in of_first])


class TestGreedy:
    def test_a_member_may_be_taken_again(self):
        # The right answer is class 0 throughout. One third of member 5 repairs row 1 and spoils nothing;
        # half of it would spoil row 0, as 0.75 * 1/2 + 0.1 * 1/2 < 1/2 < 0.75 * 2/3 + 0.1 * 1/3.
        library = {3: two_classes(0.75, 0.49, 0.9), 5: two_classes(0.1, 0.56, 0.9)}
        found = greedy(library, np.zeros(3, int), ACCURACY, 3)
        assert_weights(found.weights, {3: 2 / 3, 5: 1 / 3})
        assert found.value == 1.0

    def test_it_is_cut_back_to_its_best_round(self):
        # Right answers are class 0; any addition to the perfect member makes it worse.
        library = {0: two_classes(1.0, 1.0), 1: two_classes(0.6, 0.6)}
        assert greedy(library, np.zeros(2, int), LOG_LOSS, 8).weights == {0: 1.0}

    def test_more_members_of_one_score_are_not_kept(self):
        library = {4: two_classes(0.9, 0.8)}
        assert greedy(library, np.zeros(2, int), ACCURACY, 8).weights == {4: 1.0}

    def test_log_loss_decides_between_equal_accuracies(self):
        library = {0: two_classes(0.6, 0.6), 1: two_classes(0.9, 0.9), 2: two_classes(0.7, 0.7)}
        assert greedy(library, np.zeros(2, int), ACCURACY, 1).weights == {1: 1.0}

    def test_the_better_trial_wins_where_all_is_equal(self):
        same = two_classes(0.7, 0.7)
        assert greedy({8: same, 2: same.copy()}, np.zeros(2, int), ACCURACY, 1).weights == {8: 1.0}

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_rounding_of_tied_probabilities_never_makes_it_worse_than_the_best_single_model(self, dtype):
        # Probabilities in tenths tie in many blends, where the last bit decides the likeliest class.
        rng = np.random.default_rng(0)
        for _ in range(1500):
            rows, members = rng.integers(1, 6), rng.integers(2, 5)
            library = {
                number: (rng.multinomial(10, [1 / 3] * 3, size=rows) / 10).astype(dtype)
                for number in range(members)
            }
            labels = rng.integers(0, 3, rows)
            best = max(score("accuracy", labels, single) for single in library.values())
            assert greedy(library, labels, ACCURACY, 7).value >= best

    @pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("method", METHODS)
    def test_members_with_broken_predictions_are_left_out(self, broken, method):
        library = {0: two_classes(0.9, broken), 1: two_classes(0.8, 0.7), 2: two_classes(0.7, 0.8)}
        found = select(method, library, np.zeros(2, int), LOG_LOSS, 3)
        assert 0 not in found.weights
        assert np.isfinite(found.value)

    @pytest.mark.parametrize("method", METHODS)
    def test_no_usable_member_is_an_error(self, method):
        with pytest.raises(ValueError, match="no member's predictions are finite"):
            select(method, {0: two_classes(np.nan)}, np.zeros(1, int), LOG_LOSS, 3)

    def test_float32_predictions_are_left_as_they_are(self):
        library = {number: rows.astype(np.float32) for number, rows in random_library(1)[0].items()}
        copies = {number: rows.copy() for number, rows in library.items()}
        greedy(library, random_library(1)[1], LOG_LOSS, 6)
        for number, rows in library.items():
            np.testing.assert_array_equal(rows, copies[number])


class TestUniform:
    @pytest.mark.parametrize(("members", "expected"), [(1, [7]), (2, [7, 3]), (3, [7, 3, 5]), (9, [7, 3, 5])])
    def test_it_takes_the_best_at_equal_weights(self, members, expected):
        library = {5: two_classes(0.6, 0.7), 7: two_classes(0.9, 0.6), 3: two_classes(0.7, 0.7)}
        found = select("uniform", library, np.zeros(2, int), ACCURACY, members)
        assert list(found.weights) == expected
        assert set(found.weights.values()) == {1 / len(expected)}

    def test_a_broken_member_makes_room_for_the_next(self):
        library = {1: two_classes(np.nan), 2: two_classes(0.7), 3: two_classes(0.6)}
        found = select("uniform", library, np.zeros(1, int), ACCURACY, 2)
        assert found.weights == {2: 0.5, 3: 0.5}


class TestByHand:
    LIBRARY: ClassVar[Predictions] = {
        5: two_classes(0.6, 0.7),
        7: two_classes(0.9, 0.6),
        3: two_classes(0.7, 0.7),
    }

    def select(self, *weights: float, members: int = 8) -> ensemble.Ensemble:
        return ensemble.select(weights, self.LIBRARY, Judge(np.zeros(2, int), ACCURACY, LOG_LOSS), members)

    @pytest.mark.parametrize(
        ("weights", "expected"),
        [
            ((1.0,), {5: 1.0}),
            ((0.5, 0.25, 0.25), {5: 0.5, 7: 0.25, 3: 0.25}),
            ((3, 1), {5: 0.75, 7: 0.25}),
            ((0.0, 0.0, 2.0), {3: 1.0}),
        ],
    )
    def test_they_are_of_the_first_in_their_order_with_the_sum_one(self, weights, expected):
        found = self.select(*weights)
        assert found.weights == expected
        assert found.size == len(expected)
        assert found.value == score("accuracy", np.zeros(2, int), ensemble.blend(self.LIBRARY, expected))

    def test_members_is_no_limit_of_theirs(self):
        assert len(self.select(1, 1, 1, members=1).weights) == 3

    def test_near_duplicates_stay(self):
        library = {0: two_classes(0.7, 0.7), 1: two_classes(0.7, 0.7)}
        judge = Judge(np.zeros(2, int), ACCURACY, LOG_LOSS)
        found = ensemble.select((0.5, 0.5), library, judge, 8)
        assert (found.weights, found.left_out) == ({0: 0.5, 1: 0.5}, ())


class TestNearDuplicates:
    @pytest.mark.parametrize("method", METHODS)
    def test_the_worse_one_is_left_out_whatever_its_place(self, method):
        better, worse = two_classes(0.8, 0.8), two_classes(0.8, 0.7995)
        for library in ({1: better, 2: worse}, {2: worse, 1: better}):
            found = select(method, library, np.zeros(2, int), LOG_LOSS, 4)
            assert (found.weights, found.left_out) == ({1: 1.0}, (2,))

    @pytest.mark.parametrize("method", METHODS)
    def test_their_places_are_free_for_others(self, method):
        library = {1: two_classes(0.9, 0.6), 2: two_classes(0.9, 0.6), 3: two_classes(0.6, 0.9)}
        found = select(method, library, np.zeros(2, int), LOG_LOSS, 2)
        assert_weights(found.weights, {1: 0.5, 3: 0.5})


@pytest.mark.parametrize("metric", CLASSIFICATION, ids=lambda metric: metric.name)
@pytest.mark.parametrize("seed", range(3))
class TestCurve:
    def test_greedy_has_the_value_of_each_round(self, metric, seed):
        library, labels = random_library(seed)
        bag = [greedy_bag(library, labels, metric, size)[-1] for size in range(1, 6)]
        expected = [score(metric.name, labels, mean_of(library, bag[:size])) for size in range(1, 6)]
        # The same probabilities summed in another order: roundings of float64.
        assert greedy(library, labels, metric, 5).curve.greedy == pytest.approx(expected, rel=1e-12)

    def test_uniform_has_the_value_of_the_best_of_each_number(self, metric, seed):
        library, labels = random_library(seed)
        best = sorted(library, key=lambda number: rank(metric, labels, library[number]))
        expected = [score(metric.name, labels, mean_of(library, best[:size])) for size in range(1, 5)]
        for members, shown in ((3, 3), (9, 4)):
            curve = greedy(library, labels, metric, members).curve
            assert curve.uniform == pytest.approx(expected[:shown], rel=1e-12)

    @pytest.mark.parametrize("method", ["greedy", "uniform"])
    def test_the_ensemble_is_a_point_of_its_curve(self, metric, seed, method):
        library, labels = random_library(seed)
        found = select(method, library, labels, metric, 5)
        assert getattr(found.curve, method)[found.size - 1] == found.value
        assert found.curve.greedy[0] == found.curve.uniform[0]


def small_model(units: int, seed: int) -> keras.Model:
    """A model as trials make them: all with one name, with Dropout and BatchNormalization."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(5, activation="relu", name="hidden"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dropout(0.5, name="dropout"),
            keras.layers.Dense(units, activation="sigmoid" if units == 1 else "softmax", name="answer"),
        ],
        name="trial",
    )
    norm = model.get_layer("norm")
    norm.moving_mean.assign(np.linspace(-1, 1, 5) * seed)
    model.compile(optimizer="adam", loss="mse")
    # As after training: Keras warns when it loads an optimizer that has no variables yet.
    model.optimizer.build(model.trainable_variables)
    return model


ROWS = np.random.default_rng(0).normal(size=(9, 6)).astype(np.float32)
WEIGHTS = (0.5, 0.125, 0.375)
# Probabilities up to 1 in float32: a product and a sum a member, and the member's own arithmetic in
# another batch or backend, some roundings of 6e-8 each.
MODEL_TOLERANCE = 1e-6


@pytest.mark.parametrize("units", [1, 2, 3])
class TestAsModel:
    @pytest.mark.parametrize("weights", [(1.0,), (0.25, 0.75), WEIGHTS])
    def test_it_answers_with_the_weighted_mean_of_its_members(self, units, weights):
        members = [(small_model(units, seed), weight) for seed, weight in enumerate(weights)]
        expected = sum(weight * model.predict(ROWS, verbose=0) for model, weight in members)
        blended = ensemble.as_model(members)
        np.testing.assert_allclose(blended.predict(ROWS, verbose=0), expected, atol=MODEL_TOLERANCE)

    def test_members_of_one_file_may_repeat(self, units, tmp_path):
        small_model(units, 2).save(tmp_path / "trial.keras")
        members = [(keras.models.load_model(tmp_path / "trial.keras"), 0.5) for _ in range(2)]
        expected = members[0][0].predict(ROWS, verbose=0)
        found = ensemble.as_model(members).predict(ROWS, verbose=0)
        np.testing.assert_allclose(found, expected, atol=MODEL_TOLERANCE)

    def test_it_takes_its_members_input_and_its_name(self, units):
        blended = ensemble.as_model([(small_model(units, 0), 1.0)], name="blend")
        assert blended.name == "blend"
        assert blended.input_shape == (None, 6)
        assert blended.output_shape == (None, units)


LOAD = """
import sys
from pathlib import Path
from typing import ClassVar
sys.modules["pipeline"] = None  # so that importing it fails, wherever it is installed
import keras
import numpy as np
file = Path(sys.argv[1])
model = keras.models.load_model(file)
np.save(file.with_name(sys.argv[2]), model.predict(np.load(file.with_name("rows.npy")), verbose=0))
print(keras.backend.backend())
"""


@pytest.fixture(scope="module", params=[1, 3], ids=["sigmoid", "softmax"])
def saved(request, tmp_path_factory) -> tuple[Path, np.ndarray]:
    """A saved ensemble beside its rows, and what it answered."""
    folder = tmp_path_factory.mktemp("ensemble")
    blended = ensemble.as_model([(small_model(request.param, seed), w) for seed, w in enumerate(WEIGHTS)])
    blended.save(folder / "ensemble.keras")
    np.save(folder / "rows.npy", ROWS)
    return folder / "ensemble.keras", blended.predict(ROWS, verbose=0)


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_the_saved_file_opens_without_the_project_and_answers_the_same(backend, saved, tmp_path):
    file, expected = saved
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {"KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", LOAD, str(file), f"{backend}.npy"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [backend]
    found = np.load(file.with_name(f"{backend}.npy"))
    np.testing.assert_allclose(found, expected, atol=MODEL_TOLERANCE)


# Several inputs and outputs: a logit, logits, probabilities and a number, in no order of the alphabet

SEVERAL = {"yes": ("no", "yes"), "which": ("a", "b", "c"), "known": ("n", "y"), "age": ()}
LOGITS = {
    "yes": keras.losses.BinaryCrossentropy(from_logits=True),
    "which": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    "known": "sparse_categorical_crossentropy",
    "age": "mse",
}
PAIRS = {
    "right": np.random.default_rng(1).normal(size=(9, 3)).astype(np.float32),
    "left": np.random.default_rng(2).integers(0, 5, (9, 2)).astype(np.int32),
}


def two_by_four(structure: type, seed: int) -> keras.Model:
    """Two inputs of different types, four outputs, in the structure of both."""
    keras.utils.set_random_seed(seed)
    inputs = {
        "right": keras.Input((3,), name="right"),
        "left": keras.Input((2,), dtype="int32", name="left"),
    }
    words = keras.layers.Flatten()(keras.layers.Embedding(5, 3)(inputs["left"]))
    hidden = keras.layers.Concatenate()([inputs["right"], words])
    hidden = keras.layers.Dropout(0.5)(keras.layers.Dense(6, activation="tanh")(hidden))
    outputs = {
        name: keras.layers.Dense(
            len(classes) if len(classes) != 2 or name == "known" else 1,
            "softmax" if name == "known" else None,
            name=name,
        )(hidden)
        for name, classes in {**SEVERAL, "age": ("number",)}.items()
    }
    if structure is dict:
        model = keras.Model(inputs, outputs, name="trial")
    else:
        model = keras.Model(list(inputs.values()), structure(outputs.values()), name="trial")
    model.compile("adam", LOGITS)
    model.optimizer.build(model.trainable_variables)
    return model


def data_of(outputs: Mapping[str, tuple[str, ...]], classes: tuple[str, ...] = ()) -> Data:
    rows = Split(PAIRS, np.arange(9) % 2)
    return Data("made up", "made up", classes, rows, rows, SealedSplit(rows), {}, outputs=outputs)


def answered(model: keras.Model, data: Data) -> Answers:
    inputs = dict(PAIRS) if len(model.inputs) == 2 else PAIRS["right"]
    # As `predict` gives them, without its compiling.
    raw = keras.tree.map_structure(keras.ops.convert_to_numpy, model(inputs, training=False))
    return answers.read(model, raw, data)


def several_targets(seed: int = 5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "yes": rng.integers(0, 2, (9, 1)),
        "which": rng.integers(0, 3, 9),
        "known": rng.integers(0, 2, 9),
        "age": rng.normal(size=(9, 1)),
    }


PARTS = (Metric("which_log_loss", "minimize", "which"), Metric("yes_log_loss", "minimize", "yes"))
SCORE = Metric(
    "score", "minimize", parts=((PARTS[0], 0.5), (PARTS[1], 1.0), (Metric("age_mse", "minimize", "age"), 0.1))
)


@pytest.fixture(params=[dict, list, tuple], ids=lambda structure: structure.__name__)
def structure(request) -> type:
    return request.param


@pytest.mark.parametrize("weights", [(1.0,), WEIGHTS])
class TestSeveralInputsAndOutputs:
    def test_the_model_answers_with_the_blend_of_its_members_answers(self, structure, weights):
        data = data_of(SEVERAL)
        members = {seed: two_by_four(structure, seed) for seed in range(len(weights))}
        library = {seed: answered(model, data) for seed, model in members.items()}
        expected = ensemble.blend(library, dict(enumerate(weights)))
        blended = ensemble.as_model([(members[seed], weight) for seed, weight in enumerate(weights)])
        found = answered(blended, data)
        assert set(found) == set(expected) == set(SEVERAL)
        for name, rows in expected.items():
            np.testing.assert_allclose(found[name], rows, atol=MODEL_TOLERANCE, err_msg=name)

    def test_names_and_structure_are_the_members(self, structure, weights):
        member = two_by_four(structure, 0)
        names, shapes = list(member.output_names), [part.shape for part in keras.tree.flatten(member.output)]
        members = [(two_by_four(structure, seed), weight) for seed, weight in enumerate(weights)]
        blended = ensemble.as_model(members)
        assert list(blended.output_names) == names
        assert [part.shape for part in keras.tree.flatten(blended.output)] == shapes
        assert {part.name: part.dtype for part in blended.inputs} == {"left": "int32", "right": "float32"}
        raw = blended.predict(dict(PAIRS), verbose=0)
        keras.tree.assert_same_structure(raw, member.predict(dict(PAIRS), verbose=0))
        assert set(answers.by_name(blended, raw)) == set(SEVERAL)

    def test_it_is_saved_and_loaded(self, structure, weights, tmp_path):
        members = [(two_by_four(structure, seed), weight) for seed, weight in enumerate(weights)]
        blended, data = ensemble.as_model(members), data_of(SEVERAL)
        before = answered(blended, data)
        blended.save(tmp_path / "ensemble.keras")
        loaded = keras.models.load_model(tmp_path / "ensemble.keras")
        # Keras's files know no tuples.
        assert isinstance(loaded.output, dict if structure is dict else list)
        assert list(loaded.output_names) == list(blended.output_names)
        for name, rows in answered(loaded, data).items():
            np.testing.assert_allclose(rows, before[name], atol=MODEL_TOLERANCE, err_msg=name)

    def test_members_from_files_blend_as_they_were(self, structure, weights, tmp_path):
        data, members = data_of(SEVERAL), []
        library = {}
        for seed, weight in enumerate(weights):
            model = two_by_four(structure, seed)
            library[seed] = answered(model, data)
            model.save(tmp_path / f"{seed}.keras")
            members.append((keras.models.load_model(tmp_path / f"{seed}.keras"), weight))
        expected = ensemble.blend(library, dict(enumerate(weights)))
        for name, rows in answered(ensemble.as_model(members), data).items():
            np.testing.assert_allclose(rows, expected[name], atol=MODEL_TOLERANCE, err_msg=name)


@pytest.fixture
def library() -> dict[int, Answers]:
    data = data_of(SEVERAL)
    return {number: answered(two_by_four(dict, number), data) for number in (4, 1, 3)}


@pytest.mark.parametrize("metric", [*PARTS, SCORE], ids=lambda metric: metric.name)
class TestGreedyOverSeveralOutputs:
    def test_it_makes_the_choices_of_a_search_by_hand(self, metric, library):
        targets = several_targets()
        bags: list[list[int]] = [[]]

        def value(bag: list[int]) -> float:
            mean = {name: np.mean([library[number][name] for number in bag], axis=0) for name in SEVERAL}
            return score_of(metric, targets, mean)

        for _ in range(5):
            bags.append(min(([*bags[-1], number] for number in library), key=value))
        bag = min(bags[1:], key=lambda one: (value(one), len(one)))
        found = ensemble.select("greedy", library, Judge(targets, metric, metric), 5)
        assert_weights(found.weights, {number: bag.count(number) / len(bag) for number in bag})
        assert found.value == pytest.approx(value(bag), rel=1e-12)

    def test_a_member_with_one_broken_output_is_left_out(self, metric, library):
        library[4] = {**library[4], "age": np.full((9, 1), np.nan)}
        for method in METHODS:
            found = ensemble.select(method, library, Judge(several_targets(), metric, metric), 3)
            assert 4 not in found.weights
            assert np.isfinite(found.value)

    def test_members_answers_are_left_as_they_are(self, metric, library):
        copies = copy.deepcopy(library)
        ensemble.select("greedy", library, Judge(several_targets(), metric, metric), 4)
        for number, found in library.items():
            for name, rows in found.items():
                np.testing.assert_array_equal(rows, copies[number][name])


# One output that answers with a number, by name
REGRESSION = {"age": ()}


@pytest.mark.parametrize("method", [*METHODS, (0.5, 0.25, 0.25)], ids=str)
@pytest.mark.parametrize("outputs", [SEVERAL, REGRESSION], ids=["several outputs", "a number"])
def test_every_method_makes_a_model_that_scores_what_was_chosen(outputs, method) -> None:
    data, targets = data_of(outputs), {name: several_targets()[name] for name in outputs}
    models = {number: two_by_four(dict, number) for number in (4, 1, 3)}
    if outputs is REGRESSION:
        for number, model in models.items():
            models[number] = keras.Model(model.input, {"age": model.output["age"]})
            models[number].compile("adam", "mse")
    metric = SCORE if outputs is SEVERAL else Metric("age_mae", "minimize", "age")
    library = {number: answered(model, data) for number, model in models.items()}
    found = ensemble.select(method, library, Judge(targets, metric, metric), 3)
    blended = ensemble.as_model([(models[number], weight) for number, weight in found.weights.items()])
    # Roundings of float32 in answers of size 1, see MODEL_TOLERANCE, and a loss of about that size.
    assert score_of(metric, targets, answered(blended, data)) == pytest.approx(found.value, rel=1e-5)
    assert set(answered(blended, data)) == set(outputs)


def test_the_tie_is_decided_by_its_own_output() -> None:
    targets = {"kind": np.zeros(2, int), "side": np.zeros(2, int)}
    library = {
        0: {"kind": two_classes(0.9, 0.9), "side": two_classes(0.6, 0.6)},
        1: {"kind": two_classes(0.6, 0.6), "side": two_classes(0.9, 0.9)},
    }
    accuracy = Metric("kind_accuracy", "maximize", "kind")
    for tie, winner in (("kind", 0), ("side", 1)):
        judge = Judge(targets, accuracy, Metric(f"{tie}_log_loss", "minimize", tie))
        assert ensemble.select("greedy", library, judge, 1).weights == {winner: 1.0}


def of_logits(units: int, seed: int) -> keras.Model:
    """A model with one output of logits, as `small_model`, but for its large numbers."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(units, name="answer")], name="trial")
    model.set_weights([3 * weight for weight in model.get_weights()])
    losses = keras.losses.BinaryCrossentropy, keras.losses.SparseCategoricalCrossentropy
    model.compile("adam", losses[units > 1](from_logits=True))
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.mark.parametrize("units", [1, 3])
@pytest.mark.parametrize("weights", [(1.0,), WEIGHTS])
class TestLogits:
    def test_probabilities_are_averaged_and_not_logits(self, units, weights):
        data = data_of({}, tuple("abc"[: max(units, 2)]))
        members = [(of_logits(units, seed), weight) for seed, weight in enumerate(weights)]
        library = {seed: answered(model, data) for seed, (model, _) in enumerate(members)}
        expected = ensemble.blend(library, dict(enumerate(weights)))
        found = answered(ensemble.as_model(members), data)
        np.testing.assert_allclose(found, expected, atol=MODEL_TOLERANCE)
        assert found.min() >= 0
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=MODEL_TOLERANCE)

    def test_a_member_of_probabilities_may_stand_beside_one_of_logits(self, units, weights):
        data = data_of({}, tuple("abc"[: max(units, 2)]))
        models = [of_logits(units, seed) for seed in range(len(weights))]
        activation = keras.layers.Activation("sigmoid" if units == 1 else "softmax")
        models[0] = keras.Sequential([keras.Input((3,)), *models[0].layers, activation])
        models[0].compile("adam", "mse")
        library = {seed: answered(model, data) for seed, model in enumerate(models)}
        expected = ensemble.blend(library, dict(enumerate(weights)))
        blended = ensemble.as_model(list(zip(models, weights, strict=True)))
        np.testing.assert_allclose(answered(blended, data), expected, atol=MODEL_TOLERANCE)

    def test_it_is_saved_and_loaded(self, units, weights, tmp_path):
        data = data_of({}, tuple("abc"[: max(units, 2)]))
        blended = ensemble.as_model([(of_logits(units, seed), w) for seed, w in enumerate(weights)])
        blended.save(tmp_path / "ensemble.keras")
        loaded = keras.models.load_model(tmp_path / "ensemble.keras")
        np.testing.assert_allclose(answered(loaded, data), answered(blended, data), atol=MODEL_TOLERANCE)
