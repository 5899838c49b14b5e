"""Optuna as a KerasTuner Oracle: any of its samplers draws the trials of any KerasTuner tuner."""

from collections.abc import Mapping
from typing import Any

import optuna
from keras_tuner import HyperParameters, Oracle, synchronized
from keras_tuner.engine.trial import Trial, TrialStatus
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from pipeline import samplers
from pipeline.ranges import distribution
from pipeline.tasks.hyperparameters import Vocabulary, vocabulary
from pipeline.values import Setting

_ID = "keras_tuner.trial"
# By name; a grid would have to know the whole space.
_SAMPLERS = ("tpe", "random", "cmaes", "gp")


class OptunaOracle(Oracle):  # type: ignore[misc]  # KerasTuner has no types
    """Draws values by asking an Optuna study, and tells it how trials ended.

    Hyperparameters are drawn where their conditions hold, and nowhere else; new ones join the study when they
    appear. A trial that is run again keeps its values. The study is made of KerasTuner's own trials when a
    project is taken up again, unless `storage` has kept it.

    Args:
        objective: as of any Oracle; also of several, whose sum KerasTuner makes.
        max_trials: at most.
        sampler: `tpe`, `random`, `cmaes` or `gp`, or any sampler of Optuna's.
        seed: of the draws.
        storage: an Optuna storage or its URL; in memory if not given.
        study: the name of the study in the storage.
        more: the other arguments of an Oracle.

    Raises:
        ValueError: there is no such sampler.
    """

    def __init__(
        self,
        objective: Any = None,
        max_trials: int | None = 10,
        sampler: str | BaseSampler = "tpe",
        seed: int | None = None,
        storage: str | BaseStorage | None = None,
        study: str = "keras-tuner",
        **more: Any,
    ) -> None:
        if isinstance(sampler, str) and sampler not in _SAMPLERS:
            raise ValueError(
                f"sampler must be one of {', '.join(_SAMPLERS)}, or a sampler of Optuna's, but is {sampler!r}"
            )
        super().__init__(objective=objective, max_trials=max_trials, seed=seed, **more)
        self._sampler, self._storage, self._study_name = sampler, storage, study
        self._kept: optuna.Study | None = None

    @property
    def study(self) -> optuna.Study:
        """The study, with all trials that KerasTuner has."""
        if self._kept is None:
            self._kept = optuna.create_study(
                study_name=self._study_name,
                storage=self._storage,
                direction="maximize" if self.objective.direction == "max" else "minimize",
                load_if_exists=True,
            )
        known = self._numbers(self._kept)
        words = vocabulary(self.hyperparameters)
        for trial_id in self.start_order:
            if trial_id not in known:
                self._kept.add_trial(_frozen(self.trials[trial_id], words))
        return self._kept

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Values for a trial; it is over when a space of choices has no others left."""
        study = self.study
        words = vocabulary(self.hyperparameters)
        trial = self._asked(study)
        values = _drawn(trial, words)
        if self._duplicate(values):
            # As KerasTuner's own Oracles: none is tried twice, and at random where the sampler insists.
            study.tell(trial, state=TrialState.FAIL)
            values = self._random_values()
            if values is None:
                return {"status": TrialStatus.STOPPED, "values": None}
            study.enqueue_trial(_by_setting(values, words, self.hyperparameters))
            trial = self._asked(study)
            _drawn(trial, words)
        trial.set_user_attr(_ID, trial_id)
        return {"status": TrialStatus.RUNNING, "values": values}

    @synchronized  # type: ignore[untyped-decorator]  # KerasTuner has no types
    def end_trial(self, trial: Trial) -> None:
        """Tells the study, unless the trial is to run again."""
        study = self.study
        super().end_trial(trial)
        ended = self.trials[trial.trial_id]
        number = self._numbers(study)[trial.trial_id]
        if study.trials[number].state.is_finished():
            return
        if ended.status == TrialStatus.COMPLETED:
            study.tell(number, ended.score)
        elif ended.status == TrialStatus.FAILED:
            study.tell(number, state=TrialState.FAIL)

    def _asked(self, study: optuna.Study) -> optuna.Trial:
        sampler = self._sampler
        if isinstance(sampler, str):
            sampler = samplers.make_sampler(sampler, {}, self.seed, len(study.get_trials(deepcopy=False)))
        study.sampler = sampler
        return study.ask()

    def _numbers(self, study: optuna.Study) -> dict[str, int]:
        """The study's trials by KerasTuner's ids."""
        return {
            trial.user_attrs[_ID]: trial.number
            for trial in study.get_trials(deepcopy=False)
            if _ID in trial.user_attrs
        }


def _distributions(words: Vocabulary) -> dict[str, BaseDistribution | Setting]:
    """By setting what it is drawn from, or its only value."""
    known = {parameter.name: parameter for parameter in words.parameters}
    found: dict[str, BaseDistribution | Setting] = {}
    for name, spec in words.specs.items():
        if not isinstance(spec, Mapping):
            found[name] = spec
            continue
        drawn = distribution(spec, known[name])
        if not isinstance(drawn, BaseDistribution):
            raise ValueError(f"hyperparameter {name!r} cannot be drawn: {'; '.join(drawn)}")
        found[name] = drawn
    return found


def _drawn(trial: optuna.Trial, words: Vocabulary) -> dict[str, Setting]:
    """Values of the entries that are active, each drawn after those that its conditions are about."""
    distributions = _distributions(words)
    hp = HyperParameters.from_config({**words.space.get_config(), "values": {}})
    for entry, name in zip(hp.space, words.names, strict=True):
        if name and hp.is_active(entry):
            drawn = distributions[name]
            one = trial._suggest(name, drawn) if isinstance(drawn, BaseDistribution) else drawn
            hp.values[entry.name] = one
    values: dict[str, Setting] = hp.values
    return values


def _by_setting(
    values: Mapping[str, Setting], words: Vocabulary, space: HyperParameters
) -> dict[str, Setting]:
    hp = HyperParameters.from_config({**space.get_config(), "values": dict(values)})
    return {
        name: values[entry.name]
        for entry, name in zip(hp.space, words.names, strict=True)
        if name and entry.name in values and hp.is_active(entry)
    }


def _frozen(trial: Trial, words: Vocabulary) -> FrozenTrial:
    """A trial of KerasTuner's as the study has it."""
    values = _by_setting(trial.hyperparameters.values, words, words.space)
    # Another Oracle may have drawn what this one would not.
    fit = {
        name: drawn
        for name, drawn in _distributions(words).items()
        if name in values
        and isinstance(drawn, BaseDistribution)
        and drawn._contains(drawn.to_internal_repr(values[name]))
    }
    ended = {TrialStatus.COMPLETED: TrialState.COMPLETE, TrialStatus.FAILED: TrialState.FAIL}
    # One that is just ending has no score yet.
    unscored = trial.status == TrialStatus.COMPLETED and trial.score is None
    state = TrialState.RUNNING if unscored else ended.get(trial.status, TrialState.RUNNING)
    return create_trial(
        state=state,
        value=trial.score if state == TrialState.COMPLETE else None,
        params={name: values[name] for name in fit},
        distributions=fit,
        user_attrs={_ID: trial.trial_id},
    )
