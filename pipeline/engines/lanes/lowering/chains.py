"""A convolution and the pooling after it, with what lies between, in blocks.

The form `blocks` computes a block of outputs side by side, and then moves each to its place, only for the
pooling to bring them together again: on a CPU, with few channels, such moves cost more than the matrix
products. Where the pooling's windows are such blocks, the layers between get (rows, blocks, outputs of a
block, filters): they do the same with each number, or with each channel, wherever it lies.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np

from pipeline.engines.lanes.lowering import convolutions, graph, pools
from pipeline.engines.lanes.lowering.windows import Form, Window

_layers, _activations = keras.layers, keras.activations
_AVERAGES = (_layers.AveragePooling1D, _layers.AveragePooling2D, _layers.AveragePooling3D)
_MAXIMA = (_layers.MaxPooling1D, _layers.MaxPooling2D, _layers.MaxPooling3D)
# What does the same with each number.
_POINTWISE = (
    _layers.Activation,
    _layers.ReLU,
    _layers.LeakyReLU,
    _layers.ELU,
    _layers.Dropout,
    _layers.GaussianDropout,
    _layers.GaussianNoise,
    _layers.AlphaDropout,
)
_FUNCTIONS = (
    None,
    _activations.elu,
    _activations.gelu,
    _activations.leaky_relu,
    _activations.linear,
    _activations.relu,
    _activations.relu6,
    _activations.selu,
    _activations.sigmoid,
    _activations.silu,
    _activations.softplus,
    _activations.softsign,
    _activations.tanh,
)
_RULES = (type(None), keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2)


@dataclass(frozen=True)
class Chain:
    """kind: average or maximum; steps: (*steps,), how many blocks there are along each axis."""

    convolution: Any
    pool: Any
    kind: str
    sides: tuple[int, ...]
    steps: tuple[int, ...]


def found(model: Any) -> Iterator[Chain]:
    """The model's chains: each convolution is followed by layers that nothing else uses, then by pooling."""
    outputs = graph.outputs(model)
    for pool in model._flatten_layers(include_self=False):
        kind = "average" if type(pool) in _AVERAGES else "maximum" if type(pool) in _MAXIMA else ""
        if not kind or pool.data_format != "channels_last" or len(pool._inbound_nodes) != 1:
            continue
        convolution = graph.before(pool)
        while _fits_between(convolution) and graph.only_feeds_one(convolution, outputs):
            convolution = graph.before(convolution)
        if _starts(convolution) and graph.only_feeds_one(convolution, outputs):
            space, sides = convolution.output.shape[1:-1], tuple(pool.pool_size)
            strides = pool.strides if isinstance(pool.strides, tuple | list) else [pool.strides] * len(sides)
            whole = all(size % side == 0 for size, side in zip(space, sides, strict=True))
            if whole and tuple(strides) == sides and math.prod(sides) > 1:
                steps = tuple(size // side for size, side in zip(space, sides, strict=True))
                yield Chain(convolution, pool, kind, sides, steps)


def _starts(layer: Any) -> bool:
    """Whether it is a convolution whose outputs blocks can hold."""
    return (
        type(layer) in (_layers.Conv1D, _layers.Conv2D, _layers.Conv3D)
        and layer.data_format == "channels_last"
        and layer.groups == 1
        and max(layer.dilation_rate) == 1
        and None not in layer.input.shape[1:]
        and _by_numbers(layer)
    )


def _fits_between(layer: Any) -> bool:
    if type(layer) is _layers.BatchNormalization:
        # With 64 bits Keras still has 32 here, and another order of sums would show.
        known = layer.axis in (-1, len(layer.input.shape) - 1) and layer.compute_dtype != "float64"
        return known and _by_numbers(layer)
    return type(layer) in _POINTWISE and getattr(layer, "noise_shape", None) is None and _by_numbers(layer)


def _by_numbers(layer: Any) -> bool:
    """Whether its activation and what regularises its outputs look at numbers one by one."""
    known = getattr(layer, "activation", None) in _FUNCTIONS
    return known and type(layer.activity_regularizer) in _RULES


def joined(inputs: jax.Array, kernel: jax.Array, window: Window, *, chain: Chain) -> jax.Array:
    """The convolution, in the shape that the layers between get: of as many axes as they had."""
    apart = convolutions.blocked(inputs, kernel, window, chain.sides)
    rows, filters = apart.shape[0], apart.shape[-1]
    rank, steps, sides = len(chain.sides), math.prod(chain.steps), math.prod(chain.sides)
    return apart.reshape(
        rows, *((steps, sides, *[1] * (rank - 2)) if rank > 1 else (steps * sides,)), filters
    )


def _blocks(inputs: jax.Array, chain: Chain) -> jax.Array:
    """(rows, blocks, outputs of a block, filters)."""
    return inputs.reshape(inputs.shape[0], math.prod(chain.steps), math.prod(chain.sides), inputs.shape[-1])


def mean(inputs: jax.Array, chain: Chain) -> jax.Array:
    """(rows, *steps, filters)."""
    return _blocks(inputs, chain).mean(2).reshape(inputs.shape[0], *chain.steps, -1)


def product(inputs: jax.Array, chain: Chain) -> jax.Array:
    """The mean by a matrix product: faster where a few filters would be added one by one."""
    rows, filters = inputs.shape[0], inputs.shape[-1]
    sides = math.prod(chain.sides)
    matrix = jnp.asarray(np.tile(np.eye(filters) / sides, (sides, 1)), inputs.dtype)
    return (_blocks(inputs, chain).reshape(rows, -1, sides * filters) @ matrix).reshape(
        rows, *chain.steps, filters
    )


def maximum(inputs: jax.Array, chain: Chain) -> jax.Array:
    """(rows, *steps, filters). A block's outputs lie in the order of the window's places."""
    rows, filters = inputs.shape[0], inputs.shape[-1]
    sides = math.prod(chain.sides)
    line = _blocks(inputs, chain).reshape(rows, -1, filters)
    return pools.places(line, Window((sides,), (sides,), (1,), "valid")).reshape(rows, *chain.steps, filters)


def _in_blocks(chain: Chain) -> dict[str, Form]:
    """The forms of the chain's pooling, the likeliest first."""
    if chain.kind == "maximum":
        return {"blocks by maximum": maximum}
    found = {"blocks by product": product, "blocks by mean": mean}
    # Below a vector of filters the sum is slow, and with many of them the product is large.
    filters = chain.convolution.filters
    if filters < 8:
        del found["blocks by mean"]
    elif filters > 64:
        del found["blocks by product"]
    return found


def pooling(chain: Chain, name: str) -> Any:
    """The pool's call for what `joined` gave."""
    return partial(_in_blocks(chain)[name], chain=chain)


def forms(chain: Chain, alone: tuple[Form, Form]) -> dict[str, Form]:
    """Convolution, tanh and pooling: in blocks, or apart.

    Args:
        chain: of a model.
        alone: the forms of the convolution and of the pool, if they stay apart.
    """

    def whole(inputs: jax.Array, kernel: jax.Array, window: Window, *, name: str) -> jax.Array:
        between = jnp.tanh(joined(inputs, kernel, window, chain=chain))
        pooled: jax.Array = pooling(chain, name)(between)
        return jnp.tanh(pooled)

    def apart(inputs: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
        places = Window(chain.sides, chain.sides, (1,) * len(chain.sides), "valid")
        return jnp.tanh(alone[1](jnp.tanh(alone[0](inputs, kernel, window=window)), window=places))

    return {**{name: partial(whole, name=name) for name in _in_blocks(chain)}, "apart": apart}
