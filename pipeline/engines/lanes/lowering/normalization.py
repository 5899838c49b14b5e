"""Batch normalisation in few passes over what it normalises.

JAX derives the gradient of Keras's operations one by one, a pass for each of several sums. By hand it takes
two sums (Ioffe and Szegedy 2015, section 3). Sums over all axes but a last one of few channels go number by
number on a CPU; here neighbouring pixels and their channels are one long axis, summed up at the end.
"""

from typing import Any

import jax
import jax.numpy as jnp

# Numbers in a row from which vector instructions pay.
_LONG = 128


def suits(layer: Any, platform: str) -> bool:
    """Whether this does what Keras's layer does, and faster: on a CPU, where one row of channels is short.

    Keras computes it with 32 bits even where all else has 64, so that another order of sums would show.
    """
    ndim = layer.input_spec.ndim
    known = not layer.renorm and not layer.synchronized and layer.compute_dtype == "float32"
    short = ndim > 2 and layer.moving_mean.shape[0] < _LONG
    return known and short and layer.axis in (-1, ndim - 1) and platform == "cpu"


def call(layer: Any) -> Any:
    """The layer's call, in long rows."""
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
            return _affine(inputs, factor, beta - mean * factor)
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
    count = inputs.size // inputs.shape[-1]
    mean = _sums(_long(inputs), inputs) / count
    variance = _sums(jnp.square(_long(inputs) - _repeated(mean, inputs)), inputs) / count
    scale = jax.lax.rsqrt(variance + epsilon)
    outputs = _affine(inputs, gamma * scale, beta - mean * gamma * scale)
    return (outputs, mean, variance), (inputs, mean, scale, gamma)


def _backward(kept: Any, gradients: Any) -> Any:
    inputs, mean, scale, gamma = kept
    count = inputs.size // inputs.shape[-1]
    gradient = _long(gradients[0])
    by_beta = _sums(gradient, inputs)
    by_gamma = _sums(gradient * (_long(inputs) - _repeated(mean, inputs)), inputs) * scale
    factor = gamma * scale
    # factor x (gradient - its mean - normalised x mean of gradient times normalised)
    slope = factor * scale * by_gamma / count
    by_inputs = (
        gradient * _repeated(factor, inputs)
        - _long(inputs) * _repeated(slope, inputs)
        + _repeated(slope * mean - factor * by_beta / count, inputs)
    )
    return by_inputs.reshape(inputs.shape), by_gamma, by_beta, None


_normalized.defvjp(_forward, _backward)


def _affine(inputs: jax.Array, factor: jax.Array, shift: jax.Array) -> jax.Array:
    outputs = _long(inputs) * _repeated(factor, inputs) + _repeated(shift, inputs)
    return outputs.reshape(inputs.shape)


def _copies(inputs: jax.Array) -> int:
    """How many times the channels a long row has: whole axes, none of them that of the batch's rows."""
    copies = 1
    for size in reversed(inputs.shape[1:-1]):
        if copies * inputs.shape[-1] >= _LONG:
            break
        copies *= size
    return copies


def _long(inputs: jax.Array) -> jax.Array:
    return inputs.reshape(-1, _copies(inputs) * inputs.shape[-1])


def _sums(long: jax.Array, inputs: jax.Array) -> jax.Array:
    """(channels,). A product last, as XLA would make one short sum of two."""
    return _product(long.sum(0), _which(inputs))


def _repeated(vector: jax.Array, inputs: jax.Array) -> jax.Array:
    """A number for each of a long row. A product, as XLA would divide to find each wherever it is read."""
    return _product(_which(inputs), vector)


def _which(inputs: jax.Array) -> jax.Array:
    """(of a long row, channels): one for the channel of each number, and zeros."""
    return jnp.tile(jnp.eye(inputs.shape[-1], dtype=inputs.dtype), (_copies(inputs), 1))


def _product(first: jax.Array, second: jax.Array) -> jax.Array:
    return jnp.matmul(first, second, precision=jax.lax.Precision.HIGHEST)
