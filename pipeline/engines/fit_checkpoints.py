"""A trial by `model.fit` as checkpoints: what is kept of it between two epochs, and how it goes on.

That is the model's and its optimiser's variables, with the seeds that its layers draw by, and what Keras's
callbacks have found so far. Keras has BackupAndRestore for the model's part of it, but its EarlyStopping and
ReduceLROnPlateau would begin anew.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from pipeline.engines import callbacks, resuming, rows
from pipeline.engines.checkpoints import Checkpoint, Checkpoints, Training
from pipeline.engines.engine import Resumed
from pipeline.values import Array, Budget, Candidate, Data, Objective

# What Keras's callbacks know of the epochs before, by their attributes' names; of the first, weights too.
_STOPPING = ("wait", "best", "best_epoch")
_PLATEAU = ("wait", "best", "cooldown_counter")


def possible(keeps: Collection[str], *, own: bool) -> bool:
    """Whether a trial can go on from its middle.

    Not where it keeps files of the epochs before besides its model, which are gone with their process; nor by
    a fit of the user's own, of which nothing is known.
    """
    return not own and not set(keeps) & {callbacks.TENSORBOARD, callbacks.CHECKPOINT, callbacks.ACTIVATIONS}


class Trial:
    """The checkpoints of one trial, fold after fold.

    Args:
        checkpoints: of all.
        candidate: the trial.
        folds: the data of each fold; one for training without folds.
        budget: what ends a training.
        objective: the logged metric that scores it.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        candidate: Candidate,
        folds: Sequence[Data],
        budget: Budget,
        objective: Objective,
    ) -> None:
        self._checkpoints, self._candidate, self._folds = checkpoints, candidate, folds
        self._budget, self._objective = budget, objective
        self._began = self._kept = time.monotonic()
        self._over: list[tuple[Training, Checkpoint]] = []
        self.seconds_before = 0.0
        """Seconds that the trial had trained for when it was interrupted."""

    def find(self, fold: int, model: keras.Model) -> Checkpoint | None:
        """What a fold's training goes on from, if anything; its model is built then, and not changed."""
        data, size = self._folds[fold], int(self._candidate.settings["batch_size"])
        if not model.built:
            # As Keras does with the first batch that it sees.
            first = np.arange(min(size, data.train.rows))
            model._symbolic_build(data_batch=rows.for_keras(data.train.take(first), model))
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        best = None if self._candidate.epochs else model.get_weights()
        found = self._checkpoints.read(self._training(fold), _arrays(model, best))
        if found is not None:
            self.seconds_before = max(self.seconds_before, found.seconds)
        return found

    def resumed(self, fold: int, found: Checkpoint) -> Resumed:
        """The event of a fold's training that goes on."""
        steps, epochs = int(found.state["steps"]), len(found.curve)
        return resuming.event(
            self._candidate.number,
            fold,
            found.curve,
            self._objective,
            lambda after: steps * after // epochs,
        )

    def due(self) -> bool:
        """Whether the last checkpoint is long ago."""
        return self._checkpoints.ready and time.monotonic() - self._kept >= self._checkpoints.seconds

    def keep(self, fold: int, curve: Sequence[Mapping[str, float]], model: keras.Model, state: Any) -> None:
        """Keeps a training between two epochs. state: of its callbacks, and the best weights or None."""
        told, best = state
        self._keep_over()
        told = {**told, "steps": int(model.optimizer.iterations)}
        checkpoint = Checkpoint(tuple(curve), self._seconds(), None, told, _arrays(model, best))
        self._checkpoints.write(self._training(fold), checkpoint)
        self._kept = time.monotonic()

    def over(
        self, fold: int, curve: Sequence[Mapping[str, float]], best_epoch: int, model: keras.Model
    ) -> None:
        """A fold is over, which is kept once the trial is old enough."""
        told = {"steps": int(model.optimizer.iterations)}
        checkpoint = Checkpoint(tuple(curve), self._seconds(), best_epoch, told)
        self._over.append((self._training(fold), checkpoint))
        if time.monotonic() - self._began >= self._checkpoints.seconds or self.seconds_before:
            self._keep_over()

    def _keep_over(self) -> None:
        for training, checkpoint in self._over:
            self._checkpoints.write(training, checkpoint)
        self._over.clear()

    def _seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self._began

    def _training(self, fold: int) -> Training:
        return resuming.training("fit", self._candidate, fold, self._budget, self._folds[fold])


class Keeping(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """Keeps a fold's training after an epoch now and then, and puts it where it was when it goes on.

    It has to be the last callback: those before have judged an epoch when it keeps them, and have begun anew
    when it puts them where they were.

    Args:
        trial: its checkpoints.
        fold: its number.
        found: what it goes on from; None from the beginning.
        leading: leads the learning rate.
        stopping: ends it early, or None.
        curve: of its epochs, which grows.
    """

    def __init__(
        self,
        trial: Trial,
        fold: int,
        found: Checkpoint | None,
        leading: keras.callbacks.Callback,
        stopping: keras.callbacks.EarlyStopping | None,
        curve: Sequence[Mapping[str, float]],
    ) -> None:
        super().__init__()
        self._trial, self._fold, self._found, self._curve = trial, fold, found, curve
        self._stopping = stopping
        self._plateau = leading if isinstance(leading, keras.callbacks.ReduceLROnPlateau) else None

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        found, self._found = self._found, None
        if found is None:
            return
        for name, group in _groups(self.model).items():
            for place, variable in enumerate(group):
                variable.assign(found.arrays[f"{name}/{place}"])
        _set(self._plateau, found.state["plateau"])
        _set(self._stopping, found.state["stopping"])
        if self._stopping:
            weights = [found.arrays[name] for name in found.arrays if name.startswith("best/")]
            self._stopping.best_weights = weights

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        if self.model.stop_training or epoch + 1 == self.params["epochs"] or not self._trial.due():
            return
        told = {"plateau": _of(self._plateau, _PLATEAU), "stopping": _of(self._stopping, _STOPPING)}
        best = self._stopping.best_weights if self._stopping else None
        self._trial.keep(self._fold, self._curve, self.model, (told, best))


def _groups(model: keras.Model) -> dict[str, Sequence[keras.Variable]]:
    """What changes in a model while it trains, metrics apart, which begin anew with each epoch."""
    return {
        "trainable": model.trainable_variables,
        "non_trainable": model.non_trainable_variables,
        "optimizer": model.optimizer.variables,
    }


def _arrays(model: keras.Model, best: Sequence[Any] | None) -> dict[str, Array]:
    """Copies of a model's variables, and of its best weights, by name."""
    arrays = {
        f"{name}/{place}": np.array(keras.ops.convert_to_numpy(variable.value))
        for name, group in _groups(model).items()
        for place, variable in enumerate(group)
    }
    return arrays | {f"best/{place}": np.array(weight) for place, weight in enumerate(best or ())}


def _of(callback: keras.callbacks.Callback | None, names: Sequence[str]) -> dict[str, float | None]:
    """What a callback knows, as plain numbers."""
    values = {name: getattr(callback, name) for name in names} if callback else {}
    return {
        name: value if value is None or isinstance(value, int) else float(value)
        for name, value in values.items()
    }


def _set(callback: keras.callbacks.Callback | None, values: Mapping[str, float | None]) -> None:
    for name, value in values.items():
        setattr(callback, name, value)
