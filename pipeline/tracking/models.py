"""Full MLflow models: signature, input example, pinned requirements."""

import importlib.metadata
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import mlflow.keras
import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from pipeline.errors import RunError
from pipeline.secrets import first_line
from pipeline.tracking.parent import Parent
from pipeline.values import Array

# What a Keras model needs to load and predict, by the backend it was made on.
_BACKENDS = {"tensorflow": ("tensorflow",), "jax": ("jax",), "torch": ("torch",)}


def log(
    parent: Parent,
    name: str,
    model: keras.Model,
    example: Array | Mapping[str, Array],
    answer: Array | Mapping[str, Array],
) -> str:
    """Logs the model under the parent run; its URI.

    Args:
        parent: the run.
        name: the logged model's name.
        model: any Keras model.
        example: a few rows of input, (rows, ...); of several inputs by name.
        answer: the model's predictions of them; of several outputs by name.
    """
    signature = ModelSignature(inputs=_schema(example), outputs=_schema(answer))
    packages = ("keras", "numpy", *_BACKENDS.get(keras.backend.backend(), ()))
    # The requirements are given, so MLflow need not import the model in a process of its own to guess them;
    # its warning that they then go unchecked says nothing new.
    logging.getLogger("mlflow.models.model").setLevel(logging.ERROR)
    # Made here, as MLflow would put a model logged from outside of an active run into another experiment.
    logged = parent.client.create_logged_model(parent.experiment_id, name, source_run_id=parent.run_id)
    info = _log(
        artifact_path=None,
        name=name,
        model_id=logged.model_id,
        flavor=_KerasFlavor(),
        run_id=parent.run_id,
        model=model,
        signature=signature,
        input_example=example,
        validate_serving_input=False,
        pip_requirements=[f"{package}=={importlib.metadata.version(package)}" for package in packages],
    )
    return str(info.model_uri)


def _log(**arguments: Any) -> Any:
    try:
        return Model.log(**arguments)
    except (OSError, MlflowException) as error:
        raise RunError(f"the model cannot be logged: {first_line(error)}") from error


class _KerasFlavor:
    """MLflow's flavor for Keras 3, which needs the folder of an input example to be there (MLflow 16183)."""

    __name__ = "mlflow.keras"

    @staticmethod
    def save_model(path: str, **arguments: Any) -> None:
        # Told to `Model.log`, which hands all arguments on: the example came out of this very model.
        del arguments["validate_serving_input"]
        Path(path).mkdir(exist_ok=True)
        mlflow.keras.save_model(path=path, **arguments)


def _schema(rows: Array | Mapping[str, Array]) -> Schema:
    if isinstance(rows, Mapping):
        return Schema(
            [TensorSpec(np.dtype(part.dtype), (-1, *part.shape[1:]), name) for name, part in rows.items()]
        )
    return Schema([TensorSpec(np.dtype(rows.dtype), (-1, *rows.shape[1:]))])
