"""What a trial keeps besides its model is the same in lanes and by `model.fit`, as far as a lane has it."""

import csv
import struct
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from lanes_harness import OBJECTIVE, blobs, budget, each, mlp
from mlflow import MlflowClient
from tensorboard.compat.proto.event_pb2 import Event as Record
from tensorboard.util import tensor_util

from pipeline import search
from pipeline.engines.engine import Engine, Event
from pipeline.engines.fit import FitEngine
from pipeline.engines.lanes.engine import LanesEngine
from pipeline.result import Result
from pipeline.tasks import iris
from pipeline.tracking.curves import CurveFiles, Point
from pipeline.values import Candidate, Outcome, Progress

EVERYTHING = ("tensorboard", "checkpoint", "activations")
# Three epochs of four steps in float32, from the same weights in the same order.
CLOSE = {"rtol": 1e-3, "atol": 1e-4}


class Kept(NamedTuple):
    """A trial's events, and the folder of its curves as files."""

    progress: list[Progress]
    outcome: Outcome
    curves: Path


def told(engine: Engine, candidates: Sequence[Candidate]) -> list[Event]:
    """Everything that an engine tells of the trials."""
    queue, running, events = list(candidates), len(candidates), []
    with closing(engine):
        while running:
            while queue and engine.free():
                engine.add(queue.pop(0))
            new = engine.step()
            running -= sum(isinstance(event, Outcome) for event in new)
            events += new
    return events


def kept(events: Sequence[Event], folder: Path) -> list[Kept]:
    """By trial; their curves are written as the record does."""
    found = []
    for outcome in sorted((one for one in events if isinstance(one, Outcome)), key=lambda one: one.number):
        own = [one for one in events if isinstance(one, Progress) and one.number == outcome.number]
        points = [Point(one.epoch, one.steps, 0.0, one.metrics) for one in own]
        CurveFiles(csv=True, events=True).write(points, folder / str(outcome.number))
        found.append(Kept(own, outcome, folder / str(outcome.number)))
    return found


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Kept, Kept]]:
    """Of each trial, what lanes tell and what its replay by fit does; 60 rows by 16, 30 to check."""
    folder = tmp_path_factory.mktemp("kept")
    data, limits = blobs(), budget(plateau_patience=1, plateau_min_delta=10.0)
    candidates = each({}, {"l2": 0.01, "bn_momentum": 0.5})
    for name in ("lanes", "fit"):
        (folder / name).mkdir()
    lanes = LanesEngine(
        mlp,
        [data],
        None,
        limits,
        OBJECTIVE,
        folder / "lanes",
        lanes=2,
        seed=0,
        trials=2,
        keeps=EVERYTHING,
    )
    ours = kept(told(lanes, candidates), folder / "lanes curves")
    again = [replace(one, replay=trial.outcome.replay) for one, trial in zip(candidates, ours, strict=True)]
    fit = FitEngine(mlp, [data], limits, OBJECTIVE, folder / "fit", keeps=EVERYTHING)
    return list(zip(ours, kept(told(fit, again), folder / "fit curves"), strict=True))


def rows(trial: Kept) -> list[list[str]]:
    with (trial.curves / "log.csv").open(newline="") as file:
        return list(csv.reader(file))


def scalars(trial: Kept, part: str) -> dict[tuple[str, int], float]:
    """An event folder's scalars by tag and step, read without TensorFlow."""
    (file,) = (trial.curves / "tensorboard" / part).iterdir()
    data, place, found = file.read_bytes(), 0, {}
    while place < len(data):
        # Length and its checksum, the record and its checksum.
        (length,) = struct.unpack_from("<Q", data, place)
        record = Record.FromString(data[place + 12 : place + 12 + length])
        for value in record.summary.value:
            found[value.tag, record.step] = float(tensor_util.make_ndarray(value.tensor))
        place += length + 16
    return found


def test_the_log_has_the_same_columns_and_rows(both: list[tuple[Kept, Kept]]) -> None:
    for ours, theirs in both:
        header, *lines = rows(ours)
        assert header == rows(theirs)[0]
        assert header == ["epoch", *sorted(ours.progress[0].metrics)]
        assert [line[0] for line in lines] == [line[0] for line in rows(theirs)[1:]] == ["0", "1", "2"]
        numbers = [[float(cell) for cell in line] for line in lines]
        np.testing.assert_allclose(
            numbers, [[float(cell) for cell in line] for line in rows(theirs)[1:]], **CLOSE
        )
        rates = [line[header.index("learning_rate")] for line in lines]
        assert rates == [line[header.index("learning_rate")] for line in rows(theirs)[1:]]
        assert len(set(rates)) == 2, "the plateau has lowered it"
        # The shortest text of the number that was logged, in both.
        for trial in (ours, theirs):
            for line, told in zip(rows(trial)[1:], trial.progress, strict=True):
                assert line[1:] == [repr(told.metrics[name]) for name in header[1:]]


def test_event_files_have_the_same_tags_and_steps(both: list[tuple[Kept, Kept]]) -> None:
    for ours, theirs in both:
        for part in ("train", "validation"):
            mine, its = scalars(ours, part), scalars(theirs, part)
            assert mine.keys() == its.keys()
            for place, value in mine.items():
                np.testing.assert_allclose(value, its[place], **CLOSE)
        assert [step for tag, step in scalars(ours, "train") if tag == "epoch_learning_rate"] == [0, 1, 2]
        counted = [
            step for tag, step in scalars(ours, "validation") if tag == "evaluation_loss_vs_iterations"
        ]
        assert counted == [4, 8, 12]


def test_the_checkpoint_is_the_model(both: list[tuple[Kept, Kept]]) -> None:
    for ours, _ in both:
        checkpoint = ours.outcome.folder / "checkpoint.keras"
        assert checkpoint.read_bytes() == ours.outcome.model_file.read_bytes()


def test_activations_are_of_the_best_epoch(both: list[tuple[Kept, Kept]]) -> None:
    for ours, theirs in both:
        with np.load(ours.outcome.folder / "activations.npz") as mine:
            assert mine["epochs"].tolist() == [ours.outcome.best_epoch]
            layers = [mine[name][0] for name in mine.files if name.startswith("layer/")]
        # Each model's layers have names of their own, counted up, in the same order.
        with np.load(theirs.outcome.folder / "activations.npz") as its:
            assert its["epochs"].tolist() == [0, 1, 2]
            place = theirs.outcome.best_epoch
            same = [its[name][place] for name in its.files if name.startswith("layer/")]
        assert [layer.shape for layer in layers] == [(8,), (8,), (8,), (3,)]
        for layer, other in zip(layers, same, strict=True):
            np.testing.assert_allclose(layer, other, **CLOSE)
        np.testing.assert_allclose(layers[-1], np.load(ours.outcome.predictions_file)[0], rtol=1e-4)
        np.testing.assert_allclose(same[-1], np.load(theirs.outcome.predictions_file)[0], rtol=1e-4)


def test_no_engine_on_jax_writes_event_files_itself(both: list[tuple[Kept, Kept]]) -> None:
    for trial in (trial for pair in both for trial in pair):
        files = sorted(file.name for file in trial.outcome.folder.iterdir())
        assert files == ["activations.npz", "checkpoint.keras"]


def test_a_trial_keeps_nothing_more_unless_it_is_asked(tmp_path: Path) -> None:
    engine = LanesEngine(
        mlp, [blobs()], None, budget(epochs=1), OBJECTIVE, tmp_path, lanes=2, seed=0, trials=1
    )
    outcome = told(engine, each({}))[-1]
    assert outcome.folder is None
    assert sorted(file.name for file in (tmp_path / "0").iterdir()) == [
        "model.keras",
        "validation_predictions.npy",
    ]


def test_a_search_in_lanes_writes_both_into_each_trials_run_and_says_what_it_cannot(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(iris, "_WIDTHS", (8,))
    result = search(
        task="iris",
        trials=1,
        epochs=2,
        engine="lanes",
        lanes=2,
        export="none",
        callbacks="tensorboard,csv",
    )
    assert isinstance(result, Result)
    client = MlflowClient()
    (trial,) = client.search_runs(
        [client.get_run(result.run_id).info.experiment_id], "tags.`pipeline.trial` = '0'"
    )
    kept = Path(trial.info.artifact_uri.removeprefix("file://"))
    assert len((kept / "log.csv").read_text().splitlines()) == 1 + 2
    assert sorted(part.name for part in (kept / "tensorboard").iterdir()) == ["train", "validation"]
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("callbacks:")]
    assert notes == ["callbacks: tensorboard has scalars only; the rest needs engine=fit on TensorFlow"]
