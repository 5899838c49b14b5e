"""The child of `benchmarks.peers`: searches in one way until its time is over.

A way is one of:

    random, hyperband, bayesian     KerasTuner's tuners, on TensorFlow
    optuna                          Optuna's TPE round `model.fit`, on TensorFlow
    lanes                           this project
"""

import dataclasses
import importlib
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable
from typing import Any

from benchmarks.peers.curve import Curve

NAMES = ("random", "hyperband", "bayesian", "optuna", "lanes")
# More trials than there will be time for.
_MOST = 100_000
_OPENING = 5.0


class TimeIsOver(BaseException):
    """Ends a search from within a training; no error that a tuner would take for a trial's."""


@dataclasses.dataclass
class Watch:
    """The time of a search, and what it found.

    began: when the process was started, `time.time()`. seconds: that it has.
    """

    began: float
    seconds: float
    points: list[tuple[float, float]] = dataclasses.field(default_factory=list)
    trained: float = 0.0

    @property
    def moment(self) -> float:
        """Seconds since the start of the process."""
        return time.time() - self.began

    def note(self, score: float | None) -> None:
        """Takes the end of a trial; None for one that failed."""
        if score is not None and self.moment <= self.seconds:
            self.points.append((self.moment, score))

    def check(self) -> None:
        """After an epoch: raises TimeIsOver."""
        self.trained = self.moment
        if self.moment >= self.seconds:
            raise TimeIsOver

    def curve(self, contender: str, test: dict[str, float]) -> Curve:
        """What was found."""
        return Curve(contender, tuple(self.points), self.trained, test)


def main(asked: dict[str, Any]) -> Curve:
    """Searches as the driver asked."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    contender = asked["contender"]
    if contender == "lanes":
        return _lanes(asked)
    watch = Watch(asked["began"], asked["seconds"])
    return _optuna(asked, watch) if contender == "optuna" else _tuner(asked, watch)


def _lanes(asked: dict[str, Any]) -> Curve:
    """The command `search`, whose trials MLflow has.

    Its own time begins when its study is open. So all that takes long before is done first, and the rest, the
    study and the record's process, is given `_OPENING` of the time.
    """
    from pipeline import search, tasks
    from pipeline.engines import backend

    backend.choose("auto")
    backend.load()
    from pipeline.tracking.connection import connect

    importlib.import_module("pipeline.commands")

    tasks.find(asked["task"]).load(asked["size"])
    connect()
    metric = asked["metric"]
    left = asked["seconds"] - (time.time() - asked["began"]) - _OPENING
    result = search(
        task=asked["task"],
        size=asked["size"],
        space=asked["space"],
        trials=asked["trials"],
        timeout=left,
        seed=asked["seed"],
        epochs=asked["epochs"],
        export="none",
    )
    if result is None:
        return Curve("lanes", (), asked["seconds"], {})
    name = metric.removeprefix("val_")
    test = {
        "best": result.scores["champion"][name].value,
        "ensemble": result.scores["ensemble"][name].value,
    }
    return Curve("lanes", *_recorded(metric, asked["began"], asked["seconds"]), test)


def _recorded(metric: str, began: float, seconds: float) -> tuple[tuple[tuple[float, float], ...], float]:
    """When each trial's best score was recorded, and when the last epoch was."""
    file = os.environ["MLFLOW_TRACKING_URI"].removeprefix("sqlite:///")
    query = (
        "SELECT metrics.timestamp, metrics.value FROM metrics JOIN tags USING (run_uuid)"
        " WHERE tags.key = 'pipeline.trial' AND metrics.key = ?"
    )
    with sqlite3.connect(file) as database:
        ends = database.execute(query, (f"best_{metric}",)).fetchall()
        epochs = database.execute(query, (metric,)).fetchall()
    points = [(stamp / 1000 - began, score) for stamp, score in ends]
    trained = max(stamp / 1000 - began for stamp, _ in epochs)
    return tuple(point for point in points if point[0] <= seconds), trained


def _tuner(asked: dict[str, Any], watch: Watch) -> Curve:
    """A KerasTuner tuner on the task's own HyperModel."""
    import keras
    import keras_tuner

    from pipeline.kerastuner import TaskHyperModel

    hypermodel = TaskHyperModel(asked["task"], asked["size"], asked["space"])
    objective = keras_tuner.Objective(asked["metric"], "max" if asked["direction"] == "maximize" else "min")
    epochs = asked["epochs"] or hypermodel.search_space.budget.epochs

    class Timed(keras.callbacks.Callback):
        """A tuner copies its callbacks, so the watch is no part of this one."""

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            watch.check()

    with tempfile.TemporaryDirectory() as folder:
        common = {"objective": objective, "seed": asked["seed"], "directory": folder}
        makers: dict[str, Callable[[], Any]] = {
            "random": lambda: keras_tuner.RandomSearch(hypermodel, max_trials=_MOST, **common),
            "bayesian": lambda: keras_tuner.BayesianOptimization(hypermodel, max_trials=_MOST, **common),
            "hyperband": lambda: keras_tuner.Hyperband(
                hypermodel, max_epochs=epochs, hyperband_iterations=_MOST, **common
            ),
        }
        tuner = makers[asked["contender"]]()
        end = tuner.on_trial_end

        def noted(trial: Any) -> None:
            end(trial)
            watch.note(tuner.oracle.get_trial(trial.trial_id).score)

        tuner.on_trial_end = noted
        try:
            given = {} if asked["contender"] == "hyperband" else {"epochs": epochs}
            tuner.search(callbacks=[Timed()], verbose=0, **given)
        except TimeIsOver:
            pass
        if not watch.points:
            return watch.curve(asked["contender"], {})
        (best,) = tuner.get_best_models(1)
        score = _test_score(best, hypermodel.data, asked["metric"])
    return watch.curve(asked["contender"], {"best": score})


def _optuna(asked: dict[str, Any], watch: Watch) -> Curve:
    """The loop that people write."""
    import keras
    import optuna

    from pipeline.kerastuner import TaskHyperModel

    hypermodel = TaskHyperModel(asked["task"], asked["size"], asked["space"])
    space, metric, best = hypermodel.search_space, asked["metric"], None
    timed = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: watch.check())
    study = optuna.create_study(
        direction=asked["direction"], sampler=optuna.samplers.TPESampler(seed=asked["seed"])
    )
    choose = max if asked["direction"] == "maximize" else min
    try:
        while True:
            trial = study.ask(dict(space.searched))
            keras.utils.clear_session()
            settings = space.complete(trial.params)
            model = hypermodel.task.build(settings, hypermodel.data)
            epochs = asked["epochs"] or space.budget.epochs
            history = hypermodel.fit_settings(settings, model, epochs=epochs, callbacks=[timed])
            score = choose(history.history[metric])
            study.tell(trial, score)
            watch.note(score)
            if study.best_trial.number == trial.number:
                best = model
    except TimeIsOver:
        pass
    test = {} if best is None else {"best": _test_score(best, hypermodel.data, metric)}
    return watch.curve("optuna", test)


def _test_score(model: Any, data: Any, metric: str) -> float:
    from pipeline import answers
    from pipeline.metrics import score

    rows = data.test.unseal()
    found = answers.read(model, model.predict(rows.inputs, batch_size=1024, verbose=0), data)
    return score(metric.removeprefix("val_"), rows.targets, found)
