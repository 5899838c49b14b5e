"""Which form a layer gets: the one that is fastest where it runs, by measuring it there.

A measurement is a short program like the lanes' own: a few steps of a loop, each the gradients of some lanes.
What it found is remembered, in the process and in a file beside the compiled programs.
"""

import contextlib
import json
import math
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pipeline.engines import backend
from pipeline.engines.lanes.lowering import convolutions
from pipeline.engines.lanes.lowering.windows import Form, Window

# Counted up when forms change, so that what was measured before counts no longer.
_VERSION = 1
_STEPS = 3
_REPEATS = 5
# A form slower than this many times the fastest at its first run is not run again.
_HOPELESS = 2.0
# A form must be this much faster than one that is named before it, so that noise does not choose.
_GAIN = 0.95
# On a CPU time grows with the rows and the lanes; more of them would only measure longer. Large layers have
# even fewer rows, by the multiplications of a step: the slowest forms do a billion or so in a second.
_MOST_CPU_ROWS, _MOST_CPU_LANES = 64, 4
_LEAST_CPU_ROWS, _MOST_CPU_WORK = 8, 2**30

_lock = threading.Lock()
_known: dict[str, str] = {}


@dataclass(frozen=True)
class Case:
    """What a form would have to do.

    Attributes:
        kind: of layer.
        window: of the layer.
        inputs: (rows, *space, channels), or (rows, length) of words.
        kernels: the shape of each; with words, first that of their table.
        dtype: of all of them.
        lanes: on one device.
        shared: whether the lanes have the same inputs, and no gradient of them is needed.
        words: how many there are, where inputs are their numbers; else 0.
    """

    kind: str
    window: Window
    inputs: tuple[int, ...]
    kernels: tuple[tuple[int, ...], ...]
    dtype: str
    lanes: int
    shared: bool
    words: int = 0


def prescribed(forms: Mapping[str, Form]) -> str | None:
    """What `PIPELINE_LOWERING` asks for: a form by its name, the first where a layer has none such."""
    name = os.environ.get("PIPELINE_LOWERING")
    if not name or name in forms:
        return name or None
    # A form for layers alone is not one of a chain in blocks.
    return "apart" if "apart" in forms and name in convolutions.FULL else next(iter(forms))


def of_chain(case: Case, kind: str, sides: Sequence[int]) -> Case:
    """The case of a chain, from that of its convolution."""
    return replace(case, kind=f"chain, {kind} of {'x'.join(map(str, sides))}")


def fastest(case: Case, forms: Mapping[str, Form], device: Any) -> str:
    """The name of the form that is fastest on a device, from memory or by measuring."""
    if len(forms) == 1:
        return next(iter(forms))
    case = _rounded(case, device.platform)
    parts = (_VERSION, jax.__version__, device.platform, device.device_kind, list(forms), astuple(case))
    key = json.dumps(parts)
    with _lock:
        if _known.get(key) not in forms:
            _known.update(_read())
        if _known.get(key) not in forms:
            _known[key] = _measured(case, forms, device)
            _write(key, _known[key])
        return _known[key]


def forget() -> None:
    """Forgets what this process knows; the file stays."""
    with _lock:
        _known.clear()


def _rounded(case: Case, platform: str) -> Case:
    """A case that stands for those like it: rows and lanes are powers of two, few of them on a CPU."""
    before = case.inputs[0]
    rows, lanes = (1 << (number - 1).bit_length() for number in (before, case.lanes))
    if platform == "cpu":
        lanes = min(lanes, _MOST_CPU_LANES)
        rows = min(rows, _MOST_CPU_ROWS)
        while rows > _LEAST_CPU_ROWS and rows * lanes * _work(case) > _MOST_CPU_WORK:
            rows //= 2
    case = replace(case, inputs=(rows, *case.inputs[1:]), lanes=lanes)
    if not case.words:
        return case
    # What a table saves depends on how many words of a batch share one of its rows.
    words = -(-case.words * rows // before)
    return replace(case, words=words, kernels=((words, *case.kernels[0][1:]), *case.kernels[1:]))


def _work(case: Case) -> int:
    """Multiplications that a row takes in one lane, forward, at a stride of one."""
    places = math.prod(case.inputs[1:] if case.words else case.inputs[1:-1])
    return places * sum(math.prod(kernel) for kernel in case.kernels[bool(case.words) :])


def _measured(case: Case, forms: Mapping[str, Form], device: Any) -> str:
    seconds: dict[str, list[float]] = {}
    runs: dict[str, Callable[[], float]] = {}
    arrays = _arrays(case, device)
    for name, form in forms.items():
        # A form may be beyond a device: too little memory, or no such operation there.
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            run = _run(case, form, arrays)
            run()
            seconds[name], runs[name] = [run()], run
    best = min((min(one) for one in seconds.values()), default=0.0)
    running = [name for name, one in seconds.items() if one[0] <= best * _HOPELESS]
    # In turn, so that what else the machine does slows all of them.
    for _ in range(_REPEATS if len(running) > 1 else 0):
        for name in running:
            seconds[name].append(runs[name]())
    if not running:
        return list(forms)[-1]
    chosen = running[0]
    for name in running[1:]:
        if statistics.median(seconds[name]) < _GAIN * statistics.median(seconds[chosen]):
            chosen = name
    return chosen


def _arrays(case: Case, device: Any) -> tuple[list[jax.Array], jax.Array]:
    """Kernels with a lane axis before their last, as programs have them, and inputs."""
    rng = np.random.default_rng(0)

    def made(shape: Sequence[int]) -> jax.Array:
        numbers = rng.normal(scale=0.1, size=shape).astype(np.float32)
        return jax.device_put(jnp.asarray(numbers, case.dtype), device)

    kernels = [made((*shape[:-1], case.lanes, shape[-1])) for shape in case.kernels]
    if case.words:
        words = rng.integers(0, case.words, case.inputs, dtype=np.int32)
        return kernels, jax.device_put(jnp.asarray(words), device)
    return kernels, made(case.inputs if case.shared else (case.lanes, *case.inputs))


def _run(case: Case, form: Form, arrays: tuple[list[jax.Array], jax.Array]) -> Callable[[], float]:
    def loss(kernels: list[jax.Array], inputs: jax.Array) -> jax.Array:
        if not case.shared:
            # What comes before a layer is computed with it: more than once, by forms that read it so.
            inputs = jnp.tanh(inputs)
        return jnp.sum(jnp.square(form(inputs, *kernels, window=case.window)))

    axes = [len(shape) - 1 for shape in case.kernels]
    if case.shared:
        gradients = jax.vmap(jax.grad(loss), in_axes=(axes, None), out_axes=axes)
    else:
        gradients = jax.vmap(jax.grad(loss, (0, 1)), in_axes=(axes, 0), out_axes=(axes, 0))

    @jax.jit
    def steps(kernels: list[jax.Array], inputs: jax.Array) -> Any:
        def step(_: Any, carry: Any) -> Any:
            after = (gradients(*carry), carry[1]) if case.shared else gradients(*carry)
            # Each step needs the one before; numbers stay small.
            return jax.tree.map(lambda old, new: (old - 1e-6 * new).astype(old.dtype), carry, after)

        return jax.lax.fori_loop(0, _STEPS, step, (kernels, inputs))

    def run() -> float:
        start = time.perf_counter()
        jax.block_until_ready(steps(*arrays))
        return time.perf_counter() - start

    return run


def _path() -> Path:
    return backend.cache_folder() / "lowering.json"


def _read() -> dict[str, str]:
    """The file's choices; none from a file that is missing or damaged."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(_path().read_text())
        if isinstance(found, dict):
            return {key: name for key, name in found.items() if isinstance(name, str)}
    return {}


def _write(key: str, name: str) -> None:
    """Adds a choice to the file; a folder that cannot be written to costs a measurement each time."""
    path = _path()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        choices = {**_read(), key: name}
        # A folder of its own, as a temporary file would be closed to all others for good.
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=path.name) as folder:
            unfinished = Path(folder) / path.name
            unfinished.write_text(json.dumps(choices, indent=0))
            # In one go: others read it at any time.
            unfinished.replace(path)
