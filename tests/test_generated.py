"""Generated sets: what they hold, what their inputs tell, and which scores are the best possible ones."""

from functools import cache

import keras
import numpy as np
import pytest
from scipy import stats

from pipeline import metrics
from pipeline.datasets import digests, generated
from pipeline.values import Data, Split

# Each set's rows drawn small and with as many of them as a test wants.
DRAWS = {
    "question_answering": lambda rows, **seed: generated.draw_questions(rows, 20, 5, 4, **seed),
    "posts": lambda rows, **seed: generated.draw_posts(rows, 40, 2_000, **seed),
    "sentence_similarity": lambda rows, **seed: generated.draw_sentences(rows, 2, **seed),
    "dual_camera": lambda rows, **seed: generated.draw_cameras(rows, 12, **seed),
    "separable_images": lambda rows, **seed: generated.draw_colours(rows, 12, **seed),
    "inception_residual": lambda rows, **seed: generated.draw_textures(rows, 12, **seed),
}
NAMES = tuple(DRAWS)
ONE_TARGET = tuple(name for name in NAMES if name != "posts")
CLASSES = {
    "question_answering": 20,
    "sentence_similarity": 2,
    "dual_camera": 4,
    "separable_images": 10,
    "inception_residual": 10,
}


@cache
def small(name: str) -> Data:
    return getattr(generated, name)("small")


@cache
def many(name: str) -> generated.Sample:
    """Rows enough for frequencies."""
    return DRAWS[name](20_000)


def parts(data: Data) -> tuple[Split, Split, Split]:
    return data.train, data.validation, data.test.unseal()


def as_split(sample: generated.Sample) -> Split:
    return Split(sample.inputs, sample.targets)


def shapes(part: Split) -> dict[tuple[str, ...], tuple[tuple[int, ...], str]]:
    """Of each array, without the rows."""
    return {place: (array.shape[1:], str(array.dtype)) for place, array in part.arrays.items()}


def pair(left: str, right: str, shape: tuple[int, ...], dtype: str) -> dict:
    return {("inputs", left): (shape, dtype), ("inputs", right): (shape, dtype)}


def documented(name: str, length: int) -> dict:
    """What `shapes` gives of a set; length: of a text or sentence in words, or a picture's side in pixels."""
    label = {("targets",): ((), "int32")}
    return {
        "question_answering": pair("text", "question", (length,), "int32") | label,
        "posts": {
            ("inputs",): ((length,), "int32"),
            ("targets", "age"): ((1,), "float32"),
            ("targets", "income"): ((), "int32"),
            ("targets", "gender"): ((1,), "int32"),
        },
        "sentence_similarity": pair("left", "right", (length, 128), "float32")
        | {("targets",): ((1,), "int32")},
        "dual_camera": pair("left", "right", (length, length, 3), "uint8") | label,
        "separable_images": {("inputs",): ((length, length, 3), "uint8")} | label,
        "inception_residual": {("inputs",): ((length, length, 3), "uint8")} | label,
    }[name]


SMALL = {
    "question_answering": (3_000, 20),
    "posts": (400, 300),
    "sentence_similarity": (1_000, 12),
    "dual_camera": (100, 71),
    "separable_images": (600, 32),
    "inception_residual": (400, 16),
}
# Rows and length at the full size, and how many rows the test draws of them.
FULL = {
    "question_answering": (50_000, 100, 5_000),
    "posts": (20_000, 500, 200),
    "sentence_similarity": (5_000, 50, 40),
    "dual_camera": (1_000, 250, 40),
    "separable_images": (20_000, 64, 100),
    "inception_residual": (50_000, 32, 100),
}
DRAW_OF = {
    "question_answering": "draw_questions",
    "posts": "draw_posts",
    "sentence_similarity": "draw_sentences",
    "dual_camera": "draw_cameras",
    "separable_images": "draw_colours",
    "inception_residual": "draw_textures",
}


class TestSets:
    @pytest.mark.parametrize("name", NAMES)
    def test_the_small_size_is_as_documented(self, name):
        rows, length = SMALL[name]
        data = small(name)
        assert [part.rows for part in parts(data)] == [rows * 6 // 10, rows * 2 // 10, rows * 2 // 10]
        for part in parts(data):
            assert shapes(part) == documented(name, length)
        assert len(data.classes) == len(set(data.classes)) == CLASSES.get(name, 0)

    @pytest.mark.parametrize("name", NAMES)
    def test_the_full_size_is_as_documented(self, name, monkeypatch):
        rows, length, drawn = FULL[name]
        draw, asked = getattr(generated, DRAW_OF[name]), []

        def fewer(rows, *more):
            asked.append(rows)
            return draw(drawn, *more)

        monkeypatch.setattr(generated, DRAW_OF[name], fewer)
        data = getattr(generated, name)("full")
        assert asked == [rows]
        assert sum(part.rows for part in parts(data)) == drawn
        for part in parts(data):
            assert shapes(part) == documented(name, length)
        assert len(data.classes) == {**CLASSES, "question_answering": 500}.get(name, 0)

    @pytest.mark.parametrize("name", NAMES)
    def test_its_name_and_seed_are_on_record(self, name):
        data = small(name)
        assert data.name == name
        assert data.source == f"generated: {name}, seed {1 if name == 'inception_residual' else 0}"

    def test_word_numbers_and_outputs_are_on_record(self):
        assert small("question_answering").words == {"text": 10_000, "question": 10_000}
        assert small("posts").words == {"": 2_000}
        outputs = small("posts").outputs
        assert outputs.keys() == {"age", "income", "gender"}
        assert outputs["age"] == ()
        assert len(set(outputs["income"])) == 10
        assert outputs["gender"] == ("female", "male")
        assert all(not small(name).words for name in set(NAMES) - {"question_answering", "posts"})

    @pytest.mark.parametrize("name", NAMES)
    def test_the_rows_are_the_same_on_every_call(self, name):
        assert getattr(generated, name)("small").digests == small(name).digests

    @pytest.mark.parametrize("name", NAMES)
    def test_another_seed_draws_other_rows(self, name):
        of_seed = [digests.of_split(as_split(DRAWS[name](30, seed=seed))) for seed in (7, 7, 8)]
        assert of_seed[0] == of_seed[1] != of_seed[2]

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("rows", [1, 37])
    def test_as_many_rows_are_drawn_as_asked_for(self, name, rows):
        sample = DRAWS[name](rows)
        assert as_split(sample).rows == rows
        assert Split(sample.inputs, sample.clean).rows == rows

    @pytest.mark.parametrize("name", NAMES)
    def test_no_row_is_in_two_parts(self, name):
        rows = [
            b"".join(array[row].tobytes() for place, array in part.arrays.items() if place[0] == "inputs")
            for part in parts(small(name))
            for row in range(part.rows)
        ]
        assert len(rows) == len(set(rows)) == SMALL[name][0]

    @pytest.mark.parametrize("name", NAMES)
    def test_each_part_has_its_share_of_every_class(self, name):
        labels = [strata(part) for part in parts(small(name))]
        whole = np.bincount(np.concatenate(labels))
        for of_part in labels:
            share = whole * len(of_part) / whole.sum()
            # Two cuts, and a class may lose less than a row in each.
            assert np.abs(np.bincount(of_part, minlength=len(whole)) - share).max() <= 2

    def test_two_sets_of_pictures_differ(self):
        colours, textures = generated.draw_colours(20, 16), generated.draw_textures(20, 16)
        assert not np.array_equal(colours.inputs, textures.inputs)
        assert not np.array_equal(colours.clean, textures.clean)


def strata(part: Split) -> np.ndarray:
    if isinstance(part.targets, dict):
        return part.targets["income"] * 2 + part.targets["gender"][:, 0]
    return part.labels


def told(texts: np.ndarray, words: int, *counts: int) -> list[np.ndarray]:
    """What texts say, read from the numbers of the last words: of each thing the value in each row."""
    few = words // 1_000
    first, found = words - few * sum(counts), []
    for count in counts:
        own = (texts >= first) & (texts < first + few * count)
        # As many own words of each thing in every text, and all of one value.
        np.testing.assert_array_equal(own.sum(axis=1), texts.shape[1] // 4)
        value = (texts - first) // few
        lowest, highest = np.where(own, value, count).min(axis=1), np.where(own, value, -1).max(axis=1)
        np.testing.assert_array_equal(lowest, highest)
        found.append(lowest)
        first += few * count
    return found


def level(sentences: np.ndarray) -> np.ndarray:
    levels = np.rint(sentences[:, :, 0] / 2 + 3.5)
    np.testing.assert_array_equal(levels, levels[:, :1].repeat(levels.shape[1], axis=1))
    return levels[:, 0].astype(int)


def pattern(pictures: np.ndarray) -> np.ndarray:
    """By symmetries: equal along columns, along rows, along either diagonal, or along none."""
    light = (pictures >= 128).any(axis=-1)

    def same(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return (one == other).all(axis=(1, 2))

    symmetries = [
        same(light[:, 1:], light[:, :-1]),
        same(light[:, :, 1:], light[:, :, :-1]),
        same(light[:, 1:, :-1], light[:, :-1, 1:]),
        same(light[:, 1:, 1:], light[:, :-1, :-1]),
    ]
    assert np.sum(symmetries, axis=0).max() == 1
    return np.argmax([*symmetries, ~np.any(symmetries, axis=0)], axis=0)


def read(name: str, inputs) -> np.ndarray | dict[str, np.ndarray]:
    """The clean targets, from the inputs alone."""
    match name:
        case "question_answering":
            (topic,), (kind,) = told(inputs["text"], 10_000, 5), told(inputs["question"], 10_000, 4)
            return topic * 4 + kind
        case "posts":
            age, calling, gender = told(inputs, 2_000, 5, 2, 2)
            return {
                "age": (10 * age[:, None] - 20) / 15,
                "income": 2 * age + calling,
                "gender": gender[:, None],
            }
        case "sentence_similarity":
            left, right = level(inputs["left"]), level(inputs["right"])
            np.testing.assert_array_equal(abs(left - right), 1)
            return (left > right).astype(int)[:, None]
        case "dual_camera":
            return 2 * pattern(inputs["left"]) + pattern(inputs["right"])
        case "separable_images":
            return 2 * pattern(inputs) + ~(inputs[..., 0] >= 128).any(axis=(1, 2))
        case _:
            light = (inputs >= 128).all(axis=-1)
            coarse = (light[:, :, 4:] != light[:, :, :-4]).any(axis=(1, 2))
            coarse |= (light[:, 4:] != light[:, :-4]).any(axis=(1, 2))
            return 2 * pattern(inputs) + coarse


class TestBestScores:
    @pytest.mark.parametrize("name", NAMES)
    def test_the_inputs_tell_the_clean_targets(self, name):
        sample = many(name)
        found = read(name, sample.inputs)
        if not isinstance(found, dict):
            found, clean = {"": found}, {"": sample.clean}
        else:
            clean = sample.clean
        assert found.keys() == clean.keys()
        for output, values in found.items():
            np.testing.assert_array_equal(values, clean[output])

    @pytest.mark.parametrize("name", ONE_TARGET)
    def test_every_clean_class_is_as_likely(self, name):
        counts = np.bincount(many(name).clean.reshape(-1))
        assert len(counts) == CLASSES[name]
        assert stats.chisquare(counts).pvalue > 0.001

    @pytest.mark.parametrize("name", ONE_TARGET)
    def test_noise_replaces_a_tenth_of_the_classes_by_any_other(self, name):
        sample = many(name)
        assert_flipped(sample.clean, sample.targets, CLASSES[name], 0.1)

    def test_noise_of_posts(self):
        sample = many("posts")
        assert_flipped(sample.clean["income"], sample.targets["income"], 10, 0.1)
        assert_flipped(sample.clean["gender"], sample.targets["gender"], 2, 0.02)
        noise = sample.targets["age"] - sample.clean["age"]
        assert stats.kstest(noise[:, 0] * 15 / 5, "norm").pvalue > 0.001
        for other in ("age", "income", "gender"):
            assert abs(np.corrcoef(noise[:, 0], sample.clean[other].reshape(-1))[0, 1]) < 4 / np.sqrt(20_000)

    @pytest.mark.parametrize("name", ONE_TARGET)
    def test_the_best_scores_are_those_of_who_knows_the_clean_class(self, name):
        sample, best = many(name), small(name).best
        probabilities = bayes(read(name, sample.inputs), CLASSES[name], 0.1)
        assert best.keys() == {"accuracy", "log_loss"}
        for metric, value in best.items():
            assert_expected(metrics.per_row(metric, sample.targets, probabilities), value)
        assert best["accuracy"] == 0.9
        assert best["log_loss"] == pytest.approx(stats.entropy(bayes(np.array([0]), CLASSES[name], 0.1)[0]))

    def test_the_best_scores_of_posts(self):
        sample, best = many("posts"), small("posts").best
        clean = read("posts", sample.inputs)
        answers = {
            "age": clean["age"],
            "income": bayes(clean["income"], 10, 0.1),
            "gender": bayes(clean["gender"], 2, 0.02),
        }
        assert best.keys() == {
            "age_mse",
            "income_accuracy",
            "income_log_loss",
            "gender_accuracy",
            "gender_log_loss",
        }
        for name, value in best.items():
            output, metric = name.split("_", 1)
            assert_expected(metrics.per_row(metric, sample.targets[output], answers[output]), value)

    def test_more_answers_are_harder(self):
        few, many_answers = generated._best_of_classes(20), generated._best_of_classes(500)
        assert few["accuracy"] == many_answers["accuracy"]
        assert few["log_loss"] < many_answers["log_loss"]

    def test_ages_are_in_standard_deviations_from_their_mean(self):
        ages = many("posts").targets["age"]
        # 20,000 rows: standard errors of 0.007 and, as the ages' kurtosis is less than 3, of less than 0.01.
        assert ages.mean() == pytest.approx(0, abs=0.03)
        assert ages.var() == pytest.approx(1, abs=0.04)
        assert small("posts").best["age_mse"] == pytest.approx(1 / 9)


def bayes(clean: np.ndarray, classes: int, flipped: float) -> np.ndarray:
    """(rows, classes): what the target may be, for who knows the clean class and the noise."""
    answers = np.full((len(clean), classes), flipped / (classes - 1))
    answers[np.arange(len(clean)), clean.reshape(-1)] = 1 - flipped
    return answers


def assert_expected(rows: np.ndarray, value: float) -> None:
    """The mean is the expected value within four standard errors."""
    assert abs(rows.mean() - value) < 4 * rows.std() / np.sqrt(len(rows))


def assert_flipped(clean: np.ndarray, targets: np.ndarray, classes: int, share: float) -> None:
    """Each class has its targets as often as noise that depends on nothing else would give them."""
    clean, targets = clean.reshape(-1), targets.reshape(-1)
    found = np.bincount(clean * classes + targets, minlength=classes**2)
    expected = np.bincount(clean, minlength=classes)[:, None] * bayes(np.arange(classes), classes, share)
    # The rows' sums are given, so each of them takes a degree of freedom.
    assert stats.chisquare(found, expected.reshape(-1), ddof=classes - 1).pvalue > 0.001


class TestEachInputIsNeeded:
    def test_a_text_tells_the_topic_alone_and_a_question_the_kind_alone(self):
        sample = many("question_answering")
        topic, kind = sample.clean // 4, sample.clean % 4
        assert_independent(topic, kind)
        for texts, other in ((sample.inputs["text"], kind), (sample.inputs["question"], topic)):
            # How often each of the own words stands in a text, and how many words it has.
            features = [(texts == word).sum(axis=1) for word in range(9_950, 10_000)]
            assert_tells_nothing(np.stack([*features, (texts > 0).sum(axis=1)], axis=1), other)

    def test_a_camera_tells_its_own_pattern_alone(self):
        sample = many("dual_camera")
        left, right = sample.clean // 2, sample.clean % 2
        assert_independent(left, right)
        for pictures, other in ((sample.inputs["left"], right), (sample.inputs["right"], left)):
            assert_tells_nothing(pictures.mean(axis=(1, 2)), other)

    def test_the_left_sentence_tells_nothing_and_the_right_one_a_third(self):
        sample = many("sentence_similarity")
        clean = sample.clean[:, 0]
        assert_independent(level(sample.inputs["left"]), clean)
        right = level(sample.inputs["right"])
        more = np.array([clean[right == number].mean() for number in range(8)])
        # Left is one of 1 to 6, so right is 0 or 1 only where it is below.
        np.testing.assert_array_equal(more[[0, 1]], 1)
        np.testing.assert_array_equal(more[[6, 7]], 0)
        assert_independent(right[(right > 1) & (right < 6)], clean[(right > 1) & (right < 6)])
        assert_expected(np.isin(right, [0, 1, 6, 7]).astype(float), 1 / 3)

    def test_no_thing_that_a_post_tells_is_told_by_another(self):
        age, calling, gender = told(many("posts").inputs, 2_000, 5, 2, 2)
        for one, other in ((age, calling), (age, gender), (calling, gender)):
            assert_independent(one, other)

    def test_neither_colour_nor_pattern_tells_the_other_and_the_period_none(self):
        clean = many("separable_images").clean
        assert_independent(clean // 2, clean % 2)
        light = (many("separable_images").inputs >= 128).any(axis=-1)
        coarse = (light[:, :, 4:] != light[:, :, :-4]).any(axis=(1, 2))
        coarse |= (light[:, 4:] != light[:, :-4]).any(axis=(1, 2))
        assert_independent(clean, coarse)


def assert_independent(one: np.ndarray, other: np.ndarray) -> None:
    table = stats.contingency.crosstab(one, other).count
    assert table.shape == (len(np.unique(one)), len(np.unique(other)))
    assert stats.chi2_contingency(table).pvalue > 0.001


def assert_tells_nothing(features: np.ndarray, labels: np.ndarray) -> None:
    """No feature, (rows, features), is lower or higher in one of the classes: an analysis of variance."""
    varied = features[:, features.std(axis=0) > 0]
    groups = [varied[labels == value] for value in np.unique(labels)]
    # So many chances for a small p-value as there are features.
    assert stats.f_oneway(*groups).pvalue.min() > 0.001 / varied.shape[1]


class TestRanges:
    @pytest.mark.parametrize("length", [20, 40, 100])
    def test_texts_are_padded_in_front_and_hold_words_below_the_count(self, length):
        texts = generated.draw_questions(2_000, length, 5, 4).inputs["text"]
        assert texts.min() == 0
        assert texts.max() == 10_000 - 1
        padding = (texts == 0).sum(axis=1)
        # Three quarters are common words, and at most half of those are left out.
        assert (padding.min(), padding.max()) == (0, length * 3 // 4 // 2)
        np.testing.assert_array_equal(texts == 0, np.arange(length) < padding[:, None])

    def test_every_word_is_used(self):
        texts = generated.draw_posts(1_000, 100, 2_000).inputs
        np.testing.assert_array_equal(np.unique(texts), np.arange(2_000))

    def test_own_words_stand_anywhere_in_a_text(self):
        texts = generated.draw_questions(20_000, 20, 5, 4).inputs["text"]
        at = (texts >= 10_000 - 50).mean(axis=0)[10:]
        # 5 own words among 13 to 20: of each place behind the padding 0.25 to 0.39, in each about as many.
        assert at.min() > 0.25
        assert np.ptp(at) < 0.03

    def test_sentences_are_noise_but_for_their_level(self):
        sample = generated.draw_sentences(2_000, 12)
        for side, levels in (("left", range(1, 7)), ("right", range(8))):
            words = sample.inputs[side]
            assert set(level(words).tolist()) == set(levels)
            noise = words[:, :, 0] - 2 * (level(words)[:, None] - 3.5)
            assert abs(noise).max() <= 1
            assert noise.std() == pytest.approx(1 / np.sqrt(3), rel=0.02)
            assert words[:, :, 1:].mean() == pytest.approx(0, abs=0.005)
            assert words[:, :, 1:].std() == pytest.approx(1, abs=0.005)

    def test_a_pixel_is_light_or_dark_beyond_its_noise(self):
        for pictures in (many("separable_images").inputs, many("inception_residual").inputs):
            assert pictures.min() == 0
            assert pictures.max() == 191 + 63
            assert not (pictures == 127).any()

    def test_each_picture_has_a_phase_of_its_own(self):
        sample = generated.draw_textures(4_000, 16)
        light = (sample.inputs >= 128).all(axis=-1)
        of_upright = [light[sample.clean == number][:, 0, :8] for number in (0, 1)]
        assert [len(np.unique(rows, axis=0)) for rows in of_upright] == [4, 8]


LAYERS = keras.layers


@pytest.mark.slow
class TestLearning:
    """The tasks' architectures, plain, learn from the small sets."""

    @pytest.fixture(autouse=True)
    def _seeded(self):
        keras.utils.set_random_seed(1)

    def test_question_answering(self):
        text, question = (LAYERS.Input((20,), dtype="int32", name=name) for name in ("text", "question"))
        read = [
            LAYERS.LSTM(32)(LAYERS.Embedding(10_000, 64)(text)),
            LAYERS.LSTM(16)(LAYERS.Embedding(10_000, 32)(question)),
        ]
        answer = LAYERS.Dense(20, activation="softmax")(LAYERS.concatenate(read))
        model = keras.Model([text, question], answer)
        model.compile("rmsprop", "sparse_categorical_crossentropy", metrics=["accuracy"])
        # By one input alone 0.25 at most (of 4 kinds, or of 5 topics), by chance 0.05.
        assert fitted(model, "question_answering", 128, 15)["accuracy"] > 0.5

    def test_sentence_similarity(self):
        left, right = (LAYERS.Input((12, 128), name=name) for name in ("left", "right"))
        reader = LAYERS.LSTM(32)
        joined = LAYERS.concatenate([reader(left), reader(right)])
        model = keras.Model([left, right], LAYERS.Dense(1, activation="sigmoid")(joined))
        model.compile("rmsprop", "binary_crossentropy", metrics=["accuracy"])
        # By the right sentence alone 0.63 at most: two thirds of the clean targets, and a tenth flipped.
        assert fitted(model, "sentence_similarity", 32, 8)["accuracy"] > 0.7

    def test_posts(self):
        post = LAYERS.Input((300,), dtype="int32")
        seen = LAYERS.Embedding(2_000, 256)(post)
        for place, filters in enumerate((128, 256, 256, 256, 256)):
            seen = LAYERS.Conv1D(filters, 5, activation="relu")(seen)
            seen = LAYERS.MaxPooling1D(5)(seen) if place in (0, 2) else seen
        seen = LAYERS.Dense(128, activation="relu")(LAYERS.GlobalAveragePooling1D()(seen))
        answers = {
            "age": LAYERS.Dense(1, name="age")(seen),
            "income": LAYERS.Dense(10, activation="softmax", name="income")(seen),
            "gender": LAYERS.Dense(1, activation="sigmoid", name="gender")(seen),
        }
        losses = {
            "age": "mse",
            "income": "sparse_categorical_crossentropy",
            "gender": "binary_crossentropy",
        }
        model = keras.Model(post, answers)
        model.compile(
            keras.optimizers.RMSprop(3e-4),
            losses,
            metrics={"age": ["mse"], "income": ["accuracy"], "gender": ["accuracy"]},
            loss_weights={"age": 1.0, "income": 1.0, "gender": 2.0},
        )
        scores = fitted(model, "posts", 16, 10)
        # By chance 1, 0.1 and 0.5.
        assert scores["age_mse"] < 0.6
        assert scores["income_accuracy"] > 0.2
        assert scores["gender_accuracy"] > 0.8

    def test_separable_images(self):
        layers = [LAYERS.Input((32, 32, 3)), LAYERS.Rescaling(1 / 255)]
        for place, filters in enumerate((32, 64, 64, 128, 64, 128)):
            # Without BatchNormalization what six such layers answer varies by a millionth at first.
            layers += [LAYERS.SeparableConv2D(filters, 3, activation="relu")]
            layers += [LAYERS.BatchNormalization(momentum=0.9)]
            layers += [LAYERS.MaxPooling2D(2)] if place in (1, 3) else []
        layers += [LAYERS.GlobalAveragePooling2D(), LAYERS.Dense(32, activation="relu")]
        model = keras.Sequential([*layers, LAYERS.Dense(10, activation="softmax")])
        model.compile("rmsprop", "sparse_categorical_crossentropy", metrics=["accuracy"])
        assert fitted(model, "separable_images", 32, 12)["accuracy"] > 0.4


def fitted(model: keras.Model, name: str, batch: int, epochs: int) -> dict[str, float]:
    """What a model scores on validation rows after some epochs at the small size."""
    data = small(name)
    model.fit(data.train.inputs, data.train.targets, batch_size=batch, epochs=epochs, verbose=0)
    return model.evaluate(data.validation.inputs, data.validation.targets, verbose=0, return_dict=True)
