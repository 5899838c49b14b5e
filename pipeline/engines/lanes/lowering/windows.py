"""What convolutions and pooling share: a window that moves over the inputs, and the inputs that it sees."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

Form = Callable[..., jax.Array]
"""(inputs, *kernels, window) -> outputs; inputs and outputs are (rows, *space, channels)."""


@dataclass(frozen=True)
class Window:
    """One number for each axis of space.

    padding: valid, same or causal, as Keras means them.
    """

    size: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: str

    @property
    def span(self) -> tuple[int, ...]:
        """From the first to the last input that it sees, both counted."""
        return tuple((size - 1) * apart + 1 for size, apart in zip(self.size, self.dilation, strict=True))

    @property
    def offsets(self) -> list[tuple[int, ...]]:
        """Where the inputs lie that it sees, the last axis fastest."""
        return list(
            itertools.product(
                *(range(0, span, apart) for span, apart in zip(self.span, self.dilation, strict=True))
            )
        )

    @property
    def apart(self) -> bool:
        """Whether windows neither overlap nor leave gaps."""
        return self.size == self.strides and set(self.dilation) == {1}

    def around(self, space: Sequence[int]) -> list[tuple[int, int]]:
        """The padding before and after each axis; where it is uneven, more comes after."""
        if self.padding == "causal":
            return [(span - 1, 0) for span in self.span]
        found: list[tuple[int, int]] = []
        for size, span, stride in zip(space, self.span, self.strides, strict=True):
            missing = max((-(-size // stride) - 1) * stride + span - size, 0) if self.padding == "same" else 0
            found.append((missing // 2, missing - missing // 2))
        return found

    def outputs(self, space: Sequence[int]) -> tuple[int, ...]:
        """The size of each axis of the outputs."""
        return tuple(
            (size + sum(around) - span) // stride + 1
            for size, around, span, stride in zip(
                space, self.around(space), self.span, self.strides, strict=True
            )
        )


def padded(inputs: jax.Array, window: Window, value: float = 0.0) -> jax.Array:
    """The inputs with the window's padding around them."""
    around = window.around(inputs.shape[1:-1])
    if not any(map(any, around)):
        return inputs
    return jnp.pad(inputs, [(0, 0), *around, (0, 0)], constant_values=value)


def seen(inputs: jax.Array, window: Window, value: float = 0.0) -> list[jax.Array]:
    """For each place in the window, what all windows see there: (rows, *outputs, channels) each."""
    outputs = window.outputs(inputs.shape[1:-1])
    inputs = padded(inputs, window, value)
    steps = list(zip(outputs, window.strides, strict=True))
    return [
        inputs[
            (
                slice(None),
                *(
                    slice(first, first + (size - 1) * stride + 1, stride)
                    for first, (size, stride) in zip(offset, steps, strict=True)
                ),
            )
        ]
        for offset in window.offsets
    ]


def kept(array: jax.Array) -> jax.Array:
    """The array, computed once; its gradient is not asked for.

    XLA computes elementwise operations again wherever their results are read, which may be once for each
    place of a window. Its CPU compiler drops barriers before it joins operations, but what goes into a loop
    it computes first: this one has no turns, which the compiler does not know.
    """
    if jax.default_backend() != "cpu":
        return jax.lax.optimization_barrier(array)
    turns = jax.lax.optimization_barrier(jnp.zeros((), jnp.int32))
    same: jax.Array = jax.lax.fori_loop(0, turns, lambda _, carry: -carry, array)
    return same


def one_by_one(form: Form) -> Form:
    """A form that `vmap` runs lane after lane, each as Keras would run it alone."""

    def made(*arrays: Any, window: Window) -> jax.Array:
        def alone(*arrays: Any) -> jax.Array:
            return form(*arrays, window=window)

        @jax.custom_vjp
        def differentiable(*arrays: Any) -> Any:
            return jax.custom_batching.sequential_vmap(alone)(*arrays)

        def backward(arrays: Any, gradient: Any) -> Any:
            return jax.vjp(alone, *arrays)[1](gradient)

        differentiable.defvjp(
            lambda *arrays: (differentiable(*arrays), arrays), jax.custom_batching.sequential_vmap(backward)
        )
        outputs: jax.Array = differentiable(*arrays)
        return outputs

    return made
