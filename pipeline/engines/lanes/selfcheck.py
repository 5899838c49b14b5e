"""A program's first use: one step of its lanes against one step of the plain Keras model.

A twin that reads a number in one place and not in another would train wrongly in silence. So before a
signature's first trial counts, one gradient step of a lane is compared with Keras's own, in every variable.

Where layers compute with 16 bits, rounding alone changes a hundredth of a step, and a small number that is
read wrongly, such as a penalty, changes less. So `building` has the same structure compared with 32 bits
first, as strictly as any other. After that the program of 16 bits is compared by what its rounding explains:
a fault that it alone has, and that is smaller, stays unseen.
"""

import contextlib
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import keras
import numpy as np

from pipeline.engines import precision, schedules
from pipeline.engines.lanes import numbers
from pipeline.engines.lanes.refusal import Refusal, in_short
from pipeline.engines.lanes.streamed import AnyProgram
from pipeline.engines.lanes.turns import Alone
from pipeline.engines.lanes.twin import Batch, Twin, Values, widened, with_large_numbers
from pipeline.values import Array

# Steps in float32 differ by rounding, which some variables amplify: a bias before a BatchNormalization has a
# gradient of pure rounding, and Adam makes a full step of it. How much is measured: the plain step is done
# once more from weights moved by what rounding adds up to. In a deep model now and then a relu or a pooling
# decides otherwise, and all before it differs a hundred times as much; so the weights are moved in other ways
# where one way does not explain a difference.
#
# With 16 bits, sums have 32 bits inside of a product, and each result is rounded once. A number that is
# rounded on two ways differs by a unit in its last place, of bfloat16 by 2^-7 of it at most; that is also the
# least that moves every weight to another number as layers see it. And what rounding does to Keras's own step
# is known: the same step with 32 bits stands as the first of the moves.
_ROUNDING = 1e-5
_OF_ROUNDING = 3.0
_OF_STEP = 1e-3
_MOVES = 16
_RATE = 0.1
_TRIES = 3
_RANDOM = ("rate", "stddev")


class Plain(NamedTuple):
    """Seconds of a plain model's step on one device, and of compiling it."""

    step: float
    compiling: float


def compare(
    program: AnyProgram,
    twin: Twin,
    plain: keras.Model,
    values: Values,
    batch: Batch,
    orders: Any,
    alone: Alone = contextlib.nullcontext,
) -> Plain:
    """Does one step both ways; with larger numbers, where classes that Keras does not know have some.

    What a class of the user's derives from a small number would hide in the rounding of one step.

    Args:
        program: compiled; its lanes are free.
        twin: the program's.
        plain: the model whose lane starts with `values`.
        values: of `plain`.
        batch: the rows of the program's first step, as `train_step` takes them.
        orders: the row order and validation order of a call whose first step sees `batch`.
        alone: for measuring, while nothing trains.

    Returns:
        What the plain model's step took.

    Raises:
        Refusal: they differ by more than rounding explains.
    """
    plain, values = _telling(twin, plain, values, batch)
    quiet = _with_rate(_without_noise(twin, values), twin)
    lanes = program.layout
    state = lanes.start(quiet, [0], [quiet])
    state = program.some_steps(state, 1, *orders)
    (after,) = lanes.current(state, [0])
    with _noise_off(plain):
        step = jax.jit(lambda trainable, rest: plain.train_step((trainable, *rest), _given(batch))[1])
        began = time.perf_counter()
        theirs = _lists_of(step, twin, plain, quiet, after)
        compiling = time.perf_counter() - began
        with alone():
            seconds = _seconds(step, _state_of(twin, plain, quiet))
        moved = (_lists_of(step, twin, plain, quiet, after, move) for move in range(1, 1 + _MOVES))
        exact = (_exactly(twin, one, quiet, batch, after) for one in [plain] if precision.is_narrow(plain))
        moves = itertools.chain(exact, moved)
        fault = unexplained(_names(twin), _lists(quiet), _lists(after), theirs, moves)
    if fault:
        raise Refusal(f"one step of its twin differs from its own: {fault}")
    return Plain(seconds, max(compiling - seconds, 0.0))


def _telling(twin: Twin, plain: keras.Model, values: Values, batch: Batch) -> tuple[keras.Model, Values]:
    """A model to compare, with its values: this one, or its like with larger numbers."""
    if not numbers.of_other_classes(plain):
        return plain, values
    try:
        other = with_large_numbers(plain)
        return other, twin.values(other, batch, seed=0)
    except Exception as error:
        raise Refusal(f"it cannot be made with other numbers, to compare them: {in_short(error)}") from error


# Keras's layers whose rate is zero draw nothing, so they do not count draws as those of lanes do.
_COUNTER = "seed_generator_state"


def unexplained(
    names: Sequence[str],
    before: Sequence[Array],
    ours: Sequence[Array],
    theirs: Sequence[Array],
    moved: Iterable[Sequence[Array]],
) -> str:
    """The first variable whose difference no rounding explains, with its figures; empty if there is none.

    Args:
        names: of the variables.
        before: their values before the step.
        ours: after a step of a lane.
        theirs: after the plain step.
        moved: after the plain step from moved weights, for as many moves as are needed.
    """
    apart, fault = [0.0] * len(names), ""
    for shaken in moved:
        fault = ""
        for place, (start, mine, its) in enumerate(zip(before, ours, theirs, strict=True)):
            if names[place].endswith(_COUNTER):
                continue
            apart[place] = max(apart[place], _size(its - shaken[place]))
            allowed = _OF_ROUNDING * apart[place] + _OF_STEP * _size(its - start) + 1e-7 * (1 + _size(its))
            if not fault and not _size(mine - its) <= allowed:
                fault = f"{names[place]} by {_size(mine - its):.2g}, and rounding explains {allowed:.2g}"
        if not fault:
            break
    return fault


def _names(twin: Twin) -> list[str]:
    model = twin.model
    variables = (*model.trainable_variables, *model.non_trainable_variables, *model.optimizer.variables)
    return [variable.path for variable in variables]


def _lists(values: Values) -> list[Array]:
    return [
        np.asarray(value, np.float64)
        for value in (*values.trainable, *values.non_trainable, *values.optimizer)
    ]


def _lists_of(
    step: Any, twin: Twin, plain: keras.Model, values: Values, missing: Values, move: int = 0
) -> list[Array]:
    """The plain model's variables after one step from a lane's values, in the twin's order.

    missing: in place of those that only the twin has, such as the velocity of a momentum that is zero.
    """
    after = step(*_state_of(twin, plain, values, move))
    return _lists(twin.from_plain(after, missing, plain))


def _exactly(twin: Twin, plain: keras.Model, values: Values, batch: Batch, missing: Values) -> list[Array]:
    """As `_lists_of`, where every layer computes with 32 bits."""
    try:
        wide = widened(plain)
        wide._symbolic_build(data_batch=batch)
    except Exception as error:
        raise Refusal(f"it cannot be made with 32 bits, to compare them: {in_short(error)}") from error
    with _noise_off(wide):
        step = jax.jit(lambda trainable, rest: wide.train_step((trainable, *rest), _given(batch))[1])
        return _lists_of(step, twin, wide, values, missing)


def rounding(model: keras.Model) -> float:
    """The share of each weight by which a step's roundings may move it, see above."""
    types = {layer.compute_dtype for layer in model._flatten_layers(include_self=False)}
    units = [float(jax.numpy.finfo(kind).eps) for kind in types if keras.backend.is_float_dtype(kind)]
    return max([_ROUNDING, *units])


def _state_of(twin: Twin, plain: keras.Model, values: Values, move: int = 0) -> Any:
    """A lane's values as the plain model's state; with a move's number, its weights moved by rounding."""
    trainable, non_trainable, optimizer = twin.to_plain(values, plain)
    rng, moved = np.random.default_rng(move), rounding(plain) if move else 0.0
    trainable = [
        (value * (1 + moved * rng.choice([-1, 1], value.shape))).astype(value.dtype) for value in trainable
    ]
    plain.reset_metrics()
    metrics = [variable.value for variable in plain.metrics_variables]
    return jax.device_put((trainable, (non_trainable, optimizer, metrics)))


def _seconds(step: Any, state: Any) -> float:
    """Of a compiled step: the best of some tries, as other trials may train meanwhile."""
    tries = []
    for _ in range(_TRIES):
        began = time.perf_counter()
        jax.block_until_ready(step(*state))
        tries.append(time.perf_counter() - began)
    return min(tries)


def _given(batch: Batch) -> Any:
    return batch[:2] if batch[2] is None else batch


def _size(difference: Array) -> float:
    return float(np.sqrt(np.mean(np.square(difference)))) if difference.size else 0.0


def _without_noise(twin: Twin, values: Values) -> Values:
    """The lane with every rate of a random layer at zero: its bits are not Keras's, so masks would differ."""
    off = [place for place, slot in enumerate(twin.slots) if _random_slot(slot.name)]
    quiet = values.numbers.copy()
    quiet[off] = 0
    return values._replace(numbers=quiet)


def _with_rate(values: Values, twin: Twin) -> Values:
    """With a learning rate that makes a difference in one step, and no plan that changes it after."""
    rates = [variable is twin.model.optimizer._learning_rate for variable in twin.model.optimizer.variables]
    optimizer = [
        np.full_like(value, _RATE) if is_rate else value
        for value, is_rate in zip(values.optimizer, rates, strict=True)
    ]
    unplanned = values.numbers.copy()
    unplanned[-schedules.SIZE] = schedules.PLATEAU
    return values._replace(optimizer=optimizer, numbers=unplanned)


def _random_slot(name: str) -> bool:
    layer, _, number = name.rpartition(".")
    return number in _RANDOM and any(
        layer.split(":")[-1] == kind.__name__ for kind in numbers.OF_LAYERS if _is_random(kind)
    )


def _is_random(kind: type) -> bool:
    return bool(set(numbers.OF_LAYERS[kind]) & set(_RANDOM))


@contextlib.contextmanager
def _noise_off(plain: keras.Model) -> Iterator[None]:
    places = [
        (layer, name)
        for layer in plain._flatten_layers(include_self=False)
        if type(layer) in numbers.OF_LAYERS
        for name in numbers.OF_LAYERS[type(layer)]
        if name in _RANDOM
    ]
    own = [getattr(layer, name) for layer, name in places]
    for layer, name in places:
        setattr(layer, name, 0.0)
    try:
        yield
    finally:
        for (layer, name), value in zip(places, own, strict=True):
            setattr(layer, name, value)
