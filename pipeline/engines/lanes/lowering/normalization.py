"""Batch normalisation in few passes over what it normalises.

JAX derives the gradient of Keras's operations one by one, a pass for each of several sums. By hand it takes
two sums (Ioffe and Szegedy 2015, section 3).
"""

from typing import Any

import jax
import jax.numpy as jnp


def suits(layer: Any, platform: str) -> bool:
    """Whether this does what Keras's layer does, and faster: on a CPU, where passes take the time.

    Keras computes it with 32 bits even where all else has 64, so that another order of sums would show.
    """
    ndim = layer.input_spec.ndim
    known = not layer.renorm and not layer.synchronized and layer.compute_dtype == "float32"
    return known and ndim > 2 and layer.axis in (-1, ndim - 1) and platform == "cpu"


def call(layer: Any) -> Any:
    """The layer's call, with this gradient."""
    as_before = layer.call

    def call(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:  # noqa: FBT001
        if mask is not None:
            return as_before(inputs, training=training, mask=mask)
        dtype = inputs.dtype
        mean, variance = (jnp.asarray(one, dtype) for one in (layer.moving_mean, layer.moving_variance))
        gamma = jnp.asarray(layer.gamma, dtype) if layer.scale else jnp.ones_like(mean)
        beta = jnp.asarray(layer.beta, dtype) if layer.center else jnp.zeros_like(mean)
        epsilon = jnp.asarray(layer.epsilon, dtype)
        if not (training and layer.trainable):
            factor = gamma * jax.lax.rsqrt(variance + epsilon)
            return inputs * factor + (beta - mean * factor)
        outputs, new_mean, new_variance = _normalized(inputs, gamma, beta, epsilon)
        for variable, old, new in (
            (layer.moving_mean, mean, new_mean),
            (layer.moving_variance, variance, new_variance),
        ):
            variable.assign(old * layer.momentum + new * (1.0 - layer.momentum))
        return outputs

    return call


@jax.custom_vjp
def _normalized(
    inputs: jax.Array, gamma: jax.Array, beta: jax.Array, epsilon: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(outputs, mean, variance): (..., channels), (channels,), (channels,); only outputs have a gradient."""
    return _forward(inputs, gamma, beta, epsilon)[0]


def _forward(inputs: jax.Array, gamma: jax.Array, beta: jax.Array, epsilon: jax.Array) -> Any:
    mean = _sums(inputs) / _count(inputs)
    variance = _sums(jnp.square(inputs - mean)) / _count(inputs)
    scale = jax.lax.rsqrt(variance + epsilon)
    outputs = inputs * (gamma * scale) + (beta - mean * gamma * scale)
    return (outputs, mean, variance), (inputs, mean, scale, gamma)


def _backward(kept: Any, gradients: Any) -> Any:
    inputs, mean, scale, gamma = kept
    gradient, count = gradients[0], _count(inputs)
    by_beta = _sums(gradient)
    by_gamma = _sums(gradient * (inputs - mean)) * scale
    factor = gamma * scale
    # factor x (gradient - its mean - normalised x mean of gradient times normalised)
    slope = factor * scale * by_gamma / count
    by_inputs = gradient * factor - inputs * slope + (slope * mean - factor * by_beta / count)
    return by_inputs, by_gamma, by_beta, None


_normalized.defvjp(_forward, _backward)


def _sums(array: jax.Array) -> jax.Array:
    """(channels,)."""
    return array.sum(tuple(range(array.ndim - 1)))


def _count(array: jax.Array) -> int:
    """How many numbers each channel has."""
    return array.size // array.shape[-1]
