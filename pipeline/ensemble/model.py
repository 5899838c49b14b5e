"""An ensemble as one ordinary Keras model, in one file."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from pipeline import answers


def as_model(members: Sequence[tuple[keras.Model, float]], name: str = "ensemble") -> keras.Model:
    """One ordinary Keras model that answers with the weighted mean of its members' answers.

    Only layers of Keras's own are used, so the saved file opens wherever Keras is installed. The members
    become parts of it and take new names. Inputs and outputs have the members' names and structure; an output
    of logits becomes one of probabilities, as only those can be averaged.
    """
    first = members[0][0]
    given = first.inputs[0] if isinstance(first, keras.Sequential) else first.input
    inputs = keras.tree.map_structure(_input_like, given)
    parts: dict[str, list[Any]] = {}
    for place, (member, weight) in enumerate(members):
        # Trials of one task share one model name, and a model's parts must differ in theirs.
        member.name = f"member_{place}"
        answered = member(inputs, training=False)
        named = answers.by_name(member, answered)
        links = answers.links_of(member, named)
        for output, part in named.items():
            called = f"{place}_{output}" if output else str(place)
            parts.setdefault(output, []).append(_weighted(part, weight, links.get(output, ""), called))
    means = {output: _mean(column, output or "mean") for output, column in parts.items()}
    # By name where they have names: a tree flattens those in an order of its own.
    outputs = (
        means
        if isinstance(answered, Mapping)
        else keras.tree.pack_sequence_as(answered, list(means.values()))
    )
    return keras.Model(inputs, outputs, name=name)


def _input_like(tensor: Any) -> Any:
    return keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=tensor.name)


def _weighted(part: Any, weight: float, link: str, name: str) -> Any:
    if link:
        part = keras.layers.Activation(link, name=f"{link}_{name}")(part)
    return keras.layers.Rescaling(weight, name=f"weight_{name}")(part)


def _mean(weighted: list[Any], name: str) -> Any:
    if len(weighted) == 1:
        return keras.layers.Identity(name=name)(weighted[0])
    return keras.layers.Add(name=name)(weighted)
