"""Random layers of a twin: the same distribution as Keras's, from cheaper bits, for any rate, zero included.

Keras draws 32 bits an element from threefry, twenty rounds each, which cost more than a quarter of a small
model's step. Here threefry makes two words a layer and step, and a hash of two rounds spreads them over the
elements: Wellons's lowbias32 (https://nullprogram.com/blog/2018/07/31/), with a key word before each round.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras

_DROPOUTS = (
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
)


def install(model: keras.Model) -> None:
    """Gives the dropout layers of a twin their cheaper call."""
    for layer in model._flatten_layers(include_self=False):
        if type(layer) in _DROPOUTS:
            layer.call = _dropout(layer)
        elif type(layer) is keras.layers.GaussianDropout:
            layer.call = _gaussian_dropout(layer)
        elif type(layer) is keras.layers.AlphaDropout:
            layer.call = _alpha_dropout(layer)


def bits(key: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Uniform uint32 of that shape. key: (2,) uint32, as Keras's seed generators give it."""
    first, second = jax.random.bits(key, (2,), jnp.uint32)
    number = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    mixed = (number ^ first) * jnp.uint32(0x9E3779B1)
    mixed = (mixed ^ (mixed >> 16)) * jnp.uint32(0x7FEB352D) + second
    mixed = (mixed ^ (mixed >> 15)) * jnp.uint32(0x846CA68B)
    return mixed ^ (mixed >> 16)


def _dropout(layer: Any) -> Any:
    def call(inputs: jax.Array, training: bool = False) -> jax.Array:  # noqa: FBT001, FBT002  # Keras's own signature
        if not training:
            return inputs
        rate = jnp.asarray(layer.rate)
        # Below 2^32 for every rate below one, in float32 too.
        dropped = (rate * 2.0**32).astype(jnp.uint32)
        shape = _noise_shape(layer, inputs)
        keep = bits(layer.seed_generator.next(), shape) >= dropped
        scale = jnp.where(rate < 1, 1 / (1 - rate), 0).astype(inputs.dtype)
        return jnp.where(jnp.broadcast_to(keep & (rate < 1), inputs.shape), inputs * scale, 0)

    return call


def _noise_shape(layer: Any, inputs: jax.Array) -> tuple[int, ...]:
    """The shape of the mask: a 1 where one draw serves a whole axis."""
    if hasattr(layer, "_get_noise_shape"):
        return tuple(layer._get_noise_shape(inputs))
    wanted = layer.noise_shape or (None,) * inputs.ndim
    return tuple(size if want is None else want for want, size in zip(wanted, inputs.shape, strict=True))


def _gaussian_dropout(layer: Any) -> Any:
    def call(inputs: jax.Array, training: bool = False) -> jax.Array:  # noqa: FBT001, FBT002  # Keras's own signature
        if not training:
            return inputs
        rate = jnp.asarray(layer.rate)
        # Keras takes the root with Python's math, which takes no lane number.
        noise = keras.random.normal(inputs.shape, dtype=inputs.dtype, seed=layer.seed_generator)
        return inputs * (1 + noise * jnp.sqrt(rate / (1 - rate)).astype(inputs.dtype))

    return call


def _alpha_dropout(layer: Any) -> Any:
    def call(inputs: jax.Array, training: bool = False) -> jax.Array:  # noqa: FBT001, FBT002  # Keras's own signature
        if not training:
            return inputs
        rate = jnp.asarray(layer.rate, inputs.dtype)
        noise_shape = tuple(layer._get_concrete_noise_shape(inputs, layer.noise_shape))
        kept = (keras.random.uniform(noise_shape, seed=layer.seed_generator) >= rate).astype(inputs.dtype)
        # What keeps mean and variance (Klambauer et al. 2017), by Keras's numbers; at rate zero a is one.
        lowest = -1.7580993408473766
        a = ((1 - rate) * (1 + rate * lowest**2)) ** -0.5
        return a * (inputs * kept + lowest * (1 - kept)) - a * lowest * rate

    return call
