"""Lanes where they can, `model.fit` where they cannot; or lanes alone, strictly."""

import logging
import math
from collections import deque
from collections.abc import Sequence

from pipeline.engines.engine import Engine, Event, Times
from pipeline.engines.lanes.engine import LanesEngine, Refused
from pipeline.errors import UserError
from pipeline.values import Candidate

_log = logging.getLogger(__name__)


class AutoEngine:
    """Trains in lanes, and one by one through `fit` what lanes refuse; each reason is logged once.

    Args:
        lanes: takes every candidate first.
        fit: takes what it refuses; None to raise UserError instead.
    """

    def __init__(self, lanes: LanesEngine, fit: Engine | None) -> None:
        self._lanes, self._fit = lanes, fit
        self._in_lanes: set[int] = set()
        self._waiting: deque[Candidate] = deque()
        self._in_fit: int | None = None
        self._told: set[str] = set()

    def free(self) -> int:
        # What lanes refuse is trained one by one: no use in asking for more of it ahead of time.
        return 0 if self._waiting else self._lanes.free()

    def add(self, candidate: Candidate) -> None:
        self._in_lanes.add(candidate.number)
        self._lanes.add(candidate)

    def step(self) -> Sequence[Event]:
        events: list[Event] = []
        if self._in_lanes:
            for event in self._lanes.step():
                if isinstance(event, Refused):
                    self._to_fit(event)
                    continue
                events.append(event)
            self._in_lanes &= self._lanes.running()
        if self._fit is not None and (self._waiting or self._in_fit is not None):
            events += self._step_fit(self._fit)
        return events

    def drop(self, number: int) -> None:
        if number in self._in_lanes:
            self._in_lanes.discard(number)
            self._lanes.drop(number)
        elif number == self._in_fit and self._fit is not None:
            self._in_fit = None
            self._fit.drop(number)
        else:
            self._waiting = deque(candidate for candidate in self._waiting if candidate.number != number)

    def times(self) -> Times:
        found = self._lanes.times()
        if self._fit is None:
            return found
        both = found, self._fit.times()
        last = max((one.last for one in both if math.isfinite(one.last)), default=math.inf)
        return Times(min(one.first for one in both), last, found.metrics)

    def close(self) -> None:
        self._lanes.close()
        if self._fit is not None:
            self._fit.close()

    def _to_fit(self, refused: Refused) -> None:
        if self._fit is None:
            raise UserError(f"engine=lanes: trial {refused.number} cannot train in lanes: {refused.reason}")
        if refused.reason not in self._told:
            self._told.add(refused.reason)
            _log.warning("trial %d trains by fit: %s", refused.number, refused.reason)
        self._waiting.append(refused.candidate)

    def _step_fit(self, fit: Engine) -> Sequence[Event]:
        if self._in_fit is None:
            candidate = self._waiting.popleft()
            self._in_fit = candidate.number
            fit.add(candidate)
        events = fit.step()
        if fit.free():
            self._in_fit = None
        return events
