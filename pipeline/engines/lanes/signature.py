"""Which models may share a program: those whose configurations are equal once the lane numbers are masked.

Masked, or left out, is what a lane has of its own: its numbers, its initial weights (and so initialisers and
seeds), and the names that Keras counts up. Everything else makes another program.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from pipeline.engines.lanes import checks, numbers, tables
from pipeline.engines.lanes.refusal import Refusal

_MASK = "a lane number"
# Of Keras's own layers, which make nothing but their variables of them.
_OWN = re.compile(r"(^|_)(initializer|seed)$")
_NOTHING = re.compile(r"(?!)")
# What names layers in configurations.
_NAMES = ("name", "layer", "keras_history", "input_layers", "output_layers")


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
        checks.check(model)
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
    checks.check_rules(twin)
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
