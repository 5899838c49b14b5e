"""One Optuna study as the search loop uses it: candidates out, results in, and what it is tied to.

A study's record holds everything that a later run needs to go on: the space it was started with, each
trial's settings, seed and reason, and the MLflow run that shows it. A trial that was interrupted waits in it,
with its number, settings and seed, until it is asked for again.
"""

import contextlib
import json
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from pipeline import journal, outages, samplers
from pipeline import storage as storages
from pipeline.drawing import Drawing
from pipeline.errors import RunError
from pipeline.pulse import Pulse
from pipeline.seeds import derived
from pipeline.space import Space
from pipeline.tally import INTERRUPTED, STARTED_FROM, Standing, Tally
from pipeline.values import Candidate, Outcome, Replay, Settings

_SETTINGS, _SEED, _REASON, _PARENT, _CLOSED, _REPLAY, _LANES, _STARTS, _BY, _KEY = (
    "settings",
    "seed",
    "reason",
    "mlflow_run",
    "closed_at",
    "replay",
    "lanes",
    "starts",
    "process",
    "key",
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
    """Trials by how they ended; those that wait to be trained again are in none of them."""

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


def starts_known(study: optuna.Study, earlier: str) -> bool:
    """Whether a study has been given settings of that earlier one to start from."""
    return earlier in study.user_attrs.get(_STARTS, {})


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
        self._pulse = Pulse(storage, self._study_id)
        self._tally = Tally(self._trials)
        self._drawing = Drawing(study, storage, space, sampler, seed)
        self._asked: dict[int, Trial] = {}
        self._running: set[int] = set()
        self._process = uuid.uuid4().hex
        self._patience = 0.0
        # The last step that trials which waited had reported before.
        self._reported: dict[int, int] = {}

    @property
    def name(self) -> str:
        return self._study.study_name

    @property
    def parent_run(self) -> str:
        """The MLflow run that shows this study, empty before there is one."""
        return run_of(self._study)

    def key(self) -> str:
        """What no other study has, of whatever storage and name: the run that is made for it is known by it.

        It is written when it is first asked for.
        """
        known = self._study.user_attrs.get(_KEY)
        if known is None:
            known = uuid.uuid4().hex
            self._study.set_user_attr(_KEY, known)
        return str(known)

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

    def close(self, ended: int) -> None:
        """Notes that ensemble and scores are made.

        ended: how many trials had ended when their models were looked for: another process may have ended
        some since then.
        """
        storages.patiently(lambda: self._study.set_user_attr(_CLOSED, ended), self._patience)

    @contextlib.contextmanager
    def patient(self) -> Iterator[None]:
        """For a block that cannot do without the storage: where it does not answer it is waited for."""
        self._patience = outages.SECONDS
        try:
            yield
        finally:
            self._patience = 0.0

    def counts(self) -> Counts:
        ended = self._tally.look().ended
        return Counts(ended[TrialState.COMPLETE], ended[TrialState.PRUNED], ended[TrialState.FAIL])

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
        reasons = Counter(
            str(trial.user_attrs.get(_REASON, "unknown"))
            for trial in self._counted()
            if trial.state == TrialState.FAIL
        )
        return sorted(reasons, key=lambda reason: (-reasons[reason], reason))

    def remaining(self, trials: int) -> int:
        """How many trials are still to be asked for: up to `trials` in all, or to a grid's last point.

        Trials under way count, wherever they train; those that a process left which is gone wait again, see
        `queue_left`.
        """
        return self._remaining(self._tally.look(), trials)

    def next(self, trials: int) -> Candidate | None:
        """The next trial of so many in all, see `ask`; None if there is none to ask for now."""
        with self.alone(), journal.together(self._storage):
            standing = self._tally.look()
            return self._ask(standing) if self._remaining(standing, trials) else None

    def alone(self) -> contextlib.AbstractContextManager[None]:
        """For a block that no other process that trains the study is in."""
        return self._pulse.alone(self.name, self._patience)

    def ended(self) -> set[int]:
        """The trials that will not be trained again."""
        return {trial.number for trial in self._trials() if trial.state.is_finished()}

    def under_way(self) -> list[int]:
        """The trials that are trained now, here or elsewhere."""
        return [trial.number for trial in self._tally.look().in_state(TrialState.RUNNING)]

    def elsewhere(self) -> int:
        """How many trials other processes train."""
        return len(set(self.under_way()) - self._running)

    def ask(self) -> Candidate:
        """The next trial: what waits first; then the baseline, if the space has one; then a new draw."""
        return self._ask(self._tally.look())

    @property
    def shared(self) -> bool:
        """Whether several processes may train it."""
        return self._pulse.shared

    def queue_left(self) -> list[int]:
        """Queues what a process that is gone was training; the trials' numbers.

        Where several processes may train the study, one that has not shown a sign of life for some time is
        gone; elsewhere the study's lock says that there is no other.
        """
        running = self._elsewhere()
        if self.shared and running:
            stale = self._pulse.stale()
            if not stale:
                return []
            with self.alone():
                # Meanwhile another process may have queued them, or its own have told how they ended.
                running = {
                    trial_id: number for trial_id, number in self._elsewhere().items() if trial_id in stale
                }
                self._queue(running)
        else:
            self._queue(running)
        return list(running.values())

    def _elsewhere(self) -> dict[int, int]:
        """The numbers of trials that other processes train, or trained, by their ids."""
        return {
            trial._trial_id: trial.number
            for trial in self._tally.look().in_state(TrialState.RUNNING)
            if trial.number not in self._running
        }

    def _queue(self, left: Mapping[int, int]) -> None:
        for trial_id in left:
            with journal.together(self._storage):
                self._wait_again(trial_id, "its process was gone")

    def note(self, number: int, **ended: Any) -> dict[str, Any]:
        """What `settle` is to know of a trial of this process, however it ended; plain values of JSON."""
        return {"number": number, _BY: self._process, **ended}

    def settle(self, note: Mapping[str, Any]) -> bool:
        """Notes how a trial ended that a process which is gone could not tell; whether it is so now.

        note: as `note` has made it: `pruned`, or failure, value and replay.
        """
        with self.alone():
            return self._settled(note)

    def _settled(self, note: Mapping[str, Any]) -> bool:
        number = int(note["number"])
        try:
            trial = self._storage.get_trial(self._trial_id(number))
        except KeyError:
            raise RunError(
                f"study {self.name}: has no trial {number}, of which records on disk say how it ended: was an"
                " older copy of the study put back?"
            ) from None
        if trial.user_attrs.get(_BY) != note.get(_BY):
            # Another process has it, and may have found the same to the last bit.
            return False
        if trial.state.is_finished():
            # It was told, or another process has trained it again meanwhile.
            same = TrialState.PRUNED if "pruned" in note else TrialState.COMPLETE
            same = TrialState.FAIL if note.get("failure") else same
            value = note.get("value")
            return trial.state == same and (same != TrialState.COMPLETE or trial.values == [value])
        with journal.together(self._storage):
            if "pruned" in note:
                self._end(number, TrialState.PRUNED, str(note["pruned"]))
            else:
                replay = Replay(**note["replay"]) if note["replay"] else None
                self._tell(Outcome(number, str(note["failure"]), value=float(note["value"]), replay=replay))
        return True

    def beat(self) -> None:
        """Shows that this process lives, to others on the same storage."""
        if self.shared:
            for number in tuple(self._running):
                self._pulse.beat(self._trial_id(number))

    def start_from(self, study: str, starts: Sequence[Start]) -> bool:
        """Has these tried next, after the baseline; false if it has had some of that study already."""
        if starts_known(self._study, study):
            return False
        known = self._study.user_attrs.get(_STARTS, {})
        self._study.set_user_attr(_STARTS, {**known, study: [asdict(start) for start in starts]})
        return True

    def started_from(self, number: int) -> str:
        """The label of the `Start` that a trial of this process was given, or empty."""
        trial = self._asked.get(number)
        return "" if trial is None else str(trial.user_attrs.get(STARTED_FROM, ""))

    def drawn(self, candidate: Candidate) -> Settings:
        """What is particular to this trial: the searched settings, or all of the baseline's."""
        trial = self._asked.get(candidate.number)
        return candidate.settings if trial is None else trial.params

    def is_baseline(self, number: int) -> bool:
        return number not in self._asked

    def report(self, number: int, value: float, step: int) -> bool:
        """Notes an intermediate value; true if the pruner gives the trial up. The baseline never is.

        Of a step that was reported before the trial was interrupted, the value of then stays.
        """
        trial = self._asked.get(number)
        if trial is None:
            self._storage.set_trial_intermediate_value(self._trial_id(number), step, value)
            return False
        if step > self._reported.get(number, -1):
            trial.report(value, step)
        return trial.should_prune()

    def tell(self, outcome: Outcome) -> bool:
        """Notes the end of a trial that completed or failed; false if another process has it by now."""
        return self._if_ours(outcome.number, lambda: self._tell(outcome))

    def prune(self, number: int, reason: str) -> bool:
        """Notes that a trial was given up; its value is the last one reported. As `tell`."""
        return self._if_ours(number, lambda: self._end(number, TrialState.PRUNED, reason))

    def interrupt(self, number: int, reason: str) -> bool:
        """Notes that a trial under way was ended from outside; it waits to be asked for again. As `tell`."""
        return self._if_ours(number, lambda: self._wait_again(self._trial_id(number), reason))

    def _if_ours(self, number: int, act: Callable[[], None]) -> bool:
        """Acts on a trial of this process.

        One that slept, or was cut off for long, may find that another process has its trials, or had.
        """
        with self.alone():
            trial = self._storage.get_trial(self._trial_id(number)) if self.shared else None
            ours = trial is None or trial.user_attrs.get(_BY) == self._process
            if ours:
                with journal.together(self._storage):
                    act()
        self._running.discard(number)
        return ours

    def _wait_again(self, trial_id: int, reason: str) -> None:
        # Ended meanwhile, where the storage answered too late.
        with contextlib.suppress(UpdateFinishedTrialError):
            self._storage.set_trial_user_attr(trial_id, _REASON, reason)
            self._storage.set_trial_state_values(trial_id, TrialState.WAITING)

    def _tell(self, outcome: Outcome) -> None:
        if outcome.failure:
            self._end(outcome.number, TrialState.FAIL, outcome.failure)
            return
        if outcome.replay:
            with contextlib.suppress(UpdateFinishedTrialError):
                self._storage.set_trial_user_attr(
                    self._trial_id(outcome.number), _REPLAY, asdict(outcome.replay)
                )
            if (self.lanes or 0) < outcome.replay.lanes:
                self._study.set_user_attr(_LANES, outcome.replay.lanes)
        # Told before, where the storage answered too late.
        with contextlib.suppress(UpdateFinishedTrialError):
            self._ours_again(outcome.number)
            self._study.tell(outcome.number, outcome.value, skip_if_finished=True)

    def _end(self, number: int, state: TrialState, reason: str) -> None:
        with contextlib.suppress(UpdateFinishedTrialError):
            self._storage.set_trial_user_attr(self._trial_id(number), _REASON, reason)
            self._ours_again(number)
            self._study.tell(number, state=state, skip_if_finished=True)

    def _ours_again(self, number: int) -> None:
        """Takes back what seemed to be left by a process that was gone."""
        trial_id = self._trial_id(number)
        if self._storage.get_trial(trial_id).state == TrialState.WAITING:
            self._storage.set_trial_state_values(trial_id, TrialState.RUNNING)

    def _remaining(self, standing: Standing, trials: int) -> int:
        waiting = len(standing.in_state(TrialState.WAITING))
        points = samplers.points(self._sampler, self._space.searched) - standing.drawn + waiting
        left = trials - standing.total - (len(standing.open) - waiting)
        return max(0, int(min(left, points + (1 if self._wants_baseline(standing) else 0))))

    def _ask(self, standing: Standing) -> Candidate:
        if waiting := self._waiting(standing):
            return waiting
        if self._wants_baseline(standing):
            return self._ask_baseline()
        if self._queue_starts(standing) and (queued := self._waiting(self._tally.look())):
            return queued
        return self._draw(self._created({}))

    def _ask_baseline(self) -> Candidate:
        # It has no distributions, as its settings may lie outside of every range.
        settings = self._space.published(self._space.baseline or {})
        trial_id = self._created({samplers.BASELINE: True, _SETTINGS: json.dumps(settings)})
        return self._begun(trial_id, settings)

    def _waiting(self, standing: Standing) -> Candidate | None:
        """The first trial that waits, if there is one."""
        for trial in standing.in_state(TrialState.WAITING):
            if self._takes(trial._trial_id):
                return self._asked_again(trial)
        return None

    def _asked_again(self, trial: FrozenTrial) -> Candidate:
        """A trial that waited and is now ours."""
        if _SETTINGS not in trial.user_attrs:
            # Its process was gone before all was drawn, or somebody has queued it with some parameters.
            return self._draw(trial._trial_id)
        if samplers.BASELINE not in trial.user_attrs:
            self._asked[trial.number] = Trial(self._study, trial._trial_id)
            self._reported[trial.number] = max(trial.intermediate_values, default=-1)
        return self._begun(trial._trial_id, settings_of(trial))

    def _draw(self, trial_id: int) -> Candidate:
        """Every parameter that the trial has not, by the sampler."""
        # Only a grid asks for what is taken.
        trial = self._drawing.draw(trial_id, self._taken() if self._sampler == "grid" else ())
        self._asked[trial.number] = trial
        settings = self._space.complete(trial.params)
        trial.set_user_attr(_SETTINGS, json.dumps(settings))
        return self._begun(trial_id, settings)

    def _begun(self, trial_id: int, settings: Settings) -> Candidate:
        number = self._storage.get_trial_number_from_id(trial_id)
        seed = derived(self._seed, number)
        self._storage.set_trial_user_attr(trial_id, _SEED, seed)
        self._storage.set_trial_user_attr(trial_id, _BY, self._process)
        self._running.add(number)
        return Candidate(number, seed, settings)

    def _created(self, attributes: Settings) -> int:
        """The id of a new trial, which is ours."""
        if not self.shared:
            return self._storage.create_new_trial(
                self._study_id, create_trial(state=TrialState.RUNNING, user_attrs=dict(attributes))
            )
        while True:
            # It waits until it has shown its first sign of life: there is no moment at which it would stay
            # behind for good.
            template = create_trial(state=TrialState.WAITING, user_attrs=dict(attributes))
            trial_id = self._storage.create_new_trial(self._study_id, template)
            if self._takes(trial_id):
                return trial_id

    def _takes(self, trial_id: int) -> bool:
        """Whether a trial that waits is ours now; another process may be quicker."""
        self._pulse.beat(trial_id)
        try:
            return self._storage.set_trial_state_values(trial_id, TrialState.RUNNING)
        except UpdateFinishedTrialError:
            return False

    def _queue_starts(self, standing: Standing) -> bool:
        """Queues what is to be tried first, each once; whether there was something."""
        wanted = self._study.user_attrs.get(_STARTS) or {}
        starts = [Start(**found) for starts in wanted.values() for found in starts]
        missing = [start for start in starts if start.label not in standing.started_from]
        for start in missing:
            self._study.enqueue_trial(dict(start.drawn), {STARTED_FROM: start.label})
        return bool(missing)

    def _wants_baseline(self, standing: Standing) -> bool:
        return self._space.baseline is not None and not standing.baseline

    def _taken(self) -> list[dict[str, Any]]:
        """The drawn parameters of every trial."""
        return [dict(trial.params) for trial in self._counted() if samplers.BASELINE not in trial.user_attrs]

    def _counted(self) -> list[FrozenTrial]:
        """Every trial, but those that studies of before ended where they were interrupted."""
        return [trial for trial in self._trials() if INTERRUPTED not in trial.user_attrs]

    def _trials(self) -> Sequence[FrozenTrial]:
        return storages.patiently(lambda: self._study.get_trials(deepcopy=False), self._patience)

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
