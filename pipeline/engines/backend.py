"""Which library Keras runs on: said before Keras is imported, as it cannot change afterwards."""

import contextlib
import functools
import importlib.machinery
import importlib.util
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline.errors import UserError

_log = logging.getLogger(__name__)

# Package by Keras's name of the backend.
_PACKAGES = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}


def choose(engine: str, memory_fraction: float | None = None) -> str:
    """Settles the backend: JAX for lanes; what `KERAS_BACKEND` says, TensorFlow by default, for `fit`.

    A process whose Keras is there already keeps its backend.

    Args:
        engine: auto, lanes or fit; auto takes JAX unless the variable says otherwise.
        memory_fraction: share of each GPU's memory that JAX takes, above 0 to 1; JAX's own three quarters if
            None.

    Raises:
        UserError: Keras has no such backend, its package is not installed, or lanes cannot run on it.
    """
    asked = os.environ.get("KERAS_BACKEND")
    if asked is not None and asked not in _PACKAGES:
        raise UserError(f"KERAS_BACKEND: must be one of {', '.join(_PACKAGES)}, but is {asked!r}")
    if "keras" in sys.modules:
        backend: str = sys.modules["keras"].backend.backend()
    else:
        backend = os.environ.setdefault("KERAS_BACKEND", "tensorflow" if engine == "fit" else "jax")
    if importlib.util.find_spec(_PACKAGES[backend]) is None:
        raise UserError(
            f"KERAS_BACKEND: {backend} needs the package {_PACKAGES[backend]}, which is not installed"
        )
    if engine == "lanes" and backend != "jax":
        raise UserError(f"engine=lanes: needs Keras on jax, but KERAS_BACKEND is {backend!r}; unset it")
    if memory_fraction is not None:
        if backend != "jax":
            raise UserError(f"memory_fraction: is JAX's, but Keras runs on {backend}; leave it out")
        # https://docs.jax.dev/en/latest/gpu_memory_allocation.html; read when the devices are first used.
        os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{memory_fraction:g}"
    return backend


def load() -> None:
    """Imports Keras on the chosen backend and wakes its devices, without the pages that TensorFlow tells.

    Of the libraries in the process, only that backend has the GPUs: another one that woke on them, too, would
    take what is left of their memory, and later training would run out of it.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # It also warns that each trial's model is compiled anew, which is what trials are.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    chosen = os.environ.get("KERAS_BACKEND", "tensorflow")
    if chosen == "jax":
        _prepare_jax()
    else:
        _after_import("jax", _keep_from_gpus_jax)
    with hushed():
        if chosen == "tensorflow":
            _let_memory_grow()
        else:
            _after_import("tensorflow", _keep_from_gpus_tensorflow)
        import keras

        from pipeline.engines import precision

        precision.keep_wide()
        if keras.backend.backend() != "tensorflow":
            _leave_tensorflow_alone()
        if keras.backend.backend() == "jax":
            _forget_losses_of_earlier_traces()
        keras.ops.zeros(1)


def devices(*, every: bool) -> str:
    """What the backend computes on, such as `1 x NVIDIA H100 80GB HBM3`, or `CPU`.

    every: all of its devices, as lanes use them, and a CPU's cores one by one; else what `model.fit` uses.
    """
    import keras

    kinds = {"jax": _jax_devices, "tensorflow": _tensorflow_gpus, "torch": _torch_gpus}
    found = kinds[keras.backend.backend()]()
    if every:
        return f"{len(found)} x {found[0]}"
    return "CPU" if not found or found[0] == "cpu" else f"1 x {found[0]}"


def _jax_devices() -> Sequence[str]:
    import jax

    return [device.device_kind for device in jax.devices()]


def _tensorflow_gpus() -> Sequence[str]:
    import tensorflow as tf

    details = tf.config.experimental.get_device_details
    return [str(details(gpu).get("device_name", "GPU")) for gpu in tf.config.get_visible_devices("GPU")]


def _torch_gpus() -> Sequence[str]:
    torch: Any = sys.modules["torch"]
    return [torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count())]


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cache_folder() -> Path:
    """Where compiled programs and measured choices are kept: `$PIPELINE_CACHE`, or in the user's cache."""
    own = os.environ.get("PIPELINE_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(own) if own else home / "regatta"


def _prepare_jax() -> None:
    """A device for each core, so that lanes use them all, and compiled programs kept between runs."""
    import jax

    if "XLA_FLAGS" not in os.environ and "JAX_NUM_CPU_DEVICES" not in os.environ:
        with contextlib.suppress(RuntimeError):  # a process that uses JAX already keeps its devices
            jax.config.update("jax_num_cpu_devices", cores())
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "programs"))
        # All of them: the small ones are many.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


class _Door(importlib.machinery.PathFinder):
    """Where a library comes in: tells when it has, whoever imports it.

    Keras, its layers and MLflow import TensorFlow each where they need it.
    """

    def __init__(self, name: str, then: Callable[[ModuleType], None]) -> None:
        self._name, self._then = name, then

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:  # type: ignore[override]
        """How to import it; nothing for any other name."""
        spec = super().find_spec(fullname, path, target) if fullname == self._name else None
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            self._then(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _after_import(name: str, then: Callable[[ModuleType], None]) -> None:
    """Calls `then` with the library now, if it is imported, or as soon as it is."""
    if name in sys.modules:
        then(sys.modules[name])
    elif not any(isinstance(finder, _Door) and finder._name == name for finder in sys.meta_path):
        sys.meta_path.insert(0, _Door(name, then))


def _keep_from_gpus_tensorflow(tensorflow: Any) -> None:
    try:
        tensorflow.config.set_visible_devices([], "GPU")
    except RuntimeError as error:
        # A process that has used it before.
        _log.warning("TensorFlow shares the GPUs with Keras's backend: %s", error)


def _keep_from_gpus_jax(jax: Any) -> None:
    # Read when its devices are first used; one that has used them before keeps them.
    jax.config.update("jax_platforms", "cpu")


def _let_memory_grow() -> None:
    """TensorFlow takes memory as it needs it; by its default it takes nearly all at once."""
    import tensorflow as tf

    for gpu in tf.config.list_physical_devices("GPU"):
        try:
            tf.config.experimental.set_memory_growth(gpu, enable=True)
        except RuntimeError as error:
            _log.warning("TensorFlow takes the GPUs' memory at once: %s", error)


class _TensorFlowIfThere:
    """TensorFlow where something else has imported it: nothing can be one of its objects before that."""

    @property
    def available(self) -> bool:
        return "tensorflow" in sys.modules

    def __getattr__(self, name: str) -> object:
        return getattr(sys.modules["tensorflow"], name)


def _leave_tensorflow_alone() -> None:
    """Keeps Keras on another backend from importing TensorFlow, seconds and hundreds of megabytes.

    Keras 3.15 does so to ask whether what it saves or seeds is TensorFlow's. Layers that need it find it.
    """
    from keras.src.legacy.saving import json_utils
    from keras.src.saving import serialization_lib
    from keras.src.utils import rng_utils

    for module in (json_utils, serialization_lib, rng_utils):
        module.tf = _TensorFlowIfThere()


def _forget_losses_of_earlier_traces() -> None:
    """Each traced step begins with layers that know of no loss.

    Keras 3.15 knows the losses that a layer adds, as activity regularisers do, by their `id`, and keeps the
    numbers after the trace. In the next one Python may give such a number to the loss of another layer, which
    is then taken for an old one and left out: now and then a program would train without a penalty.
    """
    from keras.src.backend.jax.trainer import JAXTrainer

    step = JAXTrainer.compute_loss_and_updates
    if hasattr(step, "__wrapped__"):
        return

    @functools.wraps(step)
    def forgetful(self: Any, *args: Any, **kwargs: Any) -> Any:
        self._clear_losses()
        return step(self, *args, **kwargs)

    JAXTrainer.compute_loss_and_updates = forgetful


@contextlib.contextmanager
def hushed() -> Iterator[None]:
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
