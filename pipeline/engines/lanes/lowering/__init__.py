"""Layers of a twin in the form that is fastest under `vmap`, measured where it runs.

These are convolutions, of word vectors too, maximum pooling, and chains from a convolution to a pooling. On a
CPU batch normalisation gets a form of its own too, unmeasured: it takes fewer passes.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import keras

from pipeline.engines.lanes.lowering import chains, choice, convolutions, embeddings, normalization, pools
from pipeline.engines.lanes.lowering.windows import Form, Window

# Of these very types: a subclass may do something else.
_KINDS = {
    keras.layers.Conv1D: "full",
    keras.layers.Conv2D: "full",
    keras.layers.Conv3D: "full",
    keras.layers.DepthwiseConv1D: "depthwise",
    keras.layers.DepthwiseConv2D: "depthwise",
    keras.layers.SeparableConv1D: "separable",
    keras.layers.SeparableConv2D: "separable",
    keras.layers.MaxPooling1D: "maximum",
    keras.layers.MaxPooling2D: "maximum",
    keras.layers.MaxPooling3D: "maximum",
}
# Inputs that the lanes share spare these a gradient.
_CONVOLUTIONS = ("full", "grouped", "depthwise", "separable")


def install(model: keras.Model, *, batch_rows: int = 32, lanes: int = 4) -> list[tuple[str, str]]:
    """Gives the layers of a twin the forms that suit its program; not while something is traced.

    Args:
        model: the twin.
        batch_rows: of a gradient step.
        lanes: on one device.

    Returns:
        The names of each layer and of its form; a chain goes by the name of its pooling, a convolution of
        word vectors by that of its Embedding.
    """
    device = jax.local_devices()[0]
    chosen: list[tuple[str, str]] = []
    alone: dict[int, Form] = {}
    joined: set[int] = set()

    def choose(layer: Any, case: choice.Case | None, forms: Mapping[str, Form]) -> str:
        name = choice.prescribed(forms)
        if name is None:
            # Where sizes are not known nothing can be measured: the likeliest.
            name = next(iter(forms)) if case is None else choice.fastest(case, forms, device)
        chosen.append((layer.name, name))
        return name

    def case_of(layer: Any, kind: str) -> choice.Case | None:
        inputs = _inputs(layer)
        if inputs is None:
            return None
        rows_and_sizes, kernels = (batch_rows, *inputs.shape[1:]), _kernels(layer, kind)
        shapes = tuple(tuple(kernel.shape) for kernel in kernels)
        shared = kind in _CONVOLUTIONS and _is_shared(inputs, model)
        return choice.Case(kind, _window(layer), rows_and_sizes, shapes, layer.compute_dtype, lanes, shared)

    for pair in embeddings.found(model):
        if embeddings.worth(pair, batch_rows) and _is_shared(pair.words, model, unknown=True):
            convolution, words = pair.convolution, _case_of_words(pair, batch_rows, lanes)
            likeliest = next(iter(_forms(convolution, "full", device.platform, model).values()))
            if choose(pair.embedding, words, embeddings.forms(likeliest)) == "lookups":
                operation = partial(embeddings.joined, window=_window(convolution), pair=pair)
                convolution.call = _call(convolution, "full", operation)
                pair.embedding.call = embeddings.passing(pair)
                joined.add(id(convolution))
    for layer in model._flatten_layers(include_self=False):
        kind = _KINDS.get(type(layer))
        if id(layer) in joined:
            continue
        if kind is not None and layer.data_format == "channels_last":
            kind = "grouped" if getattr(layer, "groups", 1) > 1 else kind
            forms = _forms(layer, kind, device.platform, model)
            name = choose(layer, case_of(layer, kind), forms)
            alone[id(layer)] = forms[name]
            layer.call = _call(layer, kind, partial(forms[name], window=_window(layer)))
        elif type(layer) is keras.layers.BatchNormalization and normalization.suits(layer, device.platform):
            layer.call = normalization.call(layer)
    for chain in chains.found(model):
        convolution, pool = chain.convolution, chain.pool
        if id(convolution) in joined:
            continue
        case = case_of(convolution, "full")
        forms = chains.forms(chain, (alone[id(convolution)], alone.get(id(pool), pools.average)))
        name = choose(pool, case and choice.of_chain(case, chain.kind, chain.sides), forms)
        if name != "apart":
            operation = partial(chains.joined, window=_window(convolution), chain=chain)
            convolution.call = _call(convolution, "full", operation)
            pool.call = chains.pooling(chain, name)
    return chosen


def _case_of_words(pair: embeddings.Pair, batch_rows: int, lanes: int) -> choice.Case:
    convolution, vocabulary = pair.convolution, pair.embedding.input_dim
    sizes, kernel = (batch_rows, pair.words.shape[1]), tuple(convolution.kernel.shape)
    shapes, dtype = ((vocabulary, kernel[1]), kernel), convolution.compute_dtype
    window = _window(convolution)
    return choice.Case("words", window, sizes, shapes, dtype, lanes, shared=True, words=vocabulary)


def _forms(layer: Any, kind: str, platform: str, model: Any) -> Mapping[str, Form]:
    if kind not in _CONVOLUTIONS:
        return pools.FORMS
    inputs = _inputs(layer)
    space = None if inputs is None else inputs.shape[1:-1]
    shared = inputs is None or _is_shared(inputs, model, unknown=True)
    return convolutions.suitable(kind, _window(layer), space, platform, shared=shared)


def _window(layer: Any) -> Window:
    size = layer.pool_size if hasattr(layer, "pool_size") else layer.kernel_size
    rank = len(size)
    strides, dilation = (
        (number,) * rank if isinstance(number, int) else tuple(number)
        for number in (layer.strides, getattr(layer, "dilation_rate", 1))
    )
    return Window(tuple(size), strides, dilation, layer.padding)


def _kernels(layer: Any, kind: str) -> list[Any]:
    if kind == "separable":
        return [layer.depthwise_kernel, layer.pointwise_kernel]
    return [layer.kernel] if kind in _CONVOLUTIONS else []


def _call(layer: Any, kind: str, form: Form) -> Any:
    """The layer's call, as Keras has it, with another operation."""

    def call(inputs: Any) -> Any:
        outputs = form(jnp.asarray(inputs), *(jnp.asarray(kernel) for kernel in _kernels(layer, kind)))
        if kind not in _CONVOLUTIONS:
            return outputs
        if layer.use_bias:
            outputs = outputs + jnp.asarray(layer.bias)
        return outputs if layer.activation is None else layer.activation(outputs)

    return call


def _inputs(layer: Any) -> Any:
    """The symbolic tensor that feeds the layer; None for one of unknown sizes, or of several calls."""
    try:
        inputs = layer.input
        known = isinstance(inputs, keras.KerasTensor) and None not in inputs.shape[1:]
    except (AttributeError, ValueError):
        return None
    return inputs if known else None


def _is_shared(tensor: Any, model: Any, *, unknown: bool = False) -> bool:
    """Whether a tensor is the same for all lanes: made from the model's inputs without weights or chance.

    unknown: the answer where a model within the model gets its inputs from outside.
    """
    if any(tensor is one for one in model.inputs):
        return True
    operation, node, _ = tensor._keras_history
    if isinstance(operation, keras.layers.InputLayer):
        return unknown
    if getattr(operation, "variables", ()) or isinstance(operation, keras.Model):
        return False
    tensors = operation._inbound_nodes[node].input_tensors
    return all(_is_shared(one, model, unknown=unknown) for one in tensors)
