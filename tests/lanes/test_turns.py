"""Whoever measures is alone on the devices."""

import threading

import pytest

from pipeline.engines.lanes.turns import Turns


def test_calls_run_side_by_side() -> None:
    turns = Turns()
    assert turns.begin()
    assert turns.begin()


def test_a_measurement_waits_for_the_calls_under_way_and_no_call_begins_meanwhile() -> None:
    turns, inside, over = Turns(), threading.Event(), threading.Event()
    assert turns.begin()

    def measure() -> None:
        with turns.alone():
            inside.set()
            over.wait(10)

    thread = threading.Thread(target=measure)
    thread.start()
    assert not inside.wait(0.2)  # a call is under way
    assert not turns.begin()
    turns.end()
    assert inside.wait(10)
    assert not turns.begin()
    over.set()
    thread.join(10)
    assert turns.begin()


def test_calls_go_on_after_a_measurement_that_failed() -> None:
    turns = Turns()
    with pytest.raises(ValueError, match="no time"), turns.alone():
        raise ValueError("no time")
    assert turns.begin()
