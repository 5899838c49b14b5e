"""Numbers of 16 bits where layers compute, and of 32 wherever something is kept, added up or compared.

`bfloat16` is Keras's policy `mixed_bfloat16` (https://keras.io/api/mixed_precision/): variables, and so the
optimiser's steps, stay float32. Losses and the statistics of normalisations do so by Keras's own rules. What
Keras would compute with an output's own 16 bits, metrics and penalties on activities, gets 32 bits here.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras.src import backend
from keras.src.trainers.compile_utils import CompileMetrics

from pipeline.values import Data, Settings

FULL = "float32"
"""What models compute with that nothing is said of."""

_POLICIES = {"bfloat16": "mixed_bfloat16"}
_NARROW = ("bfloat16", "float16")

Build = Callable[[Settings, Data], keras.Model]


def building(build: Build, precision: str) -> Build:
    """`build`, with layers that compute in this precision unless they say otherwise themselves.

    A policy is a thread's, and what is made under it keeps it. So it holds for nothing but the model that is
    built: what is loaded, such as models of trials, has the precision that it was made with.

    precision: float32, which leaves everything as it is, or bfloat16.
    """
    if precision == FULL:
        return build

    def built(settings: Settings, data: Data) -> keras.Model:
        with _under(_POLICIES[precision]):
            return build(settings, data)

    return built


@contextlib.contextmanager
def _under(policy: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def is_narrow(model: keras.Model) -> bool:
    """Whether a layer computes with 16 bits."""
    return any(layer.compute_dtype in _NARROW for layer in model._flatten_layers(include_self=False))


def widened(node: Any) -> Any:
    """A configuration in which every layer computes with as many bits as its variables have."""
    if isinstance(node, dict):
        return {key: widened(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return type(node)(widened(value) for value in node)
    return (
        FULL if isinstance(node, str) and node in (*_POLICIES.values(), *_NARROW, "mixed_float16") else node
    )


def keep_wide() -> None:
    """From now on metrics and penalties take what they measure with 32 bits, where it comes with 16.

    Keras 3.15 casts answers for losses but not for metrics, and adds a layer's activities up in their own
    type: a penalty would have three digits, by which early stopping could not see that a loss still falls.
    """
    if hasattr(CompileMetrics.update_state, "__wrapped__"):
        return
    update = CompileMetrics.update_state

    @functools.wraps(update)
    def update_state(self: Any, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        return update(self, y_true, keras.tree.map_structure(_wide, y_pred), sample_weight=sample_weight)

    CompileMetrics.update_state = update_state
    for rule in (keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2):
        rule.__call__ = _of_wide(rule.__call__)


def _of_wide(penalty: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    @functools.wraps(penalty)
    def call(self: Any, x: Any) -> Any:
        return penalty(self, _wide(x))

    return call


def _wide(tensor: Any) -> Any:
    """A tensor as it is, or with Keras's width if it has 16 bits; its mask stays with it."""
    if backend.standardize_dtype(tensor.dtype) not in _NARROW:
        return tensor
    found = keras.ops.cast(tensor, keras.config.floatx())
    mask = backend.get_keras_mask(tensor)
    if mask is not None:
        backend.set_keras_mask(found, mask)
    return found
