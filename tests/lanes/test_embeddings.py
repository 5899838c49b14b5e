"""A convolution of word vectors, looked up in a table, gives what Keras's layers give.

Where a table cannot hold it, it stays as it is.
"""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from test_lowering import assert_equal, counted

from pipeline.engines.lanes import lowering
from pipeline.engines.lanes.lowering import choice, convolutions, embeddings
from pipeline.engines.lanes.lowering.windows import Form, Window

layers = keras.layers
LANES, VOCABULARY, CHANNELS, FILTERS = 3, 9, 5, 4


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What is measured here is kept here; and the first form is taken, unless a test measures."""
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path))
    monkeypatch.setenv("PIPELINE_LOWERING", "the first")
    choice.forget()
    yield tmp_path / "lowering.json"
    choice.forget()


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def words(*shape: int, low: int = 0, high: int = VOCABULARY) -> np.ndarray:
    return np.random.default_rng(5).integers(low, high, shape).astype(np.int32)


def gradients(form: Form, inputs: jax.Array, *weights: jax.Array) -> list[jax.Array]:
    """What a form gives, and its gradients by the weights, for a gradient that differs everywhere."""
    outputs, back = jax.vjp(partial(form, inputs), *weights)
    gradient = jnp.cos(jnp.arange(outputs.size, dtype=outputs.dtype)).reshape(outputs.shape)
    return [outputs, *back(gradient)]


# Size, stride, dilation, padding, length: windows that see beyond the words, that leave some out, and one
# that sees all of them.
WINDOWS = [
    (3, 1, 1, "valid", 8),
    (4, 2, 1, "same", 9),
    (3, 1, 1, "causal", 8),
    (2, 1, 3, "causal", 8),
    (2, 3, 1, "same", 8),
    (7, 1, 1, "same", 4),
    (3, 1, 2, "same", 8),
    (2, 3, 1, "valid", 9),
    (8, 1, 1, "valid", 8),
    (1, 1, 1, "valid", 8),
]


@pytest.mark.parametrize("own", [False, True], ids=["shared", "own rows"])
@pytest.mark.parametrize(
    "given",
    [pytest.param(given, marks=() if place < 4 else pytest.mark.slow) for place, given in enumerate(WINDOWS)],
    ids=str,
)
def test_lookups_give_what_keras_gives(given: Any, *, own: bool) -> None:
    size, stride, dilation, padding, length = given
    window = Window((size,), (stride,), (dilation,), padding)
    forms = {
        name: partial(form, window=window)
        for name, form in embeddings.forms(convolutions.kerass(keras.ops.conv)).items()
    }
    # Negative numbers count from the end, as they do in Keras on JAX.
    inputs = words(*([LANES] if own else []), 3, length, low=-VOCABULARY)
    weights = numbers(VOCABULARY, LANES, CHANNELS), numbers(size, CHANNELS, LANES, FILTERS, seed=1)
    for wide in (False, True):
        with jax.enable_x64(wide):
            given = [jnp.asarray(array, jnp.float64 if wide else jnp.float32) for array in weights]
            ours, theirs = (
                jax.jit(jax.vmap(partial(gradients, form), in_axes=(0 if own else None, 1, 2)))(
                    inputs, *given
                )
                for form in (forms["lookups"], forms["apart"])
            )
            assert_equal(ours, theirs, size * CHANNELS * inputs.size, 1e-12 if wide else None)


@pytest.mark.parametrize("kind", [np.uint8, np.int64])
def test_words_of_any_whole_kind(kind: type) -> None:
    # More of them than the smallest kind can count.
    table, kernel = jnp.asarray(numbers(300, CHANNELS)), jnp.asarray(numbers(2, CHANNELS, FILTERS))
    window = Window((2,), (1,), (1,), "same")
    inputs = jnp.asarray(words(2, 6, high=120).astype(kind))
    forms = embeddings.forms(convolutions.kerass(keras.ops.conv))
    ours, theirs = (form(inputs, table, kernel, window=window) for form in forms.values())
    assert_equal([ours], [theirs], 2 * CHANNELS)


def test_what_sees_no_word_is_not_a_number_as_in_keras() -> None:
    table, kernel = jnp.asarray(numbers(VOCABULARY, CHANNELS)), jnp.asarray(numbers(2, CHANNELS, FILTERS))
    window = Window((2,), (1,), (1,), "same")
    inputs = jnp.asarray([[0, 1, VOCABULARY, 2, 3, -VOCABULARY - 1, 4], [0, 1, 2, 3, 4, 5, -VOCABULARY]])
    forms = embeddings.forms(convolutions.kerass(keras.ops.conv))
    ours, theirs = (np.asarray(form(inputs, table, kernel, window=window)) for form in forms.values())
    assert np.isnan(theirs).any(-1).tolist() == [[False, True, True, False, True, True, False], [False] * 7]
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def model(
    convolution: Callable[..., Any] | None = None,
    embedding: Callable[..., Any] | None = None,
    between: Callable[[Any], Any] = lambda found: found,
    **inputs: Any,
) -> keras.Model:
    """Words, an Embedding, a Conv1D, and what reads it."""
    keras.utils.set_random_seed(0)
    place = keras.Input(**{"shape": (12,), "dtype": "int32", **inputs})
    first = embedding or partial(layers.Embedding, VOCABULARY, CHANNELS)
    second = convolution or partial(layers.Conv1D, FILTERS, 3, activation="relu", bias_initializer="normal")
    return keras.Model(place, layers.Flatten()(second()(between(first()(place)))))


def forms_of(lowered: keras.Model, rows: int = 4) -> list[str]:
    return [name for _, name in lowering.install(lowered, batch_rows=rows)]


def gradients_of(lowered: keras.Model, wide: bool) -> list[Any]:
    """The outputs in training and by themselves, the penalties, and the gradients by the weights."""
    dtype = jnp.float64 if wide else jnp.float32
    inputs = jnp.asarray(words(4, 12))

    def loss(weights: list[jax.Array]) -> Any:
        outputs, _, losses = lowered.stateless_call(
            weights, others, inputs, training=True, return_losses=True
        )
        return jnp.sum(jnp.square(outputs)) + sum(losses), [outputs, *losses]

    groups = (lowered.trainable_variables, lowered.non_trainable_variables)
    weights, others = ([jnp.asarray(variable.value, dtype) for variable in group] for group in groups)
    found, given = jax.jit(jax.grad(loss, has_aux=True))(weights)
    return [*found, *given, lowered.stateless_call(weights, others, inputs, training=False)[0]]


FUSED = {
    "plain": model,
    "without bias": partial(model, partial(layers.Conv1D, FILTERS, 3, use_bias=False)),
    "strides, and more than the words": partial(
        model, partial(layers.Conv1D, FILTERS, 5, strides=2, padding="same", activation="tanh")
    ),
    "rules": partial(
        model,
        partial(
            layers.Conv1D,
            FILTERS,
            3,
            padding="causal",
            kernel_regularizer="l2",
            activity_regularizer="l1",
            kernel_constraint="max_norm",
        ),
        partial(
            layers.Embedding,
            VOCABULARY,
            CHANNELS,
            embeddings_regularizer="l1",
            embeddings_constraint="max_norm",
        ),
    ),
    "a chain after it": lambda: pooled(model()),
    "frozen words": partial(
        model, embedding=partial(layers.Embedding, VOCABULARY, CHANNELS, trainable=False)
    ),
}


def pooled(before: keras.Model) -> keras.Model:
    """Pooling that a convolution alone would join."""
    convolved = before.layers[2].output
    return keras.Model(before.inputs, layers.Flatten()(layers.MaxPooling1D(5)(convolved)))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ("rules", "a chain after it") else pytest.mark.slow)
        for name in FUSED
    ],
)
def test_a_model_is_what_it_was(name: str) -> None:
    for wide, policy in ((False, "float32"), (True, "float64")):
        with jax.enable_x64(wide):
            keras.config.set_dtype_policy(policy)
            plain, lowered = FUSED[name](), FUSED[name]()
            keras.config.set_dtype_policy("float32")
            chosen = dict(lowering.install(lowered, batch_rows=4))
            assert chosen.pop(lowered.layers[1].name) == "lookups"
            assert set(chosen.values()) <= {"places"}, "nothing else joins the convolution"
            # Two layers, of no more terms than a kernel's gradient has: rows times space.
            limit = 1e-12 if wide else None
            assert_equal(gradients_of(lowered, wide), gradients_of(plain, wide), 4 * 12 * 15, limit)


def used_twice() -> keras.Model:
    place = keras.Input((12,), dtype="int32")
    vectors = layers.Embedding(VOCABULARY, CHANNELS)(place)
    return keras.Model(place, [layers.Conv1D(4, 3)(vectors), layers.Flatten()(vectors)])


def called_twice() -> keras.Model:
    places = [keras.Input((12,), dtype="int32") for _ in range(2)]
    first, second = layers.Embedding(VOCABULARY, CHANNELS), layers.Conv1D(4, 3)
    return keras.Model(places, [second(first(place)) for place in places])


def embedding_called_twice() -> keras.Model:
    places = [keras.Input((12,), dtype="int32") for _ in range(2)]
    first = layers.Embedding(VOCABULARY, CHANNELS)
    return keras.Model(places, [layers.Conv1D(4, 3)(first(places[0])), layers.Flatten()(first(places[1]))])


def convolution_called_twice() -> keras.Model:
    places = [keras.Input((12,), dtype="int32") for _ in range(2)]
    second = layers.Conv1D(4, 3)
    return keras.Model(places, [second(layers.Embedding(VOCABULARY, CHANNELS)(place)) for place in places])


def vectors_are_an_output() -> keras.Model:
    place = keras.Input((12,), dtype="int32")
    vectors = layers.Embedding(VOCABULARY, CHANNELS)(place)
    return keras.Model(place, [layers.Conv1D(4, 3)(vectors), vectors])


def with_lora() -> keras.Model:
    made = model()
    made.layers[1].enable_lora(2)
    return made


class Own(layers.Embedding):
    """May do anything."""


_embedding, _convolution = partial(layers.Embedding, VOCABULARY, CHANNELS), partial(layers.Conv1D, 4, 3)
APART = {
    "a mask": partial(model, embedding=partial(_embedding, mask_zero=True)),
    "a penalty on the vectors": partial(model, embedding=partial(_embedding, activity_regularizer="l2")),
    "numbers of lower precision": partial(model, embedding=partial(_embedding, dtype="mixed_bfloat16")),
    "the convolution's, too": partial(model, partial(_convolution, dtype="mixed_bfloat16")),
    "another class": partial(model, embedding=partial(Own, VOCABULARY, CHANNELS)),
    "more weights": with_lora,
    "groups": partial(
        model, partial(layers.Conv1D, 4, 3, groups=2), embedding=partial(layers.Embedding, VOCABULARY, 4)
    ),
    "channels first": partial(model, partial(_convolution, data_format="channels_first")),
    "another kind of convolution": partial(model, partial(layers.SeparableConv1D, 4, 3)),
    "noise between": partial(model, between=layers.Dropout(0.5)),
    "an activation between": partial(model, between=layers.ReLU()),
    "words of unknown number": partial(
        model, between=layers.Lambda(lambda found: found[:, :6], output_shape=(6, CHANNELS)), shape=(None,)
    ),
    "words that are no whole numbers": partial(model, dtype="float32"),
    "another use of the vectors": used_twice,
    "calls of both": called_twice,
    "calls of the embedding": embedding_called_twice,
    "calls of the convolution": convolution_called_twice,
    "vectors that are an output": vectors_are_an_output,
}


@pytest.mark.parametrize("name", APART)
def test_what_a_table_cannot_hold_stays_apart(name: str) -> None:
    with pytest.warns(match="mask") if name == "a mask" else pytest.MonkeyPatch.context():
        made = APART[name]()
    assert list(embeddings.found(made)) == []
    assert not {"lookups", "apart"} & set(forms_of(made))


def test_words_that_depend_on_weights_stay_apart() -> None:
    place = keras.Input((12, 2))
    found = layers.Lambda(lambda one: keras.ops.argmax(one, -1), output_shape=(12,))(layers.Dense(9)(place))
    found = layers.Embedding(9, 4)(keras.ops.cast(found, "int32"))
    made = keras.Model(place, layers.Conv1D(4, 3)(found))
    assert "lookups" not in forms_of(made)


def test_a_vocabulary_as_large_as_the_batch_stays_apart() -> None:
    assert forms_of(model(), rows=1)[0] == "lookups"
    large = partial(model, embedding=partial(layers.Embedding, 4 * 12, CHANNELS))
    assert forms_of(large(), rows=4) == ["blocks"]
    assert forms_of(large(), rows=5) == ["lookups"]


def test_a_model_within_a_model_has_lookups_too() -> None:
    inner = model()
    places = [keras.Input((12,), dtype="int32") for _ in range(2)]
    outer = keras.Model(places, layers.Concatenate()([inner(place) for place in places]))
    assert forms_of(outer) == ["lookups"]
    given = [words(4, 12), words(4, 12)[::-1].copy()]
    found = outer.stateless_call(outer.trainable_variables, [], [jnp.asarray(one) for one in given])[0]
    theirs = model()
    for mine, its in zip(inner.weights, theirs.weights, strict=True):
        its.assign(mine)
    expected = np.concatenate([theirs(one) for one in given], axis=-1)
    assert_equal([found], [jnp.asarray(expected)], 15)


def test_a_form_of_convolutions_is_that_of_the_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_LOWERING", "patches")
    assert forms_of(model()) == ["apart", "patches"]
    monkeypatch.setenv("PIPELINE_LOWERING", "lookups")
    assert forms_of(model()) == ["lookups"]


def test_a_choice_is_measured_with_as_many_words_of_a_kind(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIPELINE_LOWERING")
    cases = counted(monkeypatch)
    name = forms_of(model(), rows=256)[0]
    assert name in ("lookups", "apart")
    case = cases[0]
    # A quarter of the rows, and so of the vocabulary, rounded up.
    assert (case.kind, case.inputs, case.words, case.shared) == ("words", (64, 12), 3, True)
    assert case.kernels == ((3, CHANNELS), (3, CHANNELS, FILTERS))
    assert name in json.loads(own_cache.read_text()).values()
    choice.forget()
    assert forms_of(model(), rows=256)[0] == name
    assert [one.kind for one in cases].count("words") == 1


def test_large_layers_are_measured_with_few_rows() -> None:
    def rows(platform: str, *inputs: int, kernel: tuple[int, ...]) -> int:
        window = Window((kernel[0],), (1,), (1,), "valid")
        case = choice.Case("full", window, inputs, (kernel,), "float32", 4, shared=False)
        return choice._rounded(case, platform).inputs[0]

    assert rows("cpu", 128, 98, 32, kernel=(7, 32, 32)) == 64
    # 500 places, 7 x 128 x 32 weights and 4 lanes: 57 million multiplications a row.
    assert rows("cpu", 128, 500, 128, kernel=(7, 128, 32)) == 16
    assert rows("cpu", 128, 5000, 128, kernel=(7, 128, 128)) == 8
    assert rows("gpu", 100, 5000, 128, kernel=(7, 128, 128)) == 128
