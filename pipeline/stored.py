"""The trained models of a study as MLflow keeps them, each known as a member."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from pipeline.engines.engine import MODEL_FILE, PREDICTIONS_FILE, SEVERAL_PREDICTIONS_FILE
from pipeline.errors import RunError
from pipeline.secrets import first_line
from pipeline.study import Finished
from pipeline.tasks import user_code
from pipeline.tracking import trials
from pipeline.tracking.parent import Parent
from pipeline.tracking.recorder import MEMBER, REFIT
from pipeline.values import Answers, Data, Member

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stored:
    """Where the models lie, and which there are.

    tag: marks the child runs that hold them (`recorder.TRIAL`, or `MEMBER` for a study with folds). numbers:
    of the trials that have a model, at least one. copies: models of trials' settings from further seeds.
    """

    parent: Parent
    data: Data
    tag: str
    numbers: frozenset[int]
    copies: frozenset[Member]

    def best_first(self, finished: Sequence[Finished]) -> list[Finished]:
        """Of completed trials, best first, those that have a model; says so if a choice is lost by that."""
        missing = [
            f"trial {trial.number}{' (baseline)' if trial.baseline else ''}"
            for place, trial in enumerate(finished)
            if trial.number not in self.numbers and (place == 0 or trial.baseline)
        ]
        if missing:
            _log.warning("without a model in MLflow, and so left out: %s", ", ".join(missing))
        return [trial for trial in finished if trial.number in self.numbers]

    def predictions(self, member: Member, folder: Path) -> Answers:
        """What a member answered to the validation rows. folder: exists; for the file."""
        name = SEVERAL_PREDICTIONS_FILE if self.data.outputs else PREDICTIONS_FILE
        found = np.load(self._fetch(member, name, folder))
        return {part: found[part] for part in self.data.outputs} if self.data.outputs else found

    def model(self, member: Member, folder: Path) -> keras.Model:
        """A member's model, each time a new one."""
        file = self._fetch(member, MODEL_FILE, folder)
        try:
            return user_code.loaded(file)
        except (TypeError, ValueError, NameError) as error:
            # Of layers of the user's own, whatever they raise.
            raise RunError(f"{member.described}: its model cannot be loaded: {first_line(error)}") from error

    def refitted(self, member: Member, folder: Path) -> keras.Model:
        """A member's model that was trained again on all rows, each time a new one."""
        # Beside the one before, whose file has the same name.
        place = folder / "again"
        place.mkdir(exist_ok=True)
        return user_code.loaded(trials.fetch(self.parent, REFIT, member, MODEL_FILE, place))

    def epochs(self, member: Member) -> int:
        """How many epochs led to a member's model."""
        tag = MEMBER if member.copy else self.tag
        return int(trials.metric(self.parent, tag, member, "best_epoch")) + 1

    def rates(self, member: Member) -> list[float]:
        """The learning rates of those epochs; none where its training has noted none."""
        tag = MEMBER if member.copy else self.tag
        return trials.curve(self.parent, tag, member, "learning_rate")[: self.epochs(member)]

    def curve(self, number: int, metric: str) -> list[float]:
        """A trial's metric, an entry an epoch."""
        return trials.curve(self.parent, self.tag, number, metric)

    def _fetch(self, member: Member, name: str, folder: Path) -> Path:
        return trials.fetch(self.parent, MEMBER if member.copy else self.tag, member, name, folder)
