"""What lets a training go on from a checkpoint, whichever engine trains it."""

import importlib
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import keras

from pipeline.engines.checkpoints import Curve, Training
from pipeline.engines.engine import Resumed
from pipeline.values import Budget, Candidate, Data, Objective, Progress


def training(
    engine: str, candidate: Candidate, fold: int, budget: Budget, data: Data, **more: Any
) -> Training:
    """What a checkpoint of a training belongs to; one of anything else says nothing of it.

    engine: fit or lanes. data: of the fold. more: what else its engine trains by, plain values of JSON.
    """
    backend = keras.backend.backend()
    told = {
        "engine": engine,
        "Keras": f"{keras.__version__} on {backend} {importlib.import_module(backend).__version__}",
        "precision": f"{keras.config.floatx()}, {keras.config.dtype_policy().name}",
        "seed": candidate.seed,
        "settings": dict(candidate.settings),
        "budget": {**asdict(budget), "exactly": candidate.epochs},
        "data": {"name": data.name, **data.digests},
        **more,
    }
    # As it will be read: tuples are lists there.
    return Training(candidate.number, fold, json.loads(json.dumps(told)))


def event(number: int, fold: int, curve: Curve, objective: Objective, steps: Callable[[int], int]) -> Resumed:
    """That a training goes on behind this curve. steps: what the optimiser counts after so many epochs."""
    return Resumed(
        number,
        fold,
        tuple(
            Progress(number, fold, epoch, metrics, metrics[objective.metric], steps(epoch + 1))
            for epoch, metrics in enumerate(curve)
        ),
    )
