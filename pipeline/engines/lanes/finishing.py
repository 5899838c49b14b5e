"""From a lane to an outcome: on a thread of its own, the trained model is saved and its predictions made."""

import shutil
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from pipeline.engines import callbacks
from pipeline.engines.engine import CHECKPOINT_FILE, MODEL_FILE
from pipeline.engines.lanes.entries import Entry
from pipeline.engines.lanes.orders import Orders
from pipeline.engines.lanes.predictor import Predictor
from pipeline.engines.lanes.twin import Values
from pipeline.engines.models import save_predictions
from pipeline.values import Data, Objective, Outcome


class Finisher:
    """Makes outcomes of trainings that ended.

    Args:
        objective: the logged metric that scores a trial.
        data: whose validation rows are predicted.
        folder: where the trained models are put; it exists.
        orders: that the trainings had.
        keeps: of `checkpoint` and `activations`, what a trial keeps besides its model.
    """

    def __init__(
        self,
        objective: Objective,
        data: Data,
        folder: Path,
        orders: Orders,
        keeps: Collection[str] = (),
    ) -> None:
        self._objective, self._data, self._folder, self._orders = objective, data, folder, orders
        self._keeps = keeps
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="finisher")
        self._predictors: dict[str, Predictor] = {}

    def finish(
        self, entry: Entry, values: Values, best_epoch: int, ended: float, lanes: int
    ) -> "Future[Outcome]":
        """The outcome of a trial without folds.

        Args:
            entry: the training.
            values: its weights at the best epoch.
            best_epoch: the number of that.
            ended: when its lane ended, on `time.monotonic()`.
            lanes: of its program.
        """
        return self._thread.submit(self._finish, entry, values, best_epoch, ended, lanes)

    def mean(self, done: Sequence[tuple[Entry, int]], ended: float) -> Outcome:
        """The outcome of a trial with folds, the means over them; by each fold's entry and best epoch."""
        best = [entry.curve[epoch] for entry, epoch in done]
        mean = {name: float(np.mean([metrics[name] for metrics in best])) for name in best[0]}
        return Outcome(
            done[0][0].candidate.number,
            value=mean[self._objective.metric],
            best_epoch=round(float(np.mean([epoch for _, epoch in done]))),
            epochs=sum(len(entry.curve) for entry, _ in done),
            seconds=ended - min(entry.started for entry, _ in done),
            metrics=mean,
        )

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)

    def _finish(self, entry: Entry, values: Values, best_epoch: int, ended: float, lanes: int) -> Outcome:
        """The end of a trial; on the finisher's thread."""
        number, metrics = entry.candidate.number, entry.curve[best_epoch]
        folder = self._folder / str(number)
        folder.mkdir(exist_ok=True)
        entry.twin.write_back(values, entry.plain)
        entry.plain.save(folder / MODEL_FILE)
        return Outcome(
            number,
            value=metrics[self._objective.metric],
            best_epoch=best_epoch,
            epochs=len(entry.curve),
            seconds=ended - entry.started,
            metrics=metrics,
            model_file=folder / MODEL_FILE,
            predictions_file=self._predict(entry, values, folder),
            replay=self._orders.replay(entry, lanes),
            folder=self._keep(entry, best_epoch, folder),
        )

    def _keep(self, entry: Entry, best_epoch: int, folder: Path) -> Path | None:
        """A folder with what the trial keeps besides its model, which is saved; None for nothing."""
        kept = folder / "kept"
        if callbacks.CHECKPOINT in self._keeps:
            kept.mkdir(exist_ok=True)
            # Of the epochs before, a lane has kept nothing but the best one's weights.
            shutil.copyfile(folder / MODEL_FILE, kept / CHECKPOINT_FILE)
        if callbacks.ACTIVATIONS in self._keeps:
            row = callbacks.first_row(self._data.validation, entry.plain)
            callbacks.save_activations({best_epoch: callbacks.activations(entry.plain, row)}, kept)
        return kept if kept.exists() else None

    def _predict(self, entry: Entry, values: Values, folder: Path) -> Path | None:
        predictor = self._predictors.setdefault(entry.key.structure, Predictor(entry.twin))
        raw = predictor.predict(values, self._data.validation)
        return save_predictions(entry.plain, raw, self._data, folder)
