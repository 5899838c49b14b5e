"""How trials stand is counted right, and what has ended is looked at once."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from pipeline import space as spaces
from pipeline import storage
from pipeline.metrics import CLASSIFICATION
from pipeline.samplers import BASELINE
from pipeline.settings import BATCH_SIZE, DROPOUT, L2, LEARNING_RATE
from pipeline.study import Study
from pipeline.study_opening import Origin, open_study
from pipeline.tally import INTERRUPTED, STARTED_FROM, Tally
from pipeline.values import Outcome

STATES = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING)
TEXT = """
[objective]
metric = "val_accuracy"
[budget]
epochs = 20
[space]
learning_rate = { low = 1e-4, high = 1e-1, log = true }
dropout = { low = 0.0, high = 0.5 }
[baseline]
learning_rate = 0.5
"""


class Seen(list[FrozenTrial]):
    """Trials that note which of them were looked at."""

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        super().__init__(trials)
        self.places = set[int]()

    def __getitem__(self, place: int) -> FrozenTrial:
        self.places.add(place)
        return super().__getitem__(place)

    def __iter__(self) -> object:
        raise AssertionError("all of them are gone through")


def a_trial(state: TrialState, mark: str = "") -> FrozenTrial:
    return create_trial(
        state=state,
        value=0.5 if state == TrialState.COMPLETE else None,
        user_attrs={mark: "s/1"} if mark else {},
    )


@given(
    st.lists(
        st.lists(
            st.tuples(st.sampled_from(STATES), st.sampled_from(["", BASELINE, INTERRUPTED, STARTED_FROM]))
        ),
        max_size=4,
    ),
    st.randoms(use_true_random=False),
)
def test_counts_are_those_of_all_trials_at_every_look(rounds: list, random: object) -> None:
    """Trials come, and those that are open go on, wait again or end."""
    trials: list[FrozenTrial] = []
    tally = Tally(lambda: trials)
    for new in rounds:
        for number, trial in enumerate(trials):
            if not trial.state.is_finished():
                mark = next(iter(trial.user_attrs), "")
                trials[number] = a_trial(random.choice(STATES), mark)  # type: ignore[attr-defined]
        # What studies of before ended where it was interrupted has ended.
        trials += [a_trial(TrialState.FAIL if mark == INTERRUPTED else state, mark) for state, mark in new]
        trials = [*trials]
        counted = [trial for trial in trials if INTERRUPTED not in trial.user_attrs]
        found = tally.look()
        for state in STATES[:3]:
            assert found.ended[state] == sum(trial.state == state for trial in counted)
        assert found.total == sum(trial.state.is_finished() for trial in counted)
        assert found.open == [trial for trial in trials if not trial.state.is_finished()]
        assert found.drawn == sum(BASELINE not in trial.user_attrs for trial in counted)
        assert found.baseline == any(BASELINE in trial.user_attrs for trial in counted)
        assert found.started_from == {"s/1" for trial in counted if STARTED_FROM in trial.user_attrs}


def test_what_has_ended_is_looked_at_once() -> None:
    trials = [a_trial(TrialState.COMPLETE) for _ in range(1000)]
    trials[500] = a_trial(TrialState.WAITING)
    tally = Tally(lambda: trials)
    tally.look()
    seen = Seen([*trials, a_trial(TrialState.RUNNING)])
    tally._trials = lambda: seen
    assert tally.look().total == 999
    assert seen.places == {500, 1000}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setenv("PIPELINE_HOME", str(tmp_path))
    space = spaces.parse(TEXT, Path("blobs.toml"), (LEARNING_RATE, BATCH_SIZE, DROPOUT, L2), CLASSIFICATION)
    journal: BaseStorage = storage.connect("", "blobs")
    origin = Origin("blobs", "full", 1, None, "blobs.toml", TEXT)
    return open_study("blobs", journal, space, origin, "d1", pruner="none", sampler="random", seed=0)


def work_of_a_trial(study: Study, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int, int]:
    """How often all trials are read, how many attributes of trials, and how many writes wait for the disk."""
    counts = {"reads": 0, "attributes": 0, "waits": 0}

    def counted(name: str, act: Callable) -> Callable:
        def counting(*arguments: object, **named: object) -> object:
            counts[name] += 1
            return act(*arguments, **named)

        return counting

    with monkeypatch.context() as patched:
        patched.setattr(
            type(study._storage), "get_all_trials", counted("reads", type(study._storage).get_all_trials)
        )
        for attribute in ("user_attrs", "params", "distributions"):
            found = getattr(FrozenTrial, attribute)
            patched.setattr(FrozenTrial, attribute, property(counted("attributes", found.fget), found.fset))
        patched.setattr("os.fsync", counted("waits", lambda _: None))
        candidate = study.next(10_000)
        assert candidate is not None
        study.tell(Outcome(candidate.number, value=0.5))
    return counts["reads"], counts["attributes"], counts["waits"]


def test_a_trial_is_as_much_work_after_hundreds_as_at_the_beginning(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        candidate = study.next(10_000)
        study.tell(Outcome(candidate.number, value=0.5))
    first = work_of_a_trial(study, monkeypatch)
    for _ in range(300):
        study._storage.create_new_trial(
            study._study_id,
            create_trial(
                value=0.5, params={"dropout": 0.25}, distributions={"dropout": FloatDistribution(0.0, 0.5)}
            ),
        )
    # The first look counts the new ones.
    study.remaining(10_000)
    reads, attributes, waits = work_of_a_trial(study, monkeypatch)
    assert reads == 1
    assert attributes <= first[1]
    # One for asking, one for telling.
    assert waits == 2
