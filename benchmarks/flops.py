"""The arithmetic that training needs: its matrix products and convolutions, counted from the model."""

import math
from typing import Any


def forward(model: Any) -> list[int]:
    """Floating-point operations of a row through each Dense and convolution layer, in order.

    A multiplication with its addition counts as two. What else a model does is little beside these.

    Raises:
        TypeError: a layer with a kernel that is counted differently.
    """
    found = []
    for layer in model.layers:
        kernel = getattr(layer, "kernel", None)
        if kernel is None:
            continue
        if type(layer).__name__ not in ("Dense", "Conv1D", "Conv2D", "Conv3D"):
            raise TypeError(f"no rule for the arithmetic of a {type(layer).__name__} layer")
        # A kernel is applied once for each place of the output.
        places = math.prod(layer.output.shape[1:-1])
        found.append(2 * math.prod(kernel.shape) * places)
    return found


def epoch(model: Any, learn_rows: int, check_rows: int) -> int:
    """Operations of an epoch of one trial: training, and the validation.

    A training step goes forward, and back twice: for the kernel's gradient, and for the input's, which the
    first layer does not need.
    """
    layers = forward(model)
    return learn_rows * (3 * sum(layers) - layers[0]) + check_rows * sum(layers)
