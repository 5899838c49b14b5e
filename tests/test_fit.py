"""The fit engine: `model.fit` and Keras's callbacks are the oracle, and a trial hinders no other."""

import gc
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import keras
import numpy as np
import psutil
import pytest

from pipeline.datasets import splits
from pipeline.engines import rows
from pipeline.engines.engine import Event
from pipeline.engines.fit import FitEngine
from pipeline.metrics import score, score_of
from pipeline.values import (
    Budget,
    Candidate,
    Data,
    FoldScore,
    Metric,
    Objective,
    Outcome,
    Progress,
    Replay,
    Settings,
    Split,
)

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
    """All events of a trial in an engine of its own.

    more: `build`, `objective`, `number`, `seed`, `replay`, parts of the budget.
    """
    builder, objective = more.pop("build", build), more.pop("objective", OBJECTIVE)
    candidate = Candidate(
        more.pop("number", 0), more.pop("seed", 7), {**SETTINGS, **(settings or {})}, more.pop("replay", None)
    )
    folds = [data] if isinstance(data, Data) else data
    with closing(FitEngine(builder, folds, _budget(**more), objective, folder)) as engine:
        return run(engine, candidate)


def curve(events: Sequence[Event], name: str) -> list[float]:
    return [event.metrics[name] for event in events if isinstance(event, Progress)]


def seeded(data: Data, settings: dict, seed: int, builder: Callable = build) -> keras.Model:
    """The model that the engine starts from."""
    # The engine derives fold 0's seed of the trial's, so that folds differ.
    keras.utils.set_random_seed(int(np.random.SeedSequence([seed, 0]).generate_state(1)[0]))
    return builder(settings, data)


def by_hand(
    data: Data, settings: dict, seed: int, class_weight: dict | None = None, **more: object
) -> tuple[keras.Model, dict]:
    """What a person would write: `model.fit` with Keras's callbacks; more: `build`, parts of the budget."""
    model = seeded(data, settings, seed, more.pop("build", build))
    limits = _budget(**more)
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
        sample_weight=data.train.weights,
        class_weight=class_weight,
        validation_data=(data.validation.inputs, data.validation.targets, data.validation.weights),
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
        engine.drop(0)
        assert engine.free() == 1


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


def test_a_model_that_ends_the_program_ends_its_trial_alone(data: Data, folder: Path) -> None:
    def ends(settings: Settings, data: Data) -> keras.Model:
        sys.exit(0)

    (outcome,) = train(data, folder, build=ends)
    assert isinstance(outcome, Outcome)
    assert outcome.failure == "SystemExit: 0"


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


def weighed(data: Data) -> Data:
    """The data with weights on its rows, some of them 0."""

    def part(split: Split, seed: int) -> Split:
        return replace(split, weights=np.random.default_rng(seed).integers(0, 5, split.rows) / 2)

    return replace(data, train=part(data.train, 1), validation=part(data.validation, 2))


def assert_same_curves(events: Sequence[Event], history: dict, names: Sequence[str]) -> None:
    for name in names:
        # The same program on the same seeds; threads may add in another order, which the steps amplify.
        np.testing.assert_allclose(curve(events, name), history[name], rtol=1e-3, atol=1e-5, err_msg=name)


def test_row_weights_are_keras_sample_weights(data: Data, folder: Path) -> None:
    events = train(weighed(data), folder, seed=3)
    _, history = by_hand(weighed(data), SETTINGS, seed=3)
    assert_same_curves(events, history, ("loss", "val_loss", "val_accuracy"))
    _, without = by_hand(data, SETTINGS, seed=3)
    for name in ("loss", "val_loss"):
        assert np.abs(np.subtract(without[name], history[name])).min() > 0.01


def test_class_weights_on_rows_are_keras_class_weights(data: Data, folder: Path) -> None:
    by_class = {0: 4.0, 2: 0.25}
    events = train(replace(data, train=data.train.weighted(by_class)), folder, seed=3)
    _, history = by_hand(data, SETTINGS, seed=3, class_weight=by_class)
    assert_same_curves(events, history, ("loss", "val_loss", "val_accuracy"))
    _, without = by_hand(data, SETTINGS, seed=3)
    assert np.abs(np.subtract(without["loss"], history["loss"])).min() > 0.01


def by_name(data: Data) -> Data:
    """The data with two inputs, of different widths, and two targets."""

    def part(split: Split) -> Split:
        inputs = {"left": split.inputs[:, :1], "right": split.inputs[:, 1:]}
        return Split(inputs, {"kind": split.targets, "first": (split.targets == 0)[:, None].astype(np.int32)})

    return replace(data, train=part(data.train), validation=part(data.validation))


def _two_by_two(outputs: type) -> Callable[[Settings, Data], keras.Model]:
    def two_by_two(settings: Settings, data: Data) -> keras.Model:
        left, right = keras.Input((1,), name="left"), keras.Input((3,), name="right")
        hidden = keras.layers.Dense(8, activation="relu")(keras.layers.Concatenate()([left, right]))
        kind = keras.layers.Dense(3, activation="softmax", name="kind")(hidden)
        first = keras.layers.Dense(1, activation="sigmoid", name="first")(hidden)
        answers = {"kind": kind, "first": first} if outputs is dict else [kind, first]
        model = keras.Model([left, right], answers)
        model.compile(
            keras.optimizers.Adam(settings["learning_rate"]),
            {"kind": "sparse_categorical_crossentropy", "first": "binary_crossentropy"},
            metrics={"kind": ["accuracy"], "first": ["accuracy"]},
        )
        return model

    return two_by_two


TWO_CURVES = ("loss", "val_loss", "kind_accuracy", "val_kind_accuracy", "val_first_accuracy")


@pytest.mark.parametrize("outputs", [dict, list])
@pytest.mark.parametrize("weights", [False, True])
def test_inputs_and_outputs_go_by_name_and_leave_no_predictions(
    data: Data, folder: Path, outputs: type, weights: bool
) -> None:
    named = weighed(by_name(data)) if weights else by_name(data)
    builder = _two_by_two(outputs)
    objective = Objective("val_kind_accuracy", "maximize")
    events = train(named, folder, seed=3, build=builder, objective=objective)
    # Keras takes weights of targets by name only where the answers have names.
    _, history = by_hand(named, SETTINGS, seed=3, build=_two_by_two(dict))
    assert_same_curves(events, history, TWO_CURVES)
    outcome = events[-1]
    assert isinstance(outcome, Outcome)
    assert outcome.predictions_file is None
    assert [file.name for file in (folder / "0").iterdir()] == ["model.keras"]
    saved = keras.models.load_model(outcome.model_file)
    answers = saved.predict(dict(named.validation.inputs), verbose=0)
    first, kind = sorted((answer.shape for answer in keras.tree.flatten(answers)), key=lambda s: s[1])
    assert (first, kind) == ((24, 1), (24, 3))


def test_outputs_that_the_data_name_leave_predictions_and_fixed_means(data: Data, folder: Path) -> None:
    named = replace(by_name(data), classes=(), outputs={"kind": ("a", "b", "c"), "first": ("no", "yes")})
    mean = ("mean", (("kind_accuracy", 0.75), ("first_accuracy", 0.25)))
    objective = Objective("val_mean", "maximize", (mean,))
    events = train(
        named, folder, build=_two_by_two(dict), objective=objective, monitor="val_mean", mode="max", epochs=3
    )
    for prefix in ("", "val_"):
        kind, first = (np.array(curve(events, f"{prefix}{name}_accuracy")) for name in ("kind", "first"))
        np.testing.assert_allclose(curve(events, f"{prefix}mean"), 0.75 * kind + 0.25 * first, rtol=1e-12)
    outcome = events[-1]
    assert isinstance(outcome, Outcome)
    # Keras's early stopping watched the mean, too.
    assert outcome.best_epoch == int(np.argmax(curve(events, "val_mean")))
    assert outcome.value == max(curve(events, "val_mean"))
    kept, model = np.load(outcome.predictions_file), keras.models.load_model(outcome.model_file)
    answers = model.predict(dict(named.validation.inputs), verbose=0)
    np.testing.assert_allclose(kept["kind"], answers["kind"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(kept["first"][:, 1:], answers["first"], rtol=1e-5, atol=1e-6)
    metric = Metric("kind_accuracy", "maximize", "kind")
    of_best = curve(events, "val_kind_accuracy")[outcome.best_epoch]
    assert score_of(metric, named.validation.targets, kept) == pytest.approx(of_best, abs=1e-6)


def test_inputs_by_name_and_one_output_leave_predictions(data: Data, folder: Path) -> None:
    def one_output(settings: Settings, data: Data) -> keras.Model:
        whole = _two_by_two(dict)(settings, data)
        model = keras.Model(whole.inputs, whole.output["kind"])
        metrics = [keras.metrics.SparseCategoricalCrossentropy(name="log_loss")]
        model.compile("adam", "sparse_categorical_crossentropy", metrics=metrics)
        return model

    def part(split: Split) -> Split:
        return replace(split, targets=split.targets["kind"])

    named = by_name(data)
    named = replace(named, train=part(named.train), validation=part(named.validation))
    (*_, outcome) = train(named, folder, build=one_output, epochs=1)
    assert isinstance(outcome, Outcome)
    assert np.load(outcome.predictions_file).shape == (24, 3)


REPLAY = Replay(seed=9, program=4, first_epoch=5, lanes=8)


def batch_by_batch(data: Data, settings: dict, seed: int, builder: Callable = build) -> tuple[dict, list]:
    """What REPLAY asks for as a loop, and the weights after each epoch."""
    model = seeded(data, settings, seed, builder)
    history: dict = {"val_loss": []}
    weights = []
    for epoch in range(6):
        order = rows.order(9, 4, 5 + epoch, data.train.rows, shuffle=settings["shuffle"])
        for start in range(0, data.train.rows, settings["batch_size"]):
            batch = data.train.take(order[start : start + settings["batch_size"]])
            # Keras makes arrays that it cuts itself as wide as its own numbers.
            sample_weight = None if batch.weights is None else batch.weights.astype(np.float32)
            model.train_on_batch(batch.inputs, batch.targets, sample_weight=sample_weight)
        part = data.validation
        scores = model.evaluate(
            part.inputs, part.targets, sample_weight=part.weights, return_dict=True, verbose=0
        )
        history["val_loss"].append(scores["loss"])
        weights.append(model.get_weights())
    return history, weights


# 72 rows: the last batch has 2 rows, 22, and all of them.
@pytest.mark.parametrize(
    ("batch_size", "shuffle", "weights"),
    [(7, True, False), (7, False, True), (50, True, True), (50, False, False), (100, True, False)],
)
def test_a_replay_trains_on_the_batches_of_its_program(
    data: Data, folder: Path, batch_size: int, shuffle: bool, weights: bool
) -> None:
    settings = {**SETTINGS, "batch_size": batch_size, "shuffle": shuffle}
    some = weighed(data) if weights else data
    events = train(some, folder, settings, seed=3, replay=REPLAY, plateau_patience=100)
    history, each = batch_by_batch(some, settings, seed=3)
    assert_same_curves(events, history, ("val_loss",))
    outcome = events[-1]
    assert isinstance(outcome, Outcome)
    saved = keras.models.load_model(outcome.model_file)
    for ours, theirs in zip(saved.get_weights(), each[outcome.best_epoch], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("outputs", [dict, list])
def test_a_replay_takes_rows_by_name(data: Data, folder: Path, outputs: type) -> None:
    named, builder = weighed(by_name(data)), _two_by_two(outputs)
    objective = Objective("val_kind_accuracy", "maximize")
    events = train(
        named, folder, seed=3, build=builder, objective=objective, replay=REPLAY, plateau_patience=100
    )
    history, _ = batch_by_batch(named, SETTINGS, seed=3, builder=_two_by_two(dict))
    assert_same_curves(events, history, ("val_loss",))


@pytest.mark.parametrize("other", [{"seed": 10}, {"program": 5}, {"first_epoch": 6}])
def test_another_replay_trains_in_another_order(data: Data, folder: Path, other: dict) -> None:
    few = {"batch_size": 4}
    first = train(data, folder, few, replay=REPLAY, epochs=1)
    again = train(data, folder, few, replay=replace(REPLAY, **other), epochs=1)
    assert curve(first, "val_loss")[0] != pytest.approx(curve(again, "val_loss")[0], rel=1e-2)


def test_a_replay_knows_the_programs_epoch_of_each_of_its_own() -> None:
    replay = replace(REPLAY, turns=((3, 20), (5, 0)))
    assert [replay.of_program(epoch) for epoch in range(7)] == [5, 6, 7, 20, 21, 0, 1]
    assert [REPLAY.of_program(epoch) for epoch in range(3)] == [5, 6, 7]
    # As a record of JSON gives it, and as one of before checkpoints does.
    told = json.loads(json.dumps(asdict(replay)))
    assert Replay(**told) == replay
    assert hash(Replay(**told)) == hash(replay)
    del told["turns"]
    assert Replay(**told) == REPLAY


def test_a_replay_of_a_trial_that_went_on_trains_in_the_orders_of_both_parts(
    data: Data, folder: Path
) -> None:
    few = {"batch_size": 4, "dropout": 0.0}
    straight = curve(train(data, folder, few, replay=REPLAY, epochs=3), "loss")
    turned = curve(train(data, folder, few, replay=replace(REPLAY, turns=((2, 50),)), epochs=3), "loss")
    assert turned[:2] == pytest.approx(straight[:2], rel=1e-5)
    assert turned[2] != pytest.approx(straight[2], rel=1e-4)


def test_a_replay_without_shuffle_is_a_trial_without_shuffle(data: Data, folder: Path) -> None:
    without = {"shuffle": False}
    replayed = train(data, folder, without, replay=REPLAY)
    alone = train(data, folder, without)
    assert_same_curves(
        replayed, {name: curve(alone, name) for name in ("loss", "val_loss")}, ("loss", "val_loss")
    )


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
