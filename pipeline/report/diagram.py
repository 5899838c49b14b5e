"""What a model looks like: Keras's diagram of it, and its summary."""

import contextlib
from pathlib import Path

import keras


def draw(model: keras.Model, file: Path) -> Path | None:
    """Keras's diagram of the layers with their shapes; None where Graphviz is missing or fails.

    Within a notebook Keras says that it is missing by no exception.
    """
    with contextlib.suppress(ImportError, OSError, AssertionError):
        keras.utils.plot_model(
            model, to_file=str(file), show_shapes=True, show_layer_activations=True, dpi=72
        )
    return file if file.exists() else None


def summary(model: keras.Model) -> str:
    """Keras's summary, a line a layer, those of models within it too."""
    lines: list[str] = []
    model.summary(line_length=100, print_fn=lines.append, expand_nested=True)
    return "\n".join(lines)
