"""Trains the same models by `model.fit` or in lanes, and takes the time; Keras is on its backend already.

Nothing stops a training early. Each epoch ends with its validation, as under `model.fit`.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from pipeline.benchmark.speed import Speed
from pipeline.engines import rows
from pipeline.values import Budget, Data, Setting

if TYPE_CHECKING:
    from pipeline.engines.lanes.state import State
    from pipeline.engines.lanes.twin import Values
    from pipeline.tasks.task import Task

# More lanes than this repeat the numbers of the first: building models is not what is measured.
_MODELS = 16
# Epochs before those that are measured: TensorFlow still compiles in the second.
WARM_UP = 2
_NEVER = 1_000_000
# Calls that a measurement is split into, so that there is a median; and the rows whose order one may carry.
_CALLS, _ORDER_ROWS = 4, 32_768


def settings(task: "Task", number: int, **more: Setting) -> dict[str, Setting]:
    """A trial's settings with all techniques on, with numbers of its own."""
    found = {parameter.name: parameter.default for parameter in task.parameters}
    techniques: dict[str, Setting] = {
        "learning_rate": 1e-3 * (1 + number / 100),
        "dropout": 0.2,
        "bn_momentum": 0.9,
        "l1": 1e-6,
        "l2": 1e-5 * (1 + number),
        "max_norm": 3.0,
        "activity_l1": 1e-6,
    }
    if found.get("activation") == "linear":
        techniques["activation"] = "relu"
    return {**found, **{name: value for name, value in techniques.items() if name in found}, **more}


def build(task: "Task", data: Data, number: int, **more: Setting) -> keras.Model:
    """The model of that number: its weights derive from the number alone."""
    keras.utils.set_random_seed(number)
    return task.build(settings(task, number, **more), data)


def fit(model: keras.Model, epochs: int, arguments: Mapping[str, Any]) -> Speed:
    """One model by `model.fit`.

    Args:
        model: compiled.
        epochs: that are measured, after `WARM_UP`.
        arguments: of `model.fit`.
    """
    began = time.perf_counter()
    watch = _Watch()
    model.fit(**arguments, epochs=WARM_UP + epochs, verbose=0, callbacks=[watch])
    first, rest = watch.seconds[:WARM_UP], watch.seconds[WARM_UP:]
    ready = max(0.0, sum(first) - WARM_UP * statistics.median(rest))
    return Speed(1, rest, ready, time.perf_counter() - began)


def as_called(data: Data, batch: int, model: keras.Model) -> dict[str, Any]:
    """The arguments that people give to `model.fit`."""
    inputs, targets, weights = rows.for_keras(data.train, model)
    return {
        "x": inputs,
        "y": targets,
        "sample_weight": weights,
        "batch_size": batch,
        "validation_data": rows.for_keras(data.validation, model),
    }


class Lanes:
    """Models of one task side by side in one program, as the lanes engine runs it, without the engine.

    Args:
        make: a model by number; see `build`.
        data: the rows.
        batch: rows of a gradient step.
        lanes: how many models.
        epochs: that are to be measured.
    """

    def __init__(
        self, make: Callable[[int], keras.Model], data: Data, batch: int, lanes: int, epochs: int
    ) -> None:
        # Late: JAX is not there for `fit` on another backend.
        from pipeline.engines.lanes import devices
        from pipeline.engines.lanes.plan import Plan
        from pipeline.engines.lanes.streamed import program_of
        from pipeline.engines.lanes.twin import Twin

        self._began = time.perf_counter()
        self._data, self._lanes, self._epochs, self._epoch = data, lanes, epochs, 0
        self.model = make(0)
        self._few = rows.for_keras(data.train.take(np.arange(min(2, data.train.rows))), self.model)
        self._twin: Twin = Twin(self.model, self._few, batch)
        models = [self.model, *(make(number) for number in range(1, min(lanes, _MODELS)))]
        starts = [self._values(model) for model in models]
        self._starts = [starts[lane % len(starts)] for lane in range(lanes)]
        mesh = devices.mesh(lanes)
        there = devices.DataOnDevices((data,), None, mesh).of(0, self.model)
        self._call = max(1, min(math.ceil(epochs / _CALLS), _ORDER_ROWS // there.learn_rows))
        budget = Budget(_NEVER, "val_loss", "min", _NEVER, 0.0, 0.5, _NEVER, 1e-4, 0, 0.0)
        self._program = program_of(Plan(self._twin, budget, batch, there, lanes, mesh, self._call))
        compiling = time.perf_counter()
        self._program.compile(self._starts[0])
        self._compile_seconds = time.perf_counter() - compiling

    def measure(self) -> Speed:
        """Trains all lanes: `WARM_UP` epochs, and then those that are measured."""
        layout = self._program.layout
        state = layout.start(self._starts[0], range(self._lanes), self._starts)
        for _ in range(WARM_UP):
            state, _ = self._train(state, 1)
        seconds, left = [], self._epochs
        while left:
            epochs = min(self._call, left)
            began = time.perf_counter()
            state, trained = self._train(state, epochs)
            seconds.append((time.perf_counter() - began) / epochs)
            if trained != epochs * self._lanes:
                raise RuntimeError(f"only {trained} of {epochs * self._lanes} epochs were finite numbers")
            left -= epochs
        return Speed(self._lanes, seconds, self._compile_seconds, time.perf_counter() - self._began)

    def first_loss(self, model: keras.Model) -> float:
        """The training loss of the first epoch of a lane that starts as this model."""
        layout = self._program.layout
        state = layout.start(self._starts[0], [0], [self._values(model)])
        _, logs = self._program.run(state, self._program.orders([self.order(0)]), None, 1)
        return float(self._program.report(logs, 1).metrics["loss"][0, 0])

    def order(self, epoch: int) -> Any:
        """The row order of an epoch."""
        return rows.order(0, 0, epoch, self._data.train.rows, shuffle=True)

    def _values(self, model: keras.Model) -> "Values":
        return self._twin.values(model, self._few, 0)

    def _train(self, state: "State", epochs: int) -> "tuple[State, int]":
        orders = self._program.orders([self.order(self._epoch + later) for later in range(epochs)])
        self._epoch += epochs
        state, logs = self._program.run(state, orders, None, epochs)
        return state, int(self._program.report(logs, epochs).ran.sum())


class _Watch(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """Takes the time of each epoch, its validation included."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self._began = 0.0

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self.seconds.append(time.perf_counter() - self._began)


def in_turn(models: Sequence[Callable[[], keras.Model]], data: Data, batch: int, epochs: int) -> Speed:
    """Several models by `model.fit`, one after another, each built and compiled anew, as a search does it."""
    began = time.perf_counter()
    speeds = []
    for make in models:
        model = make()
        speeds.append(fit(model, epochs, as_called(data, batch, model)))
    seconds = [second for speed in speeds for second in speed.seconds]
    ready = statistics.median(speed.ready_seconds for speed in speeds)
    return Speed(1, seconds, ready, time.perf_counter() - began)
