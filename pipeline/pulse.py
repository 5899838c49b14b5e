"""Signs of life of the processes that train one study, where several may."""

import contextlib
import time
from typing import Any

from optuna.storages import BaseStorage
from optuna.storages._heartbeat import BaseHeartbeat

from pipeline import storage as storages


class Pulse:
    """This process's signs of life, trial by trial, and those of the others.

    Args:
        storage: of the study.
        study_id: the study's.
    """

    def __init__(self, storage: BaseStorage, study_id: int) -> None:
        beats = isinstance(storage, BaseHeartbeat) and storage.get_heartbeat_interval()
        self._hearts: Any = storage if beats else None
        self._study_id = study_id
        self._suspected: dict[int, float] = {}

    @property
    def shared(self) -> bool:
        """Whether several processes may train the study."""
        return self._hearts is not None

    def beat(self, trial_id: int) -> None:
        """Shows that the trial's process lives, where somebody may look."""
        if self.shared:
            self._hearts.record_heartbeat(trial_id)

    def alone(self, study: str, patience: float) -> contextlib.AbstractContextManager[None]:
        """For a block that no other process that trains the study is in. Arguments as of `storage.alone`."""
        return storages.alone(self._hearts, study, patience) if self.shared else contextlib.nullcontext()

    def stale(self) -> list[int]:
        """Ids of trials whose process shows no sign of life.

        Seen twice, some time apart: where the storage itself did not answer, all of them seem so at first.
        """
        now = time.monotonic()
        stale = self._hearts._get_stale_trial_ids(self._study_id)
        self._suspected = {trial_id: self._suspected.get(trial_id, now) for trial_id in stale}
        patience = 2 * self._hearts.get_heartbeat_interval()
        return [trial_id for trial_id, since in self._suspected.items() if now - since > patience]
