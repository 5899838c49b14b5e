"""The loop ends its trials in good order, whatever fails."""

import math
import os
import signal
import sys
import threading
from collections.abc import Sequence

import pytest

from pipeline import stops
from pipeline.engines.engine import Event, Times
from pipeline.errors import RunError, UserError
from pipeline.loop import drive
from pipeline.values import Candidate


class Engine:
    """Has room for three, and ends in its second step as it is told."""

    def __init__(self, end: BaseException) -> None:
        self.end, self.steps, self.dropped = end, 0, []

    def free(self) -> int:
        return 0 if self.steps else 1

    def add(self, candidate: Candidate) -> None:
        self.steps += candidate.number == 2  # the third

    def step(self) -> Sequence[Event]:
        self.steps += 1
        if self.steps > 2:
            raise self.end
        return ()

    def drop(self, number: int) -> None:
        self.dropped.append(number)

    def times(self) -> Times:
        return Times()

    def close(self) -> None:
        pass


def driven(engine: Engine, failing: Sequence[int] = ()) -> list[tuple[int, str]]:
    numbers = iter(range(3))
    interrupted: list[tuple[int, str]] = []

    def interrupt(number: int, reason: str) -> None:
        interrupted.append((number, reason))
        if number in failing:
            raise RunError("MLflow cannot be written any more")

    with pytest.raises(type(engine.end)):
        drive(engine, lambda: Candidate(next(numbers), 0, {}), lambda _: False, interrupt, math.inf)
    assert sorted(engine.dropped) == [0, 1, 2]
    return sorted(interrupted)


@pytest.mark.parametrize("end", [UserError("no lanes"), RunError("no store"), OSError(28, "no space")])
def test_every_trial_is_closed_and_the_first_error_counts(end: Exception) -> None:
    assert driven(Engine(end)) == [(number, "the search failed") for number in range(3)]


def test_a_record_that_cannot_be_written_keeps_no_trial_open() -> None:
    assert driven(Engine(KeyboardInterrupt()), failing=(0, 1)) == [(n, "interrupted") for n in range(3)]


def test_an_interrupt_that_is_lost_stops_the_loop_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a signal's handler raises is lost inside a destructor."""

    class Deaf:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            for _ in range(1000):
                pass

    lost: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda one: lost.append(one.exc_type))
    stopping = stops.Stops()
    try:
        one = Deaf()
        del one
        assert lost == [KeyboardInterrupt]
        with pytest.raises(KeyboardInterrupt):
            drive(Engine(RuntimeError()), lambda: None, lambda _: False, lambda *_: None, math.inf)
        assert stopping.signal == signal.SIGTERM
    finally:
        stopping.restore()
    stops.check()


def test_a_stop_waits_for_the_end_of_what_belongs_together() -> None:
    done: list[str] = []
    stopping = stops.Stops()
    try:
        with stops.put_off():
            os.kill(os.getpid(), signal.SIGTERM)
            for _ in range(1000):
                pass
            done.append("recorded")
            done.append("told")
        assert done == ["recorded", "told"]
        assert stops.asked()
        with pytest.raises(KeyboardInterrupt):
            stops.check()
    finally:
        stopping.restore()
    assert not stops.asked()


def test_a_first_stop_while_trials_are_closed_leaves_none_open() -> None:
    """The deadline has come, and then somebody loses patience."""
    closed: list[int] = []

    def interrupt(number: int, _: str) -> None:
        if not closed:
            os.kill(os.getpid(), signal.SIGTERM)
            for _ in range(1000):
                pass
        closed.append(number)

    stopping = stops.Stops()
    waiting = iter([Candidate(number, {}, 0) for number in range(3)])
    try:
        with pytest.raises(RuntimeError):
            drive(Engine(RuntimeError()), lambda: next(waiting, None), lambda _: False, interrupt)
    finally:
        stopping.restore()
    assert closed == [0, 1, 2]


def test_what_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    given_up = threading.Event()
    monkeypatch.setattr(stops, "END_SECONDS", 0.2)
    stopping = stops.Stops(given_up.set)
    try:
        with stops.put_off():
            os.kill(os.getpid(), signal.SIGTERM)
            assert given_up.wait(20)
    finally:
        stopping.restore()


def test_what_ends_in_time_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    given_up = threading.Event()
    monkeypatch.setattr(stops, "END_SECONDS", 0.2)
    stopping = stops.Stops(given_up.set)
    with stops.put_off():
        os.kill(os.getpid(), signal.SIGTERM)
    stopping.restore()
    assert not given_up.wait(0.5)
