"""Early stopping, best-epoch weights and the plateau of lanes are those of Keras's callbacks."""

from pathlib import Path

import keras
import numpy as np
import pytest
from lanes_harness import Trial, blobs, budget, each, in_lanes, lanes_engine, mlp, one_by_one, replayed

from pipeline.engines.lanes import berth
from pipeline.values import Budget, Data

LIMITS = {
    "stops": budget(epochs=60, patience=3, min_delta=0.01),
    "reduces": budget(
        epochs=25,
        plateau_patience=2,
        plateau_factor=0.3,
        plateau_cooldown=1,
        plateau_min_delta=0.02,
        plateau_floor=1e-4,
    ),
    "both, of a score": budget(
        epochs=60, monitor="val_accuracy", mode="max", patience=6, plateau_patience=2, plateau_factor=0.5
    ),
    "the first": budget(epochs=60, patience=0),
}
LANES = [{"learning_rate": 0.05}, {"learning_rate": 0.01, "l2": 0.05}, {"learning_rate": 0.2, "dropout": 0.5}]


@pytest.fixture(scope="module")
def data() -> Data:
    return blobs()


class _Model(keras.Model):
    """Nothing but an optimiser and weights that name the epoch, for callbacks to work on."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.optimizer = keras.optimizers.SGD(rate)
        self.stop_training = False
        self.epoch = -1

    def get_weights(self) -> list:
        return [self.epoch]

    def set_weights(self, weights: list) -> None:
        (self.epoch,) = weights


def by_callbacks(limits: Budget, rate: float, curve: list[dict[str, float]]) -> tuple[int, int, list[float]]:
    """What Keras's callbacks make of a recorded curve: epochs, best epoch and learning rates."""
    model = _Model(rate)
    stopping = keras.callbacks.EarlyStopping(
        monitor=limits.monitor,
        mode=limits.mode,
        patience=limits.patience,
        min_delta=limits.min_delta,
        restore_best_weights=True,
    )
    plateau = keras.callbacks.ReduceLROnPlateau(
        monitor=limits.monitor,
        mode=limits.mode,
        factor=limits.plateau_factor,
        patience=limits.plateau_patience,
        min_delta=limits.plateau_min_delta,
        cooldown=limits.plateau_cooldown,
        min_lr=limits.plateau_floor,
    )
    rates = []
    for callback in (plateau, stopping):
        callback.set_model(model)
        callback.on_train_begin()
    for epoch, metrics in enumerate(curve):
        model.epoch = epoch
        rates.append(float(model.optimizer.learning_rate))
        for callback in (plateau, stopping):
            callback.on_epoch_end(epoch, {limits.monitor: metrics[limits.monitor]})
        if model.stop_training:
            break
    stopping.on_train_end()
    return len(rates), stopping.best_epoch, rates


def trained(data: Data, limits: Budget, folder: Path) -> dict[int, Trial]:
    return in_lanes(lanes_engine(mlp, data, limits, folder, 4), each(*LANES))


@pytest.mark.parametrize("case", LIMITS)
def test_a_recorded_curve_is_judged_as_keras_judges_it(
    case: str, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = LIMITS[case]
    ours = trained(data, limits, tmp_path)
    for number, trial in ours.items():
        epochs, best_epoch, rates = by_callbacks(limits, LANES[number]["learning_rate"], trial.curve)
        assert trial.outcome.epochs == len(trial.curve) == epochs
        assert trial.outcome.best_epoch == best_epoch
        # Bit by bit: both are float32 numbers.
        assert trial.of("learning_rate") == rates
        assert trial.outcome.metrics == trial.curve[best_epoch]
        assert trial.outcome.value == trial.curve[best_epoch]["val_loss"]
    # The case is one: somebody stopped early, or learned slower.
    assert any(
        trial.outcome.epochs < limits.epochs or len(set(trial.of("learning_rate"))) > 1
        for trial in ours.values()
    )
    for seconds in (0.0, 100.0):  # one epoch a call, and as many as the program takes
        monkeypatch.setattr(berth, "_CALL_SECONDS", seconds)
        again = trained(data, limits, tmp_path)
        assert {number: trial.curve for number, trial in again.items()} == {
            number: trial.curve for number, trial in ours.items()
        }
        assert [again[number].outcome.best_epoch for number in ours] == [
            trial.outcome.best_epoch for trial in ours.values()
        ]


def test_the_saved_weights_are_the_best_epochs(data: Data, tmp_path: Path) -> None:
    ours = trained(data, LIMITS["stops"], tmp_path)
    early = [trial for trial in ours.values() if trial.outcome.best_epoch < trial.outcome.epochs - 1]
    assert early
    for trial in early:
        model = keras.models.load_model(trial.outcome.model_file)
        split = data.validation
        scores = model.evaluate(split.inputs, split.targets, verbose=0, return_dict=True)
        # A mean of 30 rows' losses in float32, added up in another order.
        assert scores["loss"] == pytest.approx(trial.curve[trial.outcome.best_epoch]["val_loss"], rel=1e-5)
        assert scores["loss"] != pytest.approx(trial.curve[-1]["val_loss"], rel=1e-3)


def test_a_short_training_ends_as_under_model_fit(data: Data, tmp_path: Path) -> None:
    # So little is asked for, and learned, that the decisions come before float32's rounding has grown.
    limits = budget(epochs=10, patience=2, min_delta=0.05, plateau_patience=1, plateau_min_delta=0.05)
    candidates = each({"learning_rate": 1e-3}, {"learning_rate": 2e-3}, {"learning_rate": 5e-4, "l2": 0.01})
    ours = in_lanes(lanes_engine(mlp, data, limits, tmp_path, 4), candidates)
    theirs = one_by_one(mlp, data, limits, tmp_path / "fit", replayed(candidates, ours))
    for number, trial in ours.items():
        other = theirs[number]
        assert trial.outcome.epochs == other.outcome.epochs < 10
        assert trial.outcome.best_epoch == other.outcome.best_epoch
        assert trial.of("learning_rate") == other.of("learning_rate")
        # 40 steps of small rates: rounding of 6e-8, amplified less than a thousand times.
        np.testing.assert_allclose(trial.of("val_loss"), other.of("val_loss"), rtol=6e-5)
