"""A trial by `model.fit` that goes on from its checkpoint is the trial that was never interrupted.

On whatever Keras runs on: TensorFlow here, and JAX by `lanes/test_checkpoints_of_fit.py`.
"""

import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import keras
import numpy as np
import pytest
from test_fit import OBJECTIVE, SETTINGS, _budget, build

from pipeline.datasets import splits
from pipeline.engines import checkpoints
from pipeline.engines.checkpoints import Checkpoints
from pipeline.engines.engine import Event, Resumed
from pipeline.engines.fit import FitEngine
from pipeline.values import Budget, Candidate, Data, FoldScore, Outcome, Progress

# Early stopping and plateau are at work from the first epochs on.
LIMITS = _budget(epochs=40, patience=12, plateau_patience=2, plateau_cooldown=2, min_delta=1e-2)
CANDIDATE = Candidate(4, 11, SETTINGS)
SOON = 1e-9


@pytest.fixture(autouse=True)
def _as_often_as_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "_REST", 0.0)


@pytest.fixture(scope="module")
def data() -> Data:
    rng = np.random.default_rng(0)
    targets = np.repeat(np.arange(3), 40).astype(np.int32)
    inputs = (rng.normal(size=(120, 4)) + targets[:, None]).astype(np.float32)
    return splits.data("blobs", "made up", "abc", splits.three_ways(inputs, targets))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


def trained(
    folds: Sequence[Data],
    folder: Path,
    seconds: float = 1000.0,
    candidate: Candidate = CANDIDATE,
    limits: Budget = LIMITS,
    epochs: int = 0,
    **more: object,
) -> list[Event]:
    """All events of a trial; those up to so many epochs, if that is not 0."""
    events: list[Event] = []
    with (
        closing(Checkpoints(folder, seconds)) as kept,
        closing(
            FitEngine(build, folds, limits, OBJECTIVE, folder.parent, checkpoints=kept, **more)
        ) as engine,
    ):
        engine.add(candidate)
        ends = time.monotonic() + 300
        while not engine.free() and not (epochs and len(progress(events)) >= epochs):
            assert time.monotonic() < ends
            events += engine.step()
    return events


def progress(events: Sequence[Event]) -> list[Progress]:
    """A trial's epochs, those before a checkpoint included."""
    found: list[Progress] = []
    for event in events:
        if isinstance(event, Resumed):
            found += event.before
        elif isinstance(event, Progress):
            found.append(event)
    return found


def outcome(events: Sequence[Event]) -> Outcome:
    assert isinstance(events[-1], Outcome)
    return events[-1]


def same_weights(one: Outcome, other: list[np.ndarray]) -> None:
    for ours, theirs in zip(keras.models.load_model(one.model_file).get_weights(), other, strict=True):
        assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize(
    "settings", [{}, pytest.param({"shuffle": False}, marks=pytest.mark.slow), {"schedule": "cosine"}]
)
def test_it_goes_on_as_if_nothing_had_been(settings: dict, data: Data, folder: Path) -> None:
    candidate = Candidate(4, 11, {**SETTINGS, **settings})
    whole = trained([data], folder, candidate=candidate)
    weights = keras.models.load_model(outcome(whole).model_file).get_weights()
    assert not folder.exists()
    first = trained([data], folder, SOON, candidate, epochs=9)
    assert isinstance(first[-1], Progress)
    assert (folder / "4-0.npz").exists()
    ours = trained([data], folder, candidate=candidate)
    (resumed,) = [event for event in ours if isinstance(event, Resumed)]
    # The last epochs may be trained again, those that the loop was told of first.
    assert 7 <= len(resumed.before) <= 9
    assert progress(ours) == progress(whole)
    before, after = outcome(whole), outcome(ours)
    assert (after.best_epoch, after.epochs, after.metrics) == (
        before.best_epoch,
        before.epochs,
        before.metrics,
    )
    assert after.epochs > 10
    same_weights(after, weights)


def test_an_exact_number_of_epochs_goes_on_without_early_stopping(data: Data, folder: Path) -> None:
    candidate = Candidate(4, 11, SETTINGS, epochs=12)
    whole = trained([data], folder, candidate=candidate)
    trained([data], folder, SOON, candidate, epochs=6)
    ours = trained([data], folder, candidate=candidate)
    assert any(isinstance(event, Resumed) for event in ours)
    assert progress(ours) == progress(whole)
    assert outcome(ours).best_epoch == 11


def test_folds_that_were_over_are_not_trained_again(data: Data, folder: Path) -> None:
    folds, limits = splits.folds(data, 3), _budget(epochs=5)
    whole = trained(folds, folder, limits=limits)
    trained(folds, folder, SOON, limits=limits, epochs=8)
    ours = trained(folds, folder, limits=limits)
    resumed = {event.fold: len(event.before) for event in ours if isinstance(event, Resumed)}
    assert resumed[0] == 5
    assert 0 < resumed[1] < 5
    assert progress(ours) == progress(whole)
    scores = [[event for event in events if isinstance(event, FoldScore)] for events in (ours, whole)]
    assert scores[0] == scores[1]
    assert outcome(ours).metrics == outcome(whole).metrics
    assert (outcome(ours).epochs, outcome(ours).best_epoch) == (15, outcome(whole).best_epoch)


def test_the_seconds_of_both_processes_count(data: Data, folder: Path) -> None:
    trained([data], folder, SOON, epochs=3)
    with closing(Checkpoints(folder, 1.0)) as kept:
        file = folder / "4-0.npz"
        with np.load(file) as content:
            said = bytes(content["said"]).decode()
            parts = dict(content)
        before = said[said.index('"seconds": ') :].split(",")[0]
        said = said.replace(before, '"seconds": 5000.0')
        np.savez(file, **{**parts, "said": np.frombuffer(said.encode(), np.uint8)})
        assert kept.ready
    assert 5000 < outcome(trained([data], folder)).seconds < 5300


@pytest.mark.parametrize(
    "keeps",
    [
        pytest.param("activations", marks=pytest.mark.slow),
        "checkpoint",
        pytest.param("tensorboard", marks=pytest.mark.slow),
    ],
)
def test_a_trial_that_keeps_files_of_its_epochs_starts_over(keeps: str, data: Data, folder: Path) -> None:
    trained([data], folder, SOON, epochs=3, keeps=[keeps])
    assert not folder.exists()


def test_a_trial_that_is_dropped_while_it_is_told_to_go_on_ends(data: Data, folder: Path) -> None:
    trained([data], folder, SOON, epochs=3)
    with (
        closing(Checkpoints(folder, 1000.0)) as kept,
        closing(FitEngine(build, [data], LIMITS, OBJECTIVE, folder.parent, checkpoints=kept)) as engine,
    ):
        engine.add(CANDIDATE)
        (event,) = engine.step()
        assert isinstance(event, Resumed)
        engine.drop(4)
        assert engine.free() == 1
