"""Threads that start computations of both devices at the same time all come to their end."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pipeline.engines.lanes import dispatch

# Without one order of them three threads were seen to hang after some rounds.
ROUNDS = 300


def test_no_thread_waits_for_another_for_ever() -> None:
    assert len(jax.devices()) == 2
    mesh = Mesh(np.array(jax.devices()), ("lanes",))
    sharded = NamedSharding(mesh, PartitionSpec("lanes"))

    def squared(lanes: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, 200, lambda _, x: jnp.tanh(x @ x.swapaxes(-1, -2)) * 0.1, lanes)

    step = jax.jit(
        jax.shard_map(squared, mesh=mesh, in_specs=sharded.spec, out_specs=sharded.spec), donate_argnums=0
    )
    admit = jax.jit(lambda old, new, chosen: jnp.where(chosen[:, None, None], new, old), donate_argnums=0)
    draw = jax.jit(lambda key: jax.random.uniform(key, (64, 64)))
    done: list[str] = []

    def trains() -> None:
        lanes = jax.device_put(np.ones((8, 32, 32), np.float32), sharded)
        for turn in range(ROUNDS):
            lanes = dispatch.start(step, lanes)
            if turn % 3 == 0:
                lanes = dispatch.start(admit, lanes, np.zeros((8, 32, 32), np.float32), np.arange(8) < 2)
            # Of one device, which may be done before the other is.
            np.asarray(lanes.addressable_shards[turn % 2].data)
        done.append("trained")

    def builds() -> None:
        key = jax.random.key(0)
        for _ in range(10 * ROUNDS):
            # Of one device, as what draws initial weights is.
            draw(key)
        done.append("built")

    threads = [threading.Thread(target=act, daemon=True) for act in (trains, trains, trains, builds)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(200)
    assert sorted(done) == ["built", "trained", "trained", "trained"]
