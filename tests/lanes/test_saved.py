"""What a lane leaves is an ordinary Keras file that says what was logged."""

from pathlib import Path

import keras
import numpy as np
import pytest
from lanes_harness import Trial, blobs, budget, data_of, each, in_lanes, lanes_engine, mlp

from pipeline.metrics import score
from pipeline.values import Data, Settings, Split


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
        answers = keras.tree.flatten(model.predict(data.validation.inputs, verbose=0))
        assert [answer.shape[1] for answer in answers] == ([1, 3] if several else [1])
        if several:
            assert trial.outcome.predictions_file is None
        else:
            found = np.load(trial.outcome.predictions_file)
            np.testing.assert_allclose(found[:, 1:], answers[0], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)
