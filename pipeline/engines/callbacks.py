"""What a trial keeps besides its model, where its engine has it: Keras's own callbacks, and activations.

The files lie in a folder of the trial as its record keeps them: `tensorboard/`, `checkpoint.keras`,
`activations.npz`. What needs no model, the record writes of the trial's curves.
"""

import functools
import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from pipeline.engines import rows
from pipeline.engines.engine import CHECKPOINT_FILE, EVENTS_FOLDER
from pipeline.values import Array, Budget, Split

TENSORBOARD, CHECKPOINT, ACTIVATIONS = "tensorboard", "checkpoint", "activations"
ACTIVATIONS_FILE = "activations.npz"

# Numbers of a layer, and of a trial's whole file (4 MB): more is neither looked at nor quickly written.
_MOST_OF_A_LAYER, _MOST_OF_A_TRIAL = 10_000, 1_000_000
# Rows of an embedding that TensorBoard's projector still draws at once.
_MOST_POINTS = 10_000


class Activations(NamedTuple):
    """What layers answer to a row: outputs by name, and the layers whose output is too large to keep.

    A layer that is called several times, or that answers with several arrays, has its later ones as
    `name:1` and so on.
    """

    outputs: Mapping[str, Array]
    left_out: tuple[str, ...]


def first_row(split: Split, model: keras.Model) -> Any:
    """The inputs of a split's first row as the model takes them, (1, ...)."""
    return rows.for_keras(split.take(np.arange(1)), model)[0]


def activations(model: keras.Model, inputs: Any) -> Activations:
    """What each of the model's layers answers to one row, outside of training.

    Args:
        model: of any kind; its `layers` are noted, not what they hold themselves.
        inputs: one row, (1, ...).
    """
    found: dict[str, Array] = {}
    left_out: list[str] = []
    calls: Counter[str] = Counter()

    def note(layer: keras.Layer, answer: Any) -> None:
        for part in keras.tree.flatten(answer):
            if part is None:
                continue
            name = f"{layer.name}:{calls[layer.name]}" if calls[layer.name] else str(layer.name)
            calls[layer.name] += 1
            output = _plain(keras.ops.convert_to_numpy(part))
            if output.size > _MOST_OF_A_LAYER:
                left_out.append(f"{name} {output.shape}")
            else:
                found[name] = output

    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    before = [vars(layer).get("call") for layer in layers]
    for layer in layers:
        layer.call = _noted(layer, note)
    try:
        model(inputs, training=False)
    finally:
        for layer, own in zip(layers, before, strict=True):
            if own is None:
                del layer.call
            else:
                layer.call = own
    return Activations(found, tuple(left_out))


def save_activations(by_epoch: Mapping[int, Activations], folder: Path) -> None:
    """Writes `activations.npz` into a folder, which need not exist.

    It has `layer/<name>` of each layer's outputs, (epochs, ...), `epochs`, their numbers from 0, and
    `left_out`, texts with names and shapes.

    Args:
        by_epoch: of one epoch or more, all of one model and row.
        folder: of the trial.
    """
    epochs = sorted(by_epoch)
    first = by_epoch[epochs[0]]
    arrays: dict[str, Any] = {
        f"layer/{name}": np.stack([by_epoch[epoch].outputs[name] for epoch in epochs])
        for name in first.outputs
    }
    folder.mkdir(parents=True, exist_ok=True)
    left_out = np.array(first.left_out, dtype=str)
    np.savez_compressed(folder / ACTIVATIONS_FILE, epochs=np.array(epochs), left_out=left_out, **arrays)


class ForFit:
    """What one training by `model.fit` keeps.

    `callbacks` go before those that lead the learning rate, so that they see the rate of the epoch; `finish`
    comes after the training.

    Args:
        keeps: of `tensorboard`, `checkpoint` and `activations`. Event files only on TensorFlow.
        folder: of the trial, or of its fold; made if something is kept.
        model: compiled.
        budget: of the trial, whose monitor says which epoch is the best.
        validation: whose first row's activations are kept.
    """

    def __init__(
        self, keeps: Collection[str], folder: Path, model: keras.Model, budget: Budget, validation: Split
    ) -> None:
        self.callbacks: list[keras.callbacks.Callback] = []
        self._folder, self._model = folder, model
        self._row = first_row(validation, model) if keeps else None
        self._events = TENSORBOARD in keeps and writes_events()
        self._embeddings = [layer for layer in model.layers if isinstance(layer, keras.layers.Embedding)]
        self._activations: _Activations | None = None
        if self._events:
            board = keras.callbacks.TensorBoard(
                folder / EVENTS_FOLDER,
                histogram_freq=1,
                write_graph=True,
                # Keras would write the whole model after each epoch; see `_show_embeddings`.
                embeddings_freq=0,
            )
            self.callbacks.append(board)
        if CHECKPOINT in keeps:
            self.callbacks.append(
                keras.callbacks.ModelCheckpoint(
                    folder / CHECKPOINT_FILE, monitor=budget.monitor, mode=budget.mode, save_best_only=True
                )
            )
        if ACTIVATIONS in keeps:
            self._activations = _Activations(self._row)
            self.callbacks.append(self._activations)

    def finish(self, best_epoch: int | None) -> None:
        """Writes what only the trained model has. best_epoch: whose weights it has now, if any."""
        if self._events:
            # TensorBoard's run of the trial, whichever folder above it is opened.
            run = self._folder / EVENTS_FOLDER / "train"
            _show_graph(self._model, self._row, run)
            _show_embeddings(self._embeddings, run)
        if self._activations:
            self._activations.save(best_epoch, self._folder)


def writes_events() -> bool:
    """Whether Keras's TensorBoard callback needs nothing but what Keras runs on."""
    return bool(keras.backend.backend() == "tensorflow")


class _Activations(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """Keeps a row's activations after each epoch; of a long training, of every second, fourth, … one."""

    def __init__(self, inputs: Any) -> None:
        super().__init__()
        self._inputs = inputs
        self._every = 1
        self._found: dict[int, Activations] = {}

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        if epoch % self._every:
            return
        found = activations(self.model, self._inputs)
        self._found[epoch] = found
        size = sum(output.size for output in found.outputs.values())
        while size * len(self._found) > _MOST_OF_A_TRIAL and len(self._found) > 1:
            self._every *= 2
            self._found = {epoch: kept for epoch, kept in self._found.items() if epoch % self._every == 0}

    def save(self, best_epoch: int | None, folder: Path) -> None:
        if best_epoch is not None and best_epoch not in self._found:
            self._found[best_epoch] = activations(self.model, self._inputs)
        if self._found:
            save_activations(self._found, folder)


def _noted(layer: keras.Layer, note: Callable[[keras.Layer, Any], None]) -> Callable[..., Any]:
    call = layer.call

    @functools.wraps(call)
    def noted(*args: Any, **kwargs: Any) -> Any:
        answer = call(*args, **kwargs)
        note(layer, answer)
        return answer

    return noted


def _plain(output: Array) -> Array:
    """A row's output without the axis of rows, in a type that every NumPy reads."""
    output = output[0] if output.shape[:1] == (1,) else output
    return output if output.dtype.kind in "biuf" else output.astype(np.float32)


def _show_graph(model: keras.Model, row: Any, folder: Path) -> None:
    """Adds TensorFlow's graph of the model.

    Keras 3 writes the graph of its layers alone, and TensorBoard opens the other one first.
    """
    import tensorflow as tf

    batch = keras.tree.map_structure(lambda part: tf.TensorSpec((None, *part.shape[1:]), part.dtype), row)
    answer = tf.function(lambda inputs: model(inputs, training=False)).get_concrete_function(batch)
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default():
        tf.summary.graph(answer.graph)
    writer.close()


def _show_embeddings(layers: Collection[keras.Layer], folder: Path) -> None:
    """Lets TensorBoard's projector find the vectors; their first rows, if they are many.

    Keras's own notes for it name a TensorFlow checkpoint, which Keras 3 does not write.
    """
    notes = []
    for layer in layers:
        vectors = keras.ops.convert_to_numpy(layer.embeddings)[:_MOST_POINTS]
        np.savetxt(folder / f"{layer.name}.tsv", vectors, fmt="%.6g", delimiter="\t")
        name, file = json.dumps(layer.name), json.dumps(f"{layer.name}.tsv")
        notes.append(f"embeddings {{ tensor_name: {name} tensor_path: {file} }}\n")
    if notes:
        (folder / "projector_config.pbtxt").write_text("".join(notes), encoding="utf-8")
