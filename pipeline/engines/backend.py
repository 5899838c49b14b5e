"""Which library Keras runs on: said before Keras is imported, as it cannot change afterwards."""

import contextlib
import importlib.util
import logging
import os
import sys
import tempfile
from collections.abc import Iterator

from pipeline.errors import UserError

# Package by Keras's name of the backend.
_PACKAGES = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}


def choose() -> str:
    """Settles the backend: what `KERAS_BACKEND` says, TensorFlow by default.

    Raises:
        UserError: Keras has no such backend, or its package is not installed.
    """
    backend = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if backend not in _PACKAGES:
        raise UserError(f"KERAS_BACKEND: must be one of {', '.join(_PACKAGES)}, but is {backend!r}")
    if importlib.util.find_spec(_PACKAGES[backend]) is None:
        raise UserError(
            f"KERAS_BACKEND: {backend} needs the package {_PACKAGES[backend]}, which is not installed"
        )
    return backend


def load() -> None:
    """Imports Keras on the chosen backend and wakes its devices, without the pages that TensorFlow tells."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # It also warns that each trial's model is compiled anew, which is what trials are.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with _hushed():
        import keras

        keras.ops.zeros(1)


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Keeps what native code writes to standard error, and shows it only if the block fails."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept:
        terminal = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(terminal, kept.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
