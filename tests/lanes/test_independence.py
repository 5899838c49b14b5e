"""A lane's result depends on its own numbers, seed and first epoch alone, bit by bit."""

from collections.abc import Callable
from concurrent.futures import wait
from contextlib import closing
from dataclasses import replace
from pathlib import Path

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
    replayed,
)
from test_equality import lanes_of, named, prescribe

from pipeline import tasks
from pipeline.values import Array, Candidate, Data

__all__ = ["prescribe"]

LANES = 4
NOISY = {**SETTINGS, "dropout": 0.3, "l2": 1e-3}
EXPLODING = {**SETTINGS, "learning_rate": 1e38, "max_norm": 1e38}


@pytest.fixture(scope="module")
def data() -> Data:
    return blobs()


@pytest.fixture(scope="module")
def bench(data: Data) -> Bench:
    """Early stopping soon, so that neighbours end at epochs of their own."""
    limits = budget(epochs=30, patience=3, plateau_patience=1)
    return Bench(mlp, data, limits, LANES, SETTINGS)


def trained(bench: Bench, lane: int, neighbours: dict[int, tuple[dict, int]]) -> list[Array]:
    """All bits of one lane after two calls: its curve, its weights and the best of them."""
    bench.reset()
    bench.admit({lane: bench.values(NOISY, 5)})
    if neighbours:
        bench.admit({place: bench.values(*what) for place, what in neighbours.items()})
    found: list[Array] = []
    for epochs in (4, 2):
        report = bench.run(epochs)
        assert report.ran[:, lane].all(), "the lane under test is there all the time"
        found += [values[:, lane] for _, values in sorted(report.metrics.items())]
    return found + bench.lane(lane)


@pytest.mark.parametrize(
    "neighbours",
    [
        {0: (SETTINGS, 1), 2: (NOISY, 2), 3: ({**SETTINGS, "l1": 0.1, "bn_momentum": 0.1}, 3)},
        {0: (NOISY, 5), 2: (NOISY, 6), 3: (NOISY, 7)},
        {2: ({**NOISY, "dropout": 0.9}, 2)},
        {0: (EXPLODING, 1), 2: (EXPLODING, 2), 3: (NOISY, 3)},
    ],
    ids=["other numbers", "other seeds", "two empty lanes", "diverging"],
)
def test_a_lane_is_the_same_whatever_its_neighbours_are(bench: Bench, neighbours: dict) -> None:
    alone = trained(bench, 1, {})
    assert_same_bits(alone, trained(bench, 1, neighbours))


def test_a_lane_is_the_same_in_every_place(bench: Bench) -> None:
    first = trained(bench, 0, {1: (SETTINGS, 1)})
    for place in range(1, LANES):
        assert_same_bits(first, trained(bench, place, {}))


def test_a_neighbour_that_is_admitted_later_changes_nothing(bench: Bench) -> None:
    def late(neighbour: dict | None) -> list[Array]:
        bench.reset()
        bench.admit({1: bench.values(NOISY, 5)})
        bench.run(3)
        if neighbour:
            bench.admit({place: bench.values(neighbour, place) for place in (0, 2, 3)})
        report = bench.run(3)
        return [values[:, 1] for _, values in sorted(report.metrics.items())] + bench.lane(1)

    alone = late(None)
    assert_same_bits(alone, late(NOISY))
    assert_same_bits(alone, late(EXPLODING))


def test_a_lane_that_is_filled_again_keeps_nothing_of_the_one_before(bench: Bench) -> None:
    def second(first: dict | None) -> list[Array]:
        bench.reset()
        if first:
            bench.admit({2: bench.values(first, 1)})
        bench.run(3)
        bench.admit({2: bench.values(NOISY, 5)})
        report = bench.run(3)
        assert report.ran[:, 2].all()
        return [values[:, 2] for _, values in sorted(report.metrics.items())] + bench.lane(2)

    fresh = second(None)
    assert_same_bits(fresh, second(SETTINGS))
    # Infinite weights, moments and a best value that is not a number.
    assert_same_bits(fresh, second(EXPLODING))


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_epochs_of_a_call_change_nothing(bench: Bench, epochs: int) -> None:
    def curve(epochs: int) -> list[Array]:
        bench.reset()
        bench.admit({1: bench.values(NOISY, 5), 2: bench.values(SETTINGS, 6)})
        reports = [bench.run(epochs) for _ in range(12 // epochs)]
        names = sorted(reports[0].metrics)
        parts = [np.concatenate([report.metrics[name] for report in reports]) for name in names]
        ran = np.concatenate([report.ran for report in reports])
        # What is logged after a lane's end means nothing.
        return [ran, *(np.where(ran, part, 0) for part in parts), *bench.lane(1)[-8:], *bench.lane(2)[-8:]]

    assert_same_bits(curve(epochs), curve(4))


def test_a_diverging_lane_is_over_at_once_and_keeps_its_best_epoch_finite(bench: Bench) -> None:
    bench.reset()
    bench.admit({0: bench.values(EXPLODING, 1), 1: bench.values(NOISY, 5)})
    report = bench.run(4)
    assert report.ran[:, 0].tolist() == [True, False, False, False]
    assert report.alive.tolist() == [False, True, False, False]
    assert report.ran[:, 1].all()


# Not dual_camera: an Xception takes many minutes to compile, and has no other layers than these have.
EACH = [name for name in tasks.NAMES if name not in ("iris", "dual_camera")]


@pytest.mark.parametrize("name", ["iris", *(pytest.param(name, marks=pytest.mark.slow) for name in EACH)])
def test_a_lane_of_any_task_does_not_notice_its_neighbours_nor_one_that_diverges(
    name: str, prescribe: Callable[[str], None]
) -> None:
    prescribe(name)
    usual, others, more = ({**settings, "dropout": 0.3} for settings in lanes_of(name))
    task = Bench(tasks.find(name).build, named(name), budget(epochs=2), LANES, others, most_epochs=2)

    def bits(neighbours: dict[int, tuple[dict, int]]) -> list[Array]:
        task.reset()
        task.admit({1: task.values(others, 5)})
        if neighbours:
            task.admit({place: task.values(*what) for place, what in neighbours.items()})
        report = task.run(2)
        diverging = [place for place, (what, _) in neighbours.items() if what["learning_rate"] > 1]
        assert report.ran[:, diverging].sum(axis=0).tolist() == [1] * len(diverging)
        return [*(values[:, 1] for _, values in sorted(report.metrics.items())), *task.lane(1)]

    alone = bits({})
    assert all(np.isfinite(array).all() for array in alone)
    assert_same_bits(alone, bits({0: (usual, 1), 2: ({**usual, "learning_rate": 1e38}, 2), 3: (more, 3)}))


# The same through the engine


def test_the_engine_retires_a_diverging_trial_with_its_reason_and_refills_its_lane(
    data: Data, tmp_path: Path
) -> None:
    limits = budget(epochs=6)
    wild = [{}, {"dropout": 0.3}, EXPLODING, {"l2": 0.1}, EXPLODING, {}, {"dropout": 0.2}]
    tame = [SETTINGS if settings is EXPLODING else settings for settings in wild]
    ours, calm = (
        in_lanes(lanes_engine(mlp, data, limits, tmp_path, LANES), each(*settings))
        for settings in (wild, tame)
    )
    for number, settings in enumerate(wild):
        outcome = ours[number].outcome
        if settings is EXPLODING:
            assert outcome.failure.startswith("diverged: ")
            assert outcome.failure.endswith(" in epoch 0")
            assert outcome.model_file is None
            assert not ours[number].curve
        else:
            assert not outcome.failure
            assert len(ours[number].curve) == 6
    # The lanes that never changed hands saw the same epochs in both.
    for number in (0, 1, 3):
        assert ours[number].outcome.replay == calm[number].outcome.replay
        assert ours[number].curve == calm[number].curve


def test_fifteen_of_sixteen_lanes_do_not_notice_one_that_is_not_finite(data: Data, tmp_path: Path) -> None:
    lanes, wild = 16, 5
    calm = [{"dropout": 0.3, "learning_rate": 1e-3 * (1 + number)} for number in range(lanes)]
    mixed = [EXPLODING if number == wild else settings for number, settings in enumerate(calm)]
    found = []
    for name, settings in (("mixed", mixed), ("calm", calm)):
        (tmp_path / name).mkdir()
        engine = lanes_engine(mlp, data, budget(epochs=4), tmp_path / name, lanes)
        found.append(in_lanes(engine, each(*settings)))
    ours, theirs = found
    assert ours[wild].outcome.failure.startswith("diverged: ")
    assert ours[wild].outcome.model_file is None
    for number in set(range(lanes)) - {wild}:
        here, there = ours[number], theirs[number]
        assert not here.outcome.failure
        assert here.outcome.replay == there.outcome.replay
        assert here.curve == there.curve
        answers = [np.load(trial.outcome.predictions_file) for trial in (here, there)]
        assert np.array_equal(*answers)


def test_nobody_notices_a_trial_that_is_dropped(data: Data, tmp_path: Path) -> None:
    limits = budget(epochs=8)
    candidates = each({}, {"dropout": 0.3}, {"l2": 0.1})
    alone = in_lanes(lanes_engine(mlp, data, limits, tmp_path, LANES), candidates)
    trials: dict[int, Trial] = {}
    with closing(lanes_engine(mlp, data, limits, tmp_path, LANES)) as engine:
        for candidate in candidates:
            engine.add(candidate)
        wait(list(engine._building))
        ended = 0
        while ended < 2:
            ended += note(trials, engine.step())
            if trials and 1 in engine.running():
                engine.drop(1)
                engine.drop(1)
    for number in (0, 2):
        assert trials[number].curve == alone[number].curve
    assert trials[1].outcome is None


# Seeds


def test_a_seed_gives_the_same_trial_and_another_seed_another(data: Data, tmp_path: Path) -> None:
    limits = budget(epochs=4)
    noisy = {"dropout": 0.3}

    def run(seed: int, study: int = 0) -> Trial:
        engine = lanes_engine(mlp, data, limits, tmp_path, LANES, seed=study)
        return in_lanes(engine, each(noisy, noisy, seed=seed))[1]

    first, again = run(7), run(7)
    assert first.curve == again.curve
    assert np.array_equal(np.load(first.outcome.predictions_file), np.load(again.outcome.predictions_file))
    others = {"seed": run(8), "study": run(7, study=1)}
    for what, other in others.items():
        assert other.curve[0]["loss"] != first.curve[0]["loss"], what


def test_two_trials_with_one_seed_are_equal_and_with_two_seeds_are_not(data: Data, tmp_path: Path) -> None:
    settings = {**SETTINGS, "dropout": 0.3}
    candidates = [Candidate(number, seed, settings) for number, seed in enumerate((5, 5, 6))]
    ours = in_lanes(lanes_engine(mlp, data, budget(epochs=4), tmp_path, LANES), candidates)
    assert ours[0].curve == ours[1].curve
    assert ours[0].curve[0]["loss"] != ours[2].curve[0]["loss"]


def test_a_trial_of_a_refilled_lane_is_replayed_by_fit(data: Data, tmp_path: Path) -> None:
    limits = budget(epochs=3)
    # Small steps, as float32's rounding grows with each.
    slow = {"learning_rate": 1e-3}
    candidates = each(*[slow] * 6)
    ours = in_lanes(lanes_engine(mlp, data, limits, tmp_path, 2), candidates)
    late = candidates[-1]
    replay = ours[late.number].outcome.replay
    assert replay.first_epoch >= 3
    theirs = one_by_one(mlp, data, limits, tmp_path / "fit", replayed([late], ours))
    # Nine steps of a rate of 1e-3 amplify float32's rounding, 6e-8 of each number, by less than a thousand.
    assert max(relative(ours[late.number].curve, theirs[late.number].curve).values()) < 6e-5
    elsewhere = replace(late, replay=replace(replay, first_epoch=replay.first_epoch + 1))
    other = one_by_one(mlp, data, limits, tmp_path / "fit", [elsewhere])
    assert max(relative(ours[late.number].curve, other[late.number].curve).values()) > 6e-4


@pytest.mark.parametrize("shuffle", [True, False])
def test_with_orders_of_their_own_each_sees_its_rows_as_if_it_were_alone(
    shuffle: bool, data: Data, tmp_path: Path
) -> None:
    """Of the same seed even in another program; refilled lanes, too."""
    lengths = {"batch_size": 16, "shuffle": shuffle, "dropout": 0.0}
    candidates = each(*({**lengths, "units": units} for units in (8, 8, 8, 5)))
    candidates = [replace(one, seed=50 + one.number % 3) for one in candidates]
    limits = budget(epochs=3)
    engine = lanes_engine(mlp, data, limits, tmp_path, 2, own_orders=True)
    ours = in_lanes(engine, candidates)
    for candidate in candidates:
        replay = ours[candidate.number].outcome.replay
        assert (replay.seed, replay.program, replay.first_epoch) == (candidate.seed, 0, 0)
    theirs = one_by_one(mlp, data, limits, tmp_path / "fit", replayed(candidates, ours))
    for number, trial in ours.items():
        differences = relative(trial.curve[:1], theirs[number].curve[:1])
        # Some steps of a small model, as in test_equality.py.
        assert max(differences.values()) <= 2e-5
    (alone,) = in_lanes(
        lanes_engine(mlp, data, limits, tmp_path / "alone", 2, own_orders=True), candidates[2:3]
    ).values()
    # The third was admitted when another had ended.
    assert relative(alone.curve, ours[2].curve) == dict.fromkeys(alone.curve[0], 0.0)


def test_without_them_lanes_that_begin_together_share_one(data: Data, tmp_path: Path) -> None:
    candidates = each({"dropout": 0.0}, {"dropout": 0.0})
    ours = in_lanes(lanes_engine(mlp, data, budget(epochs=1), tmp_path, 2), candidates)
    replays = {trial.outcome.replay for trial in ours.values()}
    assert len(replays) == 1
