"""One trial through `model.fit` and Keras's own callbacks, fold by fold."""

import math
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from pipeline.engines import fit_checkpoints, own_fits, rows, schedules
from pipeline.engines.baton import Baton
from pipeline.engines.callbacks import ForFit
from pipeline.engines.checkpoints import Checkpoint, Checkpoints
from pipeline.engines.engine import MODEL_FILE
from pipeline.engines.models import built, check_logged, save_predictions
from pipeline.seeds import derived
from pipeline.tasks.task import OwnFit
from pipeline.values import Budget, Candidate, Data, FoldScore, Objective, Outcome, Progress, Settings

# Predictions need no gradients, so they go through in large batches.
_PREDICTION_ROWS = 2048


@dataclass(frozen=True)
class _Fold:
    """A fold's end, with Keras's own notion of the best epoch."""

    best_epoch: int
    epochs: int
    metrics: Mapping[str, float]


class Training:
    """How one candidate is trained: each fold by `model.fit`.

    Args: as of `FitEngine`.
    """

    def __init__(  # noqa: PLR0913  # it is built in one place
        self,
        build: Callable[[Settings, Data], keras.Model],
        folds: tuple[Data, ...],
        budget: Budget,
        objective: Objective,
        folder: Path,
        keeps: Collection[str],
        *,
        alone: bool,
        own: OwnFit | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self._build = build
        possible = fit_checkpoints.possible(keeps, own=own is not None)
        self._checkpoints = checkpoints if possible else None
        self._own = own
        self._alone = alone
        self._folds = folds
        self._budget = budget
        self._objective = objective
        self._folder = folder
        self._keeps = keeps

    def run(self, candidate: Candidate, baton: Baton) -> Outcome | None:
        """Trains the candidate; None if it was stopped on the way."""
        started = time.monotonic()
        trial = self._trial(candidate)
        folder = self._kept(candidate.number)
        done: list[_Fold] = []
        files: tuple[Path, Path | None] = (Path(), None)
        for number, data in enumerate(self._folds):
            # Initial weights, dropout and row order derive from the trial's seed (and fold) alone.
            model = built(self._build, candidate.settings, data, derived(candidate.seed, number))
            watch = _Watch(
                candidate.number,
                number,
                self._objective,
                self._budget.monitor,
                baton,
                own=self._own is not None,
            )
            found = trial.find(number, model) if trial else None
            if trial and found:
                watch.curve = [dict(metrics) for metrics in found.curve]
                baton.pass_on(trial.resumed(number, found))
                if baton.stop:
                    return None
            if found and found.best_epoch is not None:
                fold = _Fold(found.best_epoch, len(watch.curve), watch.curve[found.best_epoch])
            else:
                place = folder / f"fold_{number}" if len(self._folds) > 1 else folder
                kept = ForFit(self._keeps, place, model, self._budget, data.validation)
                fold = self._fit(model, data, candidate, kept, watch, trial, found)
                if baton.stop:
                    return None
                kept.finish(fold.best_epoch if fold.epochs else None)
                if watch.failure:
                    return Outcome(candidate.number, failure=watch.failure, folder=_there(folder))
                if trial and len(self._folds) > 1:
                    trial.over(number, watch.curve, fold.best_epoch, model)
            done.append(fold)
            if len(self._folds) == 1:
                files = self._save(model, data, candidate.number)
            else:
                baton.pass_on(FoldScore(candidate.number, number, fold.metrics[self._objective.metric]))
                if baton.stop:
                    return None
        mean = {name: float(np.mean([fold.metrics[name] for fold in done])) for name in done[0].metrics}
        return Outcome(
            candidate.number,
            value=mean[self._objective.metric],
            best_epoch=round(float(np.mean([fold.best_epoch for fold in done]))),
            epochs=sum(fold.epochs for fold in done),
            seconds=time.monotonic() - started + (trial.seconds_before if trial else 0.0),
            metrics=mean,
            model_file=files[0] if len(self._folds) == 1 else None,
            predictions_file=files[1],
            folder=_there(folder),
        )

    def forget(self, number: int) -> None:
        """Removes what a trial has kept that was stopped on the way."""
        shutil.rmtree(self._kept(number), ignore_errors=True)

    def _trial(self, candidate: Candidate) -> fit_checkpoints.Trial | None:
        """The trial's checkpoints, if it has any."""
        if self._checkpoints is None:
            return None
        return fit_checkpoints.Trial(self._checkpoints, candidate, self._folds, self._budget, self._objective)

    def _kept(self, number: int) -> Path:
        return self._folder / str(number) / "kept"

    def _fit(
        self,
        model: keras.Model,
        data: Data,
        candidate: Candidate,
        kept: ForFit,
        watch: "_Watch",
        trial: fit_checkpoints.Trial | None,
        found: Checkpoint | None,
    ) -> _Fold:
        """Trains a fold, from where it was found or from its beginning."""
        budget = self._budget
        halt = stopping(budget)
        ending = [] if candidate.epochs else [halt]
        leading = rates(model, candidate.settings, budget)
        if self._own is not None:
            # It takes arrays, which have no orders.
            candidate = replace(candidate, replay=None)
        keeping = []
        if trial:
            stops = None if candidate.epochs else halt
            keeping = [fit_checkpoints.Keeping(trial, watch.fold, found, leading, stops, watch.curve)]
        # Where it may go on in another process, its orders have to be known there.
        alone = self._alone and not (trial and candidate.settings["shuffle"])
        training, turning = rows.for_fit(data.train, model, candidate, watch.fold, alone=alone)
        arguments = {
            **training,
            "epochs": candidate.epochs or budget.epochs,
            "validation_data": rows.for_keras(data.validation, model),
            # The watch comes late: it sees the learning rate that was noted, and may wait for long.
            "callbacks": [
                *turning,
                Means(self._objective),
                *kept.callbacks,
                leading,
                *ending,
                watch,
                *keeping,
            ],
            "verbose": 0,
        }
        check_rows = rows.validation_batch(int(candidate.settings["batch_size"]))
        if self._own is not None:
            measured = own_fits.train(self._own, model, candidate.settings, arguments, check_rows)
            watch.judge(measured)
            return _Fold(
                max(0, len(watch.curve) - 1), len(watch.curve), watch.curve[-1] if watch.curve else {}
            )
        begun = len(found.curve) if found else 0
        model.fit(**arguments, initial_epoch=begun, validation_batch_size=check_rows)
        epochs = len(watch.curve)
        last = max(epochs - 1, 0)
        best = last if candidate.epochs else halt.best_epoch if epochs else 0
        return _Fold(best, epochs, watch.curve[best] if epochs else {})

    def _save(self, model: keras.Model, data: Data, number: int) -> tuple[Path, Path | None]:
        folder = self._folder / str(number)
        folder.mkdir(exist_ok=True)
        model.save(folder / MODEL_FILE)
        inputs, _, _ = rows.for_keras(data.validation, model)
        raw = model.predict(inputs, batch_size=_PREDICTION_ROWS, verbose=0)
        return folder / MODEL_FILE, save_predictions(model, raw, data, folder)


def _there(folder: Path) -> Path | None:
    return folder if folder.exists() else None


def stopping(budget: Budget) -> keras.callbacks.EarlyStopping:
    """What ends a training early, with the weights of its best epoch."""
    return keras.callbacks.EarlyStopping(
        monitor=budget.monitor,
        mode=budget.mode,
        patience=budget.patience,
        min_delta=budget.min_delta,
        restore_best_weights=True,
    )


def rates(model: keras.Model, settings: Settings, budget: Budget) -> keras.callbacks.Callback:
    """What leads the learning rate, and notes it."""
    if not isinstance(model.optimizer._learning_rate, keras.Variable):
        # A schedule of the model's own leads itself.
        return keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: logs.update(learning_rate=float(model.optimizer.learning_rate))
        )
    planned = schedules.plan(settings, float(model.optimizer.learning_rate), budget.epochs)
    if planned[0] != schedules.PLATEAU:
        return keras.callbacks.LearningRateScheduler(lambda epoch, _: float(schedules.rate(planned, epoch)))
    return keras.callbacks.ReduceLROnPlateau(
        monitor=budget.monitor,
        mode=budget.mode,
        factor=budget.plateau_factor,
        patience=budget.plateau_patience,
        min_delta=budget.plateau_min_delta,
        cooldown=budget.plateau_cooldown,
        min_lr=budget.plateau_floor,
    )


class Means(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """Adds fixed means of logged metrics to what an epoch logs; the callbacks after it see them."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self._objective = objective

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs:
            logs.update(self._objective.with_means(logs))


class _Watch(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """Hands each epoch to the search loop, and ends a training that diverged or is not wanted any more.

    own: whether the training is one of the user's own, whose epochs need not log everything.
    """

    def __init__(
        self, number: int, fold: int, objective: Objective, monitor: str, baton: Baton, *, own: bool
    ) -> None:
        super().__init__()
        self.curve: list[dict[str, float]] = []
        self.failure = ""
        self._number = number
        self.fold = fold
        self._objective, self._monitor = objective, monitor
        self._baton = baton
        self._own = own

    def judge(self, measured: Mapping[str, float]) -> None:
        """Takes what the trained model was found to be for its last epoch, if it did not fail before."""
        if not self.failure and not self._baton.stop:
            self.on_epoch_end(len(self.curve), measured)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        if self._baton.stop:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        if self._baton.stop:
            self.model.stop_training = True
            return
        metrics = {name: float(value) for name, value in (logs or {}).items()}
        if self._own and self._objective.metric not in metrics:
            return
        check_logged(list(metrics), [self._objective.metric, *(() if self._own else (self._monitor,))])
        broken = [name for name, value in metrics.items() if not math.isfinite(value)]
        if broken:
            self.failure = f"diverged: {broken[0]} is {metrics[broken[0]]} in epoch {len(self.curve)}"
            self.model.stop_training = True
            return
        self.curve.append(metrics)
        self._baton.pass_on(
            Progress(
                self._number,
                self.fold,
                # A training of the user's own may begin several times.
                len(self.curve) - 1,
                metrics,
                metrics[self._objective.metric],
                int(self.model.optimizer.iterations),
            )
        )
        if self._baton.stop:
            self.model.stop_training = True
