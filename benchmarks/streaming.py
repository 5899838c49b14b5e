"""What it costs to keep rows on the host: an epoch of lanes with rows that are streamed, beside one without.

    python -m benchmarks.streaming --lanes 8

A table of 200,000 x 50 float32 and 20,000 pictures of 28 x 28 of 8 bits, both made up; a device is said to
have little memory, so that the same rows are streamed in several chunks. The losses have to be the same.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import numpy as np

from pipeline.benchmark import machine
from pipeline.benchmark.speed import table
from pipeline.engines import backend
from pipeline.values import Budget, Data, SealedSplit, Settings, Split

if TYPE_CHECKING:
    import keras

_TIMES = 3
_SETTINGS = {"batch_size": 256, "shuffle": True}
_ROWS = {"table": (200_000, (50,), np.float32), "pictures": (20_000, (28, 28, 1), np.uint8)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; 1 if the losses differ."""
    parser = argparse.ArgumentParser("python -m benchmarks.streaming", description=__doc__)
    parser.add_argument("--lanes", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=_TIMES, help="that are measured; the best counts")
    given = parser.parse_args(arguments)
    backend.load()
    import jax

    lines, right = [], True
    for name in _ROWS:
        data = _data(name)
        size = sum(array.nbytes for array in (*data.train.arrays.values(), *data.validation.arrays.values()))
        placed, of_placed = _measured(data, given.lanes, given.epochs, None)
        # All devices together are said to have what the rows take, and less than a third of it is for them.
        streamed, of_streamed = _measured(data, given.lanes, given.epochs, size / len(jax.devices()))
        right = right and of_placed == of_streamed
        lines.append([name, f"{placed:.2f}", f"{streamed:.2f}", f"{streamed / placed:.2f}"])
    header = ["rows", "on the device, s", "streamed, s", "ratio"]
    print(f"{machine.described()}\n{given.lanes} lanes, an epoch\n\n{table(header, lines)}")
    print("the losses are the same" if right else "THE LOSSES DIFFER")
    return 0 if right else 1


def _measured(data: Data, lanes: int, epochs: int, memory: float | None) -> tuple[float, list[Any]]:
    """Seconds of the best epoch after a first one, and what each epoch's losses were."""
    from pipeline.engines import rows
    from pipeline.engines.lanes import devices
    from pipeline.engines.lanes.plan import Plan
    from pipeline.engines.lanes.streamed import program_of
    from pipeline.engines.lanes.twin import Twin

    model = _build(_SETTINGS, data)
    few = rows.for_keras(data.train.take(np.arange(2)), model)
    twin, mesh = Twin(model, few, _SETTINGS["batch_size"]), devices.mesh(lanes)
    there = devices.DataOnDevices([data], None, mesh, memory=memory).of(0, model)
    limits = Budget(10**6, "val_loss", "min", 10**6, 0.0, 0.5, 10**6, 1e-4, 0, 0.0)
    program = program_of(Plan(twin, limits, _SETTINGS["batch_size"], there, lanes, mesh, 1))
    values = twin.values(model, few, 0)
    program.compile(values)
    state = program.layout.start(values, range(lanes), [values] * lanes)
    seconds, losses = [], []
    for epoch in range(1 + epochs):
        order = program.orders([rows.order(0, 0, epoch, data.train.rows, shuffle=True)])
        began = time.perf_counter()
        state, logs = program.run(state, order, None, 1)
        losses.append(program.report(logs, 1).metrics["loss"].tolist())
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:]), losses


def _data(name: str) -> Data:
    count, shape, dtype = _ROWS[name]
    rng = np.random.default_rng(0)

    def split(rows: int) -> Split:
        targets = rng.integers(0, 10, rows).astype(np.int32)
        inputs = rng.integers(0, 100, (rows, *shape)) + 10 * targets.reshape(-1, *(1 for _ in shape))
        return Split(inputs.astype(dtype), targets)

    train, validation = split(count), split(count // 10)
    classes = tuple(map(str, range(10)))
    return Data(name, "made up", classes, train, validation, SealedSplit(validation), {})


def _build(settings: Settings, data: Data) -> "keras.Model":
    import keras

    layers = keras.layers
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input(data.train.one_input.shape[1:]),
            layers.Rescaling(1 / 255),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.2),
            layers.Dense(len(data.classes), activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


if __name__ == "__main__":
    sys.exit(main())
