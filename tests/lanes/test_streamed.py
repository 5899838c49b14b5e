"""Rows that stay on the host are learned from chunk by chunk, as if they were on the devices."""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import jax
import keras
import numpy as np
import pytest
from lanes_harness import (
    SETTINGS,
    Bench,
    assert_same_bits,
    blobs,
    budget,
    data_of,
    each,
    in_lanes,
    lanes_engine,
    mlp,
)

from pipeline.datasets import splits
from pipeline.engines.lanes import chunks, devices
from pipeline.engines.lanes.chunks import Chunks, Part
from pipeline.engines.lanes.plan import Room
from pipeline.engines.lanes.program import Program
from pipeline.engines.lanes.refusal import Refusal
from pipeline.engines.lanes.streamed import Ended, StreamedProgram
from pipeline.values import Array, Data, Settings, Split

LANES = 4
# Bytes of a row of `blobs`: four float32 and a class number; with a weight; and of a row of `several`.
PLAIN, WEIGHTED, SEVERAL = 20, 24, 36


def memory_for(row: int, times: float = 1.0) -> float:
    """Bytes of a device whose share for rows is two validation batches, of 128 rows, and a bit."""
    return 2 * 128 * row / 0.3 * 1.01 * times


NOISY = {**SETTINGS, "dropout": 0.3, "l2": 1e-3}


def curve(bench: Bench) -> list[Array]:
    """All bits of lanes that are filled at different times, and of what was logged while they trained."""
    bench.reset()
    bench.admit({0: bench.values(NOISY, 1), 2: bench.values(SETTINGS, 2)})
    found: list[Array] = []

    def run(epochs: int) -> None:
        report = bench.run(epochs)
        logged = [np.where(report.ran, values, 0) for _, values in sorted(report.metrics.items())]
        found.extend([report.ran, report.alive, *logged])

    run(3)
    bench.admit({1: bench.values({**NOISY, "bn_momentum": 0.5}, 3), 3: bench.values(NOISY, 4)})
    run(4)
    run(4)
    bench.admit({0: bench.values(NOISY, 5)})
    run(4)
    return found + [array for lane in range(LANES) for array in bench.lane(lane)]


def assert_streams_as_placed(
    build: Callable[[Settings, Data], keras.Model], data: Data, memory: float = memory_for(PLAIN)
) -> StreamedProgram:
    """With early stopping and the plateau at epochs of each lane's own."""
    limits = budget(epochs=7, patience=2, plateau_patience=1, min_delta=0.01)
    placed, streamed = (Bench(build, data, limits, LANES, SETTINGS, memory=size) for size in (None, memory))
    assert type(placed.program) is Program
    assert type(streamed.program) is StreamedProgram
    assert_same_bits(curve(placed), curve(streamed))
    return streamed.program


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param((640, 256), marks=pytest.mark.slow, id="whole"),
        pytest.param((650, 300), id="rest"),
        pytest.param((647, 100), marks=pytest.mark.slow, id="one check"),
    ],
)
def test_rows_on_the_host_train_lanes_to_the_same_bits(rows: tuple[int, int]) -> None:
    program = assert_streams_as_placed(mlp, blobs(*rows))
    # Several gradient steps in a chunk, several chunks in an epoch.
    parts = list(program._learned.parts())
    assert len(parts) > 2
    assert {part.rest for part in parts[:-1]} == {0}
    assert parts[-1].rest == bool(rows[0] % 16)


def weighted(data: Data) -> Data:
    """With row weights of 64 bits, which a device holds as 32."""
    rng = np.random.default_rng(5)
    train, validation = (
        replace(split, weights=rng.uniform(0, 2, split.rows)) for split in (data.train, data.validation)
    )
    return replace(data, train=train, validation=validation)


def test_row_weights_are_streamed_with_their_rows() -> None:
    assert_streams_as_placed(mlp, weighted(blobs(500, 140)), memory_for(WEIGHTED))


def two_ways(settings: Settings, data: Data) -> keras.Model:
    """Pictures of 8 bits and numbers in, a class and a number out."""
    layers = keras.layers
    picture = keras.Input((4, 4, 1), name="picture")
    beside = keras.Input((3,), name="beside")
    both = layers.Concatenate()([layers.Flatten()(layers.Rescaling(1 / 255)(picture)), beside])
    hidden = layers.Dropout(settings["dropout"])(layers.Dense(8, activation="tanh")(both))
    outputs = {
        "kind": layers.Dense(3, activation="softmax", name="kind")(hidden),
        "size": layers.Dense(1, name="size")(hidden),
    }
    model = keras.Model({"picture": picture, "beside": beside}, outputs)
    model.compile(
        keras.optimizers.Adam(settings["learning_rate"]),
        {"kind": "sparse_categorical_crossentropy", "size": "mean_squared_error"},
    )
    return model


def several(train: int, validation: int) -> Data:
    rng = np.random.default_rng(3)

    def split(rows: int) -> Split:
        kinds = rng.integers(0, 3, rows).astype(np.int64)
        pictures = (rng.integers(0, 100, (rows, 4, 4, 1)) + 50 * kinds[:, None, None, None]).astype(np.uint8)
        # As pandas gives tables: columns one after another.
        beside = np.asfortranarray(rng.normal(size=(rows, 3)).astype(np.float32))
        sizes = (kinds + rng.normal(0, 0.1, rows)).astype(np.float32)[:, None]
        return Split({"picture": pictures, "beside": beside}, {"kind": kinds, "size": sizes})

    made = data_of(split(train), split(validation))
    return replace(made, classes=(), outputs={"kind": ("a", "b", "c"), "size": ()})


def test_several_inputs_and_outputs_are_streamed_in_the_types_in_which_they_are_stored() -> None:
    data = several(500, 140)
    program = assert_streams_as_placed(two_ways, data, memory=memory_for(SEVERAL))
    inputs, targets, weights = program._learned.shapes(program._rows_place)
    assert (inputs["picture"].dtype, inputs["beside"].dtype) == (np.uint8, np.float32)
    # A device has no 64 bits here.
    assert {target.dtype for target in jax.tree.leaves(targets)} == {np.dtype("int32"), np.dtype("float32")}
    assert weights is None


# Through the engine


def mapped(data: Data, folder: Path) -> Data:
    """With inputs that are in files, not in memory."""

    def of(split: Split, name: str) -> Split:
        np.save(folder / f"{name}.npy", split.one_input)
        return replace(split, inputs=np.load(folder / f"{name}.npy", mmap_mode="r"))

    return replace(data, train=of(data.train, "train"), validation=of(data.validation, "validation"))


@pytest.mark.parametrize("own_orders", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_search_is_the_same_with_rows_on_the_host_and_says_once_that_they_are(
    own_orders: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    for name in ("placed", "streamed"):
        (tmp_path / name).mkdir()
    data = weighted(blobs(600, 140))
    candidates = each(
        *({"dropout": 0.3, "l2": 10.0**-power} for power in (1, 2, 3)),
        {"batch_size": 32},
        {"shuffle": False},
        {"learning_rate": 1e30, "max_norm": 1e38},
    )
    limits = budget(epochs=6, patience=2, plateau_patience=1)
    placed, streamed = (
        in_lanes(
            lanes_engine(mlp, given, limits, tmp_path / name, 2, own_orders=own_orders, memory=memory),
            candidates,
        )
        for name, given, memory in (
            ("placed", data, None),
            ("streamed", mapped(data, tmp_path), memory_for(WEIGHTED)),
        )
    )
    for number, trial in placed.items():
        ours = streamed[number]
        assert ours.curve == trial.curve
        same = replace(
            ours.outcome,
            seconds=trial.outcome.seconds,
            model_file=trial.outcome.model_file,
            predictions_file=trial.outcome.predictions_file,
        )
        assert same == trial.outcome
        if not trial.outcome.failure:
            theirs = np.load(trial.outcome.predictions_file)
            assert np.array_equal(np.load(ours.outcome.predictions_file), theirs)
    assert placed[5].outcome.failure.startswith("diverged: ")
    said = [record.getMessage() for record in caplog.records if "rows stay" in record.getMessage()]
    # Of 740 rows, and of the memory that two devices share.
    assert said == ["rows stay on the host: 0.0169 MiB of them, 0.0395 MiB of memory on this machine"]


def test_folds_are_streamed_each_lane_its_own_rows(tmp_path: Path) -> None:
    data = blobs(600, 10)
    parts = splits.folds(data, 3)
    limits = budget(epochs=4, patience=2)
    placed, streamed = (
        in_lanes(
            lanes_engine(mlp, parts, limits, tmp_path, 2, whole=data.train, memory=memory),
            each({"dropout": 0.3}, {"l2": 1e-3}),
        )
        for memory in (None, memory_for(PLAIN))
    )
    for number, trial in placed.items():
        assert streamed[number].curves == trial.curves
        assert streamed[number].outcome.value == trial.outcome.value


def test_a_batch_that_does_not_fit_is_refused_with_its_size_and_what_there_is(tmp_path: Path) -> None:
    engine = lanes_engine(mlp, blobs(300, 140), budget(), tmp_path, 2, memory=2000)
    (trial,) = in_lanes(engine, each({})).values()
    assert trial.refused == ("2 batches of 16 rows take 0.00061 MiB, and rows may take 0.000572 MiB of cpu:0")


def test_lanes_with_rows_of_their_own_are_halved_until_their_batches_fit(tmp_path: Path) -> None:
    engine = lanes_engine(
        mlp, blobs(800, 140), budget(), tmp_path, 8, own_orders=True, memory=memory_for(PLAIN, 1.5)
    )
    (trial,) = in_lanes(engine, each({})).values()
    assert not trial.outcome.failure
    assert trial.outcome.replay.lanes == 2


def test_a_study_that_ends_waits_for_no_epoch() -> None:
    ended = threading.Event()
    data = blobs(3200, 140)
    bench = Bench(mlp, data, budget(epochs=50), LANES, SETTINGS, memory=memory_for(PLAIN))
    bench.program._ended = ended.is_set
    bench.admit({0: bench.values(SETTINGS, 1)})
    bench.run(1)
    ended.set()
    with pytest.raises(Ended, match="the study has ended"):
        bench.run(1)


def test_an_engine_that_is_closed_in_a_long_epoch_ends_it(tmp_path: Path) -> None:
    # Forty thousand steps in five thousand chunks.
    data = blobs(640_000, 140)
    with closing(lanes_engine(mlp, data, budget(epochs=50), tmp_path, 2, memory=memory_for(PLAIN))) as engine:
        engine.add(each({})[0])
        while not any(berth.call for berth in engine._berths.values()):
            engine.step()
        (berth,) = engine._berths.values()
        began = time.monotonic()
        # It returns, though the call goes on, so that a deadline is seen.
        assert not engine.step()
        call = berth.call
        assert not call.done.done()
    assert isinstance(call.done.exception(), Ended)
    assert time.monotonic() - began < 10


# Chunks


def chunks_of(rows: int, batch: int, room: float, lanes: int = 0) -> Chunks:
    data = (np.arange(rows, dtype=np.float32)[:, None], np.arange(rows, dtype=np.int32), None)
    return Chunks(data, batch, *divmod(rows, batch), lanes=lanes, devices=2, room=Room(room, "cpu:0"))


@pytest.mark.parametrize(
    ("rows", "room", "parts"),
    [
        (40, 1e9, [Part(0, 4, 0)]),
        (45, 1e9, [Part(0, 4, 1)]),
        (40, 2 * 80, [Part(0, 1, 0), Part(10, 1, 0), Part(20, 1, 0), Part(30, 1, 0)]),
        (45, 4 * 80, [Part(0, 2, 0), Part(20, 2, 0), Part(40, 0, 1)]),
        (55, 4 * 80, [Part(0, 2, 0), Part(20, 2, 0), Part(40, 1, 1)]),
        # Not three and one: the longest is what takes memory.
        (40, 6 * 80, [Part(0, 2, 0), Part(20, 2, 0)]),
        (10, 2 * 80, [Part(0, 1, 0)]),
    ],
)
def test_an_epoch_is_cut_into_chunks_of_whole_batches(rows: int, room: float, parts: list[Part]) -> None:
    assert list(chunks_of(rows, 10, room).parts()) == parts


def test_some_steps_are_full_batches_only() -> None:
    made = chunks_of(45, 10, 4 * 80)
    assert list(made.parts(3)) == [Part(0, 2, 0), Part(20, 1, 0)]
    assert list(made.parts(9)) == [Part(0, 2, 0), Part(20, 2, 0)]
    assert not list(made.parts(0))


def test_a_chunk_has_the_rows_of_its_order_where_all_devices_of_a_cpu_read_them(tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(45).astype(np.int32)
    inputs, targets, weights = chunks_of(45, 10, 4 * 80).gathered(order, 40)
    assert targets[:5].tolist() == order[40:].tolist()
    assert inputs[:5, 0].tolist() == order[40:].tolist()
    assert weights is None
    assert inputs.shape == (20, 1)
    on = devices.mesh(2)
    there = jax.device_put(inputs, jax.sharding.NamedSharding(on, jax.sharding.PartitionSpec()))
    assert {shard.data.unsafe_buffer_pointer() for shard in there.addressable_shards} == {inputs.ctypes.data}


def test_a_chunk_of_lanes_with_orders_of_their_own_has_each_ones_rows() -> None:
    rng = np.random.default_rng(0)
    order = np.stack([rng.permutation(45) for _ in range(4)]).astype(np.int32)
    inputs, targets, _ = chunks_of(45, 10, 2 * 4 * 80, lanes=4).gathered(order, 20)
    assert np.array_equal(targets, order[:, 20:40])
    assert np.array_equal(inputs[..., 0], order[:, 20:40])


@pytest.mark.parametrize("form", ["mapped", "columns", "wide", "swapped"])
def test_rows_are_gathered_whatever_form_they_are_stored_in(form: str, tmp_path: Path) -> None:
    rows = np.arange(60, dtype=np.float32).reshape(20, 3)
    stored = rows
    if form == "mapped":
        np.save(tmp_path / "rows.npy", rows)
        stored = np.load(tmp_path / "rows.npy", mmap_mode="r")
    elif form == "columns":
        stored = np.asfortranarray(rows)
    elif form == "wide":
        stored = rows.astype(np.float64)
    elif form == "swapped":
        stored = rows.astype(">f4")
    data = (stored, np.arange(20, dtype=np.int32), None)
    made = Chunks(data, 10, 2, 0, lanes=0, devices=2, room=Room(1e9, "cpu:0"))
    order = np.random.default_rng(1).permutation(20)
    found = made.gathered(order, 0)[0]
    assert found.dtype == np.float32
    assert np.array_equal(found, rows[order])


def test_a_batch_that_fits_fewer_lanes_says_so_by_its_error() -> None:
    with pytest.raises(MemoryError, match=r"2 batches of 10 rows of each of 4 lanes take .* of cpu:0"):
        chunks_of(45, 10, 2 * 80, lanes=8)
    with pytest.raises(Refusal, match=r"2 batches of 10 rows take .*, and rows may take .* of cpu:0"):
        chunks_of(45, 10, 159)
    assert chunks_of(45, 10, 160).bytes == 80


# Where the rows are


def test_the_devices_of_a_cpu_have_one_copy_of_the_rows_between_them() -> None:
    data = blobs(64, 32)
    there = devices.DataOnDevices([data], None, devices.mesh(2)).of(0, mlp(SETTINGS, data))
    assert there.room is None
    for leaf in jax.tree.leaves((there.train, there.check)):
        assert len({shard.data.unsafe_buffer_pointer() for shard in leaf.addressable_shards}) == 1
    data.train.one_input[...] = 0
    assert np.asarray(there.train[0]).any()


def test_rows_go_where_their_size_says() -> None:
    data = blobs(64, 32)
    # Twenty bytes a row, and a CPU's two devices share its memory.
    fits = 96 * 20 / 0.3 / 2

    def there(memory: float) -> Room | None:
        on = devices.DataOnDevices([data], None, devices.mesh(2), memory=memory)
        return on.of(0, mlp(SETTINGS, data)).room

    assert there(fits * 1.01) is None
    room = there(fits * 0.99)
    assert room is not None
    assert (room.size, room.where) == (pytest.approx(fits * 0.99 * 0.3), "cpu:0")


def test_sizes_are_told_for_a_reader() -> None:
    assert chunks.gib(12.3 * 2**30) == "12.3 GiB"
    assert chunks.gib(64 * 2**20) == "64 MiB"
