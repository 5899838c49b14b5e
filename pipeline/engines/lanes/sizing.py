"""How many lanes a program has: from memory, and from a short measurement where it pays.

More lanes share the cost of a step until a core's cache, or a device's arithmetic, is full. Every count that
is tried has to be compiled, so others than the first are tried only for studies long enough.
"""

import contextlib
import math
import time
from collections.abc import Callable
from pathlib import Path

import jax

from pipeline.engines.lanes.refusal import Refusal
from pipeline.engines.lanes.streamed import AnyProgram
from pipeline.engines.lanes.turns import Alone
from pipeline.engines.lanes.twin import Values

# Lanes on each device to begin with.
_FIRST = {"cpu": 4}
_FIRST_ELSEWHERE = 64
_MOST = 4096
# Of the device's memory, for one program; others and what runs beside need some, too.
_SHARE = 0.6
# A compilation that a study of twenty times its length can save a tenth of is worth it.
_WORTH, _GAIN = 20.0, 0.9
_PAYS = 2.0
_ROUNDS = 8
_STEPS, _REPEATS = 4, 3
_MEMORY = Path("/proc/meminfo")
_CONTAINER_LIMIT, _CONTAINER_USE = (
    Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current")
)


def first_count(devices: int, most: int) -> int:
    """The count to begin with, a multiple of the devices.

    most: as many trainings as there will ever be at once.
    """
    count = _FIRST.get(jax.default_backend(), _FIRST_ELSEWHERE) * devices
    while count > devices and count // 2 >= most and count // 2 % devices == 0:
        count //= 2
    return count


def choose(
    make: Callable[[int], AnyProgram],
    values: Values,
    first: int,
    devices: int,
    most: int,
    epochs: float,
    left: float = math.inf,
    alone: Alone = contextlib.nullcontext,
) -> tuple[AnyProgram, int]:
    """A compiled program of a good number of lanes, and the number.

    Args:
        make: compiles a program of so many lanes.
        values: of any lane.
        first: the count to begin with.
        devices: the count is a multiple of it.
        most: as many lanes as there are trainings.
        epochs: trial-epochs that the study will train, at most.
        left: seconds until the study is ended.
        alone: for measuring, while nothing trains.

    Raises:
        Refusal: not even a lane on each device fits the memory.
    """
    program, count, seconds = _fitting(make, first, devices)
    best = _lane_step(program, values, alone)
    left -= seconds
    if min(epochs * program.steps * best, left) < _WORTH * seconds:
        return program, count
    # As many as are trained several times over in the time there is.
    at_once = min(most, left / _ROUNDS / max(epochs / most * program.steps * best, 1e-9))
    for factor in (2.0, 0.5):
        improved = True
        while improved:
            improved, tried = False, int(count * factor)
            if tried % devices or not devices <= tried <= min(_MOST, max(at_once, first)):
                break
            other = make(tried)
            if other.memory() > _SHARE * device_memory():
                break
            took = _lane_step(other, values, alone)
            if took < _GAIN * best:
                program, count, best, improved = other, tried, took, True
        if count != first:
            break
    return program, count


def enough(count: int, devices: int, trainings: float) -> int:
    """The lanes of a program that will have so many trainings: a multiple of the devices, `count` at most."""
    return min(count, devices * math.ceil(max(trainings, 1) / devices))


def pays(
    program: AnyProgram,
    values: Values,
    fewer: int,
    epochs: int,
    seconds: float,
    alone: Alone = contextlib.nullcontext,
) -> bool:
    """Whether a program with fewer lanes saves more time than it takes to compile.

    Lanes that nobody is in are computed all the same.

    Args:
        program: compiled; its lanes are free.
        values: of any lane.
        fewer: lanes that would do.
        epochs: of a training, at most.
        seconds: that compiling takes.
        alone: for measuring, while nothing trains.
    """
    idle = program.lanes - fewer
    if idle <= 0:
        return False
    return idle * epochs * program.steps * _lane_step(program, values, alone) > _PAYS * seconds


def loses(program: AnyProgram, values: Values, plain: float, alone: Alone = contextlib.nullcontext) -> str:
    """Why lanes would be the slower way to train a model; empty where they are not.

    plain: seconds that a step of the model takes by `model.fit` on JAX. alone: for measuring, while nothing
    trains.
    """
    # An epoch is one call: what a call costs beside its steps is nothing to each of them.
    with alone():
        lane = _lane_share(program, values, _STEPS) - _lane_share(program, values, 0)
    if lane <= plain:
        return ""
    return f"a step of it would take {lane * 1e3:.3g} ms in lanes here, and {plain * 1e3:.3g} ms by fit"


def _fitting(make: Callable[[int], AnyProgram], count: int, devices: int) -> tuple[AnyProgram, int, float]:
    """The first program that fits the memory, its lanes, and how long it took to compile."""
    while True:
        began = time.monotonic()
        program = make(count)
        seconds = time.monotonic() - began
        if program.memory() <= _SHARE * device_memory():
            return program, count, seconds
        if count // 2 < devices or count // 2 % devices:
            raise Refusal(f"{count} lanes of it need {program.memory() / 2**30:.1f} GiB, which is not there")
        count //= 2


def _lane_step(program: AnyProgram, values: Values, alone: Alone) -> float:
    """Seconds of a gradient step, for each lane, in a call of some steps."""
    with alone():
        return _lane_share(program, values, _STEPS)


def _lane_share(program: AnyProgram, values: Values, steps: int) -> float:
    """Seconds of a call of so many steps, for each lane and each step of a call of some.

    The best of some tries, after one that warms up.
    """
    state = program.layout.start(values, range(program.lanes), [values] * program.lanes)
    tries = []
    for _ in range(1 + _REPEATS):
        began = time.monotonic()
        state = program.some_steps(state, steps)
        jax.block_until_ready(state.trainable)
        tries.append(time.monotonic() - began)
    return min(tries[1:]) / min(_STEPS, program.steps) / program.lanes


def device_memory() -> float:
    """Bytes that a device has, or that are free on the machine."""
    statistics = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in statistics:
        return float(statistics["bytes_limit"])
    # All devices of a CPU share it.
    return _free() / len(jax.devices())


def _free() -> float:
    """Bytes that programs may still take on this machine, or in this container, as far as Linux tells."""
    bounds = []
    with contextlib.suppress(OSError, ValueError):
        lines = dict(line.split(":", 1) for line in _MEMORY.read_text().splitlines())
        # Not what is unused: files that are only cached make room.
        bounds.append(float(lines["MemAvailable"].split()[0]) * 1024)
    with contextlib.suppress(OSError, ValueError):
        # "max" where there is no bound.
        bounds.append(float(_CONTAINER_LIMIT.read_text()) - float(_CONTAINER_USE.read_text()))
    return min(bounds, default=math.inf)
