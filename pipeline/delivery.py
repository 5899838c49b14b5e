"""What leaves a study: champion and ensemble as Keras files, as MLflow models, and in other formats."""

import contextlib
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from pipeline import exports
from pipeline.engines import precision
from pipeline.errors import RunError
from pipeline.evaluation.findings import Score
from pipeline.exports import Exporting
from pipeline.forms import Form
from pipeline.tracking import models
from pipeline.tracking.models import Servable
from pipeline.tracking.parent import Parent
from pipeline.values import Data

_log = logging.getLogger(__name__)

_FOLDER = "exports"
DELIVERED = ("champion", "ensemble")


@dataclass(frozen=True)
class Delivery:
    """Where to, and what the models are asked with.

    folder: exists; for files on their way. metadata: kept with each MLflow model, JSON values.
    judged: the models as validation rows can judge them, where the models have learned from those.
    learned: the file that tells which rows they, or those, have learned from, where that is known.
    """

    parent: Parent
    data: Data
    form: Form
    folder: Path
    metadata: Mapping[str, Any]
    judged: Mapping[str, keras.Model] | None = None
    learned: Path | None = None

    @contextlib.contextmanager
    def saved(self, made: Mapping[str, keras.Model], export: Sequence[str]) -> Iterator[None]:
        """Saves the models' files; the ensemble's other formats are made meanwhile, and saved at the end."""
        for name in DELIVERED:
            made[name].save(self._file(name))
            self.parent.file(self._file(name), "models")
        self._forget()
        if not export:
            yield
            return
        exporting = self._begin(made["ensemble"], export)
        try:
            yield
            for done in exporting.finished():
                self.parent.file(done.place, _FOLDER)
                self.parent.metrics({f"export_{done.name}_difference": done.difference})
        finally:
            exporting.stop()

    def log(
        self, made: Mapping[str, keras.Model], scores: Mapping[str, Mapping[str, Score]]
    ) -> dict[str, str]:
        """Logs the MLflow models; their ids by name. scores: of the test rows, by model, then by metric."""
        return {
            name: models.log(
                self.parent,
                name,
                Servable(made[name], self.data, self.form),
                self._file(name),
                self.folder,
                {**self.metadata, "scores": {score: found.value for score, found in scores[name].items()}},
                self._judged(name),
                self.learned,
            )
            for name in DELIVERED
        }

    def _forget(self) -> None:
        """Takes away what an ensemble that was made before was exported as."""
        try:
            self.parent.remove(_FOLDER)
        except RunError as error:
            _log.warning("exports: those of the ensemble before are still there: %s", error)
        before = self.parent.metric_names()
        self.parent.metrics({name: math.nan for name in before if name.startswith("export_")})

    def _begin(self, ensemble: keras.Model, export: Sequence[str]) -> Exporting:
        inputs = Servable(ensemble, self.data, self.form).inputs
        answered = ensemble.predict(inputs.get("", inputs), verbose=0)
        parts = [np.asarray(part) for part in keras.tree.flatten(answered)]
        narrow = precision.is_narrow(ensemble)
        folder = self.folder / "exports"
        return exports.begin(self._file("ensemble"), export, inputs, parts, folder, narrow=narrow)

    def _judged(self, name: str) -> Path | None:
        if self.judged is None:
            return None
        file = self.folder / f"{name}_judged.keras"
        self.judged[name].save(file)
        return file

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.keras"
