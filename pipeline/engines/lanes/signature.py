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

from pipeline.engines.lanes import numbers, tables
from pipeline.engines.lanes.refusal import Refusal

_MASK = "a lane number"
_OWN = re.compile(r"(^|_)(initializer|seed)$")
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
    text = json.dumps(content, sort_keys=True, default=repr)
    return Signature(hashlib.sha256(text.encode()).hexdigest())


def _content(model: keras.Model) -> dict[str, Any]:
    names = _names(model)
    return {
        "model": _structure(model.get_config(), names),
        "layers": [_layer(layer, names) for layer in model._flatten_layers(include_self=False)],
        # No configuration holds it where a variable alone is frozen.
        "trainable": [weight.trainable for weight in model.weights],
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
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, keras.Model) and type(layer) not in _plain_classes():
            raise Refusal(f"{type(layer).__name__} is a model class of its own inside the model")
        for name, value in vars(layer).items():
            if name not in _WRAPPED:
                _check_function(value, f"{type(layer).__name__}.{name}")
        for part in (layer, *(rule for _, rule in numbers.rules_of(layer))):
            _check_config(part)
    parts = (model._compile_loss and model._compile_loss._user_loss, *_metric_parts(model))
    for part in keras.tree.flatten(parts):
        _check_function(part, "a loss or metric")
        _check_function(getattr(part, "fn", None), "a loss or metric")
        _check_config(part)


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
    found: Any = sys.modules.get(value.__module__)
    for part in value.__qualname__.split("."):
        found = getattr(found, part, None)
    if found is not value or value.__closure__:
        raise Refusal(f"{where} is {value.__qualname__}, a function that is made anew for each model")


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
        counted = re.fullmatch(rf"(forward_|backward_)?{kind}(_\d+)?", layer.name)
        found.setdefault(layer.name, f"layer {place}" if counted else layer.name)
    return found


def _structure(node: Any, names: Mapping[str, str]) -> Any:
    """A configuration with layers by name only, as each stands in the list of layers by itself."""
    if isinstance(node, dict):
        layer = "class_name" in node and isinstance(node.get("config"), dict)
        if layer and node["config"].get("name") in names:
            kept = {key: value for key, value in node.items() if key not in ("config", "build_config")}
            kept["layer"] = node["config"]["name"]
            node = kept
        return {
            str(key): _structure(value, names)
            for key, value in node.items()
            if not _OWN.search(str(key)) and key != "build_config"
        }
    if isinstance(node, list | tuple):
        return [_structure(value, names) for value in node]
    return names.get(node, node) if isinstance(node, str) else node


def _layer(layer: keras.Layer, names: Mapping[str, str]) -> Any:
    if isinstance(layer, keras.Model):
        return type(layer).__name__
    config = dict(layer.get_config())
    masked = numbers.names_of(layer)
    config.update(dict.fromkeys(masked, _MASK))
    # A recurrent layer's configuration repeats its cell's rules, which are the cell's lane numbers.
    for part, rule in (*numbers.rules_of(layer), *numbers.rules_of(getattr(layer, "cell", None))):
        if part in config:
            config[part] = [_class(rule), _masked(rule.get_config(), numbers.names_of(rule))]
    if isinstance(layer, keras.layers.Normalization):
        config.update(dict.fromkeys(("mean", "variance"), "a table"))
    return [_class(layer), _structure(config, names)]


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
