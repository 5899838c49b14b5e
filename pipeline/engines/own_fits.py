"""A training of the user's own, in place of `model.fit`."""

from collections.abc import Mapping
from typing import Any

import keras

from pipeline.tasks.task import OwnFit
from pipeline.values import Settings

# Callbacks that warn of each epoch that does not log what they watch.
_WATCHING = (
    keras.callbacks.EarlyStopping,
    keras.callbacks.ReduceLROnPlateau,
    keras.callbacks.ModelCheckpoint,
)


def train(
    fit: OwnFit, model: keras.Model, settings: Settings, arguments: Mapping[str, Any], check_rows: int
) -> dict[str, float]:
    """Trains, and measures what came of it.

    How it trains, for how long and whether it tells its callbacks anything is the user's; so what counts is
    what the model that it leaves answers to the validation rows.

    Args:
        fit: see `Task`.
        model: compiled, with fresh weights.
        settings: of the trial.
        arguments: what `model.fit` would be called with.
        check_rows: of a validation batch.

    Returns:
        Its metrics on the validation rows as `val_…`, and whatever else it measured.
    """
    for callback in arguments["callbacks"]:
        # A loop of one's own may tell them of epochs alone.
        callback.set_model(model)
        callback.on_train_begin({})
        if isinstance(callback, _WATCHING):
            _spare(callback)
    given = {name: value for name, value in arguments.items() if value is not None}
    inputs, targets, weights = given["validation_data"]
    # As KerasTuner's users give it.
    given["validation_data"] = (inputs, targets) if weights is None else (inputs, targets, weights)
    measured = fit(settings, model, given)
    scores = model.evaluate(
        inputs, targets, sample_weight=weights, batch_size=check_rows, verbose=0, return_dict=True
    )
    return {**measured, **{f"val_{name}": float(value) for name, value in scores.items()}}


def _spare(callback: keras.callbacks.Callback) -> None:
    """Keeps epochs from a callback that do not log what it watches, as a loop of one's own may have."""
    end = callback.on_epoch_end

    def on_epoch_end(epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        if callback.monitor in (logs or {}):
            end(epoch, logs)

    callback.on_epoch_end = on_epoch_end
