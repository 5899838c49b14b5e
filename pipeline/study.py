"""One Optuna study as the search loop uses it: candidates out, results in, and what it is tied to.

A study's record holds everything that a later run needs to go on: the space it was started with, each
trial's settings, seed and reason, and the MLflow run that shows it.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from pipeline import samplers
from pipeline.seeds import derived
from pipeline.space import Space
from pipeline.values import Candidate, Outcome, Settings

_SETTINGS, _SEED, _REASON, _INTERRUPTED, _PARENT, _CLOSED, _REPLAY, _LANES, _STARTS, _STARTED_FROM = (
    "settings",
    "seed",
    "reason",
    "interrupted",
    "mlflow_run",
    "closed_at",
    "replay",
    "lanes",
    "starts",
    "started_from",
)


@dataclass(frozen=True)
class Finished:
    """A completed trial: its number, seed, objective value and every setting.

    baseline: whether it is the published model.
    """

    number: int
    seed: int
    value: float
    settings: Settings
    baseline: bool


@dataclass(frozen=True)
class Start:
    """What a trial is given in place of what a sampler draws.

    label: where it was found, `STUDY/number`. drawn: a value for every searched setting.
    """

    label: str
    drawn: Settings


@dataclass(frozen=True)
class Counts:
    """Trials by how they ended; interrupted ones are in none of them."""

    completed: int
    pruned: int
    failed: int

    @property
    def total(self) -> int:
        return self.completed + self.pruned + self.failed


def settings_of(trial: FrozenTrial) -> Settings:
    """Every setting that a trial's model and training had."""
    settings: Settings = json.loads(trial.user_attrs[_SETTINGS])
    return settings


def run_of(study: optuna.Study) -> str:
    """The MLflow run that shows a study, empty before there is one."""
    return str(study.user_attrs.get(_PARENT, ""))


class Study:
    """An Optuna study. Built by `open_study`."""

    def __init__(
        self, study: optuna.Study, storage: BaseStorage, space: Space, sampler: str, seed: int
    ) -> None:
        self._study = study
        self._storage = storage
        self._space = space
        self._sampler = sampler
        self._seed = seed
        self._study_id = storage.get_study_id_from_name(study.study_name)
        self._asked: dict[int, Trial] = {}
        self._running: set[int] = set()

    @property
    def name(self) -> str:
        return self._study.study_name

    @property
    def parent_run(self) -> str:
        """The MLflow run that shows this study, empty before there is one."""
        return run_of(self._study)

    def set_parent_run(self, run: str) -> None:
        self._study.set_user_attr(_PARENT, run)

    @property
    def closed(self) -> bool:
        """Whether the ensemble and the scores have been made for the trials as they are now."""
        return self._study.user_attrs.get(_CLOSED) == self.counts().total

    @property
    def lanes(self) -> int | None:
        """How many lanes its programs have had at most, if it was trained in lanes."""
        found = self._study.user_attrs.get(_LANES)
        return None if found is None else int(found)

    def close(self) -> None:
        self._study.set_user_attr(_CLOSED, self.counts().total)

    def counts(self) -> Counts:
        states = [trial.state for trial in self._counted()]
        return Counts(
            states.count(TrialState.COMPLETE), states.count(TrialState.PRUNED), states.count(TrialState.FAIL)
        )

    def finished(self) -> list[Finished]:
        """The completed trials, best first; of equals, the earlier."""
        completed = [trial for trial in self._trials() if trial.state == TrialState.COMPLETE]
        sign = -1 if self._space.objective.direction == "maximize" else 1
        finished = [
            Finished(
                trial.number,
                int(trial.user_attrs[_SEED]),
                float(trial.values[0]),
                # Settings that came after the study have their defaults.
                self._space.published(settings_of(trial)),
                samplers.BASELINE in trial.user_attrs,
            )
            for trial in completed
        ]
        return sorted(finished, key=lambda trial: (sign * trial.value, trial.number))

    def history(self) -> list[tuple[int, float]]:
        """(number, objective value) of each completed trial, in the order of their numbers."""
        return sorted((trial.number, trial.value) for trial in self.finished())

    def reasons(self) -> list[str]:
        """Why trials failed, each reason once, the commonest first."""
        reasons = [
            str(trial.user_attrs.get(_REASON, "unknown"))
            for trial in self._counted()
            if trial.state == TrialState.FAIL
        ]
        return sorted(set(reasons), key=lambda reason: (-reasons.count(reason), reason))

    def remaining(self, trials: int) -> int:
        """How many trials are still to be asked for: up to `trials` in all, or to a grid's last point.

        Of the trials that the record calls running, only this process's own count: the others may have
        been left behind by a process that was killed.
        """
        left = trials - self.counts().total - len(self._running)
        points = samplers.points(self._sampler, self._space.searched) - len(self._taken())
        return max(0, int(min(left, points + (1 if self._wants_baseline() else 0))))

    def ask(self) -> Candidate:
        """The next trial: the baseline first, if the space has one; then whatever the sampler draws."""
        if self._wants_baseline():
            return self._ask_baseline()
        self._queue_starts()
        number = len(self._trials())
        self._study.sampler = samplers.make_sampler(
            self._sampler, self._space.searched, self._seed, number, self._taken()
        )
        trial = self._study.ask(dict(self._space.searched))
        self._asked[trial.number] = trial
        self._running.add(trial.number)
        settings, seed = self._space.complete(trial.params), derived(self._seed, trial.number)
        trial.set_user_attr(_SETTINGS, json.dumps(settings))
        trial.set_user_attr(_SEED, seed)
        return Candidate(trial.number, seed, settings)

    def start_from(self, study: str, starts: Sequence[Start]) -> bool:
        """Has these tried next, after the baseline; false if it has had some of that study already."""
        known = self._study.user_attrs.get(_STARTS, {})
        if study in known:
            return False
        self._study.set_user_attr(_STARTS, {**known, study: [asdict(start) for start in starts]})
        return True

    def started_from(self, number: int) -> str:
        """The label of the `Start` that a trial of this process was given, or empty."""
        trial = self._asked.get(number)
        return "" if trial is None else str(trial.user_attrs.get(_STARTED_FROM, ""))

    def drawn(self, candidate: Candidate) -> Settings:
        """What is particular to this trial: the searched settings, or all of the baseline's."""
        trial = self._asked.get(candidate.number)
        return candidate.settings if trial is None else trial.params

    def is_baseline(self, number: int) -> bool:
        return number not in self._asked

    def report(self, number: int, value: float, step: int) -> bool:
        """Notes an intermediate value; true if the pruner gives the trial up. The baseline never is."""
        trial = self._asked.get(number)
        if trial is None:
            self._storage.set_trial_intermediate_value(self._trial_id(number), step, value)
            return False
        trial.report(value, step)
        return trial.should_prune()

    def tell(self, outcome: Outcome) -> None:
        """Notes the end of a trial that completed or failed."""
        if outcome.failure:
            self._end(outcome.number, TrialState.FAIL, outcome.failure)
            return
        if outcome.replay:
            self._storage.set_trial_user_attr(self._trial_id(outcome.number), _REPLAY, asdict(outcome.replay))
            if (self.lanes or 0) < outcome.replay.lanes:
                self._study.set_user_attr(_LANES, outcome.replay.lanes)
        self._study.tell(outcome.number, outcome.value)
        self._running.discard(outcome.number)

    def prune(self, number: int, reason: str) -> None:
        """Notes that a trial was given up; its value is the last one reported."""
        self._end(number, TrialState.PRUNED, reason)

    def interrupt(self, number: int, reason: str) -> None:
        """Notes that a trial under way was ended from outside; it counts for nothing."""
        self._storage.set_trial_user_attr(self._trial_id(number), _INTERRUPTED, value=True)
        self._end(number, TrialState.FAIL, reason)

    def _end(self, number: int, state: TrialState, reason: str) -> None:
        self._storage.set_trial_user_attr(self._trial_id(number), _REASON, reason)
        self._study.tell(number, state=state)
        self._running.discard(number)

    def _ask_baseline(self) -> Candidate:
        # A RUNNING trial keeps the number while it trains; it has no distributions, as its settings may
        # lie outside of every range.
        settings = self._space.published(self._space.baseline or {})
        attributes = {samplers.BASELINE: True, _SETTINGS: json.dumps(settings)}
        template = create_trial(state=TrialState.RUNNING, user_attrs=attributes)
        trial_id = self._storage.create_new_trial(self._study_id, template)
        number = self._storage.get_trial_number_from_id(trial_id)
        seed = derived(self._seed, number)
        self._storage.set_trial_user_attr(trial_id, _SEED, seed)
        self._running.add(number)
        return Candidate(number, seed, settings)

    def _queue_starts(self) -> None:
        """Queues what is to be tried first, each once; Optuna asks for what is queued before it draws."""
        wanted = self._study.user_attrs.get(_STARTS)
        if not wanted:
            return
        there = {
            trial.user_attrs.get(_STARTED_FROM)
            for trial in self._trials()
            # One that was ended from outside counts for nothing, and is tried again.
            if not (trial.state.is_finished() and _INTERRUPTED in trial.user_attrs)
        }
        for start in (Start(**found) for starts in wanted.values() for found in starts):
            if start.label not in there:
                self._study.enqueue_trial(dict(start.drawn), {_STARTED_FROM: start.label})

    def _wants_baseline(self) -> bool:
        return self._space.baseline is not None and not any(
            samplers.BASELINE in trial.user_attrs for trial in self._counted()
        )

    def _taken(self) -> list[dict[str, Any]]:
        """The drawn parameters of every trial that counts or is under way here."""
        return [dict(trial.params) for trial in self._counted() if samplers.BASELINE not in trial.user_attrs]

    def _counted(self) -> list[FrozenTrial]:
        """The trials that ended of themselves, and those under way in this process."""
        return [
            trial
            for trial in self._trials()
            if trial.number in self._running
            or (trial.state.is_finished() and _INTERRUPTED not in trial.user_attrs)
        ]

    def _trials(self) -> Sequence[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
