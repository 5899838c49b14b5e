"""Convolutions in the forms that may be fast where each lane has a kernel of its own.

Under `vmap` a convolution over many kernels becomes XLA's grouped convolution, which on a CPU runs ten times
slower than a matrix product. The other forms:

* patches: what each output sees, in a row, meets the kernel in one matrix product.
* blocks: neighbouring outputs are computed together. Space moves into channels, so the convolution becomes
  one over coarser pixels, with a kernel that holds shifted copies; its patches are few, wide and contiguous.
  The zeros around the copies are computed too, which costs less than narrow patches where channels are few.
* patches of groups: the same for each group of channels.
* shifts: for depthwise kernels, a sum of shifted inputs times one number a channel.
* one by one: a loop over the lanes.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras

from pipeline.engines.lanes.lowering.windows import Form, Window, one_by_one, padded, seen


def kerass(operation: Callable[..., Any]) -> Form:
    """Keras's own form of an operation."""

    def form(inputs: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
        padding = window.padding
        if padding == "causal":
            inputs, padding = padded(inputs, window), "valid"
        outputs: jax.Array = operation(
            inputs,
            kernel,
            strides=window.strides,
            padding=padding,
            dilation_rate=window.dilation,
            data_format="channels_last",
        )
        return outputs

    return form


def patches(inputs: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """One matrix product of what each output sees. kernel: (*window, channels, filters)."""
    inputs = inputs.astype(kernel.dtype)
    rows, *space, _ = inputs.shape
    flat = kernel.reshape(-1, kernel.shape[-1])
    if window.padding == "valid" and window.size == tuple(space):
        # The kernel sees everything: a dense layer.
        return (inputs.reshape(rows, -1) @ flat).reshape(rows, *([1] * len(space)), -1)
    parts = seen(inputs, window)
    return (parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)) @ flat


def blocks(inputs: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """Two outputs together along each axis: of the blocks tried on CPUs the fastest, or nearly so."""
    outputs = window.outputs(inputs.shape[1:-1])
    rank = len(outputs)
    sides = [min(2, size) for size in outputs]
    apart = blocked(inputs, kernel, window, sides)
    # (rows, *steps, *sides, filters) -> (rows, *outputs, filters)
    order = [0, *itertools.chain(*((1 + axis, 1 + rank + axis) for axis in range(rank))), 1 + 2 * rank]
    whole = apart.transpose(order).reshape(
        apart.shape[0],
        *(step * side for step, side in zip(apart.shape[1:], sides, strict=False)),
        kernel.shape[-1],
    )
    return whole[(slice(None), *(slice(size) for size in outputs))]


def blocked(inputs: jax.Array, kernel: jax.Array, window: Window, sides: Sequence[int]) -> jax.Array:
    """(rows, *steps, *sides, filters): the outputs in blocks; the last may reach beyond them."""
    outputs = window.outputs(inputs.shape[1:-1])
    inputs = padded(inputs.astype(kernel.dtype), window)
    steps = [-(-size // side) for size, side in zip(outputs, sides, strict=True)]
    # A coarse pixel holds the inputs by which a block moves on.
    coarse = [side * stride for side, stride in zip(sides, window.strides, strict=True)]
    reach = [
        -(-((side - 1) * stride + span) // pixel)
        for side, stride, span, pixel in zip(sides, window.strides, window.span, coarse, strict=True)
    ]
    wide = _wide_patches(inputs, coarse, steps, reach)
    flat = wide @ _shifted_copies(kernel, window, sides, coarse, reach)
    return flat.reshape(inputs.shape[0], *steps, *sides, -1)


def _wide_patches(
    inputs: jax.Array, coarse: Sequence[int], steps: Sequence[int], reach: Sequence[int]
) -> jax.Array:
    """(rows, *steps, reach x coarse x channels): for each block of outputs, all the inputs that it sees."""
    rows, *space, channels = inputs.shape
    rank = len(space)
    pixels = [step + far - 1 for step, far in zip(steps, reach, strict=True)]
    whole = [count * size for count, size in zip(pixels, coarse, strict=True)]
    # With a stride, the last inputs may be seen by none.
    inputs = inputs[(slice(None), *(slice(size) for size in whole))]
    missing = [size - have for size, have in zip(whole, inputs.shape[1:-1], strict=True)]
    inputs = jnp.pad(inputs, [(0, 0), *((0, more) for more in missing), (0, 0)])
    apart = inputs.reshape(rows, *itertools.chain(*zip(pixels, coarse, strict=True)), channels)
    order = [
        0,
        *(1 + 2 * axis for axis in range(rank)),
        *(2 + 2 * axis for axis in range(rank)),
        1 + 2 * rank,
    ]
    deep = apart.transpose(order).reshape(rows, *pixels, -1)
    shifted = [
        deep[(slice(None), *(slice(first, first + step) for first, step in zip(offset, steps, strict=True)))]
        for offset in itertools.product(*(range(far) for far in reach))
    ]
    return jnp.concatenate(shifted, axis=-1)


def _shifted_copies(
    kernel: jax.Array, window: Window, sides: Sequence[int], coarse: Sequence[int], reach: Sequence[int]
) -> jax.Array:
    """(reach x coarse x channels, sides x filters): a copy of the kernel for each output of a block."""
    channels = kernel.shape[-2]
    rank = len(sides)
    whole = [far * size for far, size in zip(reach, coarse, strict=True)]
    places = [range(0, side * stride, stride) for side, stride in zip(sides, window.strides, strict=True)]
    copies = [
        jax.lax.pad(
            kernel,
            jnp.zeros((), kernel.dtype),
            [
                *(
                    (first, size - first - span, apart - 1)
                    for first, size, span, apart in zip(
                        offset, whole, window.span, window.dilation, strict=True
                    )
                ),
                (0, 0, 0),
                (0, 0, 0),
            ],
        )
        for offset in itertools.product(*places)
    ]
    stacked = jnp.stack(copies, axis=rank + 1)
    apart = stacked.reshape(*itertools.chain(*zip(reach, coarse, strict=True)), channels, -1)
    order = [*range(0, 2 * rank, 2), *range(1, 2 * rank, 2), 2 * rank, 2 * rank + 1]
    return apart.transpose(order).reshape(math.prod(whole) * channels, -1)


def shifts(inputs: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """A sum of shifted inputs. kernel: (*window, channels, multiplier)."""
    *_, channels, multiplier = kernel.shape
    numbers = kernel.reshape(-1, channels, multiplier)
    if multiplier == 1:
        numbers = numbers[..., 0]
        parts = seen(inputs, window)
    else:
        parts = [part[..., None] for part in seen(inputs, window)]
    total = sum(part * number for part, number in zip(parts[1:], numbers[1:], strict=True))
    total = total + parts[0] * numbers[0]
    return total.reshape(*total.shape[: len(window.size) + 1], -1)


def grouped(inputs: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """Patches of each group of channels. kernel: (*window, channels of a group, filters of all)."""
    inputs = inputs.astype(kernel.dtype)
    channels, filters = kernel.shape[-2:]
    groups = inputs.shape[-1] // channels
    parts = [part.reshape(*part.shape[:-1], groups, channels) for part in seen(inputs, window)]
    flat = kernel.reshape(-1, channels, groups, filters // groups)
    outputs = jnp.einsum("...pgc,pcgf->...gf", jnp.stack(parts, axis=-3), flat)
    return outputs.reshape(*outputs.shape[:-2], filters)


def separable(depthwise: Form) -> Form:
    """A depthwise convolution, then a matrix product with the pointwise kernel."""

    def form(inputs: jax.Array, kernel: jax.Array, pointwise: jax.Array, window: Window) -> jax.Array:
        between = depthwise(inputs, kernel, window=window)
        return between @ pointwise.reshape(pointwise.shape[-2:])

    return form


_xla, _depthwise_xla = kerass(keras.ops.conv), kerass(keras.ops.depthwise_conv)
FULL: dict[str, Form] = {
    "blocks": blocks,
    "patches": patches,
    "one by one": one_by_one(_xla),
    "xla": _xla,
}
DEPTHWISE: dict[str, Form] = {
    "shifts": shifts,
    "one by one": one_by_one(_depthwise_xla),
    "xla": _depthwise_xla,
}
GROUPED: dict[str, Form] = {"patches": grouped, "xla": _xla}
SEPARABLE: dict[str, Form] = {name: separable(form) for name, form in DEPTHWISE.items()}


def suitable(
    kind: str, window: Window, space: Sequence[int] | None, platform: str, *, shared: bool = False
) -> dict[str, Form]:
    """The forms that are worth a try, the likeliest first.

    Args:
        kind: full, grouped, depthwise or separable.
        window: of the layer.
        space: the inputs' size by axis, if known.
        platform: of the device. On a CPU no lane alone was ever fast.
        shared: whether the lanes may have the same inputs.
    """
    kinds = {"full": FULL, "grouped": GROUPED, "depthwise": DEPTHWISE, "separable": SEPARABLE}
    found = dict(kinds[kind])
    if platform == "cpu":
        found.pop("one by one", None)
    if kind != "full" and (shared or platform == "cpu"):
        # JAX has no gradient of grouped convolutions of shared inputs under vmap within shard_map. And on a
        # CPU a step of one would take minutes: the kernel's gradient is computed for every pair of channels.
        del found["xla"]
    if kind != "full":
        return found
    alone = space is not None and math.prod(window.outputs(space)) == 1
    if math.prod(window.size) == 1 or alone:
        # A dense layer at each place, or at the only one: nothing beats the matrix product.
        return {"patches": patches}
    if max(window.dilation) > 1 or window.apart:
        # Shifted copies would be zeros for the most part; windows that do not overlap need none.
        del found["blocks"]
    return found
