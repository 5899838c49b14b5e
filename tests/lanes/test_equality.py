"""Lanes equal `model.fit` on JAX: the first epoch of every named task in float32, and every fold."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lanes_harness import (
    OBJECTIVE,
    Trial,
    blobs,
    budget,
    data_of,
    each,
    in_lanes,
    lanes_engine,
    mlp,
    one_by_one,
    relative,
    replayed,
)

from pipeline import space, tasks
from pipeline.datasets import splits
from pipeline.datasets.keras_sets import IMDB_SEQUENCE_WORDS as WORDS
from pipeline.values import Candidate, Data, Split

# What float32 allows. A number is rounded by 6e-8 relative; a sum of n of them by sqrt(n) of that, 6e-6 for
# the 10,000 words of an IMDB row. The few steps of an epoch amplify it, most where Adam's first steps make a
# full step of a gradient that is nothing but rounding, such as of a bias before a BatchNormalization: it
# moves the validation loss through the moving mean, which lags behind. So training agrees better.
LOSS, VALIDATION_LOSS = 2e-5, 2e-4
# Deep models amplify it most: one rounding of the weights moves the loss of two steps by up to 4e-5 in
# separable_images, 3e-5 in posts and 9e-3 in inception_residual, and of one step by 1e-6 in each. So an epoch
# of theirs has one step, and those of the tests in float64 have more.
ONE_STEP = ("posts", "dual_camera", "separable_images", "inception_residual")
# Rows small enough for a test: the last batch of each is smaller than the others, if there are any.
ROWS = {
    "iris": (90, 30),
    "digits": (100, 140),
    "mnist": (70, 20),
    "fashion_mnist": (100, 50),
    "imdb": (600, 60),
    "imdb_conv1d": (48, 20),
    "question_answering": (150, 40),
    "posts": (18, 7),
    "sentence_similarity": (80, 30),
    "dual_camera": (6, 5),
    "separable_images": (24, 20),
    "inception_residual": (24, 20),
}
# Of the tasks whose published batches would be all of those rows.
BATCHES = {"question_answering": 32, "sentence_similarity": 16}
# Of the large ones, whose convolutions get a prescribed form: to measure each would take minutes.
PRESCRIBED = {
    "imdb_conv1d": 32,
    "posts": 12,
    "dual_camera": 4,
    "separable_images": 16,
    "inception_residual": 16,
}
DOWNLOADED = {"mnist", "fashion_mnist", "imdb", "imdb_conv1d"}


def named(name: str) -> Data:
    """The task's data: its own rows, or where they are downloaded drawn ones of the same form."""
    learn, check = ROWS[name]
    if name not in DOWNLOADED:
        data = tasks.find(name).load("full" if name in ("iris", "digits") else "small")
        rng = np.random.default_rng(1)
        return replace(
            data,
            train=data.train.take(rng.permutation(data.train.rows)[:learn]),
            validation=data.validation.take(rng.permutation(data.validation.rows)[:check]),
        )
    rng = np.random.default_rng(0)

    def split(rows: int) -> Split:
        if name == "imdb":
            inputs = (rng.random((rows, 10_000), dtype=np.float32) < 0.015).astype(np.uint8)
            return Split(inputs, rng.integers(0, 2, (rows, 1)).astype(np.int32))
        if name == "imdb_conv1d":
            words = rng.integers(0, WORDS, (rows, 500)).astype(np.int32)
            return Split(words, rng.integers(0, 2, (rows, 1)).astype(np.int32))
        targets = rng.integers(0, 10, rows).astype(np.int32)
        images = rng.integers(0, 100, (rows, 28, 28, 1)) + 15 * targets[:, None, None, None]
        return Split(images.astype(np.uint8), targets)

    data = data_of(split(learn), split(check), 2 if name.startswith("imdb") else 10)
    return replace(data, words={"": WORDS}) if name == "imdb_conv1d" else data


def lanes_of(name: str) -> list[dict]:
    """The baseline, with numbers of its own in each lane."""
    task = tasks.find(name)
    found = space.read(space.file_of(name), task.parameters, task.metrics)
    base = {parameter.name: parameter.default for parameter in task.parameters}
    base |= dict(found.baseline)
    base |= {"batch_normalization": True, "dropout": 0.0}
    base["batch_size"] = (BATCHES | PRESCRIBED).get(name, base["batch_size"])
    activity = {"activity_l1": 1e-4} if "activity_l1" in base else {}
    nothing = {"l1": 0.0, "l2": 0.0, "max_norm": 1e6, **({"activity_l1": 0.0} if activity else {})}
    return [
        {**base, **nothing},
        {**base, "l1": 1e-5, "l2": 1e-3, "max_norm": 1.0, "bn_momentum": 0.9, "bn_epsilon": 1e-2, **activity},
        {**base, **nothing, "l2": 1e-2, "max_norm": 0.5, "bn_momentum": 0.5, "bn_epsilon": 1e-5},
    ]


@pytest.fixture
def prescribe(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Spares the measurements of a large task's forms."""

    def prescribed(name: str) -> None:
        if name in PRESCRIBED:
            monkeypatch.setenv("PIPELINE_LOWERING", "patches")

    return prescribed


# Convolutions and recurrent layers take longest to compile, those of an Xception many minutes.
QUICK = ("iris", "fashion_mnist", "imdb")
PATIENCE_SECONDS = 1500
MARKS = {name: pytest.mark.slow for name in tasks.NAMES if name not in QUICK}
MARKS["dual_camera"] = (pytest.mark.slow, pytest.mark.timeout(2 * PATIENCE_SECONDS))


def judged(name: str, candidates: list[Candidate]) -> list[Candidate]:
    """Those that `model.fit` trains too; of an Xception one, whose numbers are all on."""
    return candidates[1:2] if name == "dual_camera" else candidates


@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS.get(name, ())) for name in tasks.NAMES])
def test_the_first_epoch_of_a_task_equals_model_fit(
    name: str, tmp_path: Path, prescribe: Callable[[str], None]
) -> None:
    prescribe(name)
    data, task = named(name), tasks.find(name)
    if name in ONE_STEP:
        data = replace(data, train=data.train.take(np.arange(PRESCRIBED[name])))
    candidates = [Candidate(n, 50 + n, settings) for n, settings in enumerate(lanes_of(name))]
    limits = budget(epochs=1)
    engine = lanes_engine(task.build, data, limits, tmp_path, 4, seed=3)
    ours = in_lanes(engine, candidates, PATIENCE_SECONDS)
    assert {trial.refused for trial in ours.values()} == {""}
    assert len({trial.outcome.replay for trial in ours.values()}) == 1, "they shared one program"
    again = replayed(judged(name, candidates), ours)
    for number, trial in one_by_one(task.build, data, limits, tmp_path / "fit", again).items():
        assert_equal(ours[number], trial)
    losses = [trial.curve[0]["loss"] for trial in ours.values()]
    # The numbers do something: the lanes differ by far more than the tolerance.
    assert min(abs(np.diff(sorted(losses)))) > 20 * LOSS


def assert_equal(ours: Trial, theirs: Trial) -> None:
    for fold, curve in ours.curves.items():
        for name, difference in relative(curve, theirs.curves[fold]).items():
            if "accuracy" in name:
                # A count: one row on a boundary may fall to the other side.
                assert difference <= 1 / 20
            else:
                assert difference <= (VALIDATION_LOSS if name.startswith("val_") else LOSS), name


FOLDS = 3


@pytest.fixture(scope="module")
def folds() -> tuple[Data, ...]:
    """61 rows: the folds learn from 40, 41 and 41."""
    whole = blobs(train=61)
    found = splits.folds(whole, FOLDS)
    assert sorted(fold.train.rows for fold in found) == [40, 41, 41]
    return found


@pytest.fixture(scope="module")
def whole() -> Split:
    return blobs(train=61).train


def test_each_fold_equals_model_fit_and_the_trial_has_their_mean(
    folds: tuple[Data, ...], whole: Split, tmp_path: Path
) -> None:
    candidates = each({"shuffle": False}, {"shuffle": False, "l2": 0.1, "bn_momentum": 0.5})
    limits = budget(epochs=1)
    ours = in_lanes(lanes_engine(mlp, folds, limits, tmp_path, 6, whole=whole), candidates)
    # Without shuffling, so that the trial's own orders, which fit takes for folds, are those of the program.
    theirs = one_by_one(mlp, folds, limits, tmp_path / "fit", candidates)
    for number, trial in ours.items():
        assert sorted(trial.curves) == [0, 1, 2]
        assert_equal(trial, theirs[number])
        assert sorted(trial.scores) == [0, 1, 2], "the score of each fold is told before the outcome"
        assert trial.outcome.value == pytest.approx(np.mean(list(trial.scores.values())), rel=1e-12)
        assert trial.outcome.value == pytest.approx(theirs[number].outcome.value, rel=VALIDATION_LOSS)
        assert trial.outcome.epochs == FOLDS
        assert trial.outcome.model_file is None
        for fold, score in trial.scores.items():
            assert score == trial.curves[fold][0][OBJECTIVE.metric]


def test_folds_of_a_trial_stop_each_at_its_own_epoch(
    folds: tuple[Data, ...], whole: Split, tmp_path: Path
) -> None:
    limits = budget(epochs=40, patience=2)
    candidates = each({"learning_rate": 0.05}, {"learning_rate": 0.02})
    ours = in_lanes(lanes_engine(mlp, folds, limits, tmp_path, 4, whole=whole), candidates)
    for trial in ours.values():
        lengths = [len(curve) for curve in trial.curves.values()]
        assert trial.outcome.epochs == sum(lengths)
        best = [min(metrics["val_loss"] for metrics in curve) for curve in trial.curves.values()]
        assert trial.outcome.value == pytest.approx(np.mean(best), rel=1e-6)
        assert sorted(trial.scores) == [0, 1, 2]


def test_a_diverging_fold_ends_the_trial_and_leaves_the_others(
    folds: tuple[Data, ...], whole: Split, tmp_path: Path
) -> None:
    candidates = each({}, {"learning_rate": 1e38, "max_norm": 1e38}, {})
    ours = in_lanes(lanes_engine(mlp, folds, budget(epochs=4), tmp_path, 6, whole=whole), candidates)
    assert ours[1].outcome.failure.startswith("diverged: ")
    assert [ours[number].outcome.failure for number in (0, 2)] == ["", ""]
    assert [sorted(ours[number].curves) for number in (0, 2)] == [[0, 1, 2]] * 2
