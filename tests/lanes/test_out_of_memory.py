"""A device without room for so many lanes: fewer go on, and a trial that does not fit alone says so."""

from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import pytest
from lanes_harness import SETTINGS, LanesEngine, blobs, budget, lanes_engine, mlp

from pipeline.engines.engine import Interrupted
from pipeline.engines.lanes import memory
from pipeline.engines.lanes.program import Program
from pipeline.values import Candidate, Outcome

SAID = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1234 bytes."


def trained(engine: LanesEngine, count: int) -> tuple[dict[int, Outcome], list[Interrupted]]:
    """Outcomes of so many trials, each asked again where it was interrupted, and the interruptions."""
    queue = [Candidate(number, number, SETTINGS) for number in range(count)]
    outcomes: dict[int, Outcome] = {}
    interrupted: list[Interrupted] = []
    with closing(engine):
        while len(outcomes) < count:
            while queue and engine.free():
                engine.add(queue.pop(0))
            for event in engine.step():
                if isinstance(event, Interrupted):
                    interrupted.append(event)
                    queue.append(Candidate(event.number, event.number, SETTINGS))
                elif isinstance(event, Outcome):
                    assert event.number not in outcomes
                    outcomes[event.number] = event
    return outcomes, interrupted


def out_of_memory(monkeypatch: pytest.MonkeyPatch, method: str, fits: int) -> list[int]:
    """Programs of more lanes than fit raise in this method, as JAX does; the lanes of those that did."""
    real, raised = getattr(Program, method), []

    def limited(program: Program, *args: Any, **kwargs: Any) -> Any:
        if program.lanes > fits:
            raised.append(program.lanes)
            raise jax.errors.JaxRuntimeError(SAID)
        return real(program, *args, **kwargs)

    monkeypatch.setattr(Program, method, limited)
    return raised


@pytest.mark.parametrize("method", ["run", "compile"])
def test_lanes_are_halved_until_they_fit_and_every_trial_is_trained(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    raised = out_of_memory(monkeypatch, method, fits=2)
    engine = lanes_engine(mlp, blobs(), budget(), tmp_path, lanes=8)
    outcomes, interrupted = trained(engine, 10)
    assert raised == [8, 4]
    assert [outcome.failure for outcome in outcomes.values()] == [""] * 10
    assert {outcome.replay.lanes for outcome in outcomes.values() if outcome.replay} == {2}
    if method == "run":
        assert {event.reason for event in interrupted} == {
            "out of memory with 8 lanes of a program",
            "out of memory with 4 lanes of a program",
        }
        assert "out of memory with 8 lanes of a program: 4 from now on" in caplog.text


def test_a_trial_that_does_not_fit_alone_fails_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out_of_memory(monkeypatch, "run", fits=0)
    outcomes, _ = trained(lanes_engine(mlp, blobs(), budget(), tmp_path, lanes=4), 3)
    assert {outcome.failure for outcome in outcomes.values()} == {
        f"needs more memory than there is: JaxRuntimeError: {SAID}"
    }


def test_any_other_error_of_a_device_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(Program, "run", broken)
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        trained(lanes_engine(mlp, blobs(), budget(), tmp_path, lanes=2), 1)


@pytest.mark.parametrize(
    ("lanes", "devices", "left"),
    [(8, 2, 4), (4, 2, 2), (2, 2, 0), (6, 2, 2), (3, 1, 1), (1, 1, 0), (64, 4, 32)],
)
def test_half_as_many_lanes_are_a_multiple_of_the_devices(lanes: int, devices: int, left: int) -> None:
    assert memory.fewer(lanes, devices) == left
