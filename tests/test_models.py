"""A candidate's model is built from its seed alone, whoever else builds at the same time."""

import time
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np

from pipeline.engines.models import built
from pipeline.values import Data, SealedSplit, Settings, Split

ROWS = Split(np.zeros((4, 3), np.float32), np.zeros(4, np.int32))
DATA = Data("made up", "made up", ("0", "1"), ROWS, ROWS, SealedSplit(ROWS), {})


def slowly(settings: Settings, data: Data) -> keras.Model:
    layers = [keras.Input((3,))]
    for _ in range(4):
        layers.append(keras.layers.Dense(3))
        time.sleep(0.02)
    model = keras.Sequential(layers)
    model.compile("sgd", "mse")
    return model


def weights(seed: int) -> list[np.ndarray]:
    return built(slowly, {"batch_size": 2}, DATA, seed).get_weights()


def test_two_engines_that_build_at_once_disturb_no_initial_weights() -> None:
    alone = [weights(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(weights, range(4)))
    for one, other in zip(alone, together, strict=True):
        for mine, its in zip(one, other, strict=True):
            assert np.array_equal(mine, its)
