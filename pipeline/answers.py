"""What a model answers, as scores read it: probabilities of classes, or numbers, by output."""

from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np

from pipeline.metrics import class_probabilities
from pipeline.values import Answers, Array, Data


def read(model: keras.Model, raw: Any, data: Data) -> Answers:
    """Answers from what `model.predict` gives.

    Args:
        model: compiled; an output whose loss takes logits answers with logits.
        raw: an array, or one for each output, in a list or by name.
        data: says which outputs answer with a class and which with a number.

    Returns:
        (rows, classes) of probabilities, or (rows, 1) of numbers; of several outputs by their names.
    """
    parts = by_name(model, raw)
    links = links_of(model, parts)
    if not data.outputs:
        return class_probabilities(_linked(_numbers(parts[""]), links.get("", "")))
    if list(parts) == [""]:
        # A model of one output answers with an array, whatever the output's name.
        (name,) = data.outputs
        parts, links = {name: parts[""]}, {name: links.get("", "")}
    return {
        name: _read(_numbers(part), data.outputs[name], links.get(name, "")) for name, part in parts.items()
    }


def by_name(model: keras.Model, parts: Any) -> dict[str, Any]:
    """A part for each output, by the output's name; of a model with one output by the name ""."""
    if isinstance(parts, Mapping):
        return dict(parts)
    return (
        dict(zip(model.output_names, parts, strict=True)) if isinstance(parts, list | tuple) else {"": parts}
    )


def links_of(model: keras.Model, names: Iterable[str]) -> dict[str, str]:
    """By the names of outputs, the function that makes probabilities of one, where its loss takes logits."""
    losses, names = getattr(model, "loss", None), list(names)
    if isinstance(losses, list | tuple):
        losses = dict(zip(names if len(losses) == len(names) else model.output_names, losses, strict=True))
    if isinstance(losses, Mapping):
        named = dict(zip(names, losses.values(), strict=True)) if names == [""] else dict(losses)
    else:
        named = dict.fromkeys(names, losses)
    return {name: link for name, loss in named.items() if (link := _link(loss))}


def _link(loss: object) -> str:
    # What its name or a function says has no logits.
    if not isinstance(loss, keras.losses.Loss) or not loss.get_config().get("from_logits"):
        return ""
    one = (keras.losses.BinaryCrossentropy, keras.losses.BinaryFocalCrossentropy)
    return "sigmoid" if isinstance(loss, one) else "softmax"


def _numbers(part: Any) -> Array:
    """An array in a type that every NumPy calculates with, which bfloat16 is not."""
    found = np.asarray(part)
    return found if found.dtype.kind in "biuf" else found.astype(np.float32)


def _read(part: Array, classes: tuple[str, ...], link: str) -> Array:
    return class_probabilities(_linked(part, link)) if classes else part.astype(np.float64)


def _linked(part: Array, link: str) -> Array:
    if not link:
        return part
    part = part.astype(np.float64)
    if link == "sigmoid":
        # Of numbers that are not positive, so that no exponential overflows.
        small = np.exp(-np.abs(part))
        sigmoid: Array = np.where(part >= 0, 1.0, small) / (1.0 + small)
        return sigmoid
    powers = np.exp(part - part.max(axis=-1, keepdims=True))
    softmax: Array = powers / powers.sum(axis=-1, keepdims=True)
    return softmax
