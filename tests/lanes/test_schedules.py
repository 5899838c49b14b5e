"""Lanes with plans of the learning rate, beside lanes of the plateau's rule, in one program."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from lanes_harness import Trial, blobs, budget, each, in_lanes, lanes_engine, mlp, one_by_one, replayed
from test_control import by_callbacks

from pipeline.engines import schedules
from pipeline.engines.lanes.program import Program
from pipeline.values import Budget, Candidate, Data

EPOCHS = 8
FIRST = 1e-3
PLANS = [
    {"schedule": "constant"},
    {"schedule": "exponential"},
    {"schedule": "cosine", "schedule_final": 0.1},
    {"schedule": "step", "schedule_final": 0.2, "schedule_epochs": 6},
    {"schedule": "cosine", "schedule_epochs": 3, "learning_rate": 2e-3},
]
PLATEAUS = [{"schedule": "plateau"}, {}, {"learning_rate": 2e-3, "l2": 0.05}]
# So little is asked for that the plateau's rule lowers the rate again and again.
LIMITS = budget(epochs=EPOCHS, plateau_patience=2, plateau_factor=0.5, plateau_min_delta=10.0)
# The plan's numbers are float32 in lanes and Python's under fit; both give a float32 rate.
RATE = 4 * 2.0**-23
# 32 steps of small rates: rounding of 6e-8, amplified less than a thousand times (as in test_control.py).
LOSSES = 6e-5


@pytest.fixture(scope="module")
def data() -> Data:
    return blobs()


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The lane count of each program that is compiled."""
    made: list[int] = []
    compile_ = Program.compile

    def counted(self: Program, values: object) -> None:
        made.append(self.lanes)
        compile_(self, values)

    monkeypatch.setattr(Program, "compile", counted)
    return made


def candidates_of(*settings: dict) -> list[Candidate]:
    return each(*({"learning_rate": FIRST, **own} for own in settings))


def planned(candidate: Candidate, limits: Budget) -> list[float]:
    """The rates of the candidate's plan, by numpy in float64."""
    plan = schedules.plan(candidate.settings, candidate.settings["learning_rate"], limits.epochs)
    return [float(schedules.rate(plan, epoch)) for epoch in range(limits.epochs)]


def test_plans_and_plateaus_run_side_by_side_in_one_program_as_under_fit(
    data: Data, tmp_path: Path, compiled: list[int]
) -> None:
    candidates = candidates_of(*PLANS, *PLATEAUS)
    ours = in_lanes(lanes_engine(mlp, data, LIMITS, tmp_path, 8), candidates)
    # Plans are numbers: whichever they are, the program is the same.
    assert compiled == [8]
    assert len({trial.outcome.replay for trial in ours.values()}) == 1
    theirs = one_by_one(mlp, data, LIMITS, tmp_path / "fit", replayed(candidates, ours))
    for candidate in candidates:
        trial, other = ours[candidate.number], theirs[candidate.number]
        assert trial.outcome.failure == other.outcome.failure == ""
        assert trial.outcome.epochs == other.outcome.epochs == EPOCHS
        np.testing.assert_allclose(trial.of("learning_rate"), other.of("learning_rate"), rtol=RATE)
        for name in ("loss", "val_loss"):
            np.testing.assert_allclose(trial.of(name), other.of(name), rtol=LOSSES, err_msg=name)
        if candidate.number < len(PLANS):
            np.testing.assert_allclose(trial.of("learning_rate"), planned(candidate, LIMITS), rtol=RATE)
    assert_plateaus(ours, candidates, LIMITS)
    curves = {tuple(trial.of("learning_rate")) for trial in ours.values()}
    assert len(curves) == len(PLANS) + 2, "each plan is one of its own, and the plateaus have two first rates"


def assert_plateaus(ours: dict[int, Trial], candidates: list[Candidate], limits: Budget) -> None:
    """Lanes without a plan lowered their rates as Keras's callback does, to the bit."""
    for candidate in candidates:
        if candidate.settings.get("schedule", "plateau") == "plateau":
            trial = ours[candidate.number]
            _, _, rates = by_callbacks(limits, candidate.settings["learning_rate"], trial.curve)
            assert trial.of("learning_rate") == rates
            assert len(set(rates)) > 2


def test_a_refilled_lane_starts_its_own_plan(data: Data, tmp_path: Path, compiled: list[int]) -> None:
    # Two lanes, and trials of other kinds after each other in both.
    candidates = candidates_of(*PLATEAUS[:1], *PLANS, *PLATEAUS[1:])
    ours = in_lanes(lanes_engine(mlp, data, LIMITS, tmp_path, 2), candidates)
    assert compiled == [2]
    assert max(trial.outcome.replay.first_epoch for trial in ours.values()) >= 3 * EPOCHS
    for candidate in candidates:
        if candidate.settings.get("schedule", "plateau") != "plateau":
            rates = ours[candidate.number].of("learning_rate")
            np.testing.assert_allclose(rates, planned(candidate, LIMITS), rtol=RATE)
    assert_plateaus(ours, candidates, LIMITS)


def test_early_stopping_cuts_a_plan_short(data: Data, tmp_path: Path) -> None:
    limits = budget(epochs=60, patience=2, min_delta=0.05)
    candidates = candidates_of(*({**plan, "schedule_epochs": 20} for plan in PLANS))
    ours = in_lanes(lanes_engine(mlp, data, limits, tmp_path, 8), candidates)
    for candidate in candidates:
        trial = ours[candidate.number]
        epochs, best, _ = by_callbacks(limits, candidate.settings["learning_rate"], trial.curve)
        assert (trial.outcome.epochs, trial.outcome.best_epoch) == (epochs, best)
        assert epochs < limits.epochs
        np.testing.assert_allclose(trial.of("learning_rate"), planned(candidate, limits)[:epochs], rtol=RATE)


def test_a_lanes_bits_do_not_depend_on_its_neighbours_plans(data: Data, tmp_path: Path) -> None:
    def curve(*neighbours: dict) -> list[dict[str, float]]:
        candidates = candidates_of({"schedule": "cosine"}, *neighbours)
        return in_lanes(lanes_engine(mlp, data, LIMITS, tmp_path, 4), candidates)[0].curve

    assert curve(*PLATEAUS) == curve(*PLANS[1:4]) == curve()
