"""Maximum pooling whose gradient is fast under `vmap`.

XLA spreads the gradient of a maximum with its select-and-scatter, which is slow on CPUs. Here the places of a
window are arrays, which elementwise operations join, and the gradient goes back by the number of the place
that had the maximum: the first one that has it, as with XLA.

Average pooling stays with XLA: the same way with averages was twice as fast alone, and slower between layers.
"""

import itertools
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import keras
import numpy as np

from pipeline.engines.lanes.lowering.windows import Form, Window, kept, seen


def xla(inputs: jax.Array, window: Window) -> jax.Array:
    """Keras's own."""
    outputs: jax.Array = keras.ops.max_pool(
        inputs, window.size, window.strides, window.padding, data_format="channels_last"
    )
    return outputs


def places(inputs: jax.Array, window: Window) -> jax.Array:
    """The largest over the places of a window."""
    return _places(window, tuple(inputs.shape[1:-1]), inputs)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _places(window: Window, space: tuple[int, ...], inputs: jax.Array) -> jax.Array:
    return _forward(window, space, inputs)[0]


def _forward(window: Window, space: tuple[int, ...], inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The maximum, and the number of its place."""
    parts = seen(inputs, window, -np.inf)
    best, place = parts[0], jnp.zeros(parts[0].shape, jnp.float32)
    for number, part in enumerate(parts[1:], 1):
        # Not `part > best`: XLA's way with what is not a number.
        place = jnp.where(best >= part, place, number)
        best = jnp.maximum(best, part)
    return kept(best), kept(place)


def _backward(
    window: Window, space: tuple[int, ...], place: jax.Array, gradient: jax.Array
) -> tuple[jax.Array]:
    gradient = kept(gradient)
    if window.apart:
        return (_fitted(_put_back(place, gradient, window), window, space),)
    zero = jnp.zeros((), gradient.dtype)
    parts = [jnp.where(place == number, gradient, zero) for number in range(len(window.offsets))]
    return (_fitted(_overlaid(parts, window), window, space),)


_places.defvjp(_forward, _backward)


def _put_back(place: jax.Array, gradient: jax.Array, window: Window) -> jax.Array:
    """The gradient in its place of each window, where they do not overlap, in one pass.

    From (rows, *outputs, channels) to (rows, *(outputs x size), channels).
    """
    rows, *outputs, channels = gradient.shape
    thin = (rows, *itertools.chain(*((count, 1) for count in outputs)), channels)
    numbers = np.arange(len(window.offsets)).reshape(
        1, *itertools.chain(*((1, size) for size in window.size)), 1
    )
    wide = jnp.where(place.reshape(thin) == numbers, gradient.reshape(thin), jnp.zeros((), gradient.dtype))
    return wide.reshape(
        rows, *(count * size for count, size in zip(outputs, window.size, strict=True)), channels
    )


def _overlaid(parts: Sequence[jax.Array], window: Window) -> jax.Array:
    """The sum of what each place in the window gives, each where it lies in the inputs."""
    outputs = parts[0].shape[1:-1]
    sizes = [
        (count - 1) * stride + span
        for count, stride, span in zip(outputs, window.strides, window.span, strict=True)
    ]
    zero = jnp.zeros((), parts[0].dtype)
    placed = []
    for part, offset in zip(parts, window.offsets, strict=True):
        axes = zip(offset, sizes, outputs, window.strides, strict=True)
        around = [
            (first, size - first - (count - 1) * stride - 1, stride - 1)
            for first, size, count, stride in axes
        ]
        placed.append(jax.lax.pad(part, zero, [(0, 0, 0), *around, (0, 0, 0)]))
    return sum(placed[1:], start=placed[0])


def _fitted(gradient: jax.Array, window: Window, space: Sequence[int]) -> jax.Array:
    """Without the padding, and nothing for inputs that no window saw: (rows, *space, channels)."""
    around = window.around(space)
    cut = [slice(before, before + size) for (before, _), size in zip(around, space, strict=True)]
    gradient = gradient[(slice(None), *cut, slice(None))]
    missing = [(0, size - have) for size, have in zip(space, gradient.shape[1:-1], strict=True)]
    return jnp.pad(gradient, [(0, 0), *missing, (0, 0)]) if any(map(any, missing)) else gradient


def average(inputs: jax.Array, window: Window) -> jax.Array:
    """Keras's own."""
    outputs: jax.Array = keras.ops.average_pool(
        inputs, window.size, window.strides, window.padding, data_format="channels_last"
    )
    return outputs


FORMS: dict[str, Form] = {"places": places, "xla": xla}
