"""This project inside of KerasTuner: real tuners, with tasks as HyperModels and Optuna as their Oracle."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np
import optuna
import pytest
from keras_tuner.engine.trial import TrialStatus
from optuna.trial import TrialState

from pipeline import tasks
from pipeline.kerastuner import OptunaOracle, TaskHyperModel
from pipeline.tasks.task import Task

pytestmark = pytest.mark.filterwarnings(
    # KerasTuner 1.4 asks Python for threads by old names.
    "ignore:currentThread\\(\\) is deprecated:DeprecationWarning",
    "ignore:getName\\(\\) is deprecated:DeprecationWarning",
)


class Formula(keras_tuner.Tuner):
    """A tuner without models: a trial's score is a number that its values make."""

    def __init__(self, oracle: keras_tuner.Oracle, run: Callable[[Any], float], folder: Path, **more: Any):
        self.run, self.seen = run, []
        super().__init__(oracle, directory=folder, project_name="formula", **more)

    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> float:
        value = self.run(trial.hyperparameters)
        self.seen.append(dict(trial.hyperparameters.values))
        return value


def parabola(hp: Any) -> float:
    return (hp.Float("x", -2.0, 2.0) - 0.5) ** 2


def oracle(**more: Any) -> OptunaOracle:
    return OptunaOracle(
        **{"objective": keras_tuner.Objective("score", "min"), "max_trials": 6, "seed": 1, **more}
    )


def test_optuna_finds_the_lowest_point_and_has_each_trial(tmp_path: Path) -> None:
    asked = oracle(max_trials=40)
    tuner = Formula(asked, parabola, tmp_path)
    tuner.search(verbose=0)
    best = tuner.get_best_hyperparameters()[0].get("x")
    # Forty even draws from a range of 4 would be within 0.1 of a point with probability 0.87.
    assert abs(best - 0.5) < 0.1
    found = asked.study.get_trials(states=(TrialState.COMPLETE,))
    assert len(found) == 40
    assert asked.study.best_value == min(trial.score for trial in asked.trials.values())


def test_a_conditional_hyperparameter_is_drawn_where_its_condition_holds(tmp_path: Path) -> None:
    def run(hp: Any) -> float:
        if hp.Choice("kind", ["a", "b"]) == "a":
            with hp.conditional_scope("kind", ["a"]):
                return float(hp.Float("depth", 1.0, 2.0))
        with hp.conditional_scope("kind", ["b"]):
            return float(hp.Int("width", 8, 64, step=8))

    tuner = Formula(oracle(max_trials=16, sampler="random"), run, tmp_path)
    tuner.search(verbose=0)
    kinds = {values["kind"] for values in tuner.seen}
    assert kinds == {"a", "b"}
    for values in tuner.seen:
        assert ("depth" in values) == (values["kind"] == "a")
        assert ("width" in values) == (values["kind"] == "b")
    # Such of the study's trials as KerasTuner knew both entries at have one of them.
    later = [trial.params for trial in tuner.oracle.study.trials if len(trial.params) == 2]
    assert later
    assert all(("depth" in params) == (params["kind"] == "a") for params in later)


def test_hyperparameters_that_appear_later_join_the_study(tmp_path: Path) -> None:
    calls = 0

    def run(hp: Any) -> float:
        nonlocal calls
        calls += 1
        more = hp.Float("late", 0.0, 1.0) if calls > 3 else 0.0
        return parabola(hp) + more

    tuner = Formula(oracle(max_trials=8), run, tmp_path)
    tuner.search(verbose=0)
    drawn = [trial.params for trial in tuner.oracle.study.trials]
    assert "late" not in drawn[3]
    assert all("late" in params for params in drawn[5:])


def test_a_trial_that_fails_is_told_and_one_that_is_run_again_keeps_its_values(tmp_path: Path) -> None:
    calls = 0

    def run(hp: Any) -> float:
        nonlocal calls
        calls += 1
        found = parabola(hp)
        if calls in (2, 4, 5):
            raise RuntimeError("no luck")
        return found

    asked = oracle(max_trials=4, max_retries_per_trial=1)
    tuner = Formula(asked, run, tmp_path)
    tuner.search(verbose=0)
    # The second failed once, the third twice.
    assert [trial.status for trial in asked.trials.values()] == [
        TrialStatus.COMPLETED,
        TrialStatus.COMPLETED,
        TrialStatus.FAILED,
        TrialStatus.COMPLETED,
    ]
    states = [trial.state for trial in asked.study.trials]
    assert states == [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]


@pytest.mark.parametrize("stored", [False, True])
def test_a_search_that_was_stopped_goes_on(tmp_path: Path, stored: bool) -> None:
    storage = f"sqlite:///{tmp_path / 'optuna.db'}" if stored else None
    Formula(oracle(max_trials=3, storage=storage), parabola, tmp_path).search(verbose=0)

    def stop(hp: Any) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Formula(oracle(max_trials=6, storage=storage), stop, tmp_path).search(verbose=0)
    again = oracle(max_trials=6, storage=storage)
    tuner = Formula(again, parabola, tmp_path)
    tuner.search(verbose=0)
    assert len(again.trials) == 6
    assert [trial.state for trial in again.study.trials] == [TrialState.COMPLETE] * 6
    scores = {trial.trial_id: trial.score for trial in again.trials.values()}
    assert {trial.user_attrs["keras_tuner.trial"]: trial.value for trial in again.study.trials} == scores


def test_a_space_of_choices_ends_when_all_are_tried(tmp_path: Path) -> None:
    tuner = Formula(oracle(max_trials=50), lambda hp: float(hp.Choice("size", [1, 2, 3])), tmp_path)
    tuner.search(verbose=0)
    assert sorted(values["size"] for values in tuner.seen) == [1, 2, 3]


def test_any_sampler_of_optunas_serves_and_no_other_name(tmp_path: Path) -> None:
    sampler = optuna.samplers.RandomSampler(seed=0)
    tuner = Formula(oracle(sampler=sampler), parabola, tmp_path)
    tuner.search(verbose=0)
    assert len(tuner.oracle.study.trials) == 6
    with pytest.raises(ValueError, match="sampler must be one of tpe, random, cmaes, gp"):
        oracle(sampler="grid")


def small_iris() -> Task:
    """Iris with two hidden layers of eight units, as KerasTuner builds a model at each turn."""
    task = tasks.find("iris")
    return replace(
        task, build=lambda settings, data: task.build({**settings, "units": 8, "hidden_layers": 2}, data)
    )


@pytest.fixture
def space(tmp_path: Path) -> str:
    file = tmp_path / "space.toml"
    file.write_text(
        """
        [objective]
        metric = "val_log_loss"
        [budget]
        epochs = 3
        [space]
        learning_rate = { low = 1e-4, high = 1e-1, log = true }
        batch_size = { choices = [16, 45] }
        dropout_on = { choices = [true, false] }
        dropout = { low = 0.1, high = 0.5, step = 0.1 }
        max_norm = { choices = [1.5, "none"] }
        schedule = { choices = ["constant", "cosine"] }
        schedule_final = { low = 0.1, high = 0.9 }
        [baseline]
        learning_rate = 5.0
        batch_size = 45
        """
    )
    return str(file)


def test_a_task_asks_for_its_space_with_conditions_and_published_defaults(space: str) -> None:
    hypermodel = TaskHyperModel(small_iris(), space=space)
    hp = keras_tuner.HyperParameters()
    settings = hypermodel.settings(hp)
    # Asked for after what it depends on; the published rate lies outside of the range.
    names = [entry.name for entry in hp.space]
    assert names.index("dropout") > names.index("dropout_on")
    assert {entry.name: [(one.name, one.values) for one in entry.conditions] for entry in hp.space}[
        "dropout"
    ] == [("dropout_on", [True])]
    assert (settings["learning_rate"], settings["batch_size"]) == (1e-4, 45)
    assert settings["max_norm"] == "none"
    # The schedule is constant, so nothing is asked of its end.
    assert "schedule_final" not in hp.values
    hp.values |= {"dropout_on": False, "schedule": "cosine", "max_norm": "1.5"}
    hp.values.pop("dropout")
    hp.values["schedule_final"] = 0.5
    settings = hypermodel.settings(hp)
    assert (settings["dropout_on"], settings["schedule_final"], settings["max_norm"]) == (False, 0.5, 1.5)


@pytest.mark.parametrize("kind", ["random", "optuna"])
def test_a_tuner_searches_a_task_without_any_arguments(kind: str, space: str, tmp_path: Path) -> None:
    hypermodel = TaskHyperModel(small_iris(), space=space)
    objective = keras_tuner.Objective("val_log_loss", "min")
    if kind == "random":
        tuner = keras_tuner.RandomSearch(hypermodel, objective, max_trials=2, seed=0, directory=tmp_path)
    else:
        asked = OptunaOracle(objective, max_trials=2, seed=0)
        tuner = keras_tuner.Tuner(asked, hypermodel, directory=tmp_path)
    tuner.search(verbose=0)
    (best,) = tuner.get_best_models(1)
    trials = list(tuner.oracle.trials.values())
    assert [trial.status for trial in trials] == [TrialStatus.COMPLETED] * 2
    check = hypermodel.data.validation
    found = best.evaluate(check.inputs, check.targets, verbose=0, return_dict=True)["log_loss"]
    # The same model in batches of another size.
    assert found == pytest.approx(min(trial.score for trial in trials), rel=1e-4)


def test_rows_and_arguments_that_are_given_count_before_the_tasks_own(space: str) -> None:
    hypermodel = TaskHyperModel(small_iris(), space=space)
    hp = keras_tuner.HyperParameters()
    model = hypermodel.build(hp)
    x, y = np.zeros((20, 4), np.float32), np.zeros(20, np.int32)
    seen: list[int] = []
    note = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch))
    history = hypermodel.fit(hp, model, x, y, epochs=1, validation_data=(x, y), callbacks=[note])
    assert len(history.epoch) == 1
    assert seen == [0]
    assert "learning_rate" in history.history or "val_log_loss" in history.history
