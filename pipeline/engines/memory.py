"""Memory that stays flat over trials."""

import contextlib
import gc
import sys
from collections.abc import Iterator, MutableMapping
from typing import Any

import keras


@contextlib.contextmanager
def freed(*, alone: bool) -> Iterator[None]:
    """After the block, frees the models that it built; the block keeps no reference to them itself.

    alone: whether no other thread uses Keras. Clearing Keras's session takes other threads' state away, too.
    """
    before = set(_custom_gradients())
    try:
        yield
    finally:
        gradients = _custom_gradients()
        for name in set(gradients) - before:
            del gradients[name]
        if alone:
            # Keras keeps what was built until it is told.
            keras.backend.clear_session(free_memory=True)
        else:
            gc.collect()


def _custom_gradients() -> MutableMapping[str, Any]:
    """TensorFlow's record of gradient functions, where that is what Keras runs on.

    Each compiled training function enters some that nobody will ask for again, and each holds its whole
    graph: 6 MiB a trial of even a small model (TensorFlow 97697).
    """
    if keras.backend.backend() != "tensorflow":
        return {}
    registry: MutableMapping[str, Any] = sys.modules[
        "tensorflow.python.framework.ops"
    ].gradient_registry._registry
    return registry
