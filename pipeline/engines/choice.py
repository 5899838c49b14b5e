"""Which engine trains, by what was asked for and what Keras runs on."""

import contextlib
import logging
import math
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras

from pipeline.engines import backend, callbacks, precision
from pipeline.engines.checkpoints import Checkpoints
from pipeline.engines.engine import Engine
from pipeline.engines.fit import FitEngine
from pipeline.errors import UserError
from pipeline.tasks.task import OwnFit, Task
from pipeline.values import Budget, Data, Objective, Settings, Split

_log = logging.getLogger(__name__)

_OWN_FIT = "has a fit of its own, which lanes cannot run"


@dataclass(frozen=True)
class Order:
    """What is to be trained, for any engine.

    name: auto, lanes or fit. folds: the data of each, one for training without folds. whole: the split that
    folds are taken from, else None. lanes: of a program, None to choose. seed: the study's. trials: as
    many as there will be, at most. keeps: what a trial keeps besides its model, by the names of
    the parameter `callbacks`, of which an engine does its part. own_orders: whether lanes see their rows each
    in an order that derives from its own seed, as trainings by fit do. own_fit: the task's own training.
    until: when the study is ended, on `time.monotonic()`. precision: what layers compute with, see
    `precision.building`. checkpoints: from which trials go on that were interrupted; None to keep none.
    """

    name: str
    build: Callable[[Settings, Data], keras.Model]
    folds: Sequence[Data]
    whole: Split | None
    budget: Budget
    objective: Objective
    lanes: int | None
    seed: int
    trials: int
    keeps: Collection[str] = ()
    own_orders: bool = False
    own_fit: OwnFit | None = None
    until: float = math.inf
    precision: str = precision.FULL
    checkpoints: Checkpoints | None = None


def name_of(asked: str) -> str:
    """What `asked` comes down to: lanes, or fit, which auto takes where Keras does not run on JAX."""
    if asked != "auto":
        return asked
    return "lanes" if keras.backend.backend() == "jax" else "fit"


def described(asked: str, computed: str = precision.FULL) -> str:
    """The engine in words, with what it runs on, and what layers compute with where that is not float32."""
    library, lanes = keras.backend.backend(), name_of(asked) == "lanes"
    found = f"{name_of(asked)} on {library}, {backend.devices(every=lanes)}"
    if computed != precision.FULL:
        found += f", {computed}"
    return found if lanes or asked != "auto" else f"{found}, as lanes need jax"


def draws_weights(asked: str) -> bool:
    """Whether event files show weights and graph: Keras needs TensorFlow for it, and `model.fit`."""
    return name_of(asked) == "fit" and callbacks.writes_events()


def check(asked: str, task: Task) -> None:
    """Raises UserError where the engine cannot train the task at all."""
    if asked == "lanes" and task.fit is not None:
        raise UserError(f"engine=lanes: {task.name} {_OWN_FIT}; use engine=fit")


@contextlib.contextmanager
def opened(order: Order, within: Path | None = None) -> Iterator[Engine]:
    """The engine, with a folder for the models it makes until they are fetched; for a block.

    within: where that folder is made, on the disk to which they are moved; the system's if None.
    """
    with (
        tempfile.TemporaryDirectory(prefix="regatta-", dir=within) as folder,
        contextlib.closing(_make(order, Path(folder))) as engine,
    ):
        yield engine


def _make(order: Order, folder: Path) -> Engine:
    # Here, for every engine and for whatever is trained, and nowhere else.
    build = precision.building(order.build, order.precision)

    def fit(*, alone: bool) -> FitEngine:
        return FitEngine(
            build,
            order.folds,
            order.budget,
            order.objective,
            folder,
            alone=alone,
            keeps=order.keeps,
            own=order.own_fit,
            checkpoints=order.checkpoints,
        )

    if name_of(order.name) == "fit":
        return fit(alone=True)
    if order.own_fit is not None:
        _log.warning("trials train by fit: the task %s", _OWN_FIT)
        return fit(alone=True)
    # Late: JAX is not needed, and may not be there, for fit.
    from pipeline.engines.auto import AutoEngine
    from pipeline.engines.lanes.engine import LanesEngine

    lanes = LanesEngine(
        build,
        order.folds,
        order.whole,
        order.budget,
        order.objective,
        folder,
        lanes=order.lanes,
        seed=order.seed,
        trials=order.trials,
        keeps=order.keeps,
        fit_if_faster=order.name == "auto",
        own_orders=order.own_orders,
        until=order.until,
        checkpoints=order.checkpoints,
    )
    return AutoEngine(lanes, fit(alone=False) if order.name == "auto" else None)
