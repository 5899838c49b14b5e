"""A lane that goes on from its checkpoint is the lane that was never interrupted, bit by bit."""

import logging
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from lanes_harness import (
    SETTINGS,
    Bench,
    Trial,
    assert_same_bits,
    blobs,
    budget,
    each,
    in_lanes,
    lanes_engine,
    mlp,
    note,
    one_by_one,
    relative,
)

from pipeline.datasets import splits
from pipeline.engines.checkpoints import Checkpoints
from pipeline.values import Budget, Candidate, Data

# Early stopping and plateau are at work from the first epochs on.
LIMITS = budget(epochs=60, patience=12, plateau_patience=2, plateau_cooldown=1, min_delta=1e-3)
NOISY = {"dropout": 0.3, "l2": 1e-3}
SOON = 1e-9


@pytest.fixture(scope="module")
def data() -> Data:
    return blobs()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


def interrupted(
    data: Data | Sequence[Data],
    candidates: Sequence[Candidate],
    folder: Path,
    files: Sequence[str],
    lanes: int = 2,
    limits: Budget = LIMITS,
    epochs: int = 8,
    **more: object,
) -> dict[int, Trial]:
    """Trains them until there are these files and so many epochs of each, and then closes the engine."""
    trials: dict[int, Trial] = {}
    with closing(Checkpoints(folder, SOON)) as checkpoints:
        engine = lanes_engine(mlp, data, limits, folder.parent, lanes, checkpoints=checkpoints, **more)
        with closing(engine):
            for candidate in candidates:
                engine.add(candidate)
            ends = time.monotonic() + 120
            while not (
                all((folder / name).exists() for name in files)
                and len(trials) == len(candidates)
                and all(sum(map(len, trial.curves.values())) >= epochs for trial in trials.values())
            ):
                assert time.monotonic() < ends
                note(trials, engine.step())
    return trials


def gone_on(
    data: Data | Sequence[Data],
    candidates: Sequence[Candidate],
    folder: Path,
    lanes: int = 2,
    limits: Budget = LIMITS,
    **more: object,
) -> dict[int, Trial]:
    with closing(Checkpoints(folder, 1000.0)) as checkpoints:
        engine = lanes_engine(mlp, data, limits, folder.parent, lanes, checkpoints=checkpoints, **more)
        return in_lanes(engine, candidates)


def undisturbed(
    data: Data | Sequence[Data],
    candidates: Sequence[Candidate],
    folder: Path,
    lanes: int = 2,
    limits: Budget = LIMITS,
    **more: object,
) -> dict[int, Trial]:
    return in_lanes(lanes_engine(mlp, data, limits, folder.parent, lanes, **more), candidates)


def weights(trial: Trial) -> list[np.ndarray]:
    return keras.models.load_model(trial.outcome.model_file).get_weights()


def test_a_lane_that_is_put_back_goes_on_with_the_same_bits_beside_others_that_notice_nothing(
    data: Data,
) -> None:
    """In another place, and in the same epoch of the program, so that the rows are the same."""
    bench = Bench(mlp, data, replace(LIMITS, epochs=30), 4, SETTINGS)
    noisy = {**SETTINGS, **NOISY}
    bench.admit({1: bench.values(noisy, 5), 2: bench.values(SETTINGS, 6)})
    bench.run(4)
    (kept,) = bench.program.layout.whole(bench.state, [1])
    reports = [bench.run(4), bench.run(4)]
    lane, neighbour = bench.lane(1), bench.lane(2)

    bench.reset()
    bench.admit({2: bench.values(SETTINGS, 6)})
    bench.run(4)
    bench.admit({3: bench.values(noisy, 5)})
    bench.state = bench.program.layout.resume(bench.state, {3: kept})
    again = [bench.run(4), bench.run(4)]
    for one, other in zip(reports, again, strict=True):
        assert one.ran[:, 1].all()
        for name, values in one.metrics.items():
            assert_same_bits([values[:, 1]], [other.metrics[name][:, 3]])
    assert_same_bits(lane, bench.lane(3))
    assert_same_bits(neighbour, bench.lane(2))


@pytest.mark.parametrize("lanes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_a_trial_goes_on_from_its_checkpoint_as_if_nothing_had_been(
    lanes: int, data: Data, folder: Path
) -> None:
    candidates = each(NOISY, {"dropout": 0.1, "learning_rate": 0.03})
    whole = undisturbed(data, candidates, folder, own_orders=True)
    interrupted(data, candidates, folder, ["0-0.npz", "1-0.npz"], own_orders=True)
    ours = gone_on(data, candidates, folder, lanes, own_orders=True)
    for number, trial in ours.items():
        before = whole[number]
        assert 0 < trial.resumed < len(trial.curve)
        assert trial.outcome.best_epoch == before.outcome.best_epoch < trial.outcome.epochs - 1
        assert trial.outcome.epochs == before.outcome.epochs < LIMITS.epochs
        assert trial.outcome.replay.turns == ()
        if lanes == 2:
            assert trial.curve == before.curve
            assert_same_bits(weights(trial), weights(before))
        else:
            # Another program, whose sums may be in another order; training multiplies what differs.
            assert trial.curve[: trial.resumed] == before.curve[: trial.resumed]
            after = slice(trial.resumed, trial.resumed + 1)
            assert max(relative(trial.curve[after], before.curve[after]).values()) < 1e-4


def test_fit_replays_a_trial_that_went_on_in_the_orders_that_it_saw(data: Data, folder: Path) -> None:
    limits = budget(epochs=40)
    # Small steps, as float32's rounding grows with each.
    candidates = each({"learning_rate": 1e-4, "dropout": 0.0})
    interrupted(data, candidates, folder, ["0-0.npz"], limits=limits)
    interrupted_again = gone_on(data, candidates, folder, limits=limits)[0]
    replay = interrupted_again.outcome.replay
    ((turn, of_program),) = replay.turns
    assert (turn, of_program) == (interrupted_again.resumed, 0)
    one = replace(candidates[0], replay=replay)
    theirs = one_by_one(mlp, data, limits, folder.parent / "fit", [one])[0]
    # 160 steps of a rate of 1e-4; other orders differ by a hundred times as much.
    assert max(relative(interrupted_again.curve, theirs.curve).values()) < 1e-4
    without = replace(one, replay=replace(replay, turns=()))
    other = one_by_one(mlp, data, limits, folder.parent / "fit", [without])[0]
    assert max(relative(interrupted_again.curve, other.curve).values()) > 1e-3


def test_folds_that_were_over_are_not_trained_again_and_the_others_go_on(data: Data, folder: Path) -> None:
    folds = splits.folds(data, 3)
    candidates = each(NOISY)
    more = {"whole": data.train, "own_orders": True, "limits": replace(LIMITS, patience=6)}
    whole = undisturbed(folds, candidates, folder, lanes=1, **more)[0]
    # One lane: fold after fold.
    files = ["0-0.npz", "0-1.npz"]
    trials = interrupted(folds, candidates, folder, files, lanes=1, epochs=0, **more)
    begun = len(trials[0].curves[0])
    assert 0 in trials[0].scores
    ours = gone_on(folds, candidates, folder, lanes=1, **more)[0]
    assert ours.resumed > begun
    assert ours.curves == whole.curves
    assert ours.scores == whole.scores
    assert ours.outcome.best_epoch == whole.outcome.best_epoch
    assert ours.outcome.epochs == whole.outcome.epochs
    assert ours.outcome.metrics == whole.outcome.metrics


@pytest.mark.parametrize(
    "change",
    [
        "torn",
        pytest.param("another budget", marks=pytest.mark.slow),
        pytest.param("another seed", marks=pytest.mark.slow),
        "more units",
    ],
)
def test_what_does_not_fit_is_removed_and_the_trial_starts_over(
    change: str, data: Data, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    candidates, limits = each(NOISY), LIMITS
    interrupted(data, candidates, folder, ["0-0.npz"])
    file = folder / "0-0.npz"
    if change == "torn":
        file.write_bytes(file.read_bytes()[:-200])
    elif change == "another budget":
        limits = replace(LIMITS, patience=3)
    elif change == "another seed":
        candidates = [replace(candidates[0], seed=1)]
    else:
        candidates = each({**NOISY, "units": 9})
    with caplog.at_level(logging.WARNING):
        ours = gone_on(data, candidates, folder, limits=limits)
    assert ours[0].resumed == 0
    assert not file.exists()
    (line,) = [one.getMessage() for one in caplog.records if "starts from its beginning" in one.getMessage()]
    of_what = {
        "torn": "it cannot be read (BadZipFile: ",
        "another budget": "it is of another budget",
        "another seed": "it is of another seed",
        "more units": "it is of another program",
    }
    assert line.startswith(f"trial 0 starts from its beginning: {file} is of no use: {of_what[change]}")


def test_a_short_training_keeps_nothing(data: Data, folder: Path) -> None:
    gone_on(data, each(NOISY), folder)
    assert not folder.exists()
