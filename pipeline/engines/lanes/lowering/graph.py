"""How the layers of a model are connected."""

from typing import Any

import keras


def outputs(model: Any) -> set[int]:
    """The identities of what the model gives, and the models within it."""
    parts = model._flatten_layers(include_self=True)
    return {id(output) for part in parts if isinstance(part, keras.Model) for output in part.outputs}


def before(layer: Any) -> Any:
    """What feeds a layer that is called once, on one tensor."""
    return layer.input._keras_history.operation


def only_feeds_one(layer: Any, outputs: set[int]) -> bool:
    """Whether it is called once, and one other layer alone uses what it gives.

    outputs: of `outputs`.
    """
    once = len(layer._inbound_nodes) == len(layer._outbound_nodes) == 1
    return once and id(layer.output) not in outputs
