"""What MLflow serves: raw rows in, class names and probabilities out. This file is logged with each model.

It runs without this project, from the model's folder, with `model.keras` and `form.json` beside it, and the
file of `pipeline/carried` that reads the form's rows, if it has one (see `forms.py` and `models.py`); so it
imports what the model's pinned requirements bring and nothing else. A row that cannot be read is an error
that names it, which MLflow's server answers with 400.
"""

import importlib
import importlib.machinery
import json
import os
import sys
import threading
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel

# Rows go through the model in few sizes, as JAX compiles it for each; the last rows are repeated to fill one.
_SIZES = (1, 16, 128, 1024)
_MOST_BYTES = 64 * 2**20


class Served(PythonModel):  # type: ignore[misc]  # MLflow has no types
    """A finished model behind its form."""

    def load_context(self, context: Any) -> None:
        """Loads the model on the backend it was made on, unless the process has another."""
        with open(context.artifacts["form"], encoding="utf-8") as file:
            self.told = json.load(file)
        if "keras" not in sys.modules:
            os.environ.setdefault("KERAS_BACKEND", self.told["backend"])
            os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        import keras

        self._model = keras.saving.load_model(
            context.artifacts["model"],
            custom_objects=_of_modules(self.told.get("modules", ())),
            compile=False,
            # Its own functions came with this file, which is code as well.
            safe_mode=not self.told.get("functions"),
        )
        form = self.told["form"]
        carried = _module(context.artifacts["carried"]) if "carried" in context.artifacts else None
        self._read = _READERS[form["kind"]](form, self.told["inputs"], carried)
        # A server answers in several threads, and Keras's models keep state while they predict.
        self._lock = threading.Lock()

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Answers to rows in the model's form: a table, or of the form `arrays` an array or several by name.

        The type of the rows is said as MLflow reads it, which takes other types for schemas.

        Returns:
            Of an output with classes the columns `class` and `probability_<class>`, of a number `prediction`;
            of several outputs each begins with the output's name: `gender_class`, and `age` of a number.

        Raises:
            MlflowException: a row cannot be read; it says which, and why.
        """
        rows = _number_of_rows(model_input)
        parts = [
            self._answers(self._read(some, begin)) for begin, some in self._in_batches(model_input, rows)
        ]
        answered = [np.concatenate(column) for column in zip(*parts, strict=True)]
        columns: dict[str, Any] = {}
        for output, part in zip(self.told["outputs"], answered, strict=True):
            columns |= _columns(output, part)
        index = model_input.index if isinstance(model_input, pd.DataFrame) else None
        return pd.DataFrame(columns, index=index)

    def _in_batches(self, given: Any, rows: int) -> Iterator[tuple[int, Any]]:
        """Some rows at a time, so that few are there as the model's inputs; of no rows, none once.

        Before them stands the number of their first one.
        """
        bytes_of_row = sum(
            int(np.prod(one["shape"])) * np.dtype(one["dtype"]).itemsize for one in self.told["inputs"]
        )
        largest = max(size for size in _SIZES if size == 1 or size * bytes_of_row <= _MOST_BYTES)
        for begin in range(0, max(rows, 1), largest):
            some = slice(begin, begin + largest)
            if isinstance(given, dict):
                yield begin, {name: array[some] for name, array in given.items()}
            else:
                yield begin, given.iloc[some] if isinstance(given, pd.DataFrame) else given[some]

    def _answers(self, inputs: dict[str, Any]) -> list[Any]:
        """Of each output; rows are filled up to one of the sizes, and cut off again."""
        rows = len(next(iter(inputs.values())))
        size = next(size for size in _SIZES if size >= rows)
        with self._lock:
            answered = self._model.predict_on_batch(_given(_filled(inputs, rows, size)))
        parts = [np.asarray(part)[:rows] for part in self._in_order(answered)]
        # Of a model that answers with bfloat16, which NumPy has not.
        return [part if part.dtype.kind in "biuf" else part.astype(np.float32) for part in parts]

    def _in_order(self, answered: Any) -> list[Any]:
        if isinstance(answered, Mapping):
            return [answered[output["name"]] for output in self.told["outputs"]]
        return list(answered) if isinstance(answered, list | tuple) else [answered]


def _number_of_rows(given: Any) -> int:
    if not isinstance(given, dict):
        return len(given)
    rows = {name: len(array) for name, array in given.items()}
    if len(set(rows.values())) > 1:
        # The model would be asked with rows that do not belong together.
        told = ", ".join(f"{name}: {number}" for name, number in rows.items())
        raise _refuse(f"the inputs must have the same number of rows, but have {told}")
    return next(iter(rows.values()))


def _of_modules(names: Iterable[str]) -> dict[str, Any]:
    """Classes and functions of modules that came with the model, by their names."""
    found: dict[str, Any] = {}
    for name in names:
        members = vars(importlib.import_module(name))
        found |= {key: value for key, value in members.items() if getattr(value, "__module__", "") == name}
    return found


def _filled(inputs: dict[str, Any], rows: int, size: int) -> dict[str, Any]:
    """The last row repeated up to the size; of no rows one is made up: the model tells its answers' shape."""
    if not rows:
        return {name: np.zeros((1, *array.shape[1:]), array.dtype) for name, array in inputs.items()}
    numbers = np.minimum(np.arange(size), rows - 1)
    return {name: array[numbers] for name, array in inputs.items()}


def _given(inputs: dict[str, Any]) -> Any:
    return inputs[""] if list(inputs) == [""] else inputs


def _columns(output: Mapping[str, Any], part: Any) -> dict[str, Any]:
    """The columns of one output's answers."""
    begin = f"{output['name']}_" if output["name"] else ""
    part = part.astype(np.float64)
    classes = output["classes"]
    if not classes:
        return {output["name"] or "prediction": part[:, 0]}
    part = _LINKS[output["link"]](part)
    if part.shape[1] == 1:
        part = np.concatenate([1.0 - part, part], axis=1)
    named = {f"{begin}probability_{name}": part[:, place] for place, name in enumerate(classes)}
    return {f"{begin}class": np.asarray(classes, dtype=object)[part.argmax(axis=1)], **named}


def _sigmoid(part: Any) -> Any:
    small = np.exp(-np.abs(part))
    return np.where(part >= 0, 1.0, small) / (1.0 + small)


def _softmax(part: Any) -> Any:
    powers = np.exp(part - part.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


_LINKS: dict[str, Callable[[Any], Any]] = {"": lambda part: part, "sigmoid": _sigmoid, "softmax": _softmax}


def _refuse(fault: str, row: object = None) -> MlflowException:
    """The error for a row, by its label in the table's index where it has one."""
    error = MlflowException(
        fault if row is None else f"row {row}, {fault}", error_code=INVALID_PARAMETER_VALUE
    )
    error.row = row
    return error


class _Unwritten(importlib.machinery.SourceFileLoader):
    """Loads a module, and leaves no compiled file in the model's folder."""

    def set_data(self, *_: Any, **__: Any) -> None:
        pass


def _module(file: str) -> Any:
    """The module of a file that the model carries along; each model has its own."""
    module = types.ModuleType("carried")
    _Unwritten(module.__name__, file).exec_module(module)
    return module


# Readers: of a form, the model's inputs (name, shape and dtype of each), and the module that it carries,
# rows -> arrays by input name. A fault names its row by the label in a table's index, and of arrays by the
# number, which goes on from that of the first row, the second argument.

Reader = Callable[[Any, int], dict[str, Any]]


def _arrays(form: Mapping[str, Any], inputs: list[dict[str, Any]], _: Any) -> Reader:
    def read(rows: Any, begin: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for one in inputs:
            array = np.asarray(rows[one["name"]] if one["name"] else rows, dtype=one["dtype"])
            words = form["words"].get(one["name"])
            if words is not None and array.size and not (array.min() >= 0 and array.max() < words):
                row = int(np.argmax(((array < 0) | (array >= words)).any(axis=1)))
                raise _refuse(
                    f"{one['name'] or 'input'}: word numbers must be 0 to {words - 1}, but"
                    f" {array[row].min()} to {array[row].max()} are there",
                    begin + row,
                )
            found[one["name"]] = array
        return found

    return read


def _table(form: Mapping[str, Any], inputs: list[dict[str, Any]], _: Any) -> Reader:
    def read(rows: Any, _: int) -> dict[str, Any]:
        _check_fields(rows)
        table = rows[list(form["names"])].to_numpy(np.float64)
        with np.errstate(over="ignore"):
            cast = table.astype(inputs[0]["dtype"])
        bad = np.argwhere(~np.isfinite(cast))
        if len(bad):
            row, column = bad[0]
            raise _refuse(
                f"{form['names'][column]}: must be a finite number, but is {table[row, column]}",
                rows.index[row],
            )
        return {"": cast}

    return read


def _own_table(form: Mapping[str, Any], inputs: list[dict[str, Any]], encoding: Any) -> Reader:
    def read(rows: Any, _: int) -> dict[str, Any]:
        _check_fields(rows)
        try:
            found = encoding.encode(form["rules"], rows)
        except encoding.CellError as error:
            raise _refuse(str(error), error.row) from None
        return found if len(inputs) > 1 else {inputs[0]["name"]: next(iter(found.values()))}

    return read


def _check_fields(rows: Any) -> None:
    """So pandas reads a CSV file whose rows have a field more than its heading."""
    if rows.index.inferred_type == "floating":
        raise _refuse(
            "the rows have more fields than there are names: each field would be taken for the next"
        )


def _texts(form: Mapping[str, Any], inputs: list[dict[str, Any]], words: Any) -> Reader:
    numbers = {word: number for number, word in enumerate(form["words"]) if number >= form["marks"]}
    shape, dtype = inputs[0]["shape"], inputs[0]["dtype"]
    encode = words.number if form["length"] else words.multi_hot

    def read(rows: Any, _: int) -> dict[str, Any]:
        column = rows[form["column"]]
        found = np.zeros((len(column), *shape), dtype)
        for out, (row, text) in zip(found, column.items(), strict=True):
            if not isinstance(text, str):
                raise _refuse(f"{form['column']}: must be a text, but is {_kind(text)}", row)
            encode(words.words(text, form["rule"]), numbers, form["start"], form["rare"], out)
        return {"": found}

    return read


def _kind(cell: Any) -> str:
    return "missing" if pd.api.types.is_scalar(cell) and pd.isna(cell) else type(cell).__name__


def _pictures(form: Mapping[str, Any], inputs: list[dict[str, Any]], pictures: Any) -> Reader:
    def picture(given: Any, one: Mapping[str, Any], column: str, row: object) -> Any:
        try:
            return pictures.picture(given, form, one)
        except ValueError as error:
            raise _refuse(f"{column}: {error}", row) from None

    def read(rows: Any, _: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for one in inputs:
            column = one["name"] or form["column"]
            made = [picture(given, one, column, row) for row, given in rows[column].items()]
            pixels = np.stack(made) if made else np.zeros((0, *one["shape"]))
            found[one["name"]] = pictures.cast(pixels, one["dtype"])
        return found

    return read


_READERS: dict[str, Callable[[Mapping[str, Any], list[dict[str, Any]], Any], Reader]] = {
    "arrays": _arrays,
    "columns": _table,
    "table": _own_table,
    "texts": _texts,
    "pictures": _pictures,
}

# How MLflow finds the model in this file.
mlflow.models.set_model(Served())
