"""How many lanes a program gets: what fits the memory, what was measured as fast, and what it will need."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lanes_harness import OBJECTIVE, LanesEngine, blobs, budget, each, in_lanes, mlp

from pipeline.engines.lanes import sizing
from pipeline.engines.lanes.refusal import Refusal

GIB = 2**30


class Machine:
    """Programs that need so many bytes, and seconds for a lane's step, by their lanes."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, bytes_: Any, seconds: Any, free: float = 24 * GIB
    ) -> None:
        self.made: list[int] = []
        self._bytes = bytes_
        monkeypatch.setattr(sizing, "_lane_share", self._lane_share)
        self._seconds, self.of_a_call = seconds, 0.0
        monkeypatch.setattr(sizing, "device_memory", lambda: 24.0 * GIB)
        # Each compilation takes a second.
        clock = SimpleNamespace(monotonic=lambda: float(len(self.made)))
        monkeypatch.setattr(sizing, "time", clock)

    def make(self, lanes: int) -> Any:
        self.made.append(lanes)
        return SimpleNamespace(lanes=lanes, steps=100, memory=lambda: self._bytes(lanes))

    def _lane_share(self, program: Any, values: Any, steps: int) -> float:
        return float((self._seconds(program.lanes) if steps else 0.0) + self.of_a_call)

    def choose(
        self, first: int, devices: int = 2, most: int = 1000, epochs: float = 1e6, left: float = math.inf
    ) -> int:
        program, count = sizing.choose(self.make, None, first, devices, most, epochs, left)
        assert program.lanes == count
        return count


@pytest.mark.parametrize(
    ("devices", "most", "count"),
    [(2, 1000, 8), (2, 8, 8), (2, 4, 4), (2, 3, 4), (2, 2, 2), (2, 1, 2), (1, 3, 4), (3, 5, 6)],
)
def test_a_cpu_begins_with_four_lanes_a_core_but_no_more_than_trainings(
    devices: int, most: int, count: int
) -> None:
    assert sizing.first_count(devices, most) == count


def test_more_lanes_as_long_as_each_step_of_a_lane_gets_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, lambda lanes: GIB, lambda lanes: 1 / lanes if lanes <= 32 else 1.0)
    assert machine.choose(8) == 32
    assert machine.made == [8, 16, 32, 64]


def test_fewer_lanes_where_they_are_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, lambda lanes: GIB, float)
    assert machine.choose(8) == 2
    assert machine.made == [8, 16, 4, 2]


def test_a_gain_within_the_noise_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, lambda lanes: GIB, lambda lanes: 1 - lanes / 1000)
    assert machine.choose(8) == 8


def test_a_short_study_tries_no_other_count(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, lambda lanes: GIB, lambda lanes: 1e-3 / lanes)
    assert machine.choose(8, epochs=100) == 8
    assert machine.made == [8]


def test_a_study_of_little_time_tries_no_other_count(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, lambda lanes: GIB, lambda lanes: 1 / lanes)
    assert machine.choose(8, left=20.0) == 8
    assert machine.made == [8]


def test_lanes_are_trained_several_times_over_in_the_time_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, lambda lanes: GIB, lambda lanes: 1 / lanes)
    # A training has 1,000 epochs of 100 steps of an eighth of a second: 20 of them in 250,000 seconds.
    assert machine.choose(8, left=8 * 20 * 12_500.0) == 16
    assert machine.choose(8, left=8 * 100 * 12_500.0) == 64


def test_no_more_lanes_than_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, lambda lanes: GIB, lambda lanes: 1 / lanes)
    assert machine.choose(8, most=20) == 16


def test_lanes_are_halved_until_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, lambda lanes: lanes * 4 * GIB, lambda lanes: 1.0)
    assert machine.choose(16) == 2
    assert machine.made[:4] == [16, 8, 4, 2]


def test_a_count_that_does_not_fit_is_not_taken_however_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, lambda lanes: lanes * GIB, lambda lanes: 1 / lanes)
    assert machine.choose(8) == 8


def test_what_fits_in_no_way_is_refused_with_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, lambda lanes: 100 * GIB, lambda lanes: 1.0)
    with pytest.raises(Refusal, match=r"2 lanes of it need 100.0 GiB, which is not there"):
        machine.choose(8)


@pytest.mark.parametrize(("trainings", "count"), [(0.2, 2), (2, 2), (2.1, 4), (7, 8), (100, 8)])
def test_lanes_for_the_trainings_that_a_program_will_have(trainings: float, count: int) -> None:
    assert sizing.enough(8, 2, trainings) == count


@pytest.mark.parametrize(("fewer", "seconds", "pays"), [(8, 0.0, False), (2, 10.0, True), (2, 400.0, False)])
def test_fewer_lanes_pay_where_idle_ones_cost_more_than_to_compile(
    fewer: int, seconds: float, pays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, lambda lanes: GIB, lambda lanes: 0.1)
    # Six idle lanes, ten epochs of a hundred steps of a tenth of a second: ten minutes.
    assert sizing.pays(machine.make(8), None, fewer, 10, seconds) == pays


def test_free_memory_is_what_programs_can_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that are cached make room; a container's bound counts."""
    (tmp_path / "meminfo").write_text("MemTotal: 100 kB\nMemFree: 1 kB\nMemAvailable: 50 kB\n")
    (tmp_path / "limit").write_text("max\n")
    (tmp_path / "use").write_text("10240\n")
    for name, file in (("_MEMORY", "meminfo"), ("_CONTAINER_LIMIT", "limit"), ("_CONTAINER_USE", "use")):
        monkeypatch.setattr(sizing, name, tmp_path / file)
    assert sizing._free() == 50 * 1024
    (tmp_path / "limit").write_text("30720\n")
    assert sizing._free() == 20 * 1024
    monkeypatch.setattr(sizing, "_MEMORY", tmp_path / "nothing")
    monkeypatch.setattr(sizing, "_CONTAINER_LIMIT", tmp_path / "nothing")
    assert sizing._free() == float("inf")


def test_a_structure_of_few_trials_gets_few_lanes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The eight that are built first tell: one of them has a structure of its own."""
    monkeypatch.setattr(sizing, "_PAYS", 0.0)
    widths = [5, 8, 8, 8, 8, 8, 8, 8]
    engine = LanesEngine(
        mlp, [blobs()], None, budget(), OBJECTIVE, tmp_path, lanes=None, seed=0, trials=len(widths)
    )
    trials = in_lanes(engine, each(*({"units": width} for width in widths)))
    lanes = {width: trials[number].outcome.replay.lanes for number, width in enumerate(widths)}
    assert lanes[8] == 8
    assert lanes[5] < 8


@pytest.mark.parametrize("of_a_call", [0.0, 0.5])
def test_lanes_lose_where_a_step_of_each_takes_longer_than_one_of_model_fit(
    of_a_call: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a call costs beside its steps, as an epoch is one."""
    machine = Machine(monkeypatch, lambda lanes: GIB, lambda lanes: 0.012 / lanes)
    program, machine.of_a_call = machine.make(4), of_a_call
    assert sizing.loses(program, None, 0.0031) == sizing.loses(program, None, 0.004) == ""
    assert sizing.loses(program, None, 0.002) == (
        "a step of it would take 3 ms in lanes here, and 2 ms by fit"
    )


@pytest.mark.parametrize("asked", [True, False])
def test_a_structure_that_model_fit_trains_faster_is_refused_once_with_the_figures_if_asked(
    asked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured, seconds = [], []

    def loses(program: Any, values: Any, plain: float, alone: Any) -> str:
        measured.append(sizing._lane_step(program, values, alone))
        seconds.append(plain)
        # Those with five units only.
        return "too slow" if program._plan.twin.model.layers[0].units == 5 else ""

    monkeypatch.setattr("pipeline.engines.lanes.building.sizing.loses", loses)
    widths = [5, 8, 5, 8, 5]
    engine = LanesEngine(
        mlp,
        [blobs()],
        None,
        budget(),
        OBJECTIVE,
        tmp_path,
        lanes=2,
        seed=0,
        trials=len(widths),
        fit_if_faster=asked,
    )
    trials = in_lanes(engine, each(*({"units": width} for width in widths)))
    refused = {number: trial.refused for number, trial in trials.items()}
    slow = "too slow" if asked else ""
    assert refused == {number: slow if width == 5 else "" for number, width in enumerate(widths)}
    # Measured once for each structure: a step of a model this small takes from microseconds to some
    # milliseconds either way.
    assert len(measured) == (2 if asked else 0)
    assert all(0 < taken < 10 for taken in (*measured, *seconds))
