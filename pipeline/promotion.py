"""Which model of a study enters the registry, and whether it becomes the champion there."""

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import keras

from pipeline import answers
from pipeline.forms import Form
from pipeline.metrics import score_of
from pipeline.secrets import first_line
from pipeline.tasks import user_code
from pipeline.tracking import registry
from pipeline.tracking.models import FORM_FILE, Servable
from pipeline.tracking.parent import Parent
from pipeline.tracking.registry import CHALLENGER, CHAMPION
from pipeline.values import Data, Metric

_log = logging.getLogger(__name__)
_BATCH_ROWS = 2048

MODEL, REGISTERED = "pipeline.model", "pipeline.registered"


@dataclass(frozen=True)
class Entrant:
    """A logged model of a study: `champion` or `ensemble`, its id, and the model itself.

    scores: on the test rows by metric, for the record: they decide nothing.
    """

    kind: str
    model_id: str
    model: keras.Model
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Jury:
    """Scores models on the study's validation rows: the test rows decide nothing. form: of these rows."""

    data: Data
    metric: Metric
    form: Form

    def score(self, model: keras.Model) -> float:
        inputs = self.data.validation.inputs
        given = dict(inputs) if isinstance(inputs, Mapping) else inputs
        raw = model.predict(given, batch_size=_BATCH_ROWS, verbose=0)
        return score_of(self.metric, self.data.validation.targets, answers.read(model, raw, self.data))

    def better(self, one: float, other: float) -> bool:
        """Whether a score is above another; one that is no number is above none."""
        if math.isnan(other):
            return not math.isnan(one)
        return one > other if self.metric.direction == "maximize" else one < other


def enter(
    parent: Parent,
    name: str,
    entrants: tuple[Entrant, Entrant],
    jury: Jury,
    tags: Mapping[str, str],
    folder: Path,
) -> str:
    """Adds the ensemble, or the champion if it validates better, as a version; what happened.

    The alias `champion` goes to the first version, and later to a version that beats the present one, both
    scored on this study's validation rows; otherwise the new version is the `challenger`.

    Args:
        parent: the study's run.
        name: of the registered model.
        entrants: the ensemble, and the champion.
        jury: what compares.
        tags: of the version, `pipeline.study` and `pipeline.task` among them.
        folder: exists; for what is fetched.
    """
    ensemble, champion = ((entrant, jury.score(entrant.model)) for entrant in entrants)
    best, value = champion if jury.better(champion[1], ensemble[1]) else ensemble
    metric = f"val_{jury.metric.name}"
    # All that takes time comes first: between a version and its alias nothing should end this.
    alias, why = _place(parent, name, best.model, value, jury, folder)
    scores = {metric: value, **{f"test_{score}": found for score, found in best.scores.items()}}
    told_of_it = {score: f"{found:.6g}" for score, found in scores.items()}
    number = registry.add(parent, name, best.model_id, {**tags, MODEL: best.kind, **told_of_it})
    registry.point(parent.client, name, alias, number)
    told = f"{name} version {number} ({best.kind}, {metric} {value:.4f}) is the {alias}: {why}"
    parent.tag({REGISTERED: told})
    return told


def _place(
    parent: Parent, name: str, model: keras.Model, value: float, jury: Jury, folder: Path
) -> tuple[str, str]:
    """The new version's alias, and why."""
    present = registry.champion(parent.client, name)
    if present is None:
        return CHAMPION, "there was none"
    try:
        told = registry.fetch(parent, name, present, folder, FORM_FILE)
        if Servable(model, jury.data, jury.form).differs(json.loads(told.read_text(encoding="utf-8"))):
            # Its word numbers, say, are of other words: any score would be wrong.
            return CHALLENGER, f"version {present.number} takes other rows, and cannot be compared"
        there = jury.score(user_code.loaded(registry.fetch(parent, name, present, folder)))
    except Exception as error:  # of the store, of Keras, of the backend: each has a family of its own
        # Nothing that is in use is replaced by what it cannot be compared with.
        _log.warning("register: %s version %s cannot be scored: %s", name, present.number, first_line(error))
        return CHALLENGER, f"version {present.number} cannot be scored: {first_line(error)}"
    parent.metrics({f"registered_champion_val_{jury.metric.name}": there})
    against = f"{there:.4f} of version {present.number} on the same rows"
    if jury.better(value, there):
        return CHAMPION, f"better than {against}"
    return CHALLENGER, f"not better than {against}"
