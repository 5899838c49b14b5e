"""A convolution of word vectors, looked up in a table.

After an Embedding, a Conv1D multiplies the vector of a word with one matrix for each place of its window. A
batch has many more words than the vocabulary, so most of these products are computed again and again. Here
each word of the vocabulary meets each matrix once, and an output is the sum of what the table holds for the
words that it sees. Only the order of sums is another.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import keras

from pipeline.engines.lanes.lowering import graph
from pipeline.engines.lanes.lowering.windows import Form, Window, kept, seen

# Word numbers are in range by then; what JAX does for others would cost a pass for each place.
_IN_RANGE: dict[str, Any] = {"mode": "promise_in_bounds", "wrap_negative_indices": False}


@dataclass(frozen=True)
class Pair:
    """An Embedding, and the Conv1D that alone uses what it gives."""

    embedding: Any
    convolution: Any

    @property
    def words(self) -> Any:
        """The symbolic tensor of word numbers, (rows, length)."""
        return self.embedding.input


def found(model: Any) -> Iterator[Pair]:
    """The model's pairs whose product a table can hold."""
    outputs = graph.outputs(model)
    for layer in model._flatten_layers(include_self=False):
        if type(layer) is keras.layers.Embedding and graph.only_feeds_one(layer, outputs):
            after = layer._outbound_nodes[0].operation
            if _gives_rows(layer) and _takes_rows(after) and layer.compute_dtype == after.compute_dtype:
                yield Pair(layer, after)


def _gives_rows(embedding: Any) -> bool:
    """Whether it gives rows of its table as they are, for word numbers in series of a known length."""
    words = embedding.input
    return (
        not embedding.mask_zero
        and embedding.activity_regularizer is None
        and embedding.quantization_mode is None
        and not embedding.lora_enabled
        and embedding.compute_dtype == embedding.variable_dtype
        and keras.backend.is_int_dtype(words.dtype)
        and len(words.shape) == 2
        and words.shape[1] is not None
    )


def _takes_rows(layer: Any) -> bool:
    return (
        type(layer) is keras.layers.Conv1D
        and len(layer._inbound_nodes) == 1
        and layer.data_format == "channels_last"
        and layer.groups == 1
        and layer.quantization_mode is None
        and not layer.lora_enabled
        and layer.compute_dtype == layer.variable_dtype
    )


def forms(alone: Form) -> dict[str, Form]:
    """The forms of a pair, of (words, table, kernel, window), the likeliest first.

    alone: of the convolution, if they stay apart.
    """

    def apart(words: jax.Array, table: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
        return alone(jnp.take(table, words, axis=0), kernel, window=window)

    return {"lookups": lookups, "apart": apart}


def worth(pair: Pair, batch_rows: int) -> bool:
    """Whether a batch has more words than the vocabulary."""
    return bool(pair.embedding.input_dim < batch_rows * pair.words.shape[1])


def passing(pair: Pair) -> Any:
    """The Embedding's call that passes the words on, in the shape of their vectors."""
    width = pair.embedding.output_dim

    def call(inputs: Any) -> jax.Array:
        words = jnp.asarray(inputs)
        return jnp.broadcast_to(words[..., None], (*words.shape, width))

    return call


def joined(inputs: jax.Array, kernel: jax.Array, window: Window, *, pair: Pair) -> jax.Array:
    """The convolution of what `passing` gave."""
    return lookups(inputs[..., 0], jnp.asarray(pair.embedding.embeddings), kernel, window=window)


def lookups(words: jax.Array, table: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """(rows, outputs, filters): for each output, the sum of its words' products.

    Args:
        words: (rows, length) of whole numbers; negative ones count from the end, as in NumPy, and what sees a
            number that is no word's is not a number.
        table: (vocabulary, channels).
        kernel: (size, channels, filters).
        window: of one axis.
    """
    size, channels, filters = kernel.shape
    vocabulary = table.shape[0]
    products = table @ kernel.transpose(1, 0, 2).reshape(channels, size * filters)
    # Two rows more: what lies around the inputs, and what no word has.
    nothing, none = (jnp.full((1, size * filters), value, products.dtype) for value in (0, jnp.nan))
    products = jnp.concatenate([products, nothing, none]).reshape(-1, size, filters)
    if words.dtype not in (jnp.int32, jnp.int64):
        words = words.astype(jnp.int32)
    places = jnp.where(words < 0, words + vocabulary, words)
    places = jnp.where((places >= 0) & (places < vocabulary), places, vocabulary + 1)
    seen_there = tuple(part[..., 0] for part in seen(places[..., None], window, vocabulary))
    return _sums(products.shape[0], seen_there, products)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sums(count: int, places: tuple[jax.Array, ...], products: jax.Array) -> jax.Array:
    """(rows, outputs, filters): the sum over the window.

    places: (rows, outputs) for each place in the window, row numbers of products, (count, size, filters).
    """
    parts = [products[:, number].at[place].get(**_IN_RANGE) for number, place in enumerate(places)]
    # XLA would add them up again wherever the sum is read.
    return kept(sum(parts[1:], start=parts[0]))


def _forward(count: int, places: tuple[jax.Array, ...], products: jax.Array) -> Any:
    return _sums(count, places, products), places


def _backward(count: int, places: tuple[jax.Array, ...], gradient: jax.Array) -> tuple[None, jax.Array]:
    empty = jnp.zeros((count, gradient.shape[-1]), gradient.dtype)
    return None, jnp.stack([empty.at[place].add(gradient, **_IN_RANGE) for place in places], axis=1)


_sums.defvjp(_forward, _backward)
