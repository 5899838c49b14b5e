"""What a lane leaves is an ordinary Keras file that says what was logged."""

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from lanes_harness import (
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

from pipeline import answers
from pipeline.metrics import score, score_of
from pipeline.values import Data, Metric, Objective, Settings, Split


@pytest.fixture(scope="module")
def data() -> Data:
    return blobs()


@pytest.fixture(scope="module")
def trials(data: Data, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Trial]:
    lanes = [{}, {"dropout": 0.4, "l2": 0.01, "bn_momentum": 0.5, "max_norm": 1.0, "learning_rate": 0.03}]
    folder = tmp_path_factory.mktemp("saved")
    return in_lanes(lanes_engine(mlp, data, budget(epochs=6), folder, 2), each(*lanes))


@pytest.mark.parametrize("number", [0, 1])
def test_the_file_predicts_and_scores_what_was_recorded(
    data: Data, trials: dict[int, Trial], number: int
) -> None:
    outcome, split = trials[number].outcome, data.validation
    model = keras.models.load_model(outcome.model_file)
    predictions = np.load(outcome.predictions_file)
    assert predictions.shape == (30, 3)
    # A softmax of sums of 8 terms, in float32, in another order.
    np.testing.assert_allclose(model.predict(split.inputs, verbose=0), predictions, rtol=1e-5, atol=1e-6)
    scores = model.evaluate(split.inputs, split.targets, verbose=0, return_dict=True)
    for name, value in scores.items():
        assert value == pytest.approx(outcome.metrics[f"val_{name}"], rel=1e-5), name
    assert score("log_loss", split.labels, predictions) == pytest.approx(
        outcome.metrics["val_log_loss"], rel=1e-4
    )


def test_the_file_has_the_trials_own_numbers_and_can_be_trained_on(
    data: Data, trials: dict[int, Trial]
) -> None:
    model = keras.models.load_model(trials[1].outcome.model_file)
    dense, normalization, dropout = model.layers[:3]
    assert dropout.rate == 0.4
    assert normalization.momentum == 0.5
    assert dense.kernel_constraint.max_value == 1.0
    assert float(dense.kernel_regularizer.l2) == pytest.approx(0.01)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.03)
    # Its optimiser has seen the four steps of every epoch.
    assert int(model.optimizer.iterations) == 24
    model.fit(data.train.inputs, data.train.targets, epochs=1, verbose=0)


def test_a_sigmoid_and_several_outputs(data: Data, tmp_path: Path) -> None:
    def build(settings: Settings, data: Data) -> keras.Model:
        place = keras.Input((4,), name="rows")
        hidden = keras.layers.Dense(4, activation="tanh")(place)
        outputs = [keras.layers.Dense(1, activation="sigmoid", name="flag")(hidden)]
        if settings["several"]:
            outputs.append(keras.layers.Dense(3, activation="softmax", name="kind")(hidden))
        model = keras.Model(place, outputs if settings["several"] else outputs[0])
        losses = {"flag": "binary_crossentropy", "kind": "sparse_categorical_crossentropy"}
        model.compile("adam", losses if settings["several"] else "binary_crossentropy")
        return model

    def part(split: Split, *, several: bool) -> Split:
        flag = (split.targets == 1).astype(np.int32)[:, None]
        return Split(split.inputs, {"flag": flag, "kind": split.targets} if several else flag)

    for several in (False, True):
        both = [part(split, several=several) for split in (data.train, data.validation)]
        settings = {"several": several}
        engine = lanes_engine(build, data_of(*both, classes=2), budget(epochs=2), tmp_path, 2)
        (trial,) = in_lanes(engine, each(settings)).values()
        assert not trial.refused
        model = keras.models.load_model(trial.outcome.model_file)
        raw = keras.tree.flatten(model.predict(data.validation.inputs, verbose=0))
        assert [part.shape[1] for part in raw] == ([1, 3] if several else [1])
        if several:
            assert trial.outcome.predictions_file is None
        else:
            found = np.load(trial.outcome.predictions_file)
            np.testing.assert_allclose(found[:, 1:], raw[0], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)


@pytest.mark.parametrize("structure", [dict, list])
def test_outputs_that_the_data_name_are_kept_by_name_and_led_by_a_fixed_mean(
    structure: type, data: Data, tmp_path: Path
) -> None:
    def build(settings: Settings, data: Data) -> keras.Model:
        place = keras.Input((4,), name="rows")
        hidden = keras.layers.Dense(4, activation="tanh")(place)
        # A logit, probabilities and a number, in no order of the alphabet.
        made = {
            "kind": keras.layers.Dense(3, activation="softmax", name="kind")(hidden),
            "flag": keras.layers.Dense(1, name="flag")(hidden),
            "age": keras.layers.Dense(1, name="age")(hidden),
        }
        model = keras.Model(place, made if structure is dict else list(made.values()))
        logit = keras.losses.BinaryCrossentropy(from_logits=True)
        model.compile(
            keras.optimizers.Adam(settings["learning_rate"]),
            {"kind": "sparse_categorical_crossentropy", "flag": logit, "age": "mse"},
            metrics={
                "kind": [keras.metrics.SparseCategoricalCrossentropy(name="log_loss")],
                "flag": [keras.metrics.BinaryCrossentropy(name="log_loss", from_logits=True)],
                "age": [keras.metrics.MeanSquaredError(name="mse")],
            },
        )
        return model

    def part(split: Split) -> Split:
        flag, age = (split.targets == 1).astype(np.int32)[:, None], split.inputs[:, :1] / 2
        return Split(split.inputs, {"kind": split.targets, "flag": flag, "age": age})

    outputs = {"kind": ("a", "b", "c"), "flag": ("no", "yes"), "age": ()}
    named = replace(data_of(part(data.train), part(data.validation)), classes=(), outputs=outputs)
    parts = tuple(
        (Metric(f"{output}_{kind}", "minimize", output), share)
        for output, kind, share in (
            ("kind", "log_loss", 0.5),
            ("flag", "log_loss", 0.25),
            ("age", "mse", 2.0),
        )
    )
    mean = Metric("mean", "minimize", parts=parts)
    objective = Objective("val_mean", "minimize", (("mean", tuple((one.name, by) for one, by in parts)),))
    # Fast enough for one of them to overshoot, so that its last epoch is not its best.
    candidates = each({"learning_rate": 0.01}, {"learning_rate": 0.5})
    limits = budget(epochs=12, monitor="val_mean", patience=3)
    engine = lanes_engine(build, named, limits, tmp_path, 2, objective=objective)
    ours = in_lanes(engine, candidates)
    theirs = one_by_one(build, named, limits, tmp_path / "fit", replayed(candidates, ours), objective)
    assert ours[1].outcome.best_epoch < ours[1].outcome.epochs - 1
    for number, trial in ours.items():
        assert trial.curve[0].keys() == theirs[number].curve[0].keys()
        outcome, split = trial.outcome, named.validation
        for prefix in ("", "val_"):
            by_hand = sum(by * np.array(trial.of(prefix + one.name)) for one, by in parts)
            # A sum of three float32 products.
            np.testing.assert_allclose(trial.of(f"{prefix}mean"), by_hand, rtol=1e-6)
        assert outcome.best_epoch == int(np.argmin(trial.of("val_mean")))
        assert outcome.value == min(trial.of("val_mean"))
        model, kept = keras.models.load_model(outcome.model_file), np.load(outcome.predictions_file)
        read = answers.read(model, model.predict(split.inputs, verbose=0), named)
        assert set(kept.files) == set(read) == set(outputs)
        for name, found in read.items():
            np.testing.assert_allclose(kept[name], found, rtol=1e-5, atol=1e-6, err_msg=name)
        assert score_of(mean, split.targets, kept) == pytest.approx(outcome.value, rel=1e-4)
    first = relative(ours[0].curve[:1], theirs[0].curve[:1])
    # Four steps of a small model, as in test_equality.py.
    assert max(first.values()) <= 2e-5
