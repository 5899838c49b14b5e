"""What lanes cannot take, as far as a look at a model tells: what its configurations do not hold.

A twin is made from configurations. Whatever a model has beside them would be lost in it, in silence.
"""

import functools
import inspect
import sys
from types import FunctionType
from typing import Any

import keras

from pipeline.engines.lanes import numbers
from pipeline.engines.lanes.refusal import Refusal

# Arguments of Keras's base classes, which a configuration may leave out.
_OF_BASES = ("self", "name", "dtype", "reduction", "trainable")
# Methods that Keras wraps anew in each layer.
_WRAPPED = ("build", "quantize")


def check(model: keras.Model) -> None:
    """Refuses what lanes cannot take, as far as a look at the model tells.

    Raises:
        Refusal: with the reason.
    """
    if type(model) not in _plain_classes() and not getattr(type(model), "all_in_layers", False):
        raise Refusal(f"{type(model).__name__} is a model class of its own, with training steps of its own")
    if not isinstance(model.optimizer, keras.optimizers.Optimizer) or not numbers.is_kerass(model.optimizer):
        raise Refusal(f"{type(model.optimizer).__name__} is not one of Keras's optimisers")
    if isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer):
        raise Refusal("its optimiser is a LossScaleOptimizer, which wraps the one with the numbers")
    if model.optimizer.get_config().get("weight_decay") is not None and (
        getattr(model.optimizer, "_exclude_from_weight_decay", None)
        or getattr(model.optimizer, "_exclude_from_weight_decay_pattern", None)
    ):
        raise Refusal("its optimiser excludes variables from weight decay, which no configuration holds")
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, keras.Model) and type(layer) not in _plain_classes():
            raise Refusal(f"{type(layer).__name__} is a model class of its own inside the model")
        for name, value in vars(layer).items():
            if name not in _WRAPPED:
                _check_function(value, f"{type(layer).__name__}.{name}")
        for part in (layer, *(rule for _, rule in numbers.rules_of(layer))):
            _check_class(part)
            _check_config(part)
    check_rules(model)
    parts = (model._compile_loss and model._compile_loss._user_loss, *_metric_parts(model))
    for part in keras.tree.flatten(parts):
        _check_function(part, "a loss or metric")
        _check_function(getattr(part, "fn", None), "a loss or metric")
        _check_class(part)
        _check_config(part)


def check_rules(model: keras.Model) -> None:
    """A variable's regulariser or constraint that is no attribute of a layer: its numbers are not found."""
    layers = model._flatten_layers(include_self=False)
    held = {id(rule) for layer in layers for _, rule in numbers.rules_of(layer)}
    for variable in model.variables:
        for part in ("regularizer", "constraint"):
            rule = getattr(variable, part, None)
            if rule is not None and id(rule) not in held:
                raise Refusal(f"the {part} of {variable.path} is no attribute of its layer")


@functools.cache
def _plain_classes() -> tuple[type, ...]:
    """Keras's two classes of models made of layers; the functional API's has no public name."""
    place = keras.Input((1,))
    return keras.Sequential, type(keras.Model(place, place))


def _metric_parts(model: keras.Model) -> list[Any]:
    metrics = model._compile_metrics
    return [] if metrics is None else [metrics._user_metrics, metrics._user_weighted_metrics]


def _check_function(value: object, where: str) -> None:
    """Only a function that its name finds again is the same function in another model."""
    if isinstance(value, functools.partial):
        raise Refusal(f"{where} is a partial function, which no configuration can hold")
    if not isinstance(value, FunctionType) or value.__module__.split(".")[0] == "keras":
        return
    if not _is_found(value) or value.__closure__:
        raise Refusal(f"{where} is {value.__qualname__}, a function that is made anew for each model")


def _check_class(part: object) -> None:
    """As with functions: a class made while a model is built may hold that model's settings."""
    for kind in type(part).__mro__ if hasattr(part, "get_config") else ():
        if kind.__module__.split(".")[0] != "keras" and not _is_found(kind):
            raise Refusal(f"{kind.__qualname__} is a class that is made anew for each model")


def _is_found(value: type | FunctionType) -> bool:
    """Whether its name finds it."""
    found: Any = sys.modules.get(value.__module__)
    for part in value.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is value


def _check_config(part: Any) -> None:
    """The twin is made from configurations: a number left out of one would be its default in every lane."""
    if numbers.is_kerass(part) or not hasattr(part, "get_config"):
        return
    config = part.get_config()
    for name, argument in inspect.signature(type(part).__init__).parameters.items():
        named = argument.kind not in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD)
        if named and name not in _OF_BASES and name not in config:
            raise Refusal(f"{type(part).__name__} leaves {name} out of its configuration")
