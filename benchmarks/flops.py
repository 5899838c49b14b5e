"""The arithmetic that training needs: its matrix products and convolutions, counted from the model."""

import math
from typing import Any


def forward(model: Any) -> list[int]:
    """Floating-point operations of a row through each layer that has kernels, in order, at each of its calls.

    A multiplication with its addition counts as two. What else a model does is little beside these. Layers of
    models within it count too; an Embedding looks up and does not count.

    Raises:
        TypeError: a layer with a kernel that is counted differently.
    """
    found: list[int] = []
    for layer in model.layers:
        calls = len(layer._inbound_nodes)
        if hasattr(layer, "layers"):
            found += forward(layer) * calls
        elif operations := _of(layer):
            found += [operations] * calls
    return found


def epoch(model: Any, learn_rows: int, check_rows: int) -> int:
    """Operations of an epoch of one trial: training, and the validation.

    A training step goes forward, and back twice: for the kernel's gradient, and for the input's, which the
    first layer does not need, unless an Embedding made its input.
    """
    layers = forward(model)
    embeds = any(type(layer).__name__ == "Embedding" for layer in model.layers)
    return learn_rows * (3 * sum(layers) - (0 if embeds else layers[0])) + check_rows * sum(layers)


def _of(layer: Any) -> int:
    """Of one call; 0 of a layer without a kernel."""
    kind = type(layer).__name__
    if kind == "LSTM":
        steps, cell = layer._inbound_nodes[0].input_tensors[0].shape[1], layer.cell
        return int(2 * (math.prod(cell.kernel.shape) + math.prod(cell.recurrent_kernel.shape)) * steps)
    kernels = [
        kernel
        for name in ("kernel", "depthwise_kernel", "pointwise_kernel")
        if (kernel := getattr(layer, name, None)) is not None
    ]
    if not kernels:
        return 0
    if kind not in ("Dense", "Conv1D", "Conv2D", "Conv3D", "SeparableConv1D", "SeparableConv2D"):
        raise TypeError(f"no rule for the arithmetic of a {kind} layer")
    # A kernel is applied once for each place of the output.
    places = math.prod(layer._inbound_nodes[0].outputs[0].shape[1:-1])
    return sum(2 * math.prod(kernel.shape) * places for kernel in kernels)
