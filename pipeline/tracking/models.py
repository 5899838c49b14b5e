"""Full MLflow models: what is served, its signature, an input example, pinned requirements."""

import base64
import importlib.metadata
import io
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import mlflow.pyfunc
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec
from mlflow.types.schema import AnyType

from pipeline import answers
from pipeline.carried import encoding, pictures, words
from pipeline.errors import RunError
from pipeline.forms import Columns, Form, Pictures, Table, Texts, described
from pipeline.secrets import first_line
from pipeline.tasks import user_code
from pipeline.tracking import served
from pipeline.tracking.parent import Parent
from pipeline.values import Array, Data

MODEL_FILE, JUDGED_FILE, FORM_FILE, LEARNED_FILE = "model.keras", "judged.keras", "form.json", "learned.npy"
_EXAMPLE_ROWS = 3

# By the kind of a form, the module that reads its rows, which the model carries along.
_CARRIED: Mapping[type, ModuleType] = {Pictures: pictures, Table: encoding, Texts: words}

# What a Keras model needs to load and predict, by the backend it was made on.
_BACKENDS = {"tensorflow": ("tensorflow",), "jax": ("jax",), "torch": ("torch",)}


@dataclass(frozen=True)
class Servable:
    """A finished model with what turns a person's rows into its answers.

    model: as it was trained; an output whose loss takes logits is answered as probabilities. data: its rows,
    for their shapes, types and class names. form: of what it is asked with.
    """

    model: keras.Model
    data: Data
    form: Form

    @property
    def inputs(self) -> dict[str, Array]:
        """Some rows as the model takes them, by input name; of the only input by the name ""."""
        rows = self.data.validation
        some = rows.take(np.arange(min(_EXAMPLE_ROWS, rows.rows))).inputs
        return dict(some) if isinstance(some, Mapping) else {"": some}

    @property
    def outputs(self) -> dict[str, tuple[str, ...]]:
        """The classes of each output by its name, none of a number; of the only output by the name ""."""
        return dict(self.data.outputs) or {"": self.data.classes}

    @property
    def example(self) -> Any:
        """A few rows in the model's form."""
        inputs = self.inputs
        match self.form:
            case Columns(names):
                return pd.DataFrame(inputs[""].astype(np.float64), columns=list(names))
            case Table(example=rows):
                return pd.DataFrame([dict(row) for row in rows], dtype=object)
            case Texts(example=example, column=column):
                return pd.DataFrame({column: [example]})
            case Pictures(white, _, column):
                return pd.DataFrame(
                    {name or column: [_png(row, white) for row in rows] for name, rows in inputs.items()}
                )
            case _:
                return inputs.get("", inputs)

    def told(self) -> dict[str, Any]:
        """What `served.py` reads: JSON values."""
        links = answers.links_of(self.model, self.outputs)
        return {
            "backend": keras.backend.backend(),
            "form": described(self.form),
            "inputs": [
                {"name": name, "shape": list(rows.shape[1:]), "dtype": str(rows.dtype)}
                for name, rows in self.inputs.items()
            ],
            "outputs": [
                {"name": name, "classes": list(classes), "link": links.get(name, "")}
                for name, classes in self.outputs.items()
            ],
        }

    def difference(self, told: Mapping[str, Any]) -> str:
        """How a model that tells this takes other inputs or gives other answers; empty if it does not."""
        mine = json.loads(json.dumps(self.told()))
        forms = [{**one["form"], "example": ""} for one in (mine, told)]
        answered = [[(out["name"], out["classes"]) for out in one["outputs"]] for one in (mine, told)]
        if forms[0] != forms[1] or mine["inputs"] != told["inputs"]:
            return "it takes other inputs"
        return "it answers with other outputs or classes" if answered[0] != answered[1] else ""

    def signature(self) -> ModelSignature:
        """The columns or tensors that it takes, and the columns it answers with."""
        inputs = self.inputs
        match self.form:
            case Columns(names):
                taken = [ColSpec("double", name) for name in names]
            case Table():
                # A cell is a number, a text or nothing, and each is read as its column's rule says.
                taken = [ColSpec(AnyType(), name) for name in self.form.columns]
            case Texts(column=column):
                taken = [ColSpec("string", column)]
            case Pictures(column=column):
                # A file's bytes, the same as base64, or pixels: no type of MLflow's holds them all.
                taken = [ColSpec(AnyType(), name or column) for name in inputs]
            case _:
                taken = [
                    TensorSpec(rows.dtype, (-1, *rows.shape[1:]), name or None)
                    for name, rows in inputs.items()
                ]
        given = [
            spec
            for name, classes in self.outputs.items()
            for spec in _answered(f"{name}_" if name else "", name or "prediction", classes)
        ]
        return ModelSignature(inputs=Schema(taken), outputs=Schema(given))

    @property
    def carried(self) -> dict[str, str]:
        """The file that the model carries along to read its rows, by its artifact's name, if it has one."""
        module = _CARRIED.get(type(self.form))
        return {"carried": str(module.__file__)} if module else {}

    def requirements(self) -> list[str]:
        """Pinned, and no more than it needs; MLflow adds itself."""
        packages = ["keras", "numpy", "pandas", *_BACKENDS.get(keras.backend.backend(), ())]
        if isinstance(self.form, Pictures):
            packages.append("pillow")
        return [f"{package}=={importlib.metadata.version(package)}" for package in packages]


def log(
    parent: Parent,
    name: str,
    servable: Servable,
    file: Path,
    folder: Path,
    metadata: Mapping[str, Any],
    judged: Path | None = None,
    learned: Path | None = None,
) -> str:
    """Logs a model under the parent run; its id.

    Args:
        parent: the run.
        name: the logged model's name.
        servable: what it takes and answers.
        file: the model's `.keras` file.
        folder: exists; for what is made on the way.
        metadata: kept with the model, JSON values.
        judged: the file of the model that validation rows can judge, where it has learned from those.
        learned: the file `LEARNED_FILE`, which tells what rows it has learned from, where that is known.
    """
    # MLflow keeps the files under their own names.
    kept = folder / f"{name}_served"
    kept.mkdir()
    shutil.copy(file, kept / MODEL_FILE)
    if judged:
        shutil.copy(judged, kept / JUDGED_FILE)
    held = user_code.held_by(file)
    told = {**servable.told(), "modules": held.modules, "functions": held.functions}
    told["learned"] = learned is not None
    (kept / FORM_FILE).write_text(json.dumps(told), encoding="utf-8")
    # The requirements are given, so MLflow need not import the model in a process of its own to guess them;
    # its warning that they then go unchecked says nothing new.
    for talking in ("mlflow.models.model", "mlflow.pyfunc"):
        logging.getLogger(talking).setLevel(logging.ERROR)
    try:
        # Made here, as MLflow would put a model logged from outside of an active run into another experiment.
        logged = parent.client.create_logged_model(parent.experiment_id, name, source_run_id=parent.run_id)
        Model.log(
            artifact_path=None,
            name=name,
            model_id=logged.model_id,
            flavor=mlflow.pyfunc,
            run_id=parent.run_id,
            python_model=served.__file__,
            artifacts={
                "model": str(kept / MODEL_FILE),
                "form": str(kept / FORM_FILE),
                **({"judged": str(kept / JUDGED_FILE)} if judged else {}),
                **({"learned": str(learned)} if learned else {}),
                **servable.carried,
            },
            signature=servable.signature(),
            input_example=servable.example,
            metadata=dict(metadata),
            pip_requirements=sorted({*servable.requirements(), *held.packages}),
            code_paths=[str(place) for place in held.places] or None,
        )
    except (OSError, MlflowException) as error:
        raise RunError(f"the model cannot be logged: {first_line(error)}") from error
    return str(logged.model_id)


def _answered(begin: str, number: str, classes: tuple[str, ...]) -> list[ColSpec]:
    if not classes:
        return [ColSpec("double", number)]
    return [
        ColSpec("string", f"{begin}class"),
        *(ColSpec("double", f"{begin}probability_{name}") for name in classes),
    ]


def _png(pixels: Array, white: float) -> str:
    """A picture as a PNG file in base64, as JSON carries it."""
    from PIL import Image

    bright = np.rint(pixels * (255.0 / white)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(np.squeeze(bright, -1) if bright.shape[-1] == 1 else bright).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
