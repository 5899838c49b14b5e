"""Trials one by one through `model.fit` and Keras's own callbacks: the reference for every other engine.

`model.fit` runs on a thread of its own and hands over after each epoch, so that the search loop, which steps
the engine, decides between two epochs whether a trial goes on.
"""

import math
import queue
import threading
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import keras

from pipeline.engines import memory
from pipeline.engines.baton import Baton
from pipeline.engines.checkpoints import Checkpoints
from pipeline.engines.engine import Event, Times
from pipeline.engines.fitting import Training
from pipeline.secrets import hidden
from pipeline.tasks.task import OwnFit
from pipeline.values import Budget, Candidate, Data, Objective, Outcome, Settings

_CLOSE_SECONDS = 60.0


class FitEngine:
    """Trains one candidate at a time.

    Args:
        build: makes a compiled model of settings and data, as `Task.build`.
        folds: the data of each fold; one for training without folds.
        budget: what ends a training, see `Budget`.
        objective: the logged metric that scores a trial.
        folder: where the trained models are put; it exists.
        alone: whether no other engine of the process uses Keras at the same time.
        keeps: what a trial keeps besides its model, see `callbacks.ForFit`.
        own: the task's own training, see `Task`.
        checkpoints: from which trials go on that were interrupted; None to keep none. None are kept of trials
            with a training of their own, and of those that keep files of their epochs, see `keeps`: they
            start from their beginning.
    """

    def __init__(  # noqa: PLR0913  # it is built in one place
        self,
        build: Callable[[Settings, Data], keras.Model],
        folds: Sequence[Data],
        budget: Budget,
        objective: Objective,
        folder: Path,
        *,
        alone: bool = True,
        keeps: Collection[str] = (),
        own: OwnFit | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self._alone = alone
        self._training = Training(
            build,
            tuple(folds),
            budget,
            objective,
            folder,
            keeps,
            alone=alone,
            own=own,
            checkpoints=checkpoints,
        )
        self._baton = Baton()
        self._jobs: queue.SimpleQueue[Candidate | None] = queue.SimpleQueue()
        self._running: Candidate | None = None
        self._first = self._last = math.inf
        # One thread for all trials: Keras keeps its state (names, seeds, graphs) by thread.
        self._thread = threading.Thread(target=self._work, name="fit", daemon=True)
        self._thread.start()

    def free(self) -> int:
        return 0 if self._running else 1

    def add(self, candidate: Candidate) -> None:
        if self._running:
            raise RuntimeError("the fit engine trains one trial at a time")
        self._running = candidate
        self._jobs.put(candidate)

    def step(self) -> Sequence[Event]:
        if self._running is None:
            return ()
        self._first = min(self._first, time.monotonic())
        event = self._baton.next_event()
        self._last = time.monotonic()
        if event is None or isinstance(event, Outcome):
            self._running = None
        return () if event is None else (event,)

    def drop(self, number: int) -> None:
        if self._running is None or self._running.number != number:
            return
        self._baton.stop = True
        while self._running:
            self.step()
        self._baton.stop = False
        self._training.forget(number)

    def times(self) -> Times:
        return Times(self._first, self._last)

    def close(self) -> None:
        if self._running:
            self.drop(self._running.number)
        self._jobs.put(None)
        self._thread.join(_CLOSE_SECONDS)

    def _work(self) -> None:
        while (candidate := self._jobs.get()) is not None:
            self._baton.wait_for_step()
            with memory.freed(alone=self._alone):
                outcome = self._train(candidate)
            self._baton.finish(outcome)

    def _train(self, candidate: Candidate) -> Outcome | None:
        try:
            return self._training.run(candidate, self._baton)
        except (Exception, SystemExit) as error:
            # Whatever a model of the user's raises ends this trial, with its reason, and no other.
            first_line = (str(error).strip() or "no message").splitlines()[0]
            reason = f"{type(error).__name__}: {first_line}"
            self._training.forget(candidate.number)
            return Outcome(candidate.number, failure=hidden(reason), detail=hidden(traceback.format_exc()))
