"""What the lanes' tests share: small data, both engines run to their end, and one program driven by hand."""

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import wait
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import keras
import numpy as np

from pipeline.engines import rows
from pipeline.engines.checkpoints import Checkpoints
from pipeline.engines.engine import Resumed
from pipeline.engines.fit import FitEngine
from pipeline.engines.lanes import devices
from pipeline.engines.lanes.engine import LanesEngine, Refused
from pipeline.engines.lanes.plan import Plan, Report
from pipeline.engines.lanes.state import State
from pipeline.engines.lanes.streamed import program_of
from pipeline.engines.lanes.twin import Twin, Values
from pipeline.seeds import derived
from pipeline.values import (
    Array,
    Budget,
    Candidate,
    Data,
    FoldScore,
    Objective,
    Outcome,
    Progress,
    SealedSplit,
    Settings,
    Split,
)

Build = Callable[[Settings, Data], keras.Model]
OBJECTIVE = Objective("val_loss", "minimize")
# A trial hangs, rather than fails, where the engine waits for what never comes.
_PATIENCE_SECONDS = 300.0


def budget(**changed: object) -> Budget:
    """One that neither stops early nor lowers the rate, unless changed."""
    values: dict = {
        "epochs": 3,
        "monitor": "val_loss",
        "mode": "min",
        "patience": 1000,
        "min_delta": 0.0,
        "plateau_factor": 0.5,
        "plateau_patience": 1000,
        "plateau_min_delta": 1e-4,
        "plateau_cooldown": 0,
        "plateau_floor": 0.0,
    }
    return Budget(**{**values, **changed})


def data_of(train: Split, validation: Split, classes: int = 3) -> Data:
    """Data from its two splits."""
    names = tuple(str(number) for number in range(classes))
    return Data("made up", "made up", names, train, validation, SealedSplit(validation), {})


def blobs(train: int = 60, validation: int = 30, features: int = 4, classes: int = 3, seed: int = 0) -> Data:
    """Classes around points of their own that overlap."""
    rng = np.random.default_rng(seed)

    def split(count: int) -> Split:
        targets = rng.permutation(np.arange(count) % classes).astype(np.int32)
        inputs = rng.normal(size=(count, features)) + targets[:, None]
        return Split(inputs.astype(np.float32), targets)

    return data_of(split(train), split(validation), classes)


SETTINGS = {
    "learning_rate": 0.01,
    "batch_size": 16,
    "shuffle": True,
    "dropout": 0.0,
    "bn_momentum": 0.9,
    "l1": 0.0,
    "l2": 0.0,
    "max_norm": 3.0,
    "units": 8,
}


def mlp(settings: Settings, data: Data) -> keras.Model:
    """A small classifier with every kind of lane number."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input(data.train.inputs.shape[1:]),
            layers.Dense(
                settings["units"],
                activation="relu",
                kernel_regularizer=keras.regularizers.L1L2(l1=settings["l1"], l2=settings["l2"]),
                kernel_constraint=keras.constraints.MaxNorm(settings["max_norm"]),
            ),
            layers.BatchNormalization(momentum=settings["bn_momentum"]),
            layers.Dropout(settings["dropout"]),
            layers.Dense(len(data.classes), activation="softmax"),
        ]
    )
    model.compile(
        keras.optimizers.Adam(settings["learning_rate"]),
        "sparse_categorical_crossentropy",
        metrics=[
            keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
            keras.metrics.SparseCategoricalCrossentropy(name="log_loss"),
        ],
    )
    return model


@dataclass
class Trial:
    """What an engine told of a trial, its curves by fold."""

    curves: dict[int, list[dict[str, float]]] = field(default_factory=dict)
    scores: dict[int, float] = field(default_factory=dict)
    outcome: Outcome | None = None
    refused: str = ""
    resumed: int = 0

    @property
    def curve(self) -> list[dict[str, float]]:
        return self.curves.get(0, [])

    def of(self, name: str) -> list[float]:
        return [metrics[name] for metrics in self.curve]


def note(trials: dict[int, Trial], events: Iterable[object]) -> int:
    """Files events under their trials; how many trials ended."""
    ended = 0
    for event in events:
        trial = trials.setdefault(event.number, Trial())
        match event:
            case Progress():
                assert event.epoch == len(trial.curves.setdefault(event.fold, []))
                trial.curves[event.fold].append(dict(event.metrics))
            case Resumed():
                note(trials, event.before)
                trial.resumed += len(event.before)
            case FoldScore():
                trial.scores[event.fold] = event.value
            case Outcome():
                assert trial.outcome is None, "a trial ends once"
                trial.outcome, ended = event, ended + 1
            case Refused():
                trial.refused, ended = event.reason, ended + 1
    return ended


def lanes_engine(
    build: Build,
    data: Data | Sequence[Data],
    limits: Budget,
    folder: Path,
    lanes: int,
    *,
    seed: int = 0,
    whole: Split | None = None,
    objective: Objective = OBJECTIVE,
    own_orders: bool = False,
    memory: float | None = None,
    checkpoints: Checkpoints | None = None,
) -> LanesEngine:
    folds = [data] if isinstance(data, Data) else data
    return LanesEngine(
        build,
        folds,
        whole,
        limits,
        objective,
        folder,
        lanes=lanes,
        seed=seed,
        trials=100,
        own_orders=own_orders,
        memory=memory,
        checkpoints=checkpoints,
    )


def in_lanes(
    engine: LanesEngine, candidates: Sequence[Candidate], patience: float = _PATIENCE_SECONDS
) -> dict[int, Trial]:
    """Trains them all, as many at once as the engine takes; those of the start are admitted together."""
    trials: dict[int, Trial] = {}
    queue, running = list(candidates), 0
    deadline = time.monotonic() + patience
    with closing(engine):
        first = True
        while queue or running:
            while queue and engine.free():
                engine.add(queue.pop(0))
                running += 1
            if first:
                # Otherwise some would be in their lanes an epoch before the others were built.
                wait(list(engine._building))
                first = False
            running -= note(trials, engine.step())
            assert time.monotonic() < deadline, f"{running} trials did not end: {trials}"
    return trials


def one_by_one(
    build: Build,
    data: Data | Sequence[Data],
    limits: Budget,
    folder: Path,
    candidates: Sequence[Candidate],
    objective: Objective = OBJECTIVE,
) -> dict[int, Trial]:
    """The same by `model.fit`, the oracle."""
    trials: dict[int, Trial] = {}
    folder.mkdir(exist_ok=True)
    folds = [data] if isinstance(data, Data) else data
    with closing(FitEngine(build, folds, limits, objective, folder)) as engine:
        for candidate in candidates:
            engine.add(candidate)
            while not engine.free():
                note(trials, engine.step())
    return trials


def replayed(candidates: Sequence[Candidate], trials: dict[int, Trial]) -> list[Candidate]:
    """The candidates in the row orders that they saw in their lanes."""
    return [replace(one, replay=trials[one.number].outcome.replay) for one in candidates]


def each(*settings: dict, seed: int = 100, base: dict = SETTINGS) -> list[Candidate]:
    """A candidate for each of the settings, with a seed of its own."""
    return [Candidate(number, seed + number, {**base, **own}) for number, own in enumerate(settings)]


def relative(ours: Sequence[dict], theirs: Sequence[dict]) -> dict[str, float]:
    """By metric, the largest difference of two curves: relative to numbers above one, else absolute."""
    assert len(ours) == len(theirs) > 0
    assert all(one.keys() == other.keys() for one, other in zip(ours, theirs, strict=True))
    return {
        name: max(
            abs(one[name] - other[name]) / max(1.0, abs(other[name]))
            for one, other in zip(ours, theirs, strict=True)
        )
        for name in ours[0]
    }


@dataclass
class Bench:
    """One program and its lanes, driven by hand, call by call.

    Everything that decides a lane's bits is said: lane, epoch, neighbours.
    """

    build: Build
    data: Data
    limits: Budget
    lanes: int
    settings: dict
    most_epochs: int = 4
    seed: int = 0
    memory: float | None = None

    def __post_init__(self) -> None:
        plain = self._plain(self.settings, 0)
        self._batch = rows.for_keras(self.data.train.take(np.arange(2)), plain)
        self.twin = Twin(plain, self._batch)
        mesh = devices.mesh(self.lanes)
        there = devices.DataOnDevices([self.data], None, mesh, memory=self.memory).of(0, plain)
        size = self.settings["batch_size"]
        self.program = program_of(
            Plan(self.twin, self.limits, size, there, self.lanes, mesh, self.most_epochs)
        )
        self._any = self.values(self.settings, 0)
        self.program.compile(self._any)
        self.state: State = self.program.layout.start(self._any)
        self.epoch = 0

    def reset(self) -> None:
        self.state, self.epoch = self.program.layout.start(self._any), 0

    def values(self, settings: dict, seed: int) -> Values:
        """What a trial's lane starts with."""
        return self.twin.values(self._plain(settings, seed), self._batch, derived(seed, 0))

    def admit(self, trials: dict[int, Values]) -> None:
        self.state = self.program.layout.admit(self.state, list(trials), list(trials.values()))

    def run(self, epochs: int) -> Report:
        order = self.program.orders(
            [
                rows.order(self.seed, 7, self.epoch + later, self.data.train.rows, shuffle=True)
                for later in range(epochs)
            ]
        )
        self.epoch += epochs
        self.state, logs = self.program.run(self.state, order, None, epochs)
        return self.program.report(logs, epochs)

    def lane(self, lane: int) -> list[Array]:
        """A lane's weights and optimiser now, and at its best epoch."""
        layout = self.program.layout
        found = [*layout.current(self.state, [lane]), *layout.best(self.state, [lane])]
        return [array for one in found for array in (*one.trainable, *one.non_trainable, *one.optimizer)]

    def _plain(self, settings: dict, seed: int) -> keras.Model:
        keras.utils.set_random_seed(derived(seed, 0))
        return self.build(settings, self.data)


def assert_same_bits(ours: Sequence[Array], theirs: Sequence[Array]) -> None:
    """Equal bit by bit, NaN included."""
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert one.tobytes() == other.tobytes()
