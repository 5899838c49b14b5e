"""Generated sets: data for the tasks that have none that anyone may use, with a best score that is known.

Each is a population: rows are drawn from it one by one, independently, by a seed. What a row's inputs say
can be read from them without error (the clean target), and the target is the clean one with noise that
depends on nothing else. So the best possible expected scores are those of the answer that knows the clean
target and how the noise is drawn:

- A class is with the probability p (`FLIPPED`) replaced by one of the k - 1 others, each as likely. The best
  answer gives 1 - p to the clean class, and p / (k - 1) to each other. Its accuracy is 1 - p, and its log
  loss the entropy of the noise, -(1 - p) ln(1 - p) - p ln(p / (k - 1)). No answer has a lower expected log
  loss (Gibbs' inequality), and as 1 - p > p / (k - 1), none a higher accuracy.
- A number gets Gaussian noise of variance s^2 (from `AGE_NOISE`). The best answer is the clean number, the
  mean of the target given the inputs; its expected squared error is s^2.

A score over few rows may be better than the best expected one by luck, never over the whole population.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pipeline.datasets import splits
from pipeline.values import Array, Data, Size

# The share of flipped classes, and of flipped genders.
FLIPPED, GENDER_FLIPPED = 0.1, 0.02
# In years: the mean age, its standard deviation, which is the unit of the targets, and that of its noise.
AGE_MEAN, AGE_UNIT, AGE_NOISE = 40, 15, 5

VOCABULARY = 10_000
# Of so many words one is an own one of each thing that a text may say.
OWN_WORDS = 1_000
AGES, CALLINGS, GENDERS = 5, 2, ("female", "male")
FEATURES = 128
# How strongly a sentence may claim, and how far the levels are apart.
LEVELS, STEP = 8, 2.0
# The light channels of red, green and blue.
COLOURS = {"yellow": (True, True, False), "cyan": (False, True, True)}
# The light pixels, by places across and down and the period in pixels.
PATTERNS: Mapping[str, Callable[[Array, Array, int], Array]] = {
    "upright stripes": lambda x, _, period: _stripes(x, period),
    "level stripes": lambda _, y, period: _stripes(y, period),
    "rising stripes": lambda x, y, period: _stripes(x + y, period),
    "falling stripes": lambda x, y, period: _stripes(x - y, period),
    "checks": lambda x, y, period: _stripes(x, period) ^ _stripes(y, period),
}
STRIPES = tuple(PATTERNS)[:2]
PERIODS = {"fine": 4, "coarse": 8}


class Sample(NamedTuple):
    """Rows of a population, as in a `Split`; clean: the targets before their noise; seed: what drew them."""

    inputs: Array | Mapping[str, Array]
    targets: Array | Mapping[str, Array]
    clean: Array | Mapping[str, Array]
    seed: int


def question_answering(size: Size) -> Data:
    """A text and a question about it, one word as the answer: 50,000 rows, or 3,000 at the small size.

    Inputs `text` and `question`, (rows, 100) int32 each, or (rows, 20): word numbers below 10,000, 0 pads in
    front. Targets (rows,) int32: 500 answers, or 20. See `draw_questions`.
    """
    small = size == "small"
    topics, kinds = (5, 4) if small else (25, 20)
    sample = draw_questions(3_000 if small else 50_000, 20 if small else 100, topics, kinds)
    return _data(
        "question_answering",
        sample,
        [f"answer {topic}.{kind}" for topic in range(topics) for kind in range(kinds)],
        words={"text": VOCABULARY, "question": VOCABULARY},
        best=_best_of_classes(topics * kinds),
    )


def posts(size: Size) -> Data:
    """What a person posted, and the person's age, income and gender: 20,000 rows, or 400 at the small size.

    Inputs (rows, 500) int32: word numbers below 50,000, or (rows, 300) below 2,000; 0 pads in front. Targets
    `age`, (rows, 1) float32, (years - 40) / 15, of mean 0 and variance 1; `income`, (rows,) int32, a tenth of
    all incomes, the lowest first; `gender`, (rows, 1) int32. See `draw_posts`.
    """
    rows, length, words = (400, 300, 2_000) if size == "small" else (20_000, 500, 50_000)
    incomes = tuple(f"tenth {number}" for number in range(1, AGES * CALLINGS + 1))
    return _data(
        "posts",
        draw_posts(rows, length, words),
        (),
        outputs={"age": (), "income": incomes, "gender": GENDERS},
        words={"": words},
        best={
            "age_mse": (AGE_NOISE / AGE_UNIT) ** 2,
            **_best_of_classes(len(incomes), "income_"),
            **_best_of_classes(len(GENDERS), "gender_", GENDER_FLIPPED),
        },
    )


def sentence_similarity(size: Size) -> Data:
    """Two sentences: does the left one claim more than the right? 5,000 rows, or 1,000 at the small size.

    Inputs `left` and `right`, (rows, 50, 128) float32 each, or (rows, 12, 128): a vector a word. Targets
    (rows, 1) int32. See `draw_sentences`.
    """
    rows, length = (1_000, 12) if size == "small" else (5_000, 50)
    sample = draw_sentences(rows, length)
    return _data(
        "sentence_similarity", sample, ("left claims less", "left claims more"), best=_best_of_classes(2)
    )


def dual_camera(size: Size) -> Data:
    """What two cameras see, stripes that run up or across: 1,000 rows, or 100 at the small size.

    Inputs `left` and `right`, (rows, 250, 250, 3) uint8 each, or (rows, 71, 71, 3). Targets (rows,) int32:
    4 classes, a pair of ways each. See `draw_cameras`.
    """
    rows, side = (100, 71) if size == "small" else (1_000, 250)
    classes = [f"{left} and {right}" for left in STRIPES for right in STRIPES]
    return _data("dual_camera", draw_cameras(rows, side), classes, best=_best_of_classes(len(classes)))


def separable_images(size: Size) -> Data:
    """A texture, of 5 patterns and 2 colours: 20,000 rows, or 600 at the small size.

    Inputs (rows, 64, 64, 3) uint8, or (rows, 32, 32, 3). Targets (rows,) int32: 10 classes. See
    `draw_colours`.
    """
    rows, side = (600, 32) if size == "small" else (20_000, 64)
    classes = [f"{colour} {pattern}" for pattern in PATTERNS for colour in COLOURS]
    return _data("separable_images", draw_colours(rows, side), classes, best=_best_of_classes(len(classes)))


def inception_residual(size: Size) -> Data:
    """A texture, of 5 patterns and 2 periods: 50,000 rows, or 400 at the small size.

    Inputs (rows, 32, 32, 3) uint8, or (rows, 16, 16, 3). Targets (rows,) int32: 10 classes. See
    `draw_textures`.
    """
    rows, side = (400, 16) if size == "small" else (50_000, 32)
    classes = [f"{period} {pattern}" for pattern in PATTERNS for period in PERIODS]
    return _data(
        "inception_residual", draw_textures(rows, side), classes, best=_best_of_classes(len(classes))
    )


def draw_questions(rows: int, length: int, topics: int, kinds: int, seed: int = 0) -> Sample:
    """Texts of one topic each, questions of one kind each, both (rows, length) of word numbers below 10,000.

    Topic and kind are drawn apart, each value as likely; the clean answer is topic * kinds + kind, so either
    input alone leaves all topics, or all kinds, as likely.
    """
    rng = _generator(seed)
    topic, kind = rng.integers(0, topics, rows), rng.integers(0, kinds, rows)
    inputs = {
        "text": _texts(rng, [(topic, topics)], VOCABULARY, length),
        "question": _texts(rng, [(kind, kinds)], VOCABULARY, length),
    }
    clean = topic * kinds + kind
    return Sample(inputs, _flipped(rng, clean, topics * kinds), clean, seed)


def draw_posts(rows: int, length: int, words: int, seed: int = 0) -> Sample:
    """Texts that tell an age, a calling and a gender, (rows, length) of word numbers below `words`.

    All three are drawn apart, each value as likely: the clean age is 20, 30, 40, 50 or 60 years, and the
    second of two callings pays better at each age. So the clean income is 2 * (age / 10 - 2) + calling. The
    age gets noise of 5 years.
    """
    rng = _generator(seed)
    age, calling, gender = (rng.integers(0, count, rows) for count in (AGES, CALLINGS, len(GENDERS)))
    told = [(age, AGES), (calling, CALLINGS), (gender, len(GENDERS))]
    inputs = _texts(rng, told, words, length)
    years = 20 + 10 * age[:, None]
    clean = {
        "age": (years - AGE_MEAN) / AGE_UNIT,
        "income": age * CALLINGS + calling,
        "gender": gender[:, None],
    }
    targets = {
        "age": ((years - AGE_MEAN + rng.normal(0, AGE_NOISE, (rows, 1))) / AGE_UNIT).astype(np.float32),
        "income": _flipped(rng, clean["income"], AGES * CALLINGS),
        "gender": _flipped(rng, gender, len(GENDERS), GENDER_FLIPPED)[:, None],
    }
    return Sample(inputs, targets, clean, seed)


def draw_sentences(rows: int, length: int, seed: int = 0) -> Sample:
    """Pairs of sentences, (rows, length, 128) each, that say the same with different strength.

    A sentence claims something at one of 8 levels. The first number of each of its words is its level, in
    steps of 2 around 0, with uniform noise of up to half a step; the other 127 are Gaussian noise. The left
    one's level is none of the two outer ones, each other as likely, and the right one's the next above or
    below it, as likely: the clean target is 1 where it is below. So the left sentence alone tells nothing,
    and the right one alone only where its level is one of the two at either end, in a third of the rows.

    A model that concatenates what a shared layer makes of each sentence, with one sigmoid on it, can express
    this rule, as it adds up a number of each sentence. It cannot express that two sentences are the same in a
    symmetric sense: no sum of f(left) and g(right) is high where both or neither of two things hold, and
    low where one does.
    """
    rng = _generator(seed)
    left = rng.integers(1, LEVELS - 1, rows)
    clean = rng.integers(0, 2, rows)
    inputs = {
        "left": _sentences(rng, left, length),
        "right": _sentences(rng, left + 1 - 2 * clean, length),
    }
    return Sample(inputs, _flipped(rng, clean, 2)[:, None], clean[:, None], seed)


def draw_cameras(rows: int, side: int, seed: int = 0) -> Sample:
    """Pairs of pictures, (rows, side, side, 3) each, of stripes that run up or across, 8 pixels wide a pair.

    The two ways are drawn apart, each as likely; the clean class is 2 * left + right, so either picture alone
    leaves two classes as likely.
    """
    rng = _generator(seed)
    left, right = rng.integers(0, len(STRIPES), (2, rows))
    period, light = np.full(rows, PERIODS["coarse"]), np.ones((rows, 3), bool)
    inputs = {
        "left": _pictures(rng, left, period, light, side),
        "right": _pictures(rng, right, period, light, side),
    }
    clean = left * len(STRIPES) + right
    return Sample(inputs, _flipped(rng, clean, len(STRIPES) ** 2), clean, seed)


def draw_colours(rows: int, side: int, seed: int = 0) -> Sample:
    """Pictures that a pattern fills, (rows, side, side, 3), in yellow or cyan, of any phase.

    The clean class is 2 * pattern + colour, all as likely. Yellow is light in red and green, cyan in green
    and blue. The period is 4 or 8 pixels, and tells nothing.
    """
    rng = _generator(seed)
    pattern, colour = rng.integers(0, len(PATTERNS), rows), rng.integers(0, len(COLOURS), rows)
    period = rng.choice(list(PERIODS.values()), rows)
    light = np.array(list(COLOURS.values()))[colour]
    clean = pattern * len(COLOURS) + colour
    pictures = _pictures(rng, pattern, period, light, side)
    return Sample(pictures, _flipped(rng, clean, len(PATTERNS) * len(COLOURS)), clean, seed)


def draw_textures(rows: int, side: int, seed: int = 1) -> Sample:
    """Pictures that a pattern fills, (rows, side, side, 3), of any phase, light in all channels.

    The clean class is 2 * pattern + period, of 4 or 8 pixels, all as likely.
    """
    rng = _generator(seed)
    pattern, period = rng.integers(0, len(PATTERNS), rows), rng.integers(0, len(PERIODS), rows)
    pixels = np.array(list(PERIODS.values()))[period]
    clean = pattern * len(PERIODS) + period
    pictures = _pictures(rng, pattern, pixels, np.ones((rows, 3), bool), side)
    return Sample(pictures, _flipped(rng, clean, len(PATTERNS) * len(PERIODS)), clean, seed)


def _generator(seed: int) -> np.random.Generator:
    # Named, as numpy's default may change.
    return np.random.Generator(np.random.PCG64(seed))


def _data(name: str, sample: Sample, classes: Iterable[str], **more: Any) -> Data:
    parts = splits.three_ways(sample.inputs, sample.targets)
    return splits.data(name, f"generated: {name}, seed {sample.seed}", classes, parts, **more)


def _flipped(rng: np.random.Generator, clean: Array, classes: int, share: float = FLIPPED) -> Array:
    """The clean classes, (rows,), each with the probability `share` replaced by any other one, as int32."""
    other = (clean + rng.integers(1, classes, len(clean))) % classes
    return np.where(rng.random(len(clean)) < share, other, clean).astype(np.int32)


def _best_of_classes(classes: int, output: str = "", share: float = FLIPPED) -> dict[str, float]:
    """The best expected scores of classes that `_flipped` made, by the names of the metrics."""
    kept, each_other = 1 - share, share / (classes - 1)
    entropy = -kept * np.log(kept) - share * np.log(each_other)
    return {f"{output}accuracy": kept, f"{output}log_loss": float(entropy)}


def _texts(rng: np.random.Generator, said: Sequence[tuple[Array, int]], words: int, length: int) -> Array:
    """Texts, (rows, length) int32: a quarter of them words of each thing said, the others common.

    said: of each thing its value in each row, (rows,), and how many values there are. Each value of each
    thing has its own ones of the last word numbers, so a text tells it without doubt. The words come in any
    order. Of the common ones up to half are left out, and as many zeros pad the text in front.
    """
    rows, share, few = len(said[0][0]), length // 4, words // OWN_WORDS
    own = words - few * sum(count for _, count in said)
    texts = rng.integers(1, own, (rows, length), dtype=np.int32)
    for number, (values, count) in enumerate(said):
        drawn = rng.integers(0, few, (rows, share))
        texts[:, number * share : (number + 1) * share] = own + few * values[:, None] + drawn
        own += few * count
    common = length - share * len(said)
    texts[np.arange(length) >= length - rng.integers(0, common // 2 + 1, (rows, 1))] = 0
    texts = rng.permuted(texts, axis=1)
    return np.take_along_axis(texts, np.argsort(texts > 0, axis=1, kind="stable"), axis=1)


def _sentences(rng: np.random.Generator, levels: Array, length: int) -> Array:
    """Sentences, (rows, length, 128) float32, of these levels, (rows,); see `draw_sentences`."""
    words = rng.standard_normal((len(levels), length, FEATURES), dtype=np.float32)
    # No sums of floats here: their last bits would differ from machine to machine, and so the digests.
    noise = rng.random((len(levels), length), dtype=np.float32) - np.float32(0.5)
    words[:, :, 0] = STEP * (levels[:, None] - (LEVELS - 1) / 2 + noise)
    return words


def _pictures(rng: np.random.Generator, pattern: Array, period: Array, light: Array, side: int) -> Array:
    """Pictures, (rows, side, side, 3) uint8, of a lighter pattern on a ground, each in colours of its own.

    pattern: its number in `PATTERNS`; period: in pixels, even; (rows,) each. light: in which channels the
    pattern is lighter, (rows, 3). The ground has one colour of 0 to 63, the pattern one of 128 to 191 where
    it is lighter, and each pixel's noise adds 0 to 63: so 127 parts what is light from all else.
    """
    rows, rules = len(pattern), list(PATTERNS.values())
    pictures = rng.integers(0, 64, (rows, side, side, 3), dtype=np.uint8)
    colours = rng.integers(0, 64, (rows, 2, 3), dtype=np.uint8)
    colours[:, 1] += 128 * light.astype(np.uint8)
    across, down = rng.integers(0, period, (2, rows))
    y, x = np.ogrid[:side, :side]
    for row in range(rows):
        drawn = rules[pattern[row]](x + across[row], y + down[row], period[row])
        pictures[row] += np.take(colours[row], drawn, axis=0)
    return pictures


def _stripes(places: Array, period: int) -> Array:
    striped: Array = places % period < period // 2
    return striped
