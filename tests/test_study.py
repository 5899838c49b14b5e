"""A study over a real journal: candidates out, results in, gone on with, and held to its start."""

import uuid
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.storages import BaseStorage

import pipeline.drawing
from benchmarks.faults import servers
from pipeline import space as spaces
from pipeline import storage
from pipeline.errors import RunError, UserError
from pipeline.metrics import CLASSIFICATION
from pipeline.settings import BATCH_SIZE, DROPOUT, L2, LEARNING_RATE
from pipeline.space import Space
from pipeline.study import Study
from pipeline.study_opening import Origin, open_study, origin_of, standing_of
from pipeline.values import Outcome

TEXT = """
[objective]
metric = "val_accuracy"
[budget]
epochs = 20
[space]
learning_rate = { low = 1e-4, high = 1e-1, log = true }
dropout = { low = 0.0, high = 0.5 }
batch_size = { choices = [16, 32] }
[baseline]
learning_rate = 0.5
"""
PARAMETERS = (LEARNING_RATE, BATCH_SIZE, DROPOUT, L2)
ORIGIN = Origin("blobs", "full", 1, None, "blobs.toml", TEXT)


@pytest.fixture
def space() -> Space:
    return spaces.parse(TEXT, Path("blobs.toml"), PARAMETERS, CLASSIFICATION)


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BaseStorage:
    monkeypatch.setenv("PIPELINE_HOME", str(tmp_path))
    return storage.connect("", "blobs")


def opened(journal: BaseStorage, space: Space, origin: Origin = ORIGIN, **more: object) -> Study:
    values: dict = {"data": "d1", "pruner": "none", "sampler": "random", "seed": 0, **more}
    return open_study("blobs", journal, space, origin, values.pop("data"), **values)


def complete(number: int, value: float) -> Outcome:
    return Outcome(number, value=value, best_epoch=1)


def test_the_baseline_is_trial_0_with_its_own_settings(journal: BaseStorage, space: Space) -> None:
    study = opened(journal, space)
    baseline = study.ask()
    assert baseline.number == 0
    # Outside of its range, and the rest Keras's defaults.
    assert baseline.settings == {"learning_rate": 0.5, "batch_size": 32, "dropout": 0.0, "l2": 0.0}
    assert study.is_baseline(0)
    study.tell(complete(0, 0.9))
    drawn = study.ask()
    assert drawn.number == 1
    assert study.drawn(drawn).keys() == {"learning_rate", "dropout", "batch_size"}
    assert drawn.settings == {**drawn.settings, **study.drawn(drawn), "l2": 0.0}
    assert not study.is_baseline(1)


def test_baseline_and_trials_can_run_side_by_side(journal: BaseStorage, space: Space) -> None:
    study = opened(journal, space)
    candidates = [study.ask() for _ in range(3)]
    assert [candidate.number for candidate in candidates] == [0, 1, 2]
    assert study.remaining(3) == 0
    study.tell(complete(2, 0.5))
    study.tell(complete(0, 0.6))
    assert [trial.number for trial in study.finished()] == [0, 2]
    assert study.finished()[0].baseline


def test_no_baseline_in_the_space_means_none(journal: BaseStorage, space: Space) -> None:
    study = opened(journal, replace(space, baseline=None))
    assert not study.is_baseline(study.ask().number)


def test_counts_leave_interrupted_trials_out(journal: BaseStorage, space: Space) -> None:
    study = opened(journal, space)
    for _ in range(4):
        study.ask()
    study.tell(complete(0, 0.5))
    study.tell(Outcome(1, failure="diverged: loss is nan in epoch 3"))
    study.prune(2, "pruned")
    study.interrupt(3, "the time is over")
    counts = study.counts()
    assert (counts.completed, counts.pruned, counts.failed, counts.total) == (1, 1, 1, 3)
    assert study.remaining(10) == 7
    assert study.reasons() == ["diverged: loss is nan in epoch 3"]


def test_an_interrupted_baseline_is_asked_again(journal: BaseStorage, space: Space) -> None:
    study = opened(journal, space)
    study.interrupt(study.ask().number, "interrupted")
    again = study.ask()
    assert again.settings["learning_rate"] == 0.5
    assert study.is_baseline(again.number)


def test_an_interrupted_trial_is_asked_again_as_it_was(journal: BaseStorage, space: Space) -> None:
    study = opened(journal, space)
    first = [study.ask() for _ in range(3)]
    study.interrupt(2, "out of memory")
    study.interrupt(1, "out of memory")
    assert study.remaining(3) == 2
    assert [study.ask(), study.ask()] == first[1:]
    assert study.drawn(first[1]) == {name: first[1].settings[name] for name in study.drawn(first[1])}
    assert study.ask().number == 3


def test_what_a_killed_process_trained_waits_with_its_number(journal: BaseStorage, space: Space) -> None:
    killed = opened(journal, space)
    first = [killed.ask() for _ in range(3)]
    killed.tell(complete(1, 0.5))
    study = opened(storage.connect("", "blobs"), space)
    assert (study.under_way(), study.elsewhere()) == ([0, 2], 2)
    assert study.queue_left() == [0, 2]
    assert study.queue_left() == []
    assert study.is_baseline(study.ask().number)
    assert study.ask() == first[2]
    assert study.ask().number == 3
    # What is under way here is nobody's to queue.
    assert study.queue_left() == []


def test_a_process_that_was_killed_while_it_asked_leaves_a_trial_that_is_drawn_to_its_end(
    journal: BaseStorage, space: Space
) -> None:
    undisturbed = opened(storage.connect("", "other"), space)
    wanted = [undisturbed.ask() for _ in range(3)]
    killed = opened(journal, space)
    killed.ask(), killed.ask()
    # The trial is there, and one of its parameters.
    trial_id = killed._created({})
    made = optuna.trial.Trial(killed._study, trial_id)
    made.suggest_float("learning_rate", 1e-4, 1e-1, log=True)
    study = opened(storage.connect("", "blobs"), space)
    study.queue_left()
    study.ask(), study.ask()
    found = study.ask()
    assert (found.number, found.seed) == (wanted[2].number, wanted[2].seed)
    assert found.settings["learning_rate"] == made.params["learning_rate"]
    assert set(found.settings) == set(wanted[2].settings)


@pytest.mark.parametrize("sampler", ["random", "tpe", "grid"])
@pytest.mark.parametrize("drawn", [0, 1, 2])
def test_a_trial_whose_process_was_killed_while_it_drew_is_as_if_it_had_not_been(
    drawn: int, sampler: str, journal: BaseStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = TEXT.replace("low = 1e-4, high = 1e-1, log = true", "choices = [0.1, 0.2, 0.3]")
    text = text.replace("low = 0.0, high = 0.5", "choices = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]")
    space = spaces.parse(text, Path("blobs.toml"), PARAMETERS, CLASSIFICATION)
    undisturbed = opened(storage.connect("", "other"), space, sampler=sampler)
    wanted = [undisturbed.ask() for _ in range(3)]
    killed = opened(journal, space, sampler=sampler)
    killed.ask(), killed.ask()
    real, asked = pipeline.drawing._suggest, []

    def suggest_some(*args: Any) -> None:
        if len(asked) == drawn:
            raise KeyboardInterrupt
        asked.append(args)
        real(*args)

    with monkeypatch.context() as patched:
        patched.setattr("pipeline.drawing._suggest", suggest_some)
        with pytest.raises(KeyboardInterrupt):
            killed.ask()
    study = opened(storage.connect("", "blobs"), space, sampler=sampler)
    study.queue_left()
    assert [study.ask() for _ in range(3)] == wanted


@pytest.mark.parametrize(
    ("note", "state"),
    [
        (
            {"failure": "", "value": 0.25, "replay": {"seed": 1, "program": 2, "first_epoch": 3, "lanes": 4}},
            "COMPLETE",
        ),
        ({"failure": "diverged", "value": float("nan"), "replay": None}, "FAIL"),
        ({"pruned": "by median"}, "PRUNED"),
    ],
)
def test_how_a_trial_ended_is_learned_from_what_a_killed_process_wrote(
    note: dict, state: str, journal: BaseStorage, space: Space
) -> None:
    killed = opened(journal, space)
    for _ in range(2):
        killed.ask()
    study = opened(storage.connect("", "blobs"), space)
    assert study.settle(killed.note(1, **note))
    assert study.queue_left() == [0]
    (trial,) = [trial for trial in study._trials() if trial.number == 1]
    assert trial.state.name == state
    assert study.lanes == (4 if state == "COMPLETE" else None)
    # Told twice is told once; and another end than the one that counts is none.
    assert study.settle(killed.note(1, **note))
    assert not study.settle(killed.note(1, failure="", value=0.75, replay=None))
    assert study.counts().total == 1


@pytest.mark.parametrize("ended", [False, True])
def test_a_trial_that_another_process_has_taken_over_is_not_settled_by_an_equal_end(
    ended: bool, journal: BaseStorage, space: Space
) -> None:
    killed = opened(journal, space)
    killed.ask(), killed.ask()
    study = opened(storage.connect("", "blobs"), space)
    study.queue_left()
    study.ask(), study.ask()
    if ended:
        study.tell(complete(1, 0.25))
    assert not study.settle(killed.note(1, failure="", value=0.25, replay=None))
    assert study.counts().total == int(ended)
    assert study.under_way() == ([0] if ended else [0, 1])


def test_a_process_that_slept_neither_tells_nor_takes_back_what_another_one_has(
    space: Space, postgresql: servers.Postgresql, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"blobs-{uuid.uuid4().hex}"
    with ExitStack() as stack:
        slept, other = (
            open_study(
                name,
                stack.enter_context(storage.connected(postgresql.url("optuna"), name)),
                space,
                ORIGIN,
                "d1",
                pruner="none",
                sampler="random",
                seed=0,
            )
            for _ in range(2)
        )
        assert [slept.next(8).number for _ in range(4)] == [0, 1, 2, 3]
        # Its heartbeats were seen to be old, twice.
        stale = [other._trial_id(number) for number in (0, 1, 2, 3)]
        monkeypatch.setattr(other._pulse, "stale", lambda: stale)
        assert other.queue_left() == [0, 1, 2, 3]
        assert [other.next(8).number for _ in range(3)] == [0, 1, 2]
        assert other.tell(complete(0, 0.5))
        for ended_elsewhere in (0, 1):
            assert not slept.tell(complete(ended_elsewhere, 0.25))
            assert not slept.prune(ended_elsewhere, "by median")
            assert not slept.interrupt(ended_elsewhere, "interrupted")
        assert other.under_way() == [1, 2]
        assert slept.tell(complete(3, 0.75)), "nobody has taken it yet"
        assert dict(other.history()) == {0: 0.5, 3: 0.75}


def test_records_of_a_trial_that_the_study_never_had_are_told(journal: BaseStorage, space: Space) -> None:
    """An older copy of the study's file was put back."""
    study = opened(journal, space)
    study.ask()
    with pytest.raises(
        RunError, match="study blobs: has no trial 7, of which records on disk say how it ended"
    ):
        study.settle(study.note(7, failure="", value=0.25, replay=None))


def test_what_ended_will_not_be_trained_again(journal: BaseStorage, space: Space) -> None:
    study = opened(journal, space)
    for _ in range(5):
        study.ask()
    study.tell(complete(0, 0.5))
    study.prune(1, "by median")
    study.tell(Outcome(2, "diverged"))
    study.interrupt(3, "the time is over")
    assert study.ended() == {0, 1, 2}
    standing = standing_of("blobs", journal)
    assert standing.ended == {0, 1, 2}


def test_a_step_that_was_reported_before_an_interruption_is_not_reported_again(
    journal: BaseStorage, space: Space
) -> None:
    """Optuna warns of it, and warnings are errors here."""
    study = opened(journal, replace(space, baseline=None), pruner="median")
    study.ask()
    for step in range(3):
        study.report(0, 0.5, step)
    study.interrupt(0, "the time is over")
    again = opened(storage.connect("", "blobs"), replace(space, baseline=None), pruner="median")
    assert again.ask().number == 0
    for step in range(1, 5):
        again.report(0, 0.25, step)
    (trial,) = again._trials()
    assert trial.intermediate_values == {0: 0.5, 1: 0.5, 2: 0.5, 3: 0.25, 4: 0.25}


@pytest.mark.parametrize(("direction", "best"), [("maximize", 2), ("minimize", 1)])
def test_finished_trials_come_best_first(
    journal: BaseStorage, space: Space, direction: str, best: int
) -> None:
    study = opened(journal, replace(space, objective=replace(space.objective, direction=direction)))
    for value in (0.5, 0.2, 0.8):
        study.tell(complete(study.ask().number, value))
    assert study.finished()[0].number == best
    assert study.history() == [(0, 0.5), (1, 0.2), (2, 0.8)]


def test_a_study_goes_on_where_it_was_left(journal: BaseStorage, space: Space) -> None:
    first = opened(journal, space)
    first.set_parent_run("run-1")
    for _ in range(3):
        first.tell(complete(first.ask().number, 0.5))
    again = opened(storage.connect("", "blobs"), space)
    assert again.counts().completed == 3
    assert again.remaining(5) == 2
    assert again.parent_run == "run-1"
    assert again.ask().number == 3


def test_a_study_that_is_closed_says_so_until_trials_are_added(journal: BaseStorage, space: Space) -> None:
    study = opened(journal, space)
    study.tell(complete(study.ask().number, 0.5))
    assert not study.closed
    study.close(study.counts().total)
    assert study.closed
    study.tell(complete(study.ask().number, 0.5))
    assert not study.closed


def test_stopping_changes_no_later_trial(
    tmp_path: Path, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawn(home: str, stops: tuple[int, ...]) -> list[tuple]:
        monkeypatch.setenv("PIPELINE_HOME", str(tmp_path / home))
        asked = []
        study = opened(storage.connect("", "blobs"), space)
        for number in range(6):
            if number in stops:
                study = opened(storage.connect("", "blobs"), space)
            candidate = study.ask()
            asked.append((candidate.seed, dict(candidate.settings)))
            study.tell(complete(candidate.number, 0.5))
        return asked

    assert drawn("whole", ()) == drawn("stopped", (1, 4))


def test_seeds_of_trials_differ_and_derive_from_the_study_s(journal: BaseStorage, space: Space) -> None:
    study = opened(journal, space, seed=5)
    seeds = [study.ask().seed for _ in range(4)]
    assert seeds == [int(np.random.SeedSequence([5, number]).generate_state(1)[0]) for number in range(4)]
    assert len(set(seeds)) == 4


def test_a_grid_ends_at_its_last_point(journal: BaseStorage) -> None:
    text = TEXT.replace("{ low = 1e-4, high = 1e-1, log = true }", "{ choices = [0.1, 0.01] }").replace(
        "high = 0.5 }", "high = 0.5, step = 0.5 }"
    )
    space = spaces.parse(text, Path("blobs.toml"), PARAMETERS, CLASSIFICATION)
    study = opened(journal, space, sampler="grid")
    asked = []
    while study.remaining(100):
        candidate = study.ask()
        asked.append(tuple(candidate.settings.values()))
        study.tell(complete(candidate.number, 0.5))
    assert len(asked) == 1 + 2 * 2 * 2
    assert len(set(asked)) == len(asked)


def test_the_median_pruner_gives_up_a_poor_trial_but_never_the_baseline(
    journal: BaseStorage, space: Space
) -> None:
    study = opened(journal, space, pruner="median")
    for _ in range(6):
        number = study.ask().number
        assert not any(study.report(number, 0.9, epoch) for epoch in range(5))
        study.tell(complete(number, 0.9))
    poor = study.ask().number
    # Warm-up is a tenth of the 20 epochs.
    assert [study.report(poor, 0.1, epoch) for epoch in range(4)] == [False, False, True, True]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"data": "d2"}, ["  data: was d1, now d2"]),
        ({"origin": replace(ORIGIN, folds=3)}, ["  folds: was 1, now 3"]),
        ({"origin": replace(ORIGIN, task="iris")}, ["  task: was blobs, now iris"]),
        ({"old": "epochs = 20", "new": "epochs = 5"}, ["  [budget] epochs: was 20, now 5"]),
        (
            {"old": "high = 0.5 }", "new": "high = 0.6 }"},
            ['  [space] dropout: was {"low": 0.0, "high": 0.5}'],
        ),
        ({"old": "learning_rate = 0.5", "new": "learning_rate = 0.4"}, ["  [baseline]: was "]),
        (
            {"old": 'metric = "val_accuracy"', "new": 'metric = "val_log_loss"'},
            ["  [objective]: was maximize val_accuracy, now minimize val_log_loss"],
        ),
        ({"old": "dropout =", "new": "l2 ="}, ["  [space] dropout: was ", "  [space] l2: was not there"]),
    ],
)
def test_a_study_refuses_what_it_was_not_started_with(
    journal: BaseStorage, space: Space, changed: dict, said: list[str]
) -> None:
    study = opened(journal, space)
    study.tell(complete(study.ask().number, 0.5))
    text = TEXT.replace(changed.get("old", ""), changed.get("new", "")) if "old" in changed else TEXT
    other = spaces.parse(text, Path("blobs.toml"), PARAMETERS, CLASSIFICATION)
    with pytest.raises(UserError) as error:
        opened(journal, other, changed.get("origin", ORIGIN), data=changed.get("data", "d1"))
    lines = str(error.value).splitlines()
    assert lines[0].startswith("study blobs: was started with other settings; give another name by study=")
    assert len(lines) == 1 + len(said)
    for line, start in zip(lines[1:], said, strict=True):
        assert line.startswith(start)


def test_a_study_without_trials_may_still_change(journal: BaseStorage, space: Space) -> None:
    opened(journal, space)
    opened(journal, space, replace(ORIGIN, folds=3), data="d2")
    assert origin_of("blobs", journal).folds == 3


def test_what_a_study_was_started_with_can_be_asked(journal: BaseStorage, space: Space) -> None:
    opened(journal, space)
    assert origin_of("blobs", journal) == ORIGIN
    with pytest.raises(UserError, match="there is no study named 'other'"):
        origin_of("other", journal)
