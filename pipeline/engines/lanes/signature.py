"""Which models may share a program: those whose configurations are equal once the lane numbers are masked.

Masked, or left out, is what a lane has of its own: its numbers, its initial weights (and so initialisers and
seeds), and the names that Keras counts up. Everything else makes another program.
"""

import functools
import hashlib
import inspect
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import keras
import numpy as np

from pipeline.engines.lanes import numbers, tables
from pipeline.engines.lanes.refusal import Refusal

_MASK = "a lane number"
# Of Keras's own layers, which make nothing but their variables of them.
_OWN = re.compile(r"(^|_)(initializer|seed)$")
_NOTHING = re.compile(r"(?!)")
# What names layers in configurations.
_NAMES = ("name", "layer", "keras_history", "input_layers", "output_layers")
# Arguments of Keras's base classes, which a configuration may leave out.
_OF_BASES = ("self", "name", "dtype", "reduction", "trainable")
# Methods that Keras wraps anew in each layer.
_WRAPPED = ("build", "quantize")


@dataclass(frozen=True)
class Signature:
    """digest: equal for models that may share a program. number: the same in 32 bits, for row orders."""

    digest: str

    @property
    def number(self) -> int:
        return int(self.digest[:8], 16)


def of_model(model: keras.Model, *more: object, own_tables: bool) -> Signature:
    """The signature of a compiled and built model.

    Args:
        model: any; its numbers do not matter.
        more: what else makes another program, such as the batch size.
        own_tables: whether each lane has tables of its own, so that they do not matter either.

    Raises:
        Refusal: lanes cannot take the model.
    """
    try:
        check(model)
        content = _content(model)
    except Refusal:
        raise
    except Exception as error:
        # Configurations are written by whoever wrote the layer or the loss.
        first_line = (str(error).strip() or "no message").splitlines()[0]
        raise Refusal(f"its configuration cannot be read: {type(error).__name__}: {first_line}") from error
    content["tables"] = None if own_tables else tables.digest(tables.of_model(model))
    content["more"] = [repr(part) for part in more]
    return Signature(hashlib.sha256(_text(content).encode()).hexdigest())


def check_equal(twin: keras.Model, plain: keras.Model) -> None:
    """Compares a twin with its model, but for what a lane has of its own.

    A layer that makes others from its numbers makes other ones in the twin.

    Raises:
        Refusal: they differ.
    """
    check_rules(twin)
    ours, theirs = (_content(model) for model in (twin, plain))
    # A clone counts the calls of a layer anew.
    for part in ours.keys() - {"wiring"}:
        if _text(ours[part]) != _text(theirs[part]):
            raise Refusal(f"no equal model can be made from its configuration: the {part} would differ")


def _text(content: object) -> str:
    return json.dumps(content, sort_keys=True, default=_other)


def _other(part: object) -> str:
    """What JSON does not know. NumPy would leave out the middle of a long array."""
    return tables.digest([np.asarray(part)]) if hasattr(part, "__array__") else repr(part)


def _content(model: keras.Model) -> dict[str, Any]:
    names = _names(model)
    layers = frozenset(layer.name for layer in model._flatten_layers())
    return {
        "wiring": [
            _structure(_listed_apart(one.get_config(), layers), names)
            for one in model._flatten_layers()
            if isinstance(one, keras.Model)
        ],
        "layers": [_layer(layer, names, layers) for layer in model._flatten_layers(include_self=False)],
        # No configuration holds it where a variable alone is frozen.
        "trainable variables": [weight.trainable for weight in model.weights],
        "optimizer": _optimizer(model.optimizer),
        "compile": _compile(model, names),
    }


def check(model: keras.Model) -> None:
    """Refuses what lanes cannot take, as far as a look at the model tells.

    Raises:
        Refusal: with the reason.
    """
    if type(model) not in _plain_classes():
        raise Refusal(f"{type(model).__name__} is a model class of its own, with training steps of its own")
    if not getattr(model, "compiled", False) or model.optimizer is None:
        raise Refusal("the model is not compiled")
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


def _names(model: keras.Model) -> dict[str, str]:
    """By each layer's name, the name it has in the signature: Keras counts up those that nobody chose."""
    found: dict[str, str] = {}
    layers = model._flatten_layers()
    # Arithmetic between layers, such as a mask's comparison, has counted names as well.
    steps = [step for layer in layers for step in getattr(layer, "operations", ())]
    for place, layer in enumerate((*layers, *steps)):
        # A Bidirectional makes two layers of its one.
        kind = keras.src.utils.naming.to_snake_case(type(layer).__name__)
        if isinstance(layer, keras.layers.InputLayer):
            # A clone has the name of the tensor.
            kind = "(input_layer|keras_tensor)"
        counted = re.fullmatch(rf"(forward_|backward_)?{kind}(_\d+)?", layer.name)
        found.setdefault(layer.name, f"layer {place}" if counted else layer.name)
    return found


def _listed_apart(node: Any, layers: frozenset[str]) -> Any:
    """A configuration with layers by name only, as each stands in the list of layers by itself.

    Operations, such as a clipping between two layers, stand here alone.
    """
    if isinstance(node, dict):
        config = node.get("config")
        if "class_name" in node and isinstance(config, dict) and config.get("name") in layers:
            kept = {key: value for key, value in node.items() if key not in ("config", "build_config")}
            return {**_listed_apart(kept, layers), "layer": config["name"]}
        return {key: _listed_apart(value, layers) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_listed_apart(value, layers) for value in node]
    return node


def _structure(
    node: Any, names: Mapping[str, str], left_out: re.Pattern[str] = _NOTHING, *, name: bool = False
) -> Any:
    """A configuration with the signature's names, without how it was built, and what else is left out.

    name: whether the strings of the node are layers' names: an activation may be called as a layer is.
    """
    if isinstance(node, dict):
        return {
            str(key): _structure(value, names, left_out, name=key in _NAMES)
            for key, value in node.items()
            if not left_out.search(str(key)) and key != "build_config"
        }
    if isinstance(node, list | tuple):
        return [_structure(value, names, left_out, name=name) for value in node]
    return names.get(node, node) if name and isinstance(node, str) else node


def _layer(layer: keras.Layer, names: Mapping[str, str], names_of_layers: frozenset[str]) -> Any:
    if isinstance(layer, keras.Model):
        return _class(layer)
    config = dict(layer.get_config())
    masked = numbers.names_of(layer)
    config.update(dict.fromkeys(masked, _MASK))
    # A recurrent layer's configuration repeats its cell's rules, which are the cell's lane numbers.
    for part, rule in (*numbers.rules_of(layer), *numbers.rules_of(getattr(layer, "cell", None))):
        # Some keep what their configuration names under a name of their own.
        key = part if part in config else part.lstrip("_")
        if key in config:
            config[key] = [_class(rule), _masked(rule.get_config(), numbers.names_of(rule))]
    if isinstance(layer, keras.layers.Normalization):
        config.update(dict.fromkeys(("mean", "variance"), "a table"))
    left_out = _OWN if numbers.is_kerass(layer) else _NOTHING
    return [_class(layer), _structure(_listed_apart(config, names_of_layers), names, left_out)]


def _optimizer(optimizer: keras.optimizers.Optimizer) -> Any:
    config = _masked(optimizer.get_config(), ("learning_rate", *numbers.optimizer_names(optimizer)))
    del config["name"]
    return [_class(optimizer), config]


def _compile(model: keras.Model, names: Mapping[str, str]) -> Any:
    config = dict(model.get_compile_config())
    config.pop("optimizer", None)
    config["loss_weights"] = keras.tree.map_structure(
        lambda weight: _MASK if isinstance(weight, int | float) else weight, config.get("loss_weights")
    )
    return _structure(_without_smoothing(config), names)


def _without_smoothing(node: Any) -> Any:
    """Label smoothing masked in the losses; metrics keep theirs, as they are no lane numbers."""

    def masked(part: Any) -> Any:
        if isinstance(part, dict):
            return {
                key: _MASK if key == "label_smoothing" and isinstance(value, int | float) else masked(value)
                for key, value in part.items()
            }
        return [masked(value) for value in part] if isinstance(part, list | tuple) else part

    return {key: masked(value) if key == "loss" else value for key, value in node.items()}


def _masked(config: Mapping[str, Any], names: tuple[str, ...] | list[str]) -> dict[str, Any]:
    return {**config, **dict.fromkeys(names, _MASK)}


def _class(part: object) -> str:
    return f"{type(part).__module__}.{type(part).__qualname__}"
