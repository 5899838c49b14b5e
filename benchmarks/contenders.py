"""The child of `benchmarks.throughput`: trains one way, and hands over how fast.

A way is one of:

    tensorflow          model.fit on TensorFlow, as people call it
    tensorflow-xla      the same by an expert: rows cached in TensorFlow, an epoch a call, compiled by XLA
    tensorflow-graph    the same, compiled by TensorFlow alone
    jax                 model.fit on JAX, as people call it
    lanes               lanes of one program
"""

import os
import statistics
import time
from functools import partial
from typing import Any

from benchmarks import flops, synthetic
from pipeline.benchmark.children import answer
from pipeline.benchmark.speed import Speed

# Sides of the matrices whose product says what the machine can do, products in a row, and tries.
_SIDE, _PRODUCTS, _TRIES = 2048, 4, 6
_VALIDATION_ROWS = 2048
# Learning rate at which two programs' roundings stay as small as they are.
_GENTLE = 1e-5


def main(asked: dict[str, Any]) -> None:
    """Measures one contender, as the driver asked."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if asked["contender"] == "lanes":
        from pipeline.engines import backend

        # A device a core, and a folder for compiled programs: the settings of a search in lanes.
        backend.load()
    synthetic.without_scikit_learn()
    from pipeline import tasks
    from pipeline.benchmark import measure

    data = synthetic.data(asked["task"], asked["rows"])
    batch, epochs = asked["batch"], asked["epochs"]
    make = partial(measure.build, tasks.find(asked["task"]), data)
    if asked["contender"] == "lanes":
        answer(_lanes(make, data, asked))
        return
    model = make(0)
    if asked["contender"] in ("tensorflow-xla", "tensorflow-graph"):
        how = _tuned(model, data, batch, xla=asked["contender"] == "tensorflow-xla")
    else:
        how = measure.as_called(data, batch, model)
    answer(measure.fit(model, epochs, how))


def _tuned(model: Any, data: Any, batch: int, *, xla: bool) -> dict[str, Any]:
    """Compiles the model anew, and gives the arguments of `model.fit`, as an expert in TensorFlow does."""
    import tensorflow as tf

    from pipeline.engines import rows

    def cached(split: Any) -> Any:
        inputs, targets, _ = rows.for_keras(split, model)
        return tf.data.Dataset.from_tensor_slices((inputs, targets)).cache()

    config = model.get_compile_config()
    model.compile_from_config({**config, "jit_compile": xla})
    model.jit_compile = xla
    model.steps_per_execution = -(-data.train.rows // batch)
    train = cached(data.train).shuffle(min(data.train.rows, 10_000)).batch(batch)
    check = cached(data.validation).batch(_VALIDATION_ROWS)
    return {"x": train.prefetch(tf.data.AUTOTUNE), "validation_data": check.prefetch(tf.data.AUTOTUNE)}


def _lanes(make: Any, data: Any, asked: dict[str, Any]) -> Speed:
    import jax

    from pipeline.benchmark import measure

    lanes = measure.Lanes(make, data, asked["batch"], asked["lanes"], asked["epochs"])
    speed = lanes.measure()
    facts = {
        "flops_of_epoch": flops.epoch(lanes.model, data.train.rows, data.validation.rows),
        "matmul_flops": _matmul(),
        "devices": f"{len(jax.devices())} × {jax.devices()[0].device_kind}",
    }
    if asked["compare"]:
        facts["first_losses"] = _first_losses(lanes, make, data, asked["batch"])
    return Speed(speed.lanes, speed.seconds, speed.ready_seconds, speed.total_seconds, facts)


def _first_losses(lanes: Any, make: Any, data: Any, batch: int) -> list[float]:
    """The loss of the first epoch in a lane and by `model.fit`: from the same weights, in the same order.

    At a small learning rate, as RMSprop's first step makes of a gradient that is only rounding a whole step.
    """
    from pipeline.engines import rows

    model = make(0, dropout=0.0, learning_rate=_GENTLE)
    in_lane = lanes.first_loss(model)
    inputs, targets, _ = rows.for_keras(data.train.take(lanes.order(0)), model)
    history = model.fit(inputs, targets, batch_size=batch, shuffle=False, verbose=0)
    return [in_lane, float(history.history["loss"][0])]


def _matmul() -> float:
    """Operations a second of float32 matrix products, one on each device at once; a median."""
    import jax
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    mesh = Mesh(np.array(jax.devices()), ("devices",))

    def products(left: Any, right: Any) -> Any:
        for _ in range(_PRODUCTS):
            left = left @ right
        return left

    spread, everywhere = PartitionSpec("devices"), PartitionSpec()
    run = jax.jit(jax.shard_map(products, mesh=mesh, in_specs=(spread, everywhere), out_specs=spread))
    random = np.random.default_rng(0)
    # Scaled so that products of products stay the same size.
    left = random.normal(size=(mesh.size * _SIDE, _SIDE)).astype(np.float32)
    right = (random.normal(size=(_SIDE, _SIDE)) / _SIDE**0.5).astype(np.float32)
    on_devices = (
        jax.device_put(left, NamedSharding(mesh, spread)),
        jax.device_put(right, NamedSharding(mesh, everywhere)),
    )
    took = []
    for _ in range(_TRIES):
        began = time.perf_counter()
        run(*on_devices).block_until_ready()
        took.append(time.perf_counter() - began)
    return mesh.size * _PRODUCTS * 2 * _SIDE**3 / statistics.median(took[1:])
