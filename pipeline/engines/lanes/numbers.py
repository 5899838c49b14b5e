"""The lane numbers of a Keras model: where in it they live, how they are read, and how they are bound.

A lane number is a number that arithmetic alone uses, so that one program serves every value of it: rates,
momenta, penalties, bounds. Anything else in a model's configuration makes another program.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import keras
import numpy as np

from pipeline.engines.lanes.refusal import Refusal

_layers, _regularizers, _constraints = keras.layers, keras.regularizers, keras.constraints

# Attributes by class; each has the same name in the class's configuration.
OF_LAYERS: Mapping[type, tuple[str, ...]] = {
    _layers.Dropout: ("rate",),
    _layers.SpatialDropout1D: ("rate",),
    _layers.SpatialDropout2D: ("rate",),
    _layers.SpatialDropout3D: ("rate",),
    _layers.AlphaDropout: ("rate",),
    _layers.GaussianDropout: ("rate",),
    _layers.GaussianNoise: ("stddev",),
    _layers.BatchNormalization: ("momentum", "epsilon"),
    _layers.LayerNormalization: ("epsilon",),
    _layers.GroupNormalization: ("epsilon",),
    _layers.ActivityRegularization: ("l1", "l2"),
}
OF_RULES: Mapping[type, tuple[str, ...]] = {
    _regularizers.L1: ("l1",),
    _regularizers.L2: ("l2",),
    _regularizers.L1L2: ("l1", "l2"),
    _constraints.MaxNorm: ("max_value",),
    _constraints.MinMaxNorm: ("min_value", "max_value", "rate"),
}
# Those of which Keras asks whether they are zero.
_ASKED = (_layers.GaussianNoise, _regularizers.L1L2)
_ASKED_OF_OPTIMIZERS = ("clipnorm", "clipvalue", "global_clipnorm", "momentum")
# Of every optimiser: floats of its configuration, and these where they are written as whole numbers.
_OF_OPTIMIZERS = ("clipnorm", "clipvalue", "global_clipnorm", "weight_decay", "momentum", "ema_momentum")
# A twin's layer or rule has numbers of its own, so that whatever is computed from them when it is made,
# and not when it is used, shows as a difference to the plain model.
_OTHER = 0.75
_OTHER_THAN_ZERO = 0.25


class LaneNumber:
    """A number that only its lane knows, in a program that serves every lane.

    Keras asks `stddev > 0` or `if l1 != 0` to leave out arithmetic that changes nothing. A lane's program
    holds that arithmetic for every value, zero included, so the answer is always to go that way. Any other
    question has no answer, and is refused.
    """

    def __init__(self, value: jax.Array) -> None:
        self.value = value

    def __jax_array__(self) -> jax.Array:
        return self.value

    @property
    def dtype(self) -> Any:
        return self.value.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    def __bool__(self) -> bool:
        return True

    def __gt__(self, other: object) -> bool:
        return self._general(other, 0)

    def __lt__(self, other: object) -> bool:
        return self._general(other, 1)

    def __ne__(self, other: object) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]

    def __add__(self, other: Any) -> jax.Array:
        return self.value + other

    def __sub__(self, other: Any) -> jax.Array:
        return self.value - other

    def __rsub__(self, other: Any) -> jax.Array:
        return other - self.value

    def __mul__(self, other: Any) -> jax.Array:
        return self.value * other

    def __truediv__(self, other: Any) -> jax.Array:
        return self.value / other

    def __rtruediv__(self, other: Any) -> jax.Array:
        return other / self.value

    def __pow__(self, other: Any) -> jax.Array:
        return self.value**other

    def __rpow__(self, other: Any) -> jax.Array:
        return other**self.value

    def __neg__(self) -> jax.Array:
        return -self.value

    __radd__, __rmul__ = __add__, __mul__

    def _general(self, other: object, limit: int) -> bool:
        if isinstance(other, int | float) and other == limit:
            return True
        raise Refusal(f"a branch compares a lane number with {other!r}")


@dataclass(frozen=True)
class Slot:
    """A place in a model where a lane number lives.

    name: for people. asked: whether Keras asks if it is zero, see `LaneNumber`.
    """

    name: str
    read: Callable[[], float]
    write: Callable[[Any], None]
    asked: bool = False


def slots(model: keras.Model) -> list[Slot]:
    """Every lane number of a compiled model, but those that are variables; equal models give equal lists."""
    found: list[Slot] = []
    for place, layer in enumerate(model._flatten_layers(include_self=False)):
        where = f"{place}:{type(layer).__name__}"
        # Its regulariser holds the numbers of an ActivityRegularization.
        own = () if isinstance(layer, _layers.ActivityRegularization) else names_of(layer)
        found += [_attribute(layer, name, f"{where}.{name}") for name in own]
        for part, rule in rules_of(layer):
            found += [_attribute(rule, name, f"{where}.{part}.{name}") for name in names_of(rule)]
    found += _of_optimizer(model.optimizer)
    return found + _of_loss(model)


def rules_of(layer: Any) -> Iterator[tuple[str, Any]]:
    """The regularisers and constraints of one layer, by the attribute that holds each."""
    for name, value in sorted(getattr(layer, "__dict__", {}).items()):
        if isinstance(value, _regularizers.Regularizer | _constraints.Constraint):
            yield name, value


def names_of(part: Any) -> tuple[str, ...]:
    """The attributes of a layer, regulariser or constraint that are lane numbers.

    Of a class that is not Keras's, every float of its configuration that an attribute of that name holds.
    """
    table = OF_LAYERS if isinstance(part, keras.Layer) else OF_RULES
    if type(part) in table:
        return table[type(part)]
    if is_kerass(part):
        return ()
    return tuple(name for name, value in sorted(part.get_config().items()) if _held(part, name, value))


def is_kerass(part: object) -> bool:
    """Whether its class is one of Keras's own."""
    return type(part).__module__.split(".")[0] == "keras"


def optimizer_names(optimizer: keras.optimizers.Optimizer) -> list[str]:
    """The numbers of an optimiser but its learning rate, which is a variable of it."""
    return [
        name
        for name, value in sorted(optimizer.get_config().items())
        if name != "learning_rate" and _is_number(name, value)
    ]


def other(value: float) -> float:
    """A legal number that is not `value`, for the twin's own configuration."""
    return float(value) * _OTHER if value else _OTHER_THAN_ZERO


def large(value: float) -> float:
    """A number that is not `value` and not small, and below one if `value` is, for the self-check."""
    if 0 <= value < 1:
        return (1 + value) / 2 if value < 0.5 else value / 2  # whichever way is longer
    return float(value) * 1.5


def of_other_classes(model: keras.Model) -> bool:
    """Whether a layer, regulariser or constraint of a class that is not Keras's has lane numbers."""
    parts = [
        part for layer in model._flatten_layers() for part in (layer, *(rule for _, rule in rules_of(layer)))
    ]
    return any(not is_kerass(part) and names_of(part) for part in parts)


def read(places: Sequence[Slot], dtype: str) -> np.ndarray[Any, Any]:
    """The numbers of a model, (slots,)."""
    return np.array([slot.read() for slot in places], dtype=dtype)


@contextlib.contextmanager
def bound(places: Sequence[Slot], values: jax.Array) -> Iterator[None]:
    """Lane numbers in place of a twin's own while its functions are traced.

    values: (slots or more,), of one lane.
    """
    own = [slot.read() for slot in places]
    for slot, value in zip(places, values, strict=False):
        slot.write(LaneNumber(value) if slot.asked else value)
    try:
        yield
    finally:
        for slot, number in zip(places, own, strict=True):
            slot.write(number)


def _held(part: Any, name: str, value: object) -> bool:
    return isinstance(value, float) and isinstance(getattr(part, name, None), float)


def _is_number(name: str, value: object) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, float) or (isinstance(value, int) and name in _OF_OPTIMIZERS)


def _attribute(part: Any, name: str, where: str) -> Slot:
    asked = type(part) in _ASKED or (
        isinstance(part, keras.optimizers.Optimizer) and name in _ASKED_OF_OPTIMIZERS
    )
    return Slot(where, lambda: float(getattr(part, name)), lambda value: setattr(part, name, value), asked)


def _of_optimizer(optimizer: keras.optimizers.Optimizer) -> list[Slot]:
    if not isinstance(optimizer._learning_rate, keras.Variable):
        raise Refusal("the learning rate is a schedule")
    return [_attribute(optimizer, name, f"optimizer.{name}") for name in optimizer_names(optimizer)]


def _of_loss(model: keras.Model) -> list[Slot]:
    """Loss weights and label smoothing, in the order in which the losses are added up."""
    found: list[Slot] = []
    losses = model._compile_loss._flat_losses if model._compile_loss else []
    for place, entry in enumerate(losses or ()):
        where = f"loss.{entry.name or place}"
        if isinstance(entry.loss_weights, int | float):
            found.append(_weight(losses, place, where))
        arguments = getattr(entry.loss, "_fn_kwargs", {})
        if is_kerass(entry.loss) and isinstance(arguments.get("label_smoothing"), int | float):
            found.append(_argument(arguments, "label_smoothing", where))
    return found


def _weight(losses: list[Any], place: int, where: str) -> Slot:
    def write(value: Any) -> None:
        losses[place] = losses[place]._replace(loss_weights=value)

    return Slot(f"{where}.weight", lambda: float(losses[place].loss_weights), write)


def _argument(arguments: dict[str, Any], name: str, where: str) -> Slot:
    def write(value: Any) -> None:
        arguments[name] = value

    return Slot(f"{where}.{name}", lambda: float(arguments[name]), write, asked=True)
