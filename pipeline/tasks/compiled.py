"""What a compiled model of a person's own learns, and the metrics that a study needs beside its own."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from pipeline import answers
from pipeline.datasets.arrays import Inputs
from pipeline.datasets.goals import PREDICTION, Goal, Kind
from pipeline.metrics import CLASSIFICATION
from pipeline.source import Problem
from pipeline.tasks import blocks
from pipeline.values import Metric

REGRESSION = (Metric("mse", "minimize", output=PREDICTION), Metric("mae", "minimize", output=PREDICTION))

# By the names of Keras's functions.
_KINDS: Mapping[str, Kind] = {
    "sparse_categorical_crossentropy": "classes",
    "categorical_crossentropy": "one_hot",
    "categorical_focal_crossentropy": "one_hot",
    "kl_divergence": "one_hot",
    "binary_crossentropy": "sigmoid",
    "binary_focal_crossentropy": "sigmoid",
    "mean_squared_error": "numbers",
    "mean_absolute_error": "numbers",
    "mean_absolute_percentage_error": "numbers",
    "mean_squared_logarithmic_error": "numbers",
    "log_cosh": "numbers",
    "huber": "numbers",
    "poisson": "numbers",
}
_SEVERAL = "its model has several outputs, for which a task of your own must load a Data"


def learns_numbers(model: keras.Model, problem: Problem) -> bool:
    """Whether a compiled model learns numbers, and no classes; it need not be built.

    Raises:
        ValueError: its loss does not tell, or does not go with `problem`.
    """
    return _kind(model.loss, 2, problem) == "numbers"


def built_by(model: keras.Model, some: Inputs) -> bool:
    """Builds a model that waits for rows by some of them; whether it did, and so takes rows of any shape."""
    if model.built and getattr(model, "inputs", None):
        return False
    inputs = some if isinstance(some, np.ndarray) else dict(some)
    model(keras.tree.map_structure(keras.ops.convert_to_tensor, inputs))
    return True


def goal_of(model: keras.Model, problem: Problem, *, any_shape: bool) -> Goal:
    """What a compiled and built model learns, by its loss and its output; of an unknown loss by `problem`.

    any_shape: whether its inputs have shapes only of the rows that it has seen.

    Raises:
        ValueError: they do not tell, or do not go together.
    """
    shape = model.output_shape
    if not isinstance(shape, tuple) or any(isinstance(part, tuple | list) for part in shape):
        raise ValueError(_SEVERAL)
    if len(shape) != 2 or shape[-1] is None:
        raise ValueError(f"its model must answer with (rows, units), but answers with {shape}")
    units = int(shape[-1])
    kind = _kind(model.loss, units, problem)
    if kind == "sigmoid" and units > 1:
        raise ValueError(
            f"its loss is a binary cross-entropy of {units} units, whose answers are no probabilities of"
            " classes; use categorical_crossentropy"
        )
    if kind in ("classes", "one_hot") and units < 2:
        raise ValueError("its loss is of several classes, but its output has one unit")
    inputs = getattr(model, "inputs", None) or []
    names = [""] if len(inputs) == 1 else [str(tensor.name) for tensor in inputs]
    shapes = {name: tuple(tensor.shape[1:]) for name, tensor in zip(names, inputs, strict=True)}
    return Goal(kind, units, {} if any_shape else shapes)


def metrics_of(kind: Kind) -> tuple[Metric, ...]:
    """What can be scored of a model's answers."""
    return REGRESSION if kind == "numbers" else CLASSIFICATION


def with_metrics(model: keras.Model, kind: Kind) -> keras.Model:
    """The model, compiled with accuracy and log loss, or mse and mae, beside what it was compiled with.

    A metric of its own that has such a name stays.

    Raises:
        ValueError: its class has a `compile` of its own, which need not know of metrics.
    """
    given = dict(model._compile_config.config)
    own = [metric for metric in keras.tree.flatten(given["metrics"]) if metric is not None]
    there = {_logged(metric) for metric in own}
    missing = [metric for metric in _metrics(kind, model) if metric.name not in there]
    if not missing:
        return model
    if type(model).compile is not keras.Model.compile:
        names = " and ".join(metric.name for metric in missing)
        raise ValueError(
            f"{type(model).__name__} has a compile of its own, so it must have metrics called {names} itself"
        )
    model.compile(**{**given, "optimizer": model.optimizer, "metrics": [*own, *missing]})
    return model


def check_kept(model: keras.Model) -> None:
    """Saves a model and loads it again, as a study does with each of its models.

    Raises:
        ValueError: it cannot be loaded, as with a layer that says too little of itself.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.keras"
        try:
            # As it is after training.
            model.optimizer.build(model.trainable_variables)
            model.save(file)
            keras.models.load_model(file, safe_mode=False)
        except Exception as error:
            # Keras repeats whole configurations.
            said = str(error).strip().partition("\n")[0][:200]
            raise ValueError(
                f"its model cannot be saved and loaded again: {type(error).__name__}: {said}; layers, losses"
                " and metrics of your own need get_config, and must stand in a file, not in a function"
            ) from error


def _kind(losses: object, units: int, problem: Problem) -> Kind:
    loss, *others = keras.tree.flatten(losses) or [None]
    if others:
        raise ValueError(_SEVERAL)
    name = _keras_name(loss)
    if name in _KINDS:
        kind = _KINDS[name]
        if problem != "auto" and (kind == "numbers") != (problem == "regression"):
            raise ValueError(f"its loss is {name}, which does not go with problem={problem}")
        return kind
    if problem == "auto":
        raise ValueError(
            f"its loss, {name or loss}, does not tell whether it learns classes or numbers; give"
            " problem=classification or problem=regression"
        )
    if problem == "regression":
        return "numbers"
    return "classes" if units > 1 else "sigmoid"


def _keras_name(loss: Any) -> str:
    """The name of Keras's function that a loss is, empty if it is none of Keras's."""
    found = keras.losses.get(loss) if isinstance(loss, str) else loss
    # A loss object of Keras's holds its function.
    function = getattr(found, "fn", found)
    of_keras = str(getattr(function, "__module__", "")).split(".")[0] == "keras"
    return str(getattr(function, "__name__", "")) if of_keras else ""


def _logged(metric: Any) -> str:
    """The name that Keras logs a metric by."""
    if isinstance(metric, str):
        return metric
    return str(getattr(metric, "name", None) or getattr(metric, "__name__", ""))


def _metrics(kind: Kind, model: keras.Model) -> list[keras.metrics.Metric]:
    logits = bool(answers.links_of(model, [""]))
    match kind:
        case "numbers":
            return [
                keras.metrics.MeanSquaredError(name="mse"),
                keras.metrics.MeanAbsoluteError(name="mae"),
            ]
        case "one_hot":
            return [
                keras.metrics.CategoricalAccuracy(name="accuracy"),
                keras.metrics.CategoricalCrossentropy(name="log_loss", from_logits=logits),
            ]
        case "sigmoid":
            return blocks.metrics_of(1, logits=logits)
        case _:
            return [
                keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
                keras.metrics.SparseCategoricalCrossentropy(name="log_loss", from_logits=logits),
            ]
