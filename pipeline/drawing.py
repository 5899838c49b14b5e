"""How a new trial gets its parameters: each is drawn by the sampler, as if no process were ever killed."""

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage
from optuna.trial import Trial

from pipeline import samplers
from pipeline.space import Space


class Drawing:
    """Draws trials of a study.

    Args:
        study: they are of.
        storage: that the study is in, without Optuna's cache of it.
        space: whose searched parameters are drawn.
        sampler: its name.
        seed: the study's, from which with a trial's number all of its draws derive.
    """

    def __init__(
        self, study: optuna.Study, storage: BaseStorage, space: Space, sampler: str, seed: int
    ) -> None:
        self._study, self._storage, self._space, self._sampler, self._seed = (
            study,
            storage,
            space,
            sampler,
            seed,
        )

    def draw(self, trial_id: int, taken: Sequence[Mapping[str, Any]] = ()) -> Trial:
        """A trial with every parameter, those that it had as they were. taken: points that a grid has had."""
        number = self._storage.get_trial_number_from_id(trial_id)
        self._study.sampler = samplers.make_sampler(
            self._sampler, self._space.searched, self._seed, number, taken
        )
        if self._study._storage is not self._storage:
            # Optuna's cache of a database knows a trial that it has not made once it has read them all.
            self._study.get_trials(deepcopy=False)
        trial = Trial(self._study, trial_id)
        drawn_before = self._drawn_alone(trial)
        for name, searched in self._space.searched.items():
            if name in drawn_before:
                # Drawn once more and forgotten: what follows is then as if its process had never been gone.
                frozen = self._storage.get_trial(trial_id)
                self._study.sampler.sample_independent(self._study, frozen, name, searched)
            _suggest(trial, name, searched)
        return trial

    def _drawn_alone(self, trial: Trial) -> set[str]:
        """Parameters that a trial has, each of which took the sampler a draw of its own."""
        if not trial.params:
            return set()
        given = self._storage.get_trial(trial._trial_id).system_attrs.get("fixed_params", {})
        together = {*given, *trial.relative_params}
        return {
            name
            for name, searched in self._space.searched.items()
            if name in trial.params and name not in together and not searched.single()
        }


def _suggest(trial: Trial, name: str, searched: BaseDistribution) -> None:
    """Draws a parameter, unless the trial has it."""
    if isinstance(searched, FloatDistribution):
        trial.suggest_float(name, searched.low, searched.high, step=searched.step, log=searched.log)
    elif isinstance(searched, IntDistribution):
        trial.suggest_int(name, searched.low, searched.high, step=searched.step, log=searched.log)
    elif isinstance(searched, CategoricalDistribution):
        trial.suggest_categorical(name, searched.choices)
