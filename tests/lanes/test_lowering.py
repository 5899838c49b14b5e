"""Every form of a convolution or a pool gives what Keras's own gives, for some lanes at once.

Which one a layer gets is measured once, and kept.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

from pipeline.engines.lanes import lowering
from pipeline.engines.lanes.lowering import choice, convolutions, pools
from pipeline.engines.lanes.lowering.windows import Form, Window

LANES = 2
layers = keras.layers


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def assert_equal(
    found: Sequence[Any], expected: Sequence[Any], terms: int, bound: float | None = None
) -> None:
    """Equal but for the order of sums: of so many terms, whose roundings add up like a walk's steps."""
    for one, other in zip(found, expected, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        eps = float(np.finfo(other.dtype).eps)
        limit = bound or 8 * eps * terms**0.5
        np.testing.assert_allclose(one, other, rtol=0, atol=limit * max(1.0, float(np.abs(other).max())))


def gradients(form: Form, inputs: Any, *kernels: Any) -> list[jax.Array]:
    """What a form gives, and its gradients by inputs and kernels, for a gradient that differs everywhere."""
    outputs, back = jax.vjp(form, inputs, *kernels)
    gradient = jnp.cos(jnp.arange(outputs.size, dtype=outputs.dtype)).reshape(outputs.shape)
    return [outputs, *back(gradient)]


def assert_forms(
    forms: dict[str, Form], inputs: np.ndarray, kernels: Sequence[np.ndarray], terms: int
) -> None:
    """All forms give what `xla` does: as lanes with inputs of their own, and with the same in 64 bits."""
    many = [np.stack([kernel * (1 + lane) for lane in range(LANES)], axis=-2) for kernel in kernels]
    own = np.stack([np.roll(inputs, lane, axis=1) for lane in range(LANES)])
    axes = [kernel.ndim - 2 for kernel in many]
    shared: tuple[Any, Any] = ((None, *axes), inputs) if kernels else ((0,), own)
    for wide, (in_axes, first) in ((False, ((0, *axes), own)), (True, shared)):
        with jax.enable_x64(wide):
            given = [jnp.asarray(array, jnp.float64 if wide else jnp.float32) for array in (first, *many)]
            found = {
                name: jax.jit(jax.vmap(partial(gradients, form), in_axes=in_axes))(*given)
                for name, form in forms.items()
            }
            for one in found.values():
                assert_equal(one, found["xla"], terms, 1e-10 if wide else None)


# Size, strides, dilation, padding, space: sizes that blocks divide and that they do not, windows larger than
# their strides and smaller, and one that sees everything.
FULL = [
    ((5,), (1,), (1,), "valid", (12,)),
    ((3,), (2,), (1,), "causal", (11,)),
    ((2,), (1,), (3,), "causal", (9,)),
    ((4,), (3,), (1,), "same", (13,)),
    ((3, 3), (1, 1), (1, 1), "same", (7, 8)),
    ((5, 4), (1, 1), (1, 1), "valid", (9, 10)),
    ((3, 2), (2, 3), (1, 1), "same", (9, 11)),
    ((3, 5), (3, 2), (1, 1), "valid", (11, 10)),
    ((1, 1), (2, 2), (1, 1), "valid", (5, 6)),
    ((2, 2), (3, 3), (1, 1), "valid", (9, 10)),
    ((2, 2), (2, 2), (1, 1), "same", (5, 6)),
    ((3, 2), (1, 1), (2, 3), "valid", (9, 8)),
    ((3, 3), (1, 1), (2, 2), "same", (6, 7)),
    ((6, 5), (1, 1), (1, 1), "valid", (6, 5)),
    ((3, 2, 3), (1, 1, 1), (1, 1, 1), "same", (4, 5, 6)),
    ((2, 3, 2), (2, 1, 2), (1, 1, 1), "valid", (5, 4, 6)),
]


@pytest.mark.parametrize(
    ("place", "given"),
    [
        pytest.param(place, given, marks=() if place in (0, 1, 4, 7, 13) else pytest.mark.slow)
        for place, given in enumerate(FULL)
    ],
    ids=str,
)
def test_a_convolution_in_each_form(place: int, given: Any) -> None:
    *parts, space = given
    window = Window(*parts)
    channels, filters = ((1, 3), (4, 2))[place % 2]
    inputs, kernel = numbers(2, *space, channels), numbers(*window.size, channels, filters, seed=1)
    forms = {name: partial(form, window=window) for name, form in convolutions.FULL.items()}
    assert_forms(forms, inputs, [kernel], max(kernel.size, inputs.size * 2))


@pytest.mark.parametrize("given", FULL[1::4], ids=str)
def test_a_convolution_in_groups_in_each_form(given: Any) -> None:
    *parts, space = given
    window = Window(*parts)
    inputs, kernel = numbers(2, *space, 6), numbers(*window.size, 2, 9, seed=1)
    forms = {name: partial(form, window=window) for name, form in convolutions.GROUPED.items()}
    assert_forms(forms, inputs, [kernel], max(kernel.size, inputs.size * 2))


DEPTHWISE = [
    ((3,), (1,), (1,), "same", (8,)),
    ((4,), (2,), (1,), "valid", (11,)),
    ((3, 3), (1, 1), (1, 1), "same", (5, 6)),
    ((3, 2), (2, 2), (1, 1), "same", (7, 6)),
    ((2, 3), (1, 1), (2, 2), "valid", (7, 8)),
]


@pytest.mark.parametrize("given", DEPTHWISE, ids=str)
@pytest.mark.parametrize("multiplier", [1, 3])
def test_a_depthwise_or_separable_convolution_in_each_form(given: Any, multiplier: int) -> None:
    *parts, space = given
    window = Window(*parts)
    inputs, kernel = numbers(2, *space, 4), numbers(*window.size, 4, multiplier, seed=1)
    pointwise = numbers(*([1] * len(space)), 4 * multiplier, 5, seed=2)
    all_forms = convolutions.DEPTHWISE if multiplier == 3 else convolutions.SEPARABLE
    forms = {name: partial(form, window=window) for name, form in all_forms.items()}
    assert_forms(forms, inputs, [kernel] if multiplier == 3 else [kernel, pointwise], inputs.size * 5)


POOLS = [
    ((2,), (2,), "valid", (9,)),
    ((3,), (1,), "same", (8,)),
    ((2, 2), (2, 2), "valid", (6, 7)),
    ((2, 3), (2, 3), "same", (5, 7)),
    ((3, 3), (2, 2), "same", (7, 8)),
    ((3, 2), (1, 2), "valid", (6, 7)),
    ((2, 2), (3, 3), "valid", (7, 8)),
    ((2, 2, 2), (2, 2, 2), "valid", (4, 5, 6)),
]


@pytest.mark.parametrize("tied", [False, True], ids=["apart", "tied"])
@pytest.mark.parametrize("given", POOLS, ids=str)
def test_the_gradient_of_a_maximum_goes_to_its_first_place(given: Any, *, tied: bool) -> None:
    size, strides, padding, space = given
    window = Window(size, strides, (1,) * len(size), padding)
    inputs = numbers(3, *space, 4)
    if tied:
        # As after a relu, and windows that are nothing but zeros.
        inputs = np.maximum(np.round(inputs), 0)
    # Each number is passed on as it is; overlapping windows add up as many as they have places.
    forms = {name: partial(form, window=window) for name, form in pools.FORMS.items()}
    assert_forms(forms, inputs, [], int(np.prod(size)))


def test_a_maximum_of_what_is_not_a_number_is_none() -> None:
    window = Window((2,), (2,), (1,), "valid")
    inputs = jnp.asarray([[[1.0], [jnp.nan], [jnp.nan], [2.0]]])
    found, expected = (gradients(partial(pools.FORMS[name], window=window), inputs) for name in pools.FORMS)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What is measured here is kept here; and nothing is known at first."""
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path))
    monkeypatch.delenv("PIPELINE_LOWERING", raising=False)
    choice.forget()
    yield tmp_path / "lowering.json"
    choice.forget()


def image_model() -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((10, 9, 2))
    found = layers.Rescaling(0.5)(inputs)
    found = layers.Conv2D(4, 3, padding="same", activation="tanh", bias_initializer="normal")(found)
    found = layers.MaxPooling2D(2)(found)
    found = layers.SeparableConv2D(6, 2, activation="relu", bias_initializer="normal")(found)
    found = layers.DepthwiseConv2D(2, bias_initializer="normal", activation="tanh")(found)
    return keras.Model(inputs, layers.Conv2D(3, 1, use_bias=False)(found))


def series_model() -> keras.Model:
    keras.utils.set_random_seed(0)
    found = inputs = keras.Input((12, 2))
    found = layers.Conv1D(4, 3, padding="causal", activation="tanh", bias_initializer="normal")(found)
    found = layers.MaxPooling1D(3, strides=2)(found)
    found = layers.SeparableConv1D(6, 2, strides=2, bias_initializer="normal")(found)
    return keras.Model(inputs, layers.DepthwiseConv1D(2, bias_initializer="normal")(found))


def gradients_of(model: keras.Model, wide: bool) -> list[Any]:
    """By the weights, in training; and what is not trained after it."""
    dtype = jnp.float64 if wide else jnp.float32
    inputs = jnp.asarray(numbers(3, *model.input_shape[1:]), dtype)

    def loss(weights: list[jax.Array], others: list[jax.Array]) -> Any:
        outputs, others = model.stateless_call(weights, others, inputs, training=True)
        return jnp.sum(jnp.square(outputs)), [outputs, others]

    groups = (model.trainable_variables, model.non_trainable_variables)
    weights, others = ([jnp.asarray(variable.value, dtype) for variable in group] for group in groups)
    found, (outputs, after) = jax.jit(jax.grad(loss, has_aux=True))(weights, others)
    still = model.stateless_call(weights, after, inputs, training=False)[0]
    return [*found, outputs, *after, still]


def assert_same_model(build: Callable[[], keras.Model], expected: list[str] | None = None) -> None:
    """A lowered model is what it was, in both kinds of numbers; its forms are those expected."""
    for wide, policy in ((False, "float32"), (True, "float64")):
        with jax.enable_x64(wide):
            keras.config.set_dtype_policy(policy)
            plain, lowered = build(), build()
            keras.config.set_dtype_policy("float32")
            chosen = lowering.install(lowered)
            assert expected is None or [name for _, name in chosen] == expected
            # Five layers, of no more terms than a kernel's gradient has: rows times space.
            assert_equal(
                gradients_of(lowered, wide), gradients_of(plain, wide), 25 * 3 * 90, 1e-10 if wide else None
            )


@pytest.mark.parametrize("name", ["the first", "patches", "xla"])
@pytest.mark.parametrize("build", [pytest.param(image_model, marks=pytest.mark.slow), series_model])
def test_a_model_is_what_it_was(build: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_LOWERING", name)
    assert_same_model(build)


def normalized(found: Any, **more: Any) -> Any:
    """Keras's batch normalisation has 32 bits whatever the others have, so it would hide what they do."""
    wide = keras.config.dtype_policy().name == "float64"
    return layers.Activation("softsign")(found) if wide else layers.BatchNormalization(**more)(found)


def image_chain() -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 9, 2))
    found = layers.Conv2D(4, 3, activation="tanh", bias_initializer="normal", activity_regularizer="l2")(
        inputs
    )
    found = normalized(found, gamma_initializer="normal", momentum=0.9)
    found = layers.AveragePooling2D((2, 7))(layers.LeakyReLU()(found))
    found = layers.Conv2D(70, (2, 1), strides=(2, 1), padding="same", use_bias=False)(found)
    found = normalized(found, scale=False, center=False)
    return keras.Model(inputs, layers.Flatten()(layers.MaxPooling2D((3, 1), padding="same")(found)))


def series_chain() -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 2))
    found = layers.Conv1D(16, 3, padding="causal", bias_initializer="normal")(inputs)
    found = layers.MaxPooling1D(2)(layers.ReLU()(normalized(found)))
    found = layers.Conv1D(4, 2, padding="same", activation="sigmoid", bias_initializer="normal")(found)
    return keras.Model(inputs, layers.Flatten()(layers.AveragePooling1D(3)(found)))


def volume_chain() -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5, 6, 4, 1))
    found = layers.Conv3D(3, 2, padding="same", activation="relu")(inputs)
    found = layers.MaxPooling3D((5, 2, 2))(normalized(found))
    return keras.Model(inputs, layers.Flatten()(found))


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        pytest.param(
            image_chain,
            ["blocks", "patches", "places", "blocks by product", "blocks by maximum"],
            marks=pytest.mark.slow,
        ),
        (series_chain, ["blocks", "places", "blocks", "blocks by maximum", "blocks by product"]),
        pytest.param(volume_chain, ["blocks", "places", "blocks by maximum"], marks=pytest.mark.slow),
    ],
)
def test_a_chain_in_blocks_is_what_it_was(
    build: Any, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_LOWERING", "the first")
    assert_same_model(build, expected)


def test_the_mean_of_a_chain_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    def build() -> keras.Model:
        keras.utils.set_random_seed(0)
        inputs = keras.Input((8, 6, 2))
        return keras.Model(inputs, layers.AveragePooling2D(2)(layers.Conv2D(8, 3)(inputs)))

    for name in ("blocks by product", "blocks by mean"):
        monkeypatch.setenv("PIPELINE_LOWERING", name)
        assert_same_model(build, ["blocks", name])


def test_what_else_is_looked_at_is_no_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_LOWERING", "the first")
    inputs = keras.Input((8, 8, 2))
    made = [layers.Conv2D(4, 3, padding="same")(inputs) for _ in range(2)]
    pooled = layers.AveragePooling2D(2)
    used_twice = keras.Model(inputs, [layers.AveragePooling2D(2)(made[0]), layers.Flatten()(made[0])])
    an_output = keras.Model(inputs, [layers.AveragePooling2D(2)(made[1]), made[1]])
    within = keras.Model(an_output.inputs, [one * 2 for one in keras.models.clone_model(an_output)(inputs)])
    uneven = keras.Model(inputs, layers.AveragePooling2D(2)(layers.Conv2D(4, 2)(inputs)))
    softmax = keras.Model(
        inputs, layers.AveragePooling2D(2)(layers.Conv2D(4, 3, activation="softmax")(inputs))
    )
    first = layers.Conv2D(2, 3, padding="same")
    called_twice = keras.Model(inputs, [pooled(first(inputs)), pooled(first(inputs * 2))])
    overlapping = keras.Model(inputs, layers.AveragePooling2D(2, 1)(layers.Conv2D(4, 3)(inputs)))
    pool_alone = keras.Model(inputs, layers.AveragePooling2D(2)(inputs))
    for model in (used_twice, an_output, within, uneven, softmax, called_twice, overlapping, pool_alone):
        assert [name for _, name in lowering.install(model)] in (["blocks"], [])


def test_other_layers_stay_as_they_are() -> None:
    inputs = keras.Input((4, 8, 8))
    found = layers.MaxPooling2D(2, data_format="channels_first")(inputs)
    first = layers.Conv2D(4, 3, data_format="channels_first")
    model = keras.Model(inputs, first(found))
    assert lowering.install(model) == []


def test_a_convolution_in_groups_joins_no_chain() -> None:
    inputs = keras.Input((8, 8, 4))
    convolution = layers.Conv2D(4, 3, groups=2)
    grouped = keras.Model(inputs, layers.AveragePooling2D(2)(convolution(inputs)))
    # Nothing to choose where the lanes share the inputs.
    assert lowering.install(grouped) == [(convolution.name, "patches")]


def counted(monkeypatch: pytest.MonkeyPatch) -> list[choice.Case]:
    """The cases that are measured from now on."""
    cases: list[choice.Case] = []
    measured = choice._measured

    def counting(case: choice.Case, *rest: Any) -> str:
        cases.append(case)
        return measured(case, *rest)

    monkeypatch.setattr(choice, "_measured", counting)
    return cases


def test_a_choice_is_measured_once_and_kept(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = counted(monkeypatch)
    chosen = lowering.install(image_model(), batch_rows=5, lanes=3)
    names = ["full", "maximum"]
    # Depthwise kernels have one form on a CPU, and a kernel of one place is a matrix product at once.
    assert [case.kind for case in cases] == names
    # Only the first layer has what all lanes have; its rows and lanes are rounded.
    assert [case.shared for case in cases] == [True, False]
    assert (cases[0].inputs, cases[0].lanes) == ((8, 10, 9, 2), 4)
    assert sorted(json.loads(own_cache.read_text()).values()) == sorted(
        name for _, name in chosen[: len(names)]
    )
    assert [path.name for path in own_cache.parent.glob("lowering*")] == [own_cache.name]

    # In memory, for rows that are rounded to as many; then from the file.
    assert [name for _, name in lowering.install(image_model(), batch_rows=7)] == [name for _, name in chosen]
    choice.forget()
    assert [name for _, name in lowering.install(image_model(), batch_rows=7)] == [name for _, name in chosen]
    assert len(cases) == len(names)


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"a": 1}', "\x00"])
def test_a_broken_file_is_measured_anew(
    own_cache: Path, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_cache.write_text(broken)
    cases = counted(monkeypatch)
    inputs = keras.Input((6, 2))
    model = keras.Model(inputs, layers.MaxPooling1D(2)(inputs))
    ((_, name),) = lowering.install(model)
    assert len(cases) == 1
    assert name in json.loads(own_cache.read_text()).values()


def test_a_folder_that_cannot_be_written_to_costs_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path / "file"))
    inputs = keras.Input((6, 2))
    assert lowering.install(keras.Model(inputs, layers.MaxPooling1D(2)(inputs)))


def test_the_fastest_of_those_that_run_is_chosen() -> None:
    window = Window((1,), (1,), (1,), "valid")
    case = choice.Case("made", window, (16, 128, 128), (), "float32", 4, shared=False)

    device = jax.local_devices()[0]

    def slow(inputs: jax.Array, window: Window) -> jax.Array:
        for _ in range(8):
            inputs = inputs @ jnp.ones((128, 128)) / 128
        return inputs

    def quick(inputs: jax.Array, window: Window) -> jax.Array:
        return inputs * 2

    def failing(inputs: jax.Array, window: Window) -> jax.Array:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED")

    assert choice.fastest(case, {"failing": failing, "slow": slow, "quick": quick}, device) == "quick"


@pytest.mark.parametrize("kind", ["depthwise", "separable", "grouped"])
def test_a_cpu_never_tries_grouped_convolutions_whose_gradient_takes_minutes(kind: str) -> None:
    window = Window((3, 3), (1, 1), (1, 1), "same")
    assert "xla" not in convolutions.suitable(kind, window, (8, 8), "cpu")
    assert list(convolutions.suitable(kind, window, (8, 8), "gpu"))[-1] == "xla"
    assert "xla" not in convolutions.suitable(kind, window, (8, 8), "gpu", shared=True)
    # Of the others it is measured: there are some that it suits.
    assert "xla" in convolutions.suitable("full", window, (8, 8), "cpu")
