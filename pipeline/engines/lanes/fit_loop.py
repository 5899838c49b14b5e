"""What Keras's own training loop costs beside a model's arithmetic, measured with a model that has none."""

import time

import keras
import numpy as np

from pipeline.engines.lanes.turns import Alone

_STEPS, _EPOCHS = 64, 3


def step_seconds(alone: Alone) -> float:
    """Seconds of a step of `model.fit` in which next to nothing is computed: the best of some epochs.

    alone: for measuring, while nothing trains.
    """
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(optimizer="sgd", loss="mean_squared_error")
    rows = np.zeros((_STEPS, 1), "float32")
    model.fit(rows, rows, batch_size=1, verbose=0)  # compiles
    with alone():
        tries = []
        for _ in range(_EPOCHS):
            began = time.perf_counter()
            model.fit(rows, rows, batch_size=1, verbose=0)
            tries.append((time.perf_counter() - began) / _STEPS)
    return min(tries)
