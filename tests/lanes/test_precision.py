"""Lanes whose layers compute with 16 bits: Keras's own steps, and what compares them."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from lanes_harness import Build, Trial, blobs, budget, data_of, each, in_lanes, lanes_engine, mlp, one_by_one

from pipeline import tasks
from pipeline.engines import precision
from pipeline.engines.lanes import numbers, selfcheck, signature
from pipeline.engines.lanes.twin import widened
from pipeline.tasks import lenet
from pipeline.values import Array, Data, Settings, Split

# Two roundings of a number differ by a unit in its last place, at most.
UNIT = 2.0**-7


def narrow(build: Build) -> Build:
    return precision.building(build, "bfloat16")


def pictures(train: int = 24, validation: int = 12) -> Data:
    """Grey pictures of 28 x 28 whose upper or lower half is brighter."""
    rng = np.random.default_rng(0)

    def split(count: int) -> Split:
        targets = (np.arange(count) % 2).astype(np.int32)
        shades = rng.integers(0, 128, (count, 28, 28, 1)).astype(np.uint8)
        for picture, target in zip(shades, targets, strict=True):
            picture[14 * target : 14 * (target + 1)] += 100
        return Split(shades, targets)

    return data_of(split(train), split(validation), 2)


def of_task(parameters: tuple, **own: object) -> dict:
    return {parameter.name: parameter.default for parameter in parameters} | own


CASES = {
    "iris": (tasks.find("iris").build, blobs, of_task(tasks.find("iris").parameters)),
    "convolutions": (lenet.builder("mnist", 255.0), pictures, of_task(lenet.PARAMETERS)),
}


def weights(trial: Trial) -> list[Array]:
    assert trial.outcome, trial.refused
    assert trial.outcome.model_file, trial.outcome.failure
    return keras.models.load_model(trial.outcome.model_file).trainable_weights


@pytest.mark.parametrize("name", ["iris", pytest.param("convolutions", marks=pytest.mark.slow)])
def test_a_step_of_a_lane_is_that_of_keras_but_for_rounding(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Which form is fastest here is not what is asked.
    monkeypatch.setenv("PIPELINE_LOWERING", "patches")
    build, make, settings = CASES[name]
    data = make()
    # One step, whose size is the gradient's.
    settings |= {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 0.1, "batch_size": data.train.rows}
    candidates = each({}, {"bn_momentum": 0.5}, base=settings | {"shuffle": False})
    (tmp_path / "lanes").mkdir()
    engine = lanes_engine(narrow(build), data, budget(epochs=1), tmp_path / "lanes", 2)
    ours = in_lanes(engine, candidates, patience=900.0)
    theirs = one_by_one(narrow(build), data, budget(epochs=1), tmp_path / "fit", candidates)
    exact = one_by_one(build, data, budget(epochs=1), tmp_path / "exact", candidates)
    for candidate in candidates:
        start = starts(build, candidate.seed, settings, data)
        after = (weights(trials[candidate.number]) for trials in (ours, theirs, exact))
        for before, *found in zip(start, *after, strict=True):
            mine, its, truth = map(np.asarray, found)
            assert mine.dtype == np.float32
            # As far as rounding leads Keras's step from that of 32 bits, it may lead the lane's, elsewhere:
            # sums of a gradient whose terms cancel keep fewer digits than these. Three times, as of so few
            # numbers one step may by chance be closer than its roundings are.
            allowed = 3 * size(its - truth) + UNIT * size(its - before)
            assert size(mine - its) <= allowed + 1e-6, before.shape
        curves = ours[candidate.number].of("loss"), theirs[candidate.number].of("loss")
        np.testing.assert_allclose(*curves, rtol=UNIT)


def starts(build: Build, seed: int, settings: Settings, data: Data) -> list[Array]:
    from pipeline.engines.models import built
    from pipeline.seeds import derived

    model = built(build, settings, data, derived(seed, 0))
    return [np.asarray(weight) for weight in model.trainable_weights]


def size(array: Array) -> float:
    return float(np.sqrt(np.mean(np.square(array))))


@pytest.mark.slow
def test_iris_is_learned_as_with_32_bits(tmp_path: Path) -> None:
    iris = tasks.find("iris")
    data, settings = iris.load("full"), of_task(iris.parameters, batch_size=16, learning_rate=0.003)
    best = {}
    for name, build in (("narrow", narrow(iris.build)), ("full", iris.build)):
        (tmp_path / name).mkdir()
        engine = lanes_engine(build, data, budget(epochs=10), tmp_path / name, 2)
        trials = in_lanes(engine, each({}, {"l2": 1e-4}, base=settings))
        curves = [trial.of(metric) for trial in trials.values() for metric in ("loss", "val_loss")]
        assert np.isfinite(curves).all()
        best[name] = max(max(trial.of("val_accuracy")) for trial in trials.values())
        if name == "narrow":
            assert_keras_alone_answers_the_same(trials[0], data)
    # Of 30 flowers, one may fall otherwise.
    assert best["narrow"] >= best["full"] - 1 / 30 - 1e-6


def assert_keras_alone_answers_the_same(trial: Trial, data: Data) -> None:
    """In a process that knows nothing of this program."""
    outcome = trial.outcome
    assert outcome
    assert outcome.model_file
    assert outcome.predictions_file
    kept = np.load(outcome.predictions_file)
    assert kept.dtype == np.float32
    rows = outcome.model_file.parent / "rows.npy"
    np.save(rows, data.validation.inputs)
    program = """
import sys
import keras, numpy as np
model = keras.models.load_model(sys.argv[1])
answers = model.predict(np.load(sys.argv[2]), verbose=0, batch_size=2048)
assert answers.dtype == np.float32 and {str(w.dtype) for w in model.weights} == {"float32"}
assert {layer.compute_dtype for layer in model.layers} == {"float32", "bfloat16"}
np.save(sys.argv[2], answers)
"""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-c", program, str(outcome.model_file), str(rows)]
    subprocess.run(command, check=True, env=environment, cwd=outcome.model_file.parent)
    # Layers compute alike, but the compiler may keep other numbers between them with 32 bits.
    np.testing.assert_allclose(np.load(rows), kept, atol=UNIT * 2)


def test_a_small_number_that_is_read_wrongly_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = numbers.read

    def without_l2(places: list, dtype: str) -> Array:
        found = read(places, dtype)
        found[[place for place, slot in enumerate(places) if slot.name.endswith(".l2")]] = 0
        return found

    monkeypatch.setattr(numbers, "read", without_l2)
    engine = lanes_engine(narrow(mlp), blobs(), budget(epochs=1), tmp_path, 2)
    (trial,) = in_lanes(engine, each({"l2": 1e-3})).values()
    assert trial.refused.startswith("one step of its twin differs from its own")


def test_models_of_two_precisions_share_no_program() -> None:
    data, settings = blobs(), each({})[0].settings
    wide, thin = mlp(settings, data), narrow(mlp)(settings, data)
    of = {
        name: signature.of_model(model, own_tables=False) for name, model in (("wide", wide), ("thin", thin))
    }
    assert of["wide"] != of["thin"]
    assert of["thin"] == signature.of_model(narrow(mlp)(settings, data), own_tables=False)
    assert of["wide"] == signature.of_model(widened(thin), own_tables=False)


def test_what_rounding_explains_follows_the_precision() -> None:
    data, settings = blobs(), each({})[0].settings
    assert selfcheck.rounding(mlp(settings, data)) == 1e-5
    assert selfcheck.rounding(narrow(mlp)(settings, data)) == UNIT
