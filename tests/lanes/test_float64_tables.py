"""Lanes of a table's model equal `model.fit` on JAX in float64, every technique of its cocktail on or off."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from lanes_harness import budget, in_lanes, lanes_engine, one_by_one, relative, replayed

from pipeline import space
from pipeline.carried.encoding import CATEGORIES, NUMBERS
from pipeline.datasets import splits
from pipeline.datasets.tables import ANSWER
from pipeline.tasks import table
from pipeline.values import Candidate, Data, Settings, Split, balance

# As of the named tasks, see test_float64.py.
LIMIT = 1e-8
EPOCHS = 6
TOKENS = 5


def data_of(*, numbers: bool) -> Data:
    rng = np.random.default_rng(0)

    def split(rows: int) -> Split:
        inputs = {
            NUMBERS: rng.normal(size=(rows, 3)).astype(np.float32),
            CATEGORIES: np.stack(
                [rng.integers(0, 2, rows), rng.integers(2, TOKENS, rows)], 1, dtype=np.int32
            ),
        }
        if numbers:
            return Split(inputs, {ANSWER: 100 + 30 * rng.normal(size=(rows, 1))})
        labels = (rng.random(rows) < 0.25).astype(np.int32)
        return Split(inputs, labels, balance(labels))

    classes = () if numbers else ("often", "rare")
    outputs = {ANSWER: ()} if numbers else {}
    parts = (split(50), split(30), split(10))
    return splits.data("made_up", "made up", classes, parts, outputs=outputs, words={CATEGORIES: TOKENS})


def settings_of(data: Data, **changed: Any) -> Settings:
    task = table.of_data(data)
    found = space.read(space.file_of(task.space), task.parameters, task.metrics)
    usual = {"batch_size": 16, "units": 8, "schedule": "cosine", "schedule_epochs": EPOCHS}
    return {**found.published(found.baseline or {}), **usual, **changed}


def lanes_of(data: Data, **structure: Any) -> list[Settings]:
    """A lane with every technique, one with none, and one with some; dropout's bits are not Keras's."""
    of_classes = {} if data.outputs else {"label_smoothing": 0.1, "class_weights": 0.5}
    none = dict.fromkeys(of_classes, 0.0)
    return [
        settings_of(data, mixup=0.4, weight_averaging=0.9, l1=1e-4, l2=1e-3, **of_classes, **structure),
        settings_of(data, mixup=0.0, weight_averaging=0.0, l1=0.0, l2=0.0, **none, **structure),
        settings_of(data, mixup=1.0, weight_averaging=0.0, l1=0.0, l2=1e-2, **none, **structure),
    ]


@pytest.mark.parametrize(
    ("numbers", "skip", "categories"),
    [
        (False, True, "one_hot"),
        pytest.param(False, False, "embedding", marks=pytest.mark.slow),
        pytest.param(True, True, "embedding", marks=pytest.mark.slow),
    ],
)
def test_a_cocktail_in_lanes_equals_model_fit(
    numbers: bool, skip: bool, categories: str, tmp_path: Path
) -> None:
    data, limits = data_of(numbers=numbers), budget(epochs=EPOCHS)
    lanes = lanes_of(data, skip=skip, categories=categories, batch_normalization=skip, max_norm=2.0)
    candidates = [Candidate(number, 50 + number, one) for number, one in enumerate(lanes)]
    ours = in_lanes(lanes_engine(table.build, data, limits, tmp_path, 4, seed=3), candidates)
    assert {trial.refused or trial.outcome.failure for trial in ours.values()} == {""}
    assert len({trial.outcome.replay for trial in ours.values()}) == 1, "they shared one program"
    theirs = one_by_one(table.build, data, limits, tmp_path / "fit", replayed(candidates, ours))
    for number, trial in theirs.items():
        assert max(relative(ours[number].curve, trial.curve).values()) <= LIMIT
    losses = [trial.curve[-1]["loss"] for trial in ours.values()]
    assert min(np.abs(np.diff(sorted(losses)))) > 1e-3, "the techniques do something"


@pytest.mark.parametrize("numbers", [True, False])
def test_what_is_saved_is_a_model_of_kerass_own(numbers: bool, tmp_path: Path) -> None:
    data, limits = data_of(numbers=numbers), budget(epochs=2)
    candidates = [Candidate(0, 50, lanes_of(data)[0])]
    (trial,) = in_lanes(lanes_engine(table.build, data, limits, tmp_path, 2), candidates).values()
    model = keras.models.load_model(trial.outcome.model_file, custom_objects={}, safe_mode=True)
    assert {type(layer).__module__.split(".")[0] for layer in model._flatten_layers()} == {"keras"}
    found = model.evaluate(
        dict(data.validation.inputs),
        data.validation.targets[ANSWER] if numbers else data.validation.targets,
        sample_weight=data.validation.weights,
        batch_size=16,
        verbose=0,
        return_dict=True,
    )
    # It answers as the lane did in its best epoch.
    best = trial.curve[trial.outcome.best_epoch]
    names = ("mse", "mae") if numbers else ("accuracy", "balanced_accuracy", "balanced_log_loss")
    for name in names:
        assert found[name] == pytest.approx(best[f"val_{name}"], rel=1e-6)


def test_a_training_of_exact_epochs_keeps_the_last_ones_weights(tmp_path: Path) -> None:
    """As after a search, on all rows: no epoch is better than the last, and nothing ends it before."""
    data, limits = data_of(numbers=False), budget(epochs=9, patience=1)
    lanes = lanes_of(data)
    exact = [Candidate(number, 50 + number, one, epochs=3 + number) for number, one in enumerate(lanes)]
    ours = in_lanes(lanes_engine(table.build, data, limits, tmp_path, 2, seed=3), exact)
    theirs = one_by_one(table.build, data, limits, tmp_path / "fit", replayed(exact, ours))
    for number, trial in ours.items():
        assert (trial.outcome.epochs, trial.outcome.best_epoch) == (3 + number, 2 + number)
        assert theirs[number].outcome.best_epoch == 2 + number
        assert max(relative(trial.curve, theirs[number].curve).values()) <= LIMIT
        weights = [
            keras.models.load_model(one.outcome.model_file).get_weights() for one in (trial, theirs[number])
        ]
        for mine, its in zip(*weights, strict=True):
            np.testing.assert_allclose(mine, its, rtol=0, atol=100 * LIMIT)


def test_the_training_loss_is_what_it_says() -> None:
    """Of mixed rows, by hand: targets smoothed and mixed as the rows are, weights to a power."""
    data = data_of(numbers=False)
    settings = lanes_of(data, batch_normalization=False)[0]
    model = table.build({**settings, "l1": 0.0, "l2": 0.0}, data)
    rows = data.train.take(np.arange(12))
    share = np.linspace(0.6, 1.0, 12)
    answers = np.random.default_rng(1).dirichlet((1, 1), 12)
    blend = next(layer for layer in model.layers if isinstance(layer, table.Blend))
    object.__setattr__(blend, "_drawn", [share[:, None]])
    found = float(model.compute_loss(None, rows.targets, answers, rows.weights, training=True))
    smooth = np.eye(2)[rows.targets] * 0.9 + 0.1 / 2

    def loss(back: int) -> np.ndarray:
        weight = np.roll(rows.weights, back) ** 0.5
        return -weight * (np.roll(smooth, back, axis=0) * np.log(answers)).sum(axis=1)

    assert found == pytest.approx(np.mean(share * loss(0) + (1 - share) * loss(1)), rel=1e-6)


def test_without_any_technique_it_trains_as_a_model_of_kerass_own(tmp_path: Path) -> None:
    data, limits = data_of(numbers=False), budget(epochs=3)
    data = replace(data, train=replace(data.train, weights=None))
    settings = lanes_of(data)[1]

    def plain(settings: Settings, data: Data) -> keras.Model:
        return table.build(settings, data).plain()

    candidates = [Candidate(0, 50, settings)]
    ours, theirs = (
        one_by_one(build, data, limits, tmp_path / name, candidates)[0]
        for name, build in (("ours", table.build), ("plain", plain))
    )
    assert max(relative(ours.curve, theirs.curve).values()) <= LIMIT
