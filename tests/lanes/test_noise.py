"""The lanes' random bits are as good as they have to be, and their dropout trains as Keras's does."""

from functools import partial

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from lanes_harness import SETTINGS, Bench, blobs, budget, mlp
from scipy import stats

from pipeline.engines.lanes import noise
from pipeline.seeds import derived

SHAPE = (256, 1024)
COUNT = SHAPE[0] * SHAPE[1]
# Seeds are fixed, so a test that passes always passes; a bound of 5 sigma was fair before it was looked at.
SIGMAS = 5.0
KEYS = [(0, 0), (0, 1), (1, 0), (2**32 - 1, 7), (derived(3, 1), 2), (derived(4, 1), 2)]


def bits(key: tuple[int, int], shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.asarray(noise.bits(jnp.asarray(key, jnp.uint32), shape))


def uniform(key: tuple[int, int]) -> np.ndarray:
    return bits(key).reshape(-1) / 2.0**32 - 0.5


@pytest.mark.parametrize("key", KEYS)
def test_mean_and_variance_are_those_of_uniform_numbers(key: tuple[int, int]) -> None:
    numbers = uniform(key)
    # The mean of n has the deviation sqrt(1/12n), the mean of squares sqrt(1/180n).
    assert abs(numbers.mean()) < SIGMAS * np.sqrt(1 / 12 / COUNT)
    assert abs((numbers**2).mean() - 1 / 12) < SIGMAS * np.sqrt(1 / 180 / COUNT)


@pytest.mark.parametrize("key", KEYS)
def test_bytes_and_bits_are_equally_frequent(key: tuple[int, int]) -> None:
    each = bits(key).reshape(-1).view(np.uint8).reshape(-1, 4)
    for place in range(4):
        assert stats.chisquare(np.bincount(each[:, place], minlength=256)).pvalue > 1e-5
    share = np.unpackbits(each, axis=1).mean(axis=0)
    assert np.abs(share - 0.5).max() < SIGMAS * 0.5 / np.sqrt(COUNT)


def _uncorrelated(one: np.ndarray, other: np.ndarray) -> bool:
    return abs(np.corrcoef(one, other)[0, 1]) < SIGMAS / np.sqrt(len(one))


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("apart", [1, 2, 3, 16, 1024, 4096])
def test_neighbours_are_not_correlated(key: tuple[int, int], apart: int) -> None:
    numbers = uniform(key)
    assert _uncorrelated(numbers[:-apart], numbers[apart:])


@pytest.mark.parametrize(
    ("one", "other"),
    [((5, 0), (5, 1)), ((5, 1), (5, 2)), ((5, 0), (6, 0)), ((derived(1, 0), 3), (derived(2, 0), 3))],
    ids=["steps", "later steps", "seeds", "derived seeds"],
)
def test_steps_and_lanes_are_not_correlated(one: tuple[int, int], other: tuple[int, int]) -> None:
    first, second = uniform(one), uniform(other)
    assert _uncorrelated(first, second)
    assert _uncorrelated(first[:-1], second[1:])
    assert (bits(one) == bits(other)).mean() < 1e-4


def test_many_keys_give_each_element_its_share() -> None:
    """Over the steps of a training, each element is dropped as often as another."""
    keys = jnp.stack([jnp.full(4000, 9, jnp.uint32), jnp.arange(4000, dtype=jnp.uint32)], axis=1)
    dropped = np.asarray(jax.vmap(partial(noise.bits, shape=(64,)))(keys)) < 2**32 * 0.3
    counts = dropped.sum(axis=0)
    # Binomial: 64 elements, each with deviation sqrt(4000 * 0.3 * 0.7).
    assert np.abs(counts - 1200).max() < SIGMAS * np.sqrt(4000 * 0.21)
    assert np.abs(np.corrcoef(dropped.T) - np.eye(64)).max() < SIGMAS / np.sqrt(4000)


def test_vmapped_bits_are_those_of_a_loop() -> None:
    keys = jnp.asarray(KEYS, jnp.uint32)
    together = np.asarray(jax.jit(jax.vmap(partial(noise.bits, shape=(7, 5))))(keys))
    assert np.array_equal(together, np.stack([bits(key, (7, 5)) for key in KEYS]))


def layer(kind: type, rate: float, shape: tuple[int, ...], seed: int = 1, **more: object) -> keras.Layer:
    """A layer with the twin's call in place of its own."""
    made = kind(0.5, seed=seed, **more)
    model = keras.Sequential([keras.Input(shape), made])
    noise.install(model)
    made.rate = jnp.asarray(rate, jnp.float32)
    return made


@pytest.mark.parametrize("rate", [0.01, 0.3, 0.5, 0.95, 0.999])
def test_dropout_drops_its_rate_and_scales_the_rest(rate: float) -> None:
    inputs = jnp.ones((400, 500))
    found = np.asarray(layer(keras.layers.Dropout, rate, (500,)).call(inputs, training=True))
    dropped = (found == 0).mean()
    assert abs(dropped - rate) < SIGMAS * np.sqrt(rate * (1 - rate) / found.size)
    # 1 - rate loses digits in float32 where the rate is near one.
    np.testing.assert_allclose(found[found != 0], 1 / (1 - rate), rtol=1e-7 / (1 - rate) + 1e-6)


DROPOUTS = [
    (keras.layers.Dropout, (6, 5)),
    (keras.layers.SpatialDropout1D, (6, 5)),
    (keras.layers.SpatialDropout2D, (4, 3, 5)),
    (keras.layers.SpatialDropout3D, (2, 3, 4, 5)),
    (keras.layers.GaussianDropout, (6, 5)),
    (keras.layers.AlphaDropout, (6, 5)),
]


@pytest.mark.parametrize(("kind", "shape"), DROPOUTS)
def test_rate_zero_and_inference_are_the_identity(kind: type, shape: tuple[int, ...]) -> None:
    inputs = jnp.asarray(np.random.default_rng(0).normal(size=(8, *shape)), jnp.float32)
    for rate, training in ((0.0, True), (0.4, False)):
        found = layer(kind, rate, shape).call(inputs, training=training)
        assert np.array_equal(np.asarray(found), np.asarray(inputs))
    assert not np.array_equal(layer(kind, 0.4, shape).call(inputs, training=True), inputs)


@pytest.mark.parametrize(("kind", "shape"), DROPOUTS)
def test_mean_and_variance_are_those_of_keras(kind: type, shape: tuple[int, ...]) -> None:
    inputs = jnp.asarray(np.random.default_rng(0).normal(size=(4000, *shape)), jnp.float32)
    ours = np.asarray(layer(kind, 0.4, shape).call(inputs, training=True))
    theirs = np.asarray(kind(0.4, seed=1)(inputs, training=True))
    # A spatial mask is shared by all places but the last axis, so fewer draws are independent.
    draws = 4000 * (shape[-1] if "Spatial" in kind.__name__ else np.prod(shape))
    for power in (1, 2):
        spread = np.hypot((ours**power).std(), (theirs**power).std())
        assert abs((ours**power).mean() - (theirs**power).mean()) < SIGMAS * spread / np.sqrt(draws)


def test_a_spatial_mask_and_a_noise_shape_span_their_axes() -> None:
    inputs = jnp.ones((50, 6, 5))
    spatial = np.asarray(layer(keras.layers.SpatialDropout1D, 0.5, (6, 5)).call(inputs, training=True))
    assert (spatial == spatial[:, :1, :]).all()
    shaped = layer(keras.layers.Dropout, 0.5, (6, 5), noise_shape=(None, 6, 1))
    found = np.asarray(shaped.call(inputs, training=True))
    assert (found == found[:, :, :1]).all()
    assert 0 < (found == 0).mean() < 1


SEEDS = 32


def test_trained_with_dropout_lanes_end_where_model_fit_ends() -> None:
    data, epochs = blobs(train=96, validation=60), 8
    settings = {**SETTINGS, "dropout": 0.5, "learning_rate": 0.02, "units": 12}
    bench = Bench(mlp, data, budget(epochs=epochs), 16, settings, most_epochs=8)
    ours = []
    for first in range(0, SEEDS, 16):
        bench.reset()
        bench.seed = 100 + first
        bench.admit({lane: bench.values(settings, first + lane) for lane in range(16)})
        ours += list(bench.run(epochs).metrics["val_loss"][-1])
    plain = bench._plain(settings, 0)
    theirs = []
    for seed in range(SEEDS):
        # One model, compiled once, with other weights, seeds and a fresh optimiser each time.
        other = bench._plain(settings, 1000 + seed)
        plain.set_weights(other.get_weights())
        for variable in plain.optimizer.variables[2:]:
            variable.assign(jnp.zeros_like(variable.value))
        plain.optimizer.iterations.assign(0)
        (dropout,) = [part for part in plain.layers if isinstance(part, keras.layers.Dropout)]
        dropout.seed_generator.state.assign(jnp.asarray([derived(seed, 3), 0], jnp.uint32))
        history = plain.fit(
            data.train.inputs,
            data.train.targets,
            batch_size=settings["batch_size"],
            epochs=epochs,
            validation_data=(data.validation.inputs, data.validation.targets),
            verbose=0,
        )
        theirs.append(history.history["val_loss"][-1])
    # The same distribution would be told apart once in a thousand times; the seeds are fixed.
    assert stats.ks_2samp(ours, theirs).pvalue > 0.001
    assert np.std(ours) > 0
    bench.reset()
    bench.admit({lane: bench.values({**settings, "dropout": 0.0}, lane) for lane in range(16)})
    # And the test can tell: without dropout they end elsewhere.
    assert stats.ks_2samp(bench.run(epochs).metrics["loss"][-1], [*ours]).pvalue < 0.001
