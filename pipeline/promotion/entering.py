"""A study's better model becomes a version of a registered model; if it beats the present, its champion."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from pipeline.forms import described
from pipeline.promotion import learned, rival
from pipeline.promotion.jury import Jury
from pipeline.secrets import first_line
from pipeline.tasks import user_code
from pipeline.tracking import answering, registry
from pipeline.tracking.models import FORM_FILE, LEARNED_FILE, Servable
from pipeline.tracking.parent import Parent
from pipeline.tracking.registry import CHALLENGER, CHAMPION, Version
from pipeline.values import Answers, Array

_log = logging.getLogger(__name__)

MODEL, REGISTERED = "pipeline.model", "pipeline.registered"

# With fewer rows than these that a model has not learned from, all rows judge it.
_LEAST_UNSEEN = 20


@dataclass(frozen=True)
class Entrant:
    """A logged model of a study: `champion` or `ensemble`, its id, and the model itself.

    scores: on the test rows by metric, for the record: they decide nothing.
    """

    kind: str
    model_id: str
    model: keras.Model
    scores: Mapping[str, float]


def enter(
    parent: Parent,
    name: str,
    entrants: tuple[Entrant, Entrant],
    jury: Jury,
    made_of: str,
    tags: Mapping[str, str],
    folder: Path,
) -> str:
    """Adds the ensemble, or the champion if it validates better, as a version; what happened.

    A run that was ended between this and its own end finds the version that it has added.

    The alias `champion` goes to the first version, and later to a version that beats the present one, both
    scored on this study's validation rows; otherwise the new version is the `challenger`. Where the task has
    raw rows, those that the present one has learned from do not count, as long as 20 others are left.

    Args:
        parent: the study's run.
        name: of the registered model.
        entrants: the ensemble, and the champion.
        jury: what compares.
        made_of: what both are made of, a short text: of the same, the run adds one version only.
        tags: of the version, `pipeline.study` and `pipeline.task` among them.
        folder: exists; for what is fetched.
    """
    if known := registry.entered(parent.client, name, parent.run_id, made_of):
        return _told(parent, name, known)
    answered = [jury.answers(entrant.model) for entrant in entrants]
    scored = [jury.score(found) for found in answered]
    place = 1 if jury.better(scored[1], scored[0]) else 0
    best, value = entrants[place], scored[place]
    metric = f"val_{jury.metric.name}"
    # All that takes time comes first: between a version and its alias nothing should end this.
    alias, why = _place(parent, name, _New(best.model, answered[place]), jury, folder)
    scores = {metric: value, **{f"test_{score}": found for score, found in best.scores.items()}}
    told_of_it = {score: f"{found:.6g}" for score, found in scores.items()}
    number = registry.add(parent, name, best.model_id, made_of, {**tags, MODEL: best.kind, **told_of_it})
    registry.point(parent.client, name, alias, number)
    told = f"{name} version {number} ({best.kind}, {metric} {value:.4f}) is the {alias}: {why}"
    parent.tag({REGISTERED: told})
    return told


def _told(parent: Parent, name: str, known: Version) -> str:
    """What is said of a version that was added before; `enter` may have been ended before it said so."""
    begin = f"{name} version {known.number} ("
    told = parent.tag_of(REGISTERED)
    if not told.startswith(begin):
        alias = min(known.aliases, default="version")
        told = f"{begin}{known.tags.get(MODEL, 'model')}) is the {alias}: it was added before"
        parent.tag({REGISTERED: told})
    return told


@dataclass(frozen=True)
class _New:
    """The new model, and its answers to the validation rows."""

    model: keras.Model
    answers: Answers


def _place(parent: Parent, name: str, new: _New, jury: Jury, folder: Path) -> tuple[str, str]:
    """The new version's alias, and why."""
    present = registry.champion(parent.client, name)
    if present is None:
        return CHAMPION, "there was none"
    try:
        file = registry.fetch(parent, name, present, folder, FORM_FILE)
        told = json.loads(file.read_text(encoding="utf-8"))
        mine = Servable(new.model, jury.data, jury.form)
        other = mine.difference(told)
        if other and (fault := rival.fault(told, mine.told()) if jury.raw else other):
            # Its word numbers, say, are of other words: any score would be wrong.
            return CHALLENGER, f"version {present.number} cannot be compared: {fault}"
        answered = _answers(parent, name, present, jury, folder, encoded=not other)
        unseen = _unseen(parent, name, present, told, jury, folder)
    except Exception as error:  # of the store, of Keras, of the backend: each has a family of its own
        # Nothing that is in use is replaced by what it cannot be compared with.
        _log.warning("register: %s version %s cannot be scored: %s", name, present.number, first_line(error))
        return CHALLENGER, f"version {present.number} cannot be scored: {first_line(error)}"
    known = 0 if unseen is None else int((~unseen).sum())
    some = unseen if unseen is not None and 0 < known <= len(unseen) - _LEAST_UNSEEN else None
    value, there = jury.score(new.answers, some), jury.score(answered, some)
    parent.metrics({f"registered_champion_val_{jury.metric.name}": there})
    rows = _rows_told(jury.rows.rows, known, all_of_them=some is None)
    against = f"{there:.4f} of version {present.number} on {rows}"
    # Of all rows, the new one's score is told beside its name.
    of_some = "" if some is None else f", with {value:.4f},"
    if jury.better(value, there):
        return CHAMPION, f"better{of_some} than {against}"
    return CHALLENGER, f"not better{of_some} than {against}"


def _answers(
    parent: Parent, name: str, present: Version, jury: Jury, folder: Path, *, encoded: bool
) -> Answers:
    """What the present champion says to the validation rows: as the study encoded them, or as they are."""
    if encoded or jury.raw is None:
        return jury.answers(user_code.loaded(registry.fetch(parent, name, present, folder)))
    # Where nothing else is: the whole model comes with it.
    place = folder / "rival"
    place.mkdir()
    served = answering.load_folder(registry.fetch_whole(parent, name, present, place))
    return rival.answers(served, jury.raw(jury.rows), jury.data)


def _unseen(
    parent: Parent, name: str, present: Version, told: Mapping[str, Any], jury: Jury, folder: Path
) -> Array | None:
    """The validation rows that a model has not learned from, (rows,) of bool; None where it is not known."""
    if jury.raw is None or not told.get("learned"):
        return None
    its = np.load(registry.fetch(parent, name, present, folder, LEARNED_FILE))
    # Of the same columns as its own were.
    form = told["form"] if told["form"]["kind"] == "table" else described(jury.form)
    found: Array = ~np.isin(learned.of(jury.raw, jury.rows, jury.data, learned.columns(form)), its)
    return found


def _rows_told(rows: int, known: int, *, all_of_them: bool) -> str:
    if all_of_them:
        return "the same rows" + (f", of which it has learned from {known} of {rows}" if known else "")
    return f"the {rows - known} of {rows} validation rows that it has not learned from"
