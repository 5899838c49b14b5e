"""A KerasTuner HyperModel is searched as it is: its hyperparameters, its models, its own training."""

import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np
import pytest
from keras_tuner import HyperModel, HyperParameters
from optuna.distributions import BaseDistribution

from pipeline import tasks
from pipeline.engines import choice
from pipeline.engines.fit import FitEngine
from pipeline.errors import UserError
from pipeline.ranges import distribution
from pipeline.settings import TRAINING
from pipeline.source import Source
from pipeline.tasks import hypermodels, space_texts
from pipeline.tasks.hyperparameters import vocabulary
from pipeline.tasks.task import Task
from pipeline.values import Candidate, Outcome, Progress

TRAINED_BY = {parameter.name for parameter in TRAINING}


def rows() -> tuple[np.ndarray, np.ndarray]:
    """60 rows of four numbers in three classes that lie apart."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 20)
    return (rng.normal(size=(60, 4)) + 3 * labels[:, None]).astype(np.float32), labels


def net(hp: Any, loss: Any = "sparse_categorical_crossentropy", units: int = 3, **given: Any) -> keras.Model:
    activation = {1: "sigmoid" if "binary" in str(loss) else None}.get(units, "softmax")
    layers = [keras.layers.Dense(hp.Int("units", 4, 8), activation="relu")]
    model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(units, activation=activation)])
    model.compile(
        keras.optimizers.Adam(hp.Float("lr", 1e-3, 1e-1, sampling="log", default=0.01)), loss, **given
    )
    return model


def made(value: Any, load: Callable[[], object] | None = rows, **source: Any) -> Task:
    return hypermodels.task("nets.py:net", value, Source(**source), load, tasks.find)


def first_settings(task: Task) -> dict[str, Any]:
    space = task.read_space(None)
    return dict(space.published(space.baseline or {}))


# Hyperparameters as settings


def asked(ask: Callable[[HyperParameters], object]) -> HyperParameters:
    hp = HyperParameters()
    ask(hp)
    return hp


@pytest.mark.parametrize(
    ("ask", "spec"),
    [
        (lambda hp: hp.Float("a", 0.5, 2), {"low": 0.5, "high": 2.0}),
        (lambda hp: hp.Float("a", 1e-4, 1.0, sampling="log"), {"low": 1e-4, "high": 1.0, "log": True}),
        # 0.1 three times is 0.30000000000000004 in floats, and KerasTuner's range ends below its end.
        (lambda hp: hp.Float("a", 0.0, 0.35, step=0.1), {"low": 0.0, "high": 0.3, "step": 0.1}),
        (
            lambda hp: hp.Float("a", 1e-3, 10, step=10, sampling="log"),
            {"choices": [1e-3, 1e-2, 0.1, 1.0, 10.0]},
        ),
        (lambda hp: hp.Float("a", 2, 2), 2.0),
        (lambda hp: hp.Int("a", 1, 9), {"low": 1, "high": 9}),
        (lambda hp: hp.Int("a", 8, 65, step=8), {"low": 8, "high": 64, "step": 8}),
        (lambda hp: hp.Int("a", 2, 32, step=2, sampling="log"), {"choices": [2, 4, 8, 16, 32]}),
        (lambda hp: hp.Int("a", 8, 9, step=4), 8),
        (lambda hp: hp.Boolean("a"), {"choices": [False, True]}),
        (lambda hp: hp.Choice("a", ["x", "y", "x"]), {"choices": ["x", "y"]}),
        (lambda hp: hp.Choice("a", [0.5]), 0.5),
        (lambda hp: hp.Fixed("a", "as it is"), "as it is"),
    ],
)
def test_each_kind_of_hyperparameter_is_a_range_choices_or_a_value(ask: Any, spec: Any) -> None:
    words = vocabulary(asked(ask))
    assert words.specs == {"a": spec}
    (parameter,) = (one for one in words.parameters if one.name == "a")
    if isinstance(spec, dict):
        # What is offered can be drawn, and KerasTuner draws nothing else.
        drawn = distribution(spec, parameter)
        assert isinstance(drawn, BaseDistribution)
        entry = words.space.space[0]
        for seed in range(50):
            value = entry.random_sample(seed)
            # KerasTuner adds up steps in floats.
            value = float(f"{value:.12g}") if isinstance(value, float) else value
            assert drawn._contains(drawn.to_internal_repr(value)), value
    else:
        assert parameter.fault(spec) is None
        assert words.space.space[0].random_sample(0) == spec


def test_reverse_log_is_drawn_evenly_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    def build(hp: Any) -> keras.Model:
        hp.Float("momentum", 0.1, 0.99, sampling="reverse_log")
        return net(hp)

    text = made(build).space_text
    assert "# momentum: sampling reverse_log, which is drawn evenly here." in text
    assert "reverse_log" in caplog.text


def test_names_of_any_characters_become_such_as_mlflow_takes() -> None:
    def ask(hp: Any) -> None:
        for name in ("größe (1)", "größe [1]", "a//b", "../c", 'x\n"y"', ""):
            hp.Int(name, 1, 4)
        with hp.name_scope("block"):
            hp.Int("units", 1, 4)

    words = vocabulary(asked(ask))
    assert words.names == ("größe _1_", "größe _1_ 2", "a__b", "__c", "x__y_", "unnamed", "block/units")
    assert [entry.name for entry in words.filled(dict.fromkeys(words.names, 3)).space] == [
        entry.name for entry in words.space.space
    ]
    for name in words.names:
        assert re.fullmatch(r"[/\w.\- :]+", name)


def test_what_training_reads_is_kept_apart_from_what_is_only_called_so() -> None:
    def ask(hp: Any) -> None:
        hp.Choice("batch_size", [16, 32], default=32)
        hp.Boolean("shuffle", default=True)
        hp.Choice("schedule", ["mine", "yours"])

    words = vocabulary(asked(ask))
    assert words.names == ("batch_size", "shuffle", "hp.schedule")
    assert words.defaults["schedule"] == "constant"
    filled = words.filled({"batch_size": 16, "shuffle": False, "hp.schedule": "yours"})
    assert filled.values == {"batch_size": 16, "shuffle": False, "schedule": "yours"}
    odd = vocabulary(asked(lambda hp: hp.Choice("batch_size", ["small", "large"])))
    assert odd.names == ("hp.batch_size",)
    assert odd.defaults["batch_size"] == 32


def conditional(hp: Any) -> None:
    kind = hp.Choice("kind", ["mlp", "deep", "none"])
    with hp.conditional_scope("kind", ["mlp"]):
        hp.Int("units", 8, 16)
    with hp.conditional_scope("kind", ["deep"]):
        hp.Int("units", 32, 64)
        hp.Boolean("skip")
        with hp.conditional_scope("skip", [True]):
            hp.Float("rate", 0.0, 1.0)
    hp.Float("late", 0.0, 1.0, parent_name="kind", parent_values=["mlp", "deep"])
    with hp.conditional_scope("kind", ["nothing of these"]):
        hp.Int("never", 1, 2)
    del kind


def test_conditions_become_what_a_setting_needs_and_only_active_values_are_given() -> None:
    words = vocabulary(asked(conditional))
    assert words.names == ("kind", "units", "units 2", "skip", "rate", "late", "")
    needs = {one.name: one.needs for one in words.parameters if one.name not in TRAINED_BY}
    assert needs == {
        "kind": None,
        "units": ("kind", ("mlp",)),
        "units 2": ("kind", ("deep",)),
        "skip": ("kind", ("deep",)),
        "rate": ("skip", (True,)),
        "late": ("kind", ("mlp", "deep")),
    }
    settings = {"kind": "deep", "units": 9, "units 2": 40, "skip": False, "rate": 0.5, "late": 0.25}
    assert words.filled(settings).values == {"kind": "deep", "units": 40, "skip": False, "late": 0.25}
    assert words.filled({**settings, "kind": "none"}).values == {"kind": "none"}
    assert words.filled({**settings, "skip": True}).values["rate"] == 0.5


def test_a_space_of_conditions_on_whole_numbers_is_read(tmp_path: Path) -> None:
    def build(hp: Any) -> keras.Model:
        for place in range(hp.Int("layers", 1, 3)):
            with hp.conditional_scope("layers", list(range(place + 1, 4))):
                hp.Int(f"units_{place}", 4, 8)
        return net(hp)

    assert {"layers", "units_0", "units_1", "units_2"} <= made(build).read_space(None).searched.keys()


def test_what_is_asked_for_only_with_other_values_is_found_before_the_search() -> None:
    def build(hp: Any) -> keras.Model:
        for place in range(hp.Int("layers", 1, 4)):
            hp.Int(f"units_{place}", 4, 8)
        if hp.Boolean("dropout") and hp.Choice("where", ["first", "last"]) == "last":
            hp.Float("rate", 0.1, 0.5)
        return net(hp)

    searched = made(build).read_space(None).searched
    assert {"units_3", "where", "rate"} <= searched.keys()


def test_a_text_of_any_values_reads_back_the_same() -> None:
    import tomllib

    tables = {
        "space": {
            'a "b"\n': {"choices": ["x\x7fy", 'quo"te', "back\\slash", "🙂", "new\nline"]},
            "c": {"low": 1e-300, "high": 1e16, "log": True},
        },
        "baseline": {"on": True, "off": False, "n": -3, "f": 5e-05},
    }
    assert tomllib.loads(space_texts.text(tables, "a head\nof two lines")) == tables


# Models and rows


@pytest.mark.parametrize(
    ("loss", "units", "targets", "metrics"),
    [
        ("sparse_categorical_crossentropy", 3, (36,), ["accuracy", "log_loss"]),
        ("categorical_crossentropy", 3, (36, 3), ["accuracy", "log_loss"]),
        (keras.losses.CategoricalCrossentropy(), 3, (36, 3), ["accuracy", "log_loss"]),
    ],
)
def test_targets_are_as_the_models_loss_takes_them(loss: Any, units: int, targets: Any, metrics: Any) -> None:
    task = made(lambda hp: net(hp, loss, units, metrics=["accuracy"]))
    data = task.load("full")
    assert np.shape(data.train.targets) == targets
    assert np.array_equal(np.unique(data.train.labels), [0, 1, 2])
    model = task.build(first_settings(task), data)
    logs = model.evaluate(data.train.inputs, data.train.targets, verbose=0, return_dict=True)
    assert sorted(logs) == sorted(["loss", *metrics])
    # Ours is the model's own loss, as nothing else is in it.
    assert logs["log_loss"] == pytest.approx(logs["loss"], rel=1e-5)
    assert [metric.name for metric in task.metrics] == metrics


def test_a_sigmoid_and_numbers_have_a_column() -> None:
    def two() -> Any:
        x, y = rows()
        return x, np.where(y > 0, "yes", "no")

    task = made(lambda hp: net(hp, "binary_crossentropy", 1), two)
    data = task.load("full")
    assert np.shape(data.train.targets) == (36, 1)
    assert data.classes == ("no", "yes")
    task = made(lambda hp: net(hp, "mse", 1), lambda: (rows()[0], rows()[0].sum(axis=1)))
    data = task.load("full")
    model = task.build(first_settings(task), data)
    targets = data.train.targets["prediction"]
    logs = model.evaluate(data.train.inputs, targets, verbose=0, return_dict=True)
    assert logs["mse"] == pytest.approx(logs["loss"], rel=1e-5)
    assert {"mse", "mae"} <= logs.keys()
    assert task.read_space(None).objective.metric == "val_mse"


def test_a_loss_of_its_own_needs_to_be_told_the_problem() -> None:
    def mine(truth: Any, answer: Any) -> Any:
        return keras.ops.mean(keras.ops.square(truth - answer), axis=-1)

    mine.__module__, globals()["mine"] = __name__, mine
    keras.saving.get_custom_objects()["mine"] = mine
    numbers = rows()[0].sum(axis=1)

    def build(hp: Any) -> keras.Model:
        return net(hp, mine, 1)

    with pytest.raises(UserError, match="does not tell whether it learns classes or numbers; give problem="):
        made(build, lambda: (rows()[0], numbers))
    task = made(build, lambda: (rows()[0], numbers), problem="regression")
    assert task.metrics[0].name == "mse"
    with pytest.raises(UserError, match="its loss is mean_squared_error, which does not go with"):
        made(lambda hp: net(hp, "mse", 1), problem="classification")


def test_the_loss_and_everything_else_that_it_is_compiled_with_stays() -> None:
    task = made(
        lambda hp: net(
            hp,
            metrics=["accuracy", keras.metrics.TopKCategoricalAccuracy(name="top")][:1],
            loss=keras.losses.SparseCategoricalCrossentropy(),
            jit_compile=False,
        )
    )
    model = task.build(first_settings(task), task.load("full"))
    assert isinstance(model.loss, keras.losses.SparseCategoricalCrossentropy)
    assert model.jit_compile is False
    assert float(model.optimizer.learning_rate) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda hp: None, "build with its defaults: build gave NoneType, which is not a Keras model"),
        (lambda hp: 1 / 0, "build with its defaults: ZeroDivisionError: division by zero"),
        (
            lambda hp: keras.Sequential([keras.Input((4,)), keras.layers.Dense(hp.Int("u", 1, 2))]),
            "build with its defaults: build gave a model that is not compiled",
        ),
        (lambda hp: net(hp, units=2), "the model tells 2 classes apart, but y has 3: 0, 1, 2"),
        (lambda hp: net(hp, "binary_crossentropy", 3), "binary cross-entropy of 3 units"),
        (lambda hp: net(hp, "hinge", 1), "its loss, hinge, does not tell"),
        (lambda hp: net(HyperParameters()), "asks for no hyperparameters"),
    ],
)
def test_a_hypermodel_that_cannot_be_used_is_one_error_before_any_trial(build: Any, says: str) -> None:
    with pytest.raises(UserError, match=re.escape(says)) as caught:
        made(build).load("full")
    assert str(caught.value).startswith(("task: nets.py:net: ", "load of nets.py:net: "))
    assert "\n" not in str(caught.value)


def test_a_class_that_needs_arguments_says_which() -> None:
    class Needs(HyperModel):
        def __init__(self, width: int) -> None:
            super().__init__()

    with pytest.raises(UserError, match="the class needs width; make a HyperModel of it in the file"):
        made(Needs)


# Its own training


class Fitted(HyperModel):
    """Trains twice, with a batch size and epochs of its own."""

    def build(self, hp: Any) -> keras.Model:
        return net(hp, metrics=["accuracy"])

    def fit(self, hp: Any, model: keras.Model, *args: Any, **kwargs: Any) -> Any:
        model.fit(*args, epochs=1, batch_size=hp.Choice("batch_size", [10, 20], default=20), **kwargs)
        model.compile(keras.optimizers.SGD(0.01), model.loss)
        return model.fit(*args, epochs=1, batch_size=hp.get("batch_size"), **kwargs)


def outcome_of(task: Task, folder: Path) -> tuple[list[Progress], Outcome]:
    space = task.read_space(None).with_epochs(3)
    engine = FitEngine(task.build, [task.load("full")], space.budget, space.objective, folder, own=task.fit)
    events: list[Any] = []
    with closing(engine):
        engine.add(Candidate(0, 7, first_settings(task)))
        while not engine.free():
            events += engine.step()
    *progress, outcome = events
    return progress, outcome


def test_a_fit_of_its_own_is_honoured_and_what_it_leaves_is_what_counts(tmp_path: Path) -> None:
    task = made(Fitted)
    assert first_settings(task)["batch_size"] == 20
    assert "batch_size" in task.read_space(None).searched
    progress, outcome = outcome_of(task, tmp_path)
    assert not outcome.failure
    assert [event.epoch for event in progress] == list(range(len(progress)))
    model = keras.models.load_model(outcome.model_file)
    check = task.load("full").validation
    hits = model.predict(check.inputs, verbose=0).argmax(axis=1) == check.labels
    assert outcome.value == pytest.approx(hits.mean(), abs=1e-6)


@pytest.mark.parametrize(
    ("returned", "name", "value"), [(0.25, "val_returned", 0.25), ({"val_mine": 2}, "val_mine", 2.0)]
)
def test_a_loop_of_its_own_that_tells_nobody_is_scored_all_the_same(
    returned: Any, name: str, value: float, tmp_path: Path
) -> None:
    class Loop(Fitted):
        def fit(self, hp: Any, model: Any, x: Any, y: Any, validation_data: Any, callbacks: Any) -> Any:
            for callback in callbacks:
                callback.on_epoch_end(0, {"mine": 1.0})
            model.train_on_batch(x, y)
            return returned

    progress, outcome = outcome_of(made(Loop), tmp_path)
    assert not outcome.failure
    assert len(progress) == 1
    assert outcome.metrics[name] == value
    assert outcome.value == progress[0].metrics["val_accuracy"]


def test_a_fit_that_fails_or_leaves_no_number_fails_its_trial_with_the_reason(tmp_path: Path) -> None:
    class Fails(Fitted):
        calls = 0

        def fit(self, hp: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
            Fails.calls += 1
            if Fails.calls > 1:
                raise RuntimeError("out of luck")
            return model.fit(*args, **kwargs)

    _, outcome = outcome_of(made(Fails), tmp_path)
    assert outcome.failure == "RuntimeError: out of luck"

    class Broken(Fitted):
        def fit(self, hp: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
            return float("nan")

    _, outcome = outcome_of(made(Broken), tmp_path)
    assert outcome.failure.startswith("diverged: val_returned is nan")


def test_a_fit_that_takes_no_callbacks_is_refused() -> None:
    class Deaf(Fitted):
        def fit(self, hp: Any, model: Any, x: Any, y: Any) -> Any:
            return model.fit(x, y)

    with pytest.raises(UserError, match="its fit must take x, y, validation_data and callbacks"):
        made(Deaf)


def test_lanes_refuse_a_fit_of_its_own() -> None:
    task = made(Fitted)
    with pytest.raises(
        UserError, match=r"engine=lanes: nets.py:net has a fit of its own, which lanes cannot run"
    ):
        choice.check("lanes", task)
    choice.check("auto", task)


@pytest.mark.slow
def test_kerastuners_own_model_is_taken_as_it_is() -> None:
    pictures, labels = np.zeros((40, 32, 32, 3), np.uint8), np.arange(40) % 4
    given = keras_tuner.applications.HyperResNet(input_shape=(32, 32, 3), classes=4)
    task = made(given, lambda: (pictures, labels))
    assert np.shape(task.load("full").train.targets) == (24, 4)
    names = {"version", "conv3_depth", "conv4_depth", "pooling", "optimizer", "learning_rate"}
    assert task.read_space(None).searched.keys() == names
    assert first_settings(task)["version"] == "v2"
