"""What follows the last trial: the ensemble, the champion, their test scores, all that is kept of them."""

import hashlib
import json
import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np

from pipeline import ensemble, promotion
from pipeline.delivery import Delivery
from pipeline.ensemble import Ensemble, Judge
from pipeline.errors import RunError, UserError
from pipeline.evaluation.scoring import score_test
from pipeline.forms import Form
from pipeline.metrics import score_of
from pipeline.promotion import Entrant, Jury
from pipeline.result import Result
from pipeline.stored import Stored
from pipeline.study import Finished, Study
from pipeline.study_record import StudyRecord
from pipeline.tasks.task import Task
from pipeline.tracking.models import LEARNED_FILE
from pipeline.tracking.parent import STUDY, TASK
from pipeline.tracking.recorder import REFIT
from pipeline.values import Data, Member, Metric, Objective

_log = logging.getLogger(__name__)

Again = Callable[[Sequence[Member]], frozenset[Member]]
"""Trains members again; those that have such a model."""

# Selection looks at the best 50 trials, as auto-sklearn does: worse ones are hardly ever chosen.
_POOL = 50


@dataclass(frozen=True)
class Wish:
    """What is asked of a closing.

    method: how members get their weights, or weights of the best trials by hand. members: at most. metric: of
    the task, what members are chosen by; the objective if empty. seed: of the intervals. export: the
    ensemble's other formats. register: the name in the model registry that the best model is added under; not
    at all if empty.
    """

    method: str | Sequence[float]
    members: int
    seed: int
    metric: str = ""
    export: Sequence[str] = ()
    register: str = ""


@dataclass(frozen=True)
class Closing:
    """What is closed: a study with finished trials, and its models.

    ended: how many of its trials had ended, however they did, before it was looked at which have a model.
    again: trains members once more on all rows but the test rows, where that is asked for.
    """

    study: Study
    task: Task
    data: Data
    objective: Objective
    stored: Stored
    ended: int
    again: Again | None = None

    def close(self, wish: Wish) -> Result:
        """Makes and records everything; the test rows are opened after the last choice."""
        finished = self.stored.best_first(self.study.finished())
        metric = self._metric(wish.metric)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            chosen, validation = self._select(finished, wish, metric, folder)
            members = (Member(finished[0].number), *chosen.weights)
            refitted = self._refitted(members)
            made = self._models(finished, chosen, folder, refitted)
            found = score_test(self.data, made, self.task.metrics, wish.seed)
            run = self.stored.parent.run_id
            best = self._best()
            result = Result(
                self.study.name, run, finished[0], chosen, validation, found, best, refit=bool(refitted)
            )
            metadata = {"study": result.study, "task": self.task.name, "run": run}
            # What has learned from the validation rows cannot be compared on them.
            judged = self._models(finished, chosen, folder) if refitted and wish.register else None
            form = self.task.form(self.data)
            learned = self._learned(form, folder) if wish.register else None
            delivery = Delivery(self.stored.parent, self.data, form, folder, metadata, judged, learned)
            with delivery.saved(made, wish.export):
                kept = StudyRecord(self.stored, self.task, self.objective, metric, self.study.history())
                kept.keep(result, made, folder)
                logged = delivery.log(made, result.scores)
                if wish.register:
                    entrants = [
                        Entrant(kind, logged[kind], (judged or made)[kind], result.own_scores(kind))
                        for kind in ("ensemble", "champion")
                    ]
                    made_of = _made_of(self.ended, result, refitted)
                    told = self._register(
                        wish.register, metric, entrants, made_of, folder, refit=bool(refitted)
                    )
                    result = replace(result, registered=told)
        return result

    def _select(
        self, finished: Sequence[Finished], wish: Wish, metric: Metric, folder: Path
    ) -> tuple[Ensemble[Member], dict[str, float]]:
        """The ensemble, and its scores on the validation rows by the task's metrics."""
        # Weights by hand are of the trials, which come first.
        trials_looked_at = _POOL if isinstance(wish.method, str) else max(_POOL, len(wish.method))
        pool = [*(Member(trial.number) for trial in finished[:trials_looked_at]), *sorted(self.stored.copies)]
        predictions = {member: self.stored.predictions(member, folder) for member in pool}
        # The loss of the same answers decides between equals; a mean of scores holds one.
        tie = next(
            (
                one
                for one in self.task.metrics
                if one.name.endswith("log_loss") and one.output == metric.output
            ),
            metric,
        )
        judge = Judge(self.data.validation.targets, metric, tie)
        chosen = ensemble.select(wish.method, predictions, judge, wish.members)
        if chosen.left_out:
            names = ", ".join(member.described for member in chosen.left_out)
            _log.info("left out, as they answer nearly as better models do: %s", names)
        blended = ensemble.blend(predictions, chosen.weights)
        targets = self.data.validation.targets
        return chosen, {one.name: score_of(one, targets, blended) for one in self.task.metrics}

    def _refitted(self, members: Sequence[Member]) -> frozenset[Member]:
        """The members, where all were trained again; else none, as a half would be told as the whole."""
        refitted = self.again(members) if self.again else frozenset()
        if self.again and (missing := [member.described for member in members if member not in refitted]):
            _log.warning(
                "refit: not all could be trained again (%s), so all are as they were", ", ".join(missing)
            )
            return frozenset()
        return refitted

    def _models(
        self,
        finished: Sequence[Finished],
        chosen: Ensemble[Member],
        folder: Path,
        refitted: frozenset[Member] = frozenset(),
    ) -> dict[str, keras.Model]:
        """Baseline, champion and ensemble. refitted: members whose models of all rows are taken."""

        def load(member: Member) -> keras.Model:
            stored = self.stored
            return stored.refitted(member, folder) if member in refitted else stored.model(member, folder)

        baseline = next((trial for trial in finished if trial.baseline), None)
        # As it was, whether or not it is a member.
        made = {} if baseline is None else {"baseline": self.stored.model(Member(baseline.number), folder)}
        made["champion"] = load(Member(finished[0].number))
        # Loaded again: as parts of the ensemble, models take other names.
        made["ensemble"] = ensemble.as_model(
            [(load(member), weight) for member, weight in chosen.weights.items()]
        )
        return made

    def _register(
        self,
        name: str,
        metric: Metric,
        entrants: Sequence[Entrant],
        made_of: str,
        folder: Path,
        *,
        refit: bool,
    ) -> str:
        """Adds the better of ensemble and champion to the registry; what happened."""
        ensemble, champion = entrants
        tags = {STUDY: self.study.name, TASK: self.task.name, **({REFIT: "true"} if refit else {})}
        jury = Jury(self.data, metric, self.task.form(self.data), self.task.raw)
        return promotion.enter(self.stored.parent, name, (ensemble, champion), jury, made_of, tags, folder)

    def _learned(self, form: Form, folder: Path) -> Path | None:
        """The file that tells which rows are learned from; None where that cannot be told."""
        if self.task.raw is None:
            return None
        file = folder / LEARNED_FILE
        try:
            np.save(file, promotion.learned_from(self.task.raw, self.data, form))
        except (RunError, UserError) as error:
            # Of a file that is gone, say: the models are there all the same.
            _log.warning("register: the rows cannot be read again: %s", error)
            return None
        return file

    def _best(self) -> dict[str, float]:
        """The best possible scores that are known, also of means of such."""
        best = self.data.best
        means = {
            metric.name: sum(best[part.name] * share for part, share in metric.parts)
            for metric in self.task.metrics
            if metric.parts and all(part.name in best for part, _ in metric.parts)
        }
        return {**best, **means}

    def _metric(self, asked: str) -> Metric:
        """What the ensemble is chosen by: the objective, or the last metric where that is Keras's loss."""
        name = asked or self.objective.metric.removeprefix("val_")
        return next((metric for metric in self.task.metrics if metric.name == name), self.task.metrics[-1])


def _made_of(ended: int, result: Result, refitted: frozenset[Member]) -> str:
    """What a closing's models are made of, in a text that is equal where that is: they are logged anew."""
    weights = {str(member): f"{weight:.6g}" for member, weight in sorted(result.ensemble.weights.items())}
    what = json.dumps([ended, result.champion.number, weights, sorted(map(str, refitted))])
    return f"{ended} trials {hashlib.sha256(what.encode()).hexdigest()[:16]}"
