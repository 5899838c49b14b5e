"""The fit engine: `model.fit` and Keras's callbacks are the oracle, and a trial hinders no other."""

import gc
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import keras
import numpy as np
import psutil
import pytest

from pipeline.datasets import splits
from pipeline.engines.engine import Event
from pipeline.engines.fit import FitEngine
from pipeline.metrics import score
from pipeline.values import Budget, Candidate, Data, FoldScore, Objective, Outcome, Progress, Settings, Split

OBJECTIVE = Objective("val_log_loss", "minimize")
SETTINGS = {"learning_rate": 0.05, "batch_size": 16, "shuffle": True, "dropout": 0.2, "units": 8}


def _budget(**changed: object) -> Budget:
    values: dict = {
        "epochs": 6,
        "monitor": "val_loss",
        "mode": "min",
        "patience": 10,
        "min_delta": 0.0,
        "plateau_factor": 0.5,
        "plateau_patience": 2,
        "plateau_min_delta": 1e-4,
        "plateau_cooldown": 0,
        "plateau_floor": 0.0,
    }
    return Budget(**{**values, **changed})


def build(settings: Settings, data: Data) -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input(data.train.inputs.shape[1:]),
            keras.layers.Dense(settings["units"], activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(settings["dropout"]),
            keras.layers.Dense(len(data.classes), activation="softmax"),
        ]
    )
    model.compile(
        keras.optimizers.Adam(settings["learning_rate"]),
        "sparse_categorical_crossentropy",
        metrics=[
            keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
            keras.metrics.SparseCategoricalCrossentropy(name="log_loss"),
        ],
    )
    return model


@pytest.fixture(scope="module")
def data() -> Data:
    rng = np.random.default_rng(0)
    targets = np.repeat(np.arange(3), 40).astype(np.int32)
    inputs = (rng.normal(size=(120, 4)) + targets[:, None]).astype(np.float32)
    return splits.data("blobs", "made up", "abc", splits.three_ways(inputs, targets))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def run(engine: FitEngine, candidate: Candidate) -> list[Event]:
    """All events of one trial."""
    engine.add(candidate)
    events: list[Event] = []
    while not engine.free():
        events += engine.step()
    return events


def train(
    data: Data | Sequence[Data], folder: Path, settings: dict | None = None, **more: object
) -> list[Event]:
    """All events of a trial in an engine of its own; more: `build`, `number`, `seed`, parts of the budget."""
    builder = more.pop("build", build)
    candidate = Candidate(more.pop("number", 0), more.pop("seed", 7), {**SETTINGS, **(settings or {})})
    folds = [data] if isinstance(data, Data) else data
    with closing(FitEngine(builder, folds, _budget(**more), OBJECTIVE, folder)) as engine:
        return run(engine, candidate)


def curve(events: Sequence[Event], name: str) -> list[float]:
    return [event.metrics[name] for event in events if isinstance(event, Progress)]


def by_hand(data: Data, settings: dict, seed: int, **budget: object) -> tuple[keras.Model, dict]:
    """What a person would write: `model.fit` with Keras's callbacks."""
    limits = _budget(**budget)
    # The engine derives fold 0's seed of the trial's, so that folds differ.
    keras.utils.set_random_seed(int(np.random.SeedSequence([seed, 0]).generate_state(1)[0]))
    model = build(settings, data)
    stopping = keras.callbacks.EarlyStopping(
        monitor=limits.monitor, patience=limits.patience, restore_best_weights=True
    )
    plateau = keras.callbacks.ReduceLROnPlateau(
        monitor=limits.monitor, factor=limits.plateau_factor, patience=limits.plateau_patience
    )
    history = model.fit(
        data.train.inputs,
        data.train.targets,
        batch_size=settings["batch_size"],
        epochs=limits.epochs,
        validation_data=(data.validation.inputs, data.validation.targets),
        callbacks=[plateau, stopping],
        verbose=0,
    )
    return model, history.history | {"best_epoch": stopping.best_epoch}


@pytest.mark.parametrize(
    "budget",
    [{}, {"epochs": 40, "patience": 3}, {"epochs": 12, "plateau_patience": 1, "plateau_factor": 0.1}],
)
def test_equals_model_fit_with_keras_callbacks(data: Data, folder: Path, budget: dict) -> None:
    events = train(data, folder, seed=3, **budget)
    model, history = by_hand(data, SETTINGS, seed=3, **budget)
    outcome = events[-1]
    assert isinstance(outcome, Outcome)
    assert outcome.best_epoch == history["best_epoch"]
    assert outcome.epochs == len(history["loss"])
    for name in ("loss", "val_loss", "accuracy", "val_accuracy", "learning_rate"):
        # The same program on the same seeds; threads may add in another order, which the steps amplify.
        np.testing.assert_allclose(curve(events, name), history[name], rtol=1e-3, atol=1e-5, err_msg=name)
    saved = keras.models.load_model(outcome.model_file)
    for ours, theirs in zip(saved.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-2, atol=1e-3)


def test_best_weights_are_what_is_saved_and_scored(data: Data, folder: Path) -> None:
    # Long enough to overfit 72 rows, so that the last epoch is not the best one.
    events = train(data, folder, {"dropout": 0.0, "units": 64}, epochs=40, patience=40)
    outcome = events[-1]
    assert isinstance(outcome, Outcome)
    assert outcome.best_epoch == int(np.argmin(curve(events, "val_loss"))) < 39
    assert outcome.value == curve(events, "val_log_loss")[outcome.best_epoch]
    model = keras.models.load_model(outcome.model_file)
    predictions = model.predict(data.validation.inputs, verbose=0)
    np.testing.assert_allclose(np.load(outcome.predictions_file), predictions, rtol=1e-5, atol=1e-6)
    # Both are means over 24 rows of float32 logarithms.
    assert score("log_loss", data.validation.labels, predictions) == pytest.approx(outcome.value, rel=1e-4)


def test_progress_comes_epoch_by_epoch(data: Data, folder: Path) -> None:
    with closing(FitEngine(build, [data], _budget(epochs=3), OBJECTIVE, folder)) as engine:
        engine.add(Candidate(5, 0, SETTINGS))
        assert engine.free() == 0
        steps = [engine.step() for _ in range(4)]
        assert [[type(event) for event in step] for step in steps] == [[Progress]] * 3 + [[Outcome]]
        assert [step[0].epoch for step in steps[:3]] == [0, 1, 2]
        assert all(step[0].number == 5 for step in steps)
        assert engine.free() == 1
        assert engine.step() == ()


def test_a_dropped_trial_ends_without_outcome_and_the_next_is_unharmed(data: Data, folder: Path) -> None:
    alone = train(data, folder, number=1, seed=11)
    with closing(FitEngine(build, [data], _budget(), OBJECTIVE, folder)) as engine:
        engine.add(Candidate(0, 10, SETTINGS))
        engine.step()
        engine.drop(0)
        assert engine.free() == 1
        after = run(engine, Candidate(1, 11, SETTINGS))
    np.testing.assert_allclose(curve(after, "loss"), curve(alone, "loss"), rtol=1e-3)


def test_a_trial_dropped_before_its_first_epoch_ends(data: Data, folder: Path) -> None:
    with closing(FitEngine(build, [data], _budget(epochs=1000), OBJECTIVE, folder)) as engine:
        engine.add(Candidate(0, 10, SETTINGS))
        engine.drop(0)
        assert engine.free() == 1
        with pytest.raises(RuntimeError, match="trial 0 is not running"):
            engine.drop(0)


def test_a_second_trial_is_not_admitted(data: Data, folder: Path) -> None:
    with closing(FitEngine(build, [data], _budget(), OBJECTIVE, folder)) as engine:
        engine.add(Candidate(0, 0, SETTINGS))
        with pytest.raises(RuntimeError, match="one trial at a time"):
            engine.add(Candidate(1, 0, SETTINGS))


def test_a_seed_gives_the_same_trial_and_another_seed_another(data: Data, folder: Path) -> None:
    first, again, other = (train(data, folder, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_allclose(curve(first, "loss"), curve(again, "loss"), rtol=1e-3)
    assert curve(first, "loss")[0] != pytest.approx(curve(other, "loss")[0], rel=1e-3)


def test_a_diverging_trial_fails_with_its_reason(data: Data, folder: Path) -> None:
    (*_, outcome) = train(data, folder, {"learning_rate": 1e38}, build=_without_batch_normalization)
    assert isinstance(outcome, Outcome)
    assert outcome.failure.startswith("diverged: ")
    assert "in epoch" in outcome.failure
    assert outcome.model_file is None


def _without_batch_normalization(settings: Settings, data: Data) -> keras.Model:
    layers = [keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(3, activation="softmax")]
    model = keras.Sequential(layers)
    metrics = [keras.metrics.SparseCategoricalCrossentropy(name="log_loss")]
    optimizer = keras.optimizers.SGD(settings["learning_rate"])
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=metrics)
    return model


def _raising(settings: Settings, data: Data) -> keras.Model:
    raise LookupError("no such layer\nand more lines")


def test_a_model_that_cannot_be_built_fails_with_its_reason_and_traceback(data: Data, folder: Path) -> None:
    (outcome,) = train(data, folder, build=_raising)
    assert isinstance(outcome, Outcome)
    assert outcome.failure == "LookupError: no such layer"
    assert "in _raising" in outcome.detail


def test_the_engine_outlives_a_failed_trial(data: Data, folder: Path) -> None:
    def sometimes(settings: Settings, data: Data) -> keras.Model:
        return _raising(settings, data) if settings["units"] == 1 else build(settings, data)

    with closing(FitEngine(sometimes, [data], _budget(epochs=1), OBJECTIVE, folder)) as engine:
        failed = run(engine, Candidate(0, 0, {**SETTINGS, "units": 1}))[-1]
        completed = run(engine, Candidate(1, 0, SETTINGS))[-1]
    assert isinstance(failed, Outcome)
    assert isinstance(completed, Outcome)
    assert failed.failure
    assert not completed.failure


def test_shuffle_off_keeps_the_row_order(data: Data, folder: Path) -> None:
    without = {"shuffle": False, "dropout": 0.0}
    # Rows sorted by class make the first batches one class: the loss differs from a shuffled epoch's.
    order = np.argsort(data.train.labels, kind="stable")
    ordered = Data(
        data.name, data.source, data.classes, data.train.take(order), data.validation, data.test, data.digests
    )
    shuffled = train(ordered, folder, {**without, "shuffle": True}, epochs=1)
    unshuffled = [train(ordered, folder, without, epochs=1) for _ in range(2)]
    assert curve(unshuffled[0], "loss")[0] == pytest.approx(curve(unshuffled[1], "loss")[0], rel=1e-5)
    assert curve(unshuffled[0], "loss")[0] != pytest.approx(curve(shuffled, "loss")[0], rel=1e-3)


def test_folds_are_scored_by_their_mean_and_leave_no_model(data: Data, folder: Path) -> None:
    folds = splits.folds(data, 3)
    events = train(folds, folder, epochs=2)
    scores = [event.value for event in events if isinstance(event, FoldScore)]
    outcome = events[-1]
    assert isinstance(outcome, Outcome)
    assert len(scores) == 3
    assert outcome.value == pytest.approx(np.mean(scores))
    assert outcome.epochs == 6
    assert outcome.model_file is None
    assert [event.fold for event in events if isinstance(event, Progress)] == [0, 0, 1, 1, 2, 2]


def test_a_trial_with_folds_can_be_dropped_between_two(data: Data, folder: Path) -> None:
    with closing(FitEngine(build, splits.folds(data, 3), _budget(epochs=1), OBJECTIVE, folder)) as engine:
        engine.add(Candidate(0, 0, SETTINGS))
        events = [*engine.step(), *engine.step()]
        assert isinstance(events[-1], FoldScore)
        engine.drop(0)
        assert engine.free() == 1


def test_one_sigmoid_is_recorded_as_two_classes(folder: Path) -> None:
    rng = np.random.default_rng(1)
    targets = rng.integers(0, 2, 50).astype(np.int32)
    parts = splits.three_ways(rng.normal(size=(50, 4)).astype(np.float32), targets)
    column = tuple(Split(part.inputs, part.targets[:, None]) for part in parts)
    two = splits.data("two", "made up", ("no", "yes"), (column[0], column[1], column[2]))
    (*_, outcome) = train(two, folder, build=_binary, epochs=1)
    assert isinstance(outcome, Outcome)
    predictions = np.load(outcome.predictions_file)
    assert predictions.shape == (10, 2)
    np.testing.assert_allclose(predictions.sum(axis=1), 1.0, rtol=1e-6)


def _binary(settings: Settings, data: Data) -> keras.Model:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, activation="sigmoid")])
    metrics = [keras.metrics.BinaryCrossentropy(name="log_loss")]
    model.compile("adam", "binary_crossentropy", metrics=metrics)
    return model


@pytest.fixture
def flat() -> psutil.Process:
    gc.collect()
    return psutil.Process()


@pytest.mark.slow
def test_memory_stays_flat_over_trials(data: Data, folder: Path, flat: psutil.Process) -> None:
    sizes = []
    with closing(FitEngine(build, [data], _budget(epochs=2), OBJECTIVE, folder)) as engine:
        for number in range(60):
            run(engine, Candidate(number, number, SETTINGS))
            sizes.append(flat.memory_info().rss / 2**20)
    # The first trials fill caches. A trial that is not freed costs 6 MiB, 40 of them 240; the allocator
    # itself moves by some MiB.
    assert sizes[-1] < sizes[19] + 30, f"MiB after trial 20: {sizes[19]:.0f}, after 60: {sizes[-1]:.0f}"
