"""A finished model out of MLflow, as `served.py` answers."""

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import get_model_info

from pipeline.engines.backend import hushed
from pipeline.errors import UserError
from pipeline.secrets import first_line, redacted
from pipeline.tracking.connection import connect


class RowError(Exception):
    """A row cannot be read; the message says which, and why. row: its label in the rows' index."""

    def __init__(self, message: str, row: object) -> None:
        super().__init__(message)
        self.row = row


class Answering:
    """A loaded model. told: what it says of its form, inputs and outputs. Made by `load`."""

    def __init__(self, model: Any, told: Mapping[str, Any]) -> None:
        self._model = model
        self.told = told

    def answer(self, rows: Any) -> pd.DataFrame:
        """Answers to rows in the model's form, with their index.

        Raises:
            RowError: a row cannot be read.
        """
        try:
            found: pd.DataFrame = self._model.predict(rows)
        except MlflowException as error:
            raise RowError(error.message, getattr(error, "row", None)) from None
        return found


def load(uri: str) -> Answering:
    """The model that an MLflow model URI names, such as `models:/NAME@champion`.

    Raises:
        UserError: there is no such model, or it was not made by this pipeline.
    """
    connect()
    return _load(uri)


def load_folder(folder: Path) -> Answering:
    """The model whose files lie in a folder, as MLflow keeps one.

    Raises:
        UserError: it cannot be loaded.
    """
    return _load(str(folder))


def _load(uri: str) -> Answering:
    # `NAME@champion` looks like a password and a host.
    shown = uri if uri.startswith(("models:/", "runs:/")) else redacted(uri)
    # It warns of each package whose version differs from the model's pins.
    logging.getLogger("mlflow.utils.requirements_utils").setLevel(logging.ERROR)
    try:
        with hushed(), warnings.catch_warnings(action="ignore"):
            # Loading runs a model's code and reads its pickles, so only what says that it is ours is loaded.
            model = mlflow.pyfunc.load_model(uri) if _is_ours(get_model_info(uri).flavors) else None
    except Exception as error:  # of each kind of store's own family, and of Keras for a damaged file
        raise UserError(f"model: {shown}: cannot be loaded: {first_line(error)}") from None
    try:
        told = None if model is None else model.unwrap_python_model().told
    except (MlflowException, AttributeError):
        told = None
    if told is None:
        raise UserError(f"model: {shown}: was not made by this pipeline; use `mlflow models predict`")
    return Answering(model, told)


def _is_ours(flavors: Mapping[str, Any]) -> bool:
    """Whether a model is served by a file as `served.py` and tells its form."""
    served = flavors.get("python_function", {})
    code = str(served.get("model_code_path", "")).replace("\\", "/").rpartition("/")[2]
    return code == "served.py" and {"form", "model"} <= set(served.get("artifacts") or ())
