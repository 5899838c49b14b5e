"""Every task keeps one contract, and each named one is the published model layer by layer."""

import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import pytest

from pipeline import answers, ensemble, settings, space, tasks
from pipeline.datasets import keras_sets, splits
from pipeline.tasks.task import Task
from pipeline.values import Answers, Array, Data, SealedSplit, Setting, Settings, Split

TRAINING = {parameter.name for parameter in settings.TRAINING}
GENERATED = (
    "question_answering",
    "posts",
    "sentence_similarity",
    "dual_camera",
    "separable_images",
    "inception_residual",
)
ONE_OUTPUT = tuple(name for name in tasks.NAMES if name != "posts")
# An Xception takes seconds to build.
SOME_SLOW = [pytest.param(n, marks=pytest.mark.slow if n == "dual_camera" else ()) for n in tasks.NAMES]


def made_up(name: str, shape: tuple[int, ...], classes: int, brightest: int, column: bool) -> Data:
    """Rows of the set's shape and type, without the set."""
    rng = np.random.default_rng(0)

    def part(rows: int) -> Split:
        labels = (np.arange(rows) % classes).astype(np.int32)
        inputs = rng.integers(0, brightest + 1, (rows, *shape)).astype(np.uint8)
        return Split(inputs, labels[:, None] if column else labels)

    return splits.data(name, "made up", map(str, range(classes)), (part(20), part(10), part(10)))


def data_of(name: str) -> Data:
    """The task's rows, made up where the real ones are downloaded, and few of the generated ones."""
    stand_ins = {
        "mnist": ((28, 28, 1), 10, 255, False),
        "fashion_mnist": ((28, 28, 1), 10, 255, False),
        "imdb": ((10_000,), 2, 1, True),
        "imdb_conv1d": ((500,), 2, 255, True),
    }
    if name in stand_ins:
        made = made_up(name, *stand_ins[name])
        return replace(made, words={"": 2_000}) if name == "imdb_conv1d" else made
    loaded = tasks.find(name).load("small")
    return few(loaded) if name in GENERATED else loaded


def few(data: Data) -> Data:
    """20, 10 and 10 of the rows."""
    test = data.test.unseal().take(np.arange(10))
    train, validation = data.train.take(np.arange(20)), data.validation.take(np.arange(10))
    return replace(data, train=train, validation=validation, test=SealedSplit(test))


def at_full_size(name: str) -> Data:
    """Two empty rows in the shapes of the full size, for a model of the published size."""
    shapes, classes, words = {
        "question_answering": ({"text": (100,), "question": (100,)}, 500, 10_000),
        "posts": ((500,), 10, 50_000),
        "sentence_similarity": ({"left": (50, 128), "right": (50, 128)}, 2, 0),
        "dual_camera": ({"left": (250, 250, 3), "right": (250, 250, 3)}, 4, 0),
        "separable_images": ((64, 64, 3), 10, 0),
        "inception_residual": ((32, 32, 3), 10, 0),
    }[name]
    small = case_of(name).data
    inputs: Any = keras.tree.map_shape_structure(lambda shape: np.zeros((2, *shape), np.uint8), shapes)
    rows = replace(small.train.take(np.arange(2)), inputs=inputs)
    labels = () if small.outputs else tuple(map(str, range(classes)))
    numbers = dict.fromkeys(small.words, words)
    return replace(small, train=rows, classes=labels, words=numbers)


@dataclass(frozen=True)
class Case:
    """A task with its rows and its own search-space file."""

    task: Task
    data: Data
    space: space.Space

    def build(self, **changes: Setting) -> keras.Model:
        """The baseline's model, with some settings changed."""
        assert self.space.baseline is not None
        return self.task.build(self.space.published({**self.space.baseline, **changes}), self.data)

    def variant(self, name: str) -> keras.Model:
        return self.task.build(self.space.published(self.space.variants[name]), self.data)

    def searched(self, **changes: Setting) -> keras.Model:
        """A model as the sampler asks for it: every technique on, its number somewhere in its range."""
        return self.task.build(self.space.complete({**lowest(self.space), **changes}), self.data)

    def everything(self) -> dict[str, Settings]:
        """All settings that the file itself asks for, by a name."""
        assert self.space.baseline is not None
        return {
            "baseline": self.space.published(self.space.baseline),
            "searched": self.space.complete(lowest(self.space)),
            **{name: self.space.published(variant) for name, variant in self.space.variants.items()},
        }


def lowest(found: space.Space) -> dict[str, Setting]:
    """The first value of everything that is searched."""
    return {
        name: drawn.choices[0] if hasattr(drawn, "choices") else drawn.low
        for name, drawn in found.searched.items()
    }


_CASES: dict[str, Case] = {}


def case_of(name: str) -> Case:
    if name not in _CASES:
        task = tasks.find(name)
        found = space.read(space.file_of(name), task.parameters, task.metrics)
        _CASES[name] = Case(task, data_of(name), found)
    return _CASES[name]


@pytest.fixture(params=SOME_SLOW)
def case(request) -> Case:
    return case_of(request.param)


class Recording(Mapping[str, Setting]):
    """Settings that remember which of them were read."""

    def __init__(self, content: Settings) -> None:
        self.read: set[str] = set()
        self._content = content

    def __getitem__(self, name: str) -> Setting:
        self.read.add(name)
        return self._content[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._content)

    def __len__(self) -> int:
        return len(self._content)


def structure(model: keras.Model) -> list[tuple[str, list[tuple[int, ...]]]]:
    """What numbers must not change: kinds of layers, and the shapes of their weights."""
    return [(type(layer).__name__, [tuple(w.shape) for w in layer.weights]) for layer in model.layers]


def train_a_step(model: keras.Model, data: Data) -> dict[str, float]:
    rows = data.train.take(np.arange(8))
    # One step costs less than the graph of it.
    model.run_eagerly = True
    return model.train_on_batch(rows.inputs, rows.targets, return_dict=True)


def answers_of(model: keras.Model, rows: Split) -> dict[str, np.ndarray]:
    """By output; of a model with one, by the name ""."""
    raw = model(rows.inputs, training=False)
    return {name: keras.ops.convert_to_numpy(part) for name, part in answers.by_name(model, raw).items()}


def some(rows: Split, count: int = 8) -> Split:
    return rows.take(np.arange(count))


def assert_same_answers(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name, part in one.items():
        np.testing.assert_array_equal(part, other[name])


class TestContract:
    def test_it_is_found_by_its_name(self, case):
        assert case.task.name in tasks.NAMES
        assert tasks.find(case.task.name) is case.task
        assert case.data.name == case.task.name

    def test_its_parameters_have_names_of_their_own_and_legal_defaults(self, case):
        names = [parameter.name for parameter in case.task.parameters]
        assert len(set(names)) == len(names)
        assert set(names) >= TRAINING
        for parameter in case.task.parameters:
            assert parameter.fault(parameter.default) is None

    def test_its_space_names_only_its_parameters(self, case):
        known = {parameter.name for parameter in case.task.parameters}
        found = case.space
        assert set(found.searched) | set(found.fixed) <= known
        assert found.searched
        assert set(found.baseline) <= known
        for variant in found.variants.values():
            assert set(variant) <= known

    def test_its_space_searches_every_regulariser(self, case):
        # Whether one is there at all changes the structure or is a second question, so numbers are searched.
        numbers = {"dropout", "bn_momentum", "bn_epsilon", "l1", "l2", "max_norm"}
        assert numbers | {"learning_rate", "batch_size"} <= set(case.space.searched)

    def test_build_reads_exactly_the_parameters_of_the_model(self, case):
        read: set[str] = set()
        asked = [*case.everything().values()]
        # Each optimiser reads its own numbers.
        asked += [{**asked[0], "optimizer": word} for word in settings.OPTIMIZER.words]
        for one in asked:
            recording = Recording(one)
            case.task.build(recording, case.data)
            read |= recording.read
        assert read == {parameter.name for parameter in case.task.parameters} - TRAINING

    def test_build_leaves_the_settings_and_the_rows_alone(self, case):
        asked = case.everything()["searched"]
        before = dict(asked), {place: array.copy() for place, array in case.data.train.arrays.items()}
        case.task.build(asked, case.data)
        assert asked == before[0]
        for place, array in case.data.train.arrays.items():
            np.testing.assert_array_equal(array, before[1][place])

    def test_build_looks_at_the_training_rows_alone(self, case):
        whole = case.data
        fewer = replace(whole, validation=some(whole.validation, 1), test=SealedSplit(some(whole.train, 1)))
        found = []
        for data in (whole, fewer):
            keras.utils.set_random_seed(1)
            model = case.task.build(case.everything()["baseline"], data)
            found.append(answers_of(model, some(whole.train)))
        assert_same_answers(*found)

    def test_every_published_and_searched_setting_makes_a_compiled_model_that_learns(self, case):
        for asked in case.everything().values():
            model = case.task.build(asked, case.data)
            assert isinstance(model, keras.Model)
            assert model.compiled
            logs = train_a_step(model, case.data)
            # Fixed means of scores are not Keras's.
            measured = {metric.name for metric in case.task.metrics if not metric.parts}
            losses = {"loss", *(f"{output}_loss" for output in case.data.outputs)}
            assert set(logs) == losses | measured
            assert all(np.isfinite(value) for value in logs.values())
            logged = case.space.objective.with_means({f"val_{name}": value for name, value in logs.items()})
            assert {f"val_{metric.name}" for metric in case.task.metrics} <= set(logged)
            assert {case.space.objective.metric, case.space.budget.monitor} <= set(logged)

    def test_it_answers_with_probabilities_or_numbers(self, case):
        model, rows = case.build(), some(case.data.train)
        found = answers.read(model, keras.tree.map_structure(np.asarray, model(rows.inputs)), case.data)
        named = found if case.data.outputs else {"": found}
        targets = rows.targets if case.data.outputs else {"": rows.targets}
        assert named.keys() == targets.keys()
        for name, part in named.items():
            classes = case.data.outputs.get(name, case.data.classes)
            assert part.shape == (8, len(classes) or 1)
            assert np.isfinite(part).all()
            if classes:
                assert part.min() >= 0
                # Float32 quotients of one sum: a rounding of 6e-8 for each.
                np.testing.assert_allclose(part.sum(axis=1), 1, atol=1e-6)

    def test_one_sigmoid_or_logit_goes_with_targets_in_a_column(self, case):
        targets = case.data.train.targets
        for name, part in answers_of(case.build(), some(case.data.train)).items():
            target = targets[name] if name else targets
            # Keras compares (rows, 1) with (rows,) only where class numbers are meant.
            assert target.ndim == (2 if part.shape[1] == 1 else 1)

    def test_two_of_its_models_make_an_ensemble_that_answers_with_their_mean(self, case):
        def read(model: keras.Model) -> Answers:
            raw = keras.tree.map_structure(np.asarray, model(rows.inputs, training=False))
            return answers.read(model, raw, case.data)

        rows, members = some(case.data.validation), [case.build(), case.searched()]
        expected = ensemble.blend({n: read(one) for n, one in enumerate(members)}, {0: 0.25, 1: 0.75})
        blended = ensemble.as_model(list(zip(members, (0.25, 0.75), strict=True)))
        found = read(blended)
        assert {part.name: part.dtype for part in blended.inputs} == {
            part.name: part.dtype for part in members[0].inputs
        }
        keras.tree.assert_same_structure(found, expected)
        # Roundings of float32, of probabilities and of numbers of about 1.
        keras.tree.map_structure(lambda *both: np.testing.assert_allclose(*both, atol=2e-6), found, expected)

    def test_weights_are_fresh_and_derive_from_keras_seed(self, case):
        def weights(seed: int) -> np.ndarray:
            keras.utils.set_random_seed(seed)
            return np.concatenate([np.ravel(w) for w in case.build().get_weights()])

        np.testing.assert_array_equal(weights(1), weights(1))
        assert not np.array_equal(weights(1), weights(2))

    @pytest.mark.parametrize(
        "numbers",
        [
            {"dropout": 0.0},
            {"dropout": 0.3},
            {"l1": 0.0, "l2": 0.0},
            {"l1": 0.1, "l2": 0.1},
            {"bn_momentum": 0.0, "bn_epsilon": 0.5},
            {"max_norm": 0.5},
            {"learning_rate": 1.0},
            {"batch_size": 7, "shuffle": False},
        ],
        ids=lambda numbers: ", ".join(f"{name}={value}" for name, value in numbers.items()),
    )
    def test_numbers_do_not_change_the_structure(self, case, numbers):
        assert structure(case.searched(**numbers)) == structure(case.searched())

    def test_each_number_arrives_in_the_model(self, case):
        numbers = {
            "dropout": 0.25,
            "bn_momentum": 0.75,
            "bn_epsilon": 0.125,
            "l1": 0.5,
            "l2": 0.0625,
            "max_norm": 1.75,
        }
        model = case.searched(**numbers, learning_rate=0.015625)
        assert float(model.optimizer.learning_rate) == 0.015625
        dropouts, normals = (
            of_kind(model, kind) for kind in (keras.layers.Dropout, keras.layers.BatchNormalization)
        )
        assert dropouts
        assert normals
        for layer in dropouts:
            assert layer.rate == 0.25
        for layer in normals:
            assert (layer.momentum, layer.epsilon) == (0.75, 0.125)
        assert hidden_of(model)
        for layer in hidden_of(model):
            assert penalties(layer) == {(0.5, 0.0625)}
            assert bound(layer).max_value == 1.75
        # The last layers answer and are left free, as published.
        for layer in answering(model):
            assert layer.kernel_regularizer is None
            assert layer.kernel_constraint is None

    def test_techniques_can_be_switched_off(self, case):
        model = case.searched(batch_normalization=False, max_norm="none")
        assert not of_kind(model, keras.layers.BatchNormalization)
        for layer in hidden_of(model):
            assert bound(layer) is None

    def test_max_norm_bounds_each_unit(self, case):
        model = case.searched(max_norm=0.01)
        train_a_step(model, case.data)
        for layer in hidden_of(model):
            kernel = keras.ops.convert_to_numpy(bounded_kernel(layer))
            norms = np.sqrt((kernel.reshape(-1, kernel.shape[-1]) ** 2).sum(axis=0))
            # Keras divides by norm + 1e-7, in float32.
            assert norms.max() <= 0.01 * (1 + 1e-5)

    @pytest.mark.parametrize("asked", ["baseline", "searched"])
    def test_the_saved_model_opens_and_answers_the_same(self, case, asked, tmp_path: Path):
        model = case.task.build(case.everything()[asked], case.data)
        train_a_step(model, case.data)
        model.save(tmp_path / "model.keras")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loaded = keras.models.load_model(tmp_path / "model.keras")
        rows = some(case.data.validation)
        assert_same_answers(answers_of(loaded, rows), answers_of(model, rows))
        assert structure(loaded) == structure(model)
        assert set(train_a_step(loaded, case.data)) == set(train_a_step(model, case.data))


def of_kind(model: keras.Model, kind) -> list[keras.layers.Layer]:
    """Layers of models inside it, too."""
    return [layer for layer in model._flatten_layers(include_self=False) if isinstance(layer, kind)]


KERNELS = (
    keras.layers.Dense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.SeparableConv2D,
    keras.layers.LSTM,
)


def answering(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers that give the outputs."""
    return [output._keras_history.operation for output in model.outputs]


def hidden_of(model: keras.Model) -> list[keras.layers.Layer]:
    """Every other layer with a kernel."""
    last = {id(layer) for layer in answering(model)}
    return [layer for layer in of_kind(model, KERNELS) if id(layer) not in last]


def penalties(layer: keras.layers.Layer) -> set[tuple[float, float]]:
    """The (l1, l2) of each of its kernels that meets inputs."""
    if not isinstance(layer, keras.layers.SeparableConv2D):
        return {penalty(layer)}
    both = layer.depthwise_regularizer, layer.pointwise_regularizer
    return {(float(one.l1), float(one.l2)) for one in both}


def bound(layer: keras.layers.Layer) -> keras.constraints.Constraint | None:
    separable = isinstance(layer, keras.layers.SeparableConv2D)
    return layer.pointwise_constraint if separable else layer.kernel_constraint


def bounded_kernel(layer: keras.layers.Layer) -> Array:
    """What the bound is on, (..., units)."""
    if isinstance(layer, keras.layers.SeparableConv2D):
        return layer.pointwise_kernel
    return layer.cell.kernel if isinstance(layer, keras.layers.LSTM) else layer.kernel


def penalty(layer: keras.layers.Layer) -> tuple[float, float]:
    """The kernel's (l1, l2)."""
    regularizer = layer.kernel_regularizer
    return float(regularizer.l1), float(regularizer.l2)


def kinds(model: keras.Model) -> list[str]:
    return [type(layer).__name__ for layer in model.layers]


def dense_layers(model: keras.Model) -> list[tuple[int, str]]:
    """(units, activation) of each Dense layer."""
    return [(layer.units, layer.activation.__name__) for layer in of_kind(model, keras.layers.Dense)]


def convolutions(model: keras.Model) -> list[tuple[int, int, int, str]]:
    """(filters, kernel, stride, activation) of each convolution, all of them square and unpadded."""
    found = of_kind(model, keras.layers.Conv2D)
    for layer in found:
        assert layer.kernel_size == (layer.kernel_size[0],) * 2
        assert layer.strides == (layer.strides[0],) * 2
        assert layer.padding == "valid"
    return [(c.filters, c.kernel_size[0], c.strides[0], c.activation.__name__) for c in found]


def normalizations(model: keras.Model) -> list[tuple[float, float]]:
    """(momentum, epsilon) of each BatchNormalization."""
    return [(layer.momentum, layer.epsilon) for layer in of_kind(model, keras.layers.BatchNormalization)]


def assert_unregularised(model: keras.Model) -> None:
    for layer in hidden_of(model):
        assert bound(layer) is None
        assert penalties(layer) == {(0, 0)}
        activity = getattr(layer, "activity_regularizer", None)
        assert activity is None or float(activity.l1) == 0
    for layer in answering(model):
        assert layer.kernel_constraint is None
        assert layer.kernel_regularizer is None
    assert all(layer.rate == 0 for layer in of_kind(model, keras.layers.Dropout))


def assert_optimizer(model: keras.Model, kind: type[keras.optimizers.Optimizer]) -> None:
    """Keras's optimizer with Keras's own numbers."""
    assert type(model.optimizer) is kind
    ours, default = model.optimizer.get_config(), kind().get_config()
    assert ours.pop("learning_rate") == pytest.approx(0.001, rel=1e-6)
    default.pop("learning_rate")
    # Keras numbers the names.
    del ours["name"], default["name"]
    assert ours == default


class TestIris:
    @pytest.fixture
    def iris(self) -> Case:
        return case_of("iris")

    WIDTHS = (64, 128, 128, 64, 64)

    def test_the_baseline_is_published_without_batch_normalization(self, iris):
        model = iris.build()
        assert kinds(model) == ["Normalization", *["Dense", "Dropout"] * 5, "Dense"]
        assert dense_layers(model) == [*((units, "relu") for units in self.WIDTHS), (3, "softmax")]
        assert_unregularised(model)
        assert_optimizer(model, keras.optimizers.Adam)
        # 4*64+64, 64*128+128, 128*128+128, 128*64+64, 64*64+64, 64*3+3.
        assert model.count_params() == 320 + 8320 + 16512 + 8256 + 4160 + 195 == 37_763

    def test_the_variant_has_batch_normalization_after_each_hidden_layer(self, iris):
        model = iris.variant("batch_normalization")
        assert kinds(model) == ["Normalization", *["Dense", "BatchNormalization", "Dropout"] * 5, "Dense"]
        assert normalizations(model) == [*[(0.99, 0.001)] * 4, (0.95, 0.005)]
        assert_unregularised(model)
        assert_optimizer(model, keras.optimizers.Adam)
        # Four numbers for each of 64+128+128+64+64 = 448 units, two of them trained.
        assert model.count_params() == 37_763 + 4 * 448
        assert sum(int(np.prod(w.shape)) for w in model.trainable_variables) == 37_763 + 2 * 448

    @pytest.mark.parametrize("published", [True, False], ids=["variant", "searched"])
    def test_the_last_batch_normalization_starts_in_its_own_way(self, iris, published):
        model = iris.variant("batch_normalization") if published else iris.searched()
        *first, last = of_kind(model, keras.layers.BatchNormalization)
        for layer in first:
            assert isinstance(layer.beta_initializer, keras.initializers.Zeros)
            np.testing.assert_array_equal(layer.gamma, 1)
        assert isinstance(last.beta_initializer, keras.initializers.RandomNormal)
        assert (last.beta_initializer.mean, last.beta_initializer.stddev) == (0.0, 0.05)
        assert isinstance(last.gamma_initializer, keras.initializers.Constant)
        np.testing.assert_allclose(last.gamma, 0.9, rtol=1e-6)

    def test_the_searched_pair_drives_every_batch_normalization(self, iris):
        assert normalizations(iris.searched(bn_momentum=0.75, bn_epsilon=0.125)) == [(0.75, 0.125)] * 5

    def test_inputs_are_standardised_by_the_training_rows(self, iris):
        scaled = np.asarray(iris.build().layers[0](iris.data.train.inputs))
        # Means and variances of 90 rows in float32.
        np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(scaled.std(axis=0), 1, atol=1e-5)

    def test_its_training_is_as_published(self, iris):
        assert iris.space.baseline["batch_size"] == 40
        assert iris.space.budget.epochs == 1000


class TestLeNet:
    @pytest.fixture(params=["mnist", "digits"])
    def lenet(self, request) -> Case:
        return case_of(request.param)

    CONVOLUTION = ("Conv2D", "BatchNormalization")

    def test_the_baseline_is_as_published(self, lenet):
        model = lenet.build()
        assert kinds(model) == [
            "Rescaling",
            "ZeroPadding2D",
            *self.CONVOLUTION,
            "AveragePooling2D",
            *self.CONVOLUTION,
            "AveragePooling2D",
            *self.CONVOLUTION,
            "Flatten",
            "Dense",
            "Dropout",
            "Dense",
        ]
        assert convolutions(model) == [(6, 5, 1, "tanh"), (16, 5, 1, "tanh"), (120, 5, 1, "tanh")]
        assert dense_layers(model) == [(84, "tanh"), (10, "softmax")]
        assert normalizations(model) == [(0.99, 0.001)] * 3
        for pool in of_kind(model, keras.layers.AveragePooling2D):
            assert (pool.pool_size, pool.strides) == ((2, 2), (2, 2))
        assert_unregularised(model)
        assert_optimizer(model, keras.optimizers.Adam)
        # 25*6+6, 25*6*16+16, 25*16*120+120, 120*84+84, 84*10+10; BN: 4 * (6+16+120).
        assert model.count_params() == 156 + 2416 + 48_120 + 10_164 + 850 + 568 == 62_274

    def test_sides_shrink_from_32_to_1(self, lenet):
        model = lenet.build()
        kept = (keras.layers.ZeroPadding2D, keras.layers.Conv2D, keras.layers.AveragePooling2D)
        assert [layer.output.shape[1:3] for layer in of_kind(model, kept)] == [
            (side, side) for side in (32, 28, 14, 10, 5, 1)
        ]

    def test_images_are_scaled_to_0_to_1_and_padded_all_round(self, lenet):
        model = lenet.build()
        side = lenet.data.train.inputs.shape[1]
        brightest = {28: 255, 8: 16}[side]
        image = np.full((1, side, side, 1), brightest, np.uint8)
        padded = np.asarray(model.layers[1](model.layers[0](image)))[0, ..., 0]
        expected = np.zeros((32, 32))
        border = (32 - side) // 2
        expected[border:-border, border:-border] = 1
        np.testing.assert_allclose(padded, expected, rtol=1e-6)

    def test_it_can_do_without_batch_normalization(self, lenet):
        model = lenet.variant("no_batch_normalization")
        assert not normalizations(model)
        assert model.count_params() == 62_274 - 568

    def test_max_norm_spans_a_filter(self, lenet):
        for layer in of_kind(lenet.searched(), keras.layers.Conv2D):
            assert list(layer.kernel_constraint.axis) == [0, 1, 2]

    def test_its_training_is_as_published(self, lenet):
        assert lenet.space.baseline["batch_size"] == 32
        assert lenet.space.baseline["shuffle"] is True


class TestShuffleComparison:
    @pytest.mark.parametrize(("variant", "shuffle"), [("shuffle", True), ("no_shuffle", False)])
    def test_it_has_its_own_third_convolution(self, variant, shuffle):
        mnist = case_of("mnist")
        model = mnist.variant(variant)
        assert mnist.space.variants[variant]["shuffle"] is shuffle
        assert convolutions(model)[2] == (120, 1, 5, "tanh")
        assert of_kind(model, keras.layers.Conv2D)[2].output.shape[1:] == (1, 1, 120)
        # 16*120+120 instead of 48,120.
        assert model.count_params() == 62_274 - 48_120 + 2_040


class TestFashionMnist:
    @pytest.fixture
    def fashion(self) -> Case:
        return case_of("fashion_mnist")

    def test_the_baseline_is_as_published(self, fashion):
        model = fashion.build()
        assert kinds(model) == ["Rescaling", "Flatten", "Dense", "Dropout", "Dense"]
        assert dense_layers(model) == [(64, "linear"), (10, "softmax")]
        hidden = of_kind(model, keras.layers.Dense)[0]
        assert penalty(hidden) == (0.0, 0.01)
        assert float(hidden.activity_regularizer.l1) == pytest.approx(0.01)
        assert hidden.kernel_constraint.max_value == 2.0
        assert hidden.kernel_constraint.axis == 0
        assert model.layers[3].rate == 0.5
        assert_optimizer(model, keras.optimizers.Adam)
        # 784*64+64 and 64*10+10.
        assert model.count_params() == 50_240 + 650 == 50_890

    def test_the_searched_model_has_batch_normalization_before_dropout(self, fashion):
        model = fashion.searched()
        assert kinds(model) == ["Rescaling", "Flatten", "Dense", "BatchNormalization", "Dropout", "Dense"]
        assert model.count_params() == 50_890 + 4 * 64

    @pytest.mark.parametrize(
        ("variant", "l2", "activity_l1", "max_norm", "dropout"),
        [
            ("plain", 0.0, 0.0, None, 0.0),
            ("l2_activity_l1", 0.01, 0.01, None, 0.0),
            ("max_norm", 0.01, 0.01, 2.0, 0.0),
            ("dropout", 0.01, 0.01, 2.0, 0.5),
        ],
    )
    def test_its_four_steps_add_one_technique_each(
        self, fashion, variant, l2, activity_l1, max_norm, dropout
    ):
        model = fashion.variant(variant)
        hidden = of_kind(model, keras.layers.Dense)[0]
        assert penalty(hidden) == (0.0, l2)
        assert float(hidden.activity_regularizer.l1) == pytest.approx(activity_l1)
        assert getattr(hidden.kernel_constraint, "max_value", None) == max_norm
        assert of_kind(model, keras.layers.Dropout)[0].rate == dropout
        assert dense_layers(model) == [(64, "linear"), (10, "softmax")]
        assert not normalizations(model)

    def test_the_last_step_is_the_baseline(self, fashion):
        last = fashion.space.published(fashion.space.variants["dropout"])
        assert last == fashion.space.published(fashion.space.baseline)

    @pytest.mark.parametrize("activation", ["linear", "relu", "tanh", "elu", "gelu"])
    def test_its_activation_can_be_chosen(self, fashion, activation):
        assert dense_layers(fashion.searched(activation=activation))[0] == (64, activation)

    def test_images_are_scaled_to_0_to_1(self, fashion):
        scaled = np.asarray(fashion.build().layers[0](np.array([[0, 255]], np.uint8)))
        np.testing.assert_allclose(scaled, [[0, 1]], rtol=1e-6)

    def test_its_training_is_as_published(self, fashion):
        assert fashion.space.baseline["batch_size"] == 30
        assert fashion.space.budget.patience == 10


class TestImdb:
    @pytest.fixture
    def imdb(self) -> Case:
        return case_of("imdb")

    def test_the_baseline_is_as_published(self, imdb):
        model = imdb.build()
        assert kinds(model) == [*["Dense", "Dropout"] * 2, "Dense"]
        assert dense_layers(model) == [(16, "relu"), (16, "relu"), (1, "sigmoid")]
        assert model.loss == "binary_crossentropy"
        assert_unregularised(model)
        assert_optimizer(model, keras.optimizers.RMSprop)
        # 10000*16+16, 16*16+16, 16+1.
        assert model.count_params() == 160_016 + 272 + 17 == 160_305

    def test_the_searched_model_has_batch_normalization_after_each_hidden_layer(self, imdb):
        model = imdb.searched()
        assert kinds(model) == [*["Dense", "BatchNormalization", "Dropout"] * 2, "Dense"]
        assert model.count_params() == 160_305 + 4 * 32

    def test_its_training_is_as_published(self, imdb):
        assert imdb.space.baseline["batch_size"] == 512
        assert imdb.space.budget.epochs == 20


@pytest.mark.parametrize(
    ("name", "published"), [("iris", (64, 128, 128, 64, 64)), ("fashion_mnist", (64,)), ("imdb", (16, 16))]
)
class TestShapeOfDenseTasks:
    def hidden(self, model: keras.Model) -> list[int]:
        return [units for units, _ in dense_layers(model)[:-1]]

    def test_it_is_the_published_one_by_default(self, name, published):
        case = case_of(name)
        assert self.hidden(case.searched()) == list(published)
        assert {"units", "hidden_layers"}.isdisjoint(case.space.searched)

    def test_units_are_those_of_every_hidden_layer(self, name, published):
        assert self.hidden(case_of(name).searched(units=7)) == [7] * len(published)

    def test_fewer_layers_are_the_first_ones(self, name, published):
        assert self.hidden(case_of(name).searched(hidden_layers=1)) == list(published[:1])

    def test_more_layers_repeat_the_last_one(self, name, published):
        layers = len(published) + 2
        assert self.hidden(case_of(name).searched(hidden_layers=layers)) == [*published, *published[-1:] * 2]

    def test_both_together(self, name, published):
        del published
        assert self.hidden(case_of(name).searched(hidden_layers=3, units=5)) == [5, 5, 5]


# The tasks of several inputs or outputs, of sequences and of pictures


def loss_of(model: keras.Model) -> dict[str, Any]:
    return model.get_compile_config()["loss"]


def convolutions_1d(model: keras.Model) -> list[tuple[int, int, str]]:
    """(filters, kernel, activation) of each, all of them unpadded and of stride 1."""
    found = of_kind(model, keras.layers.Conv1D)
    assert {(layer.strides, layer.padding) for layer in found} == {((1,), "valid")}
    return [(layer.filters, *layer.kernel_size, layer.activation.__name__) for layer in found]


@pytest.mark.parametrize(
    ("name", "batch_size"),
    [("imdb_conv1d", 128), ("question_answering", 128), ("posts", 64)],
)
def test_a_batch_is_as_large_as_published(name: str, batch_size: int) -> None:
    assert case_of(name).space.baseline["batch_size"] == batch_size


@pytest.mark.parametrize("name", ["imdb_conv1d", *(name for name in GENERATED if name != "dual_camera")])
def test_the_baseline_has_no_technique_and_keras_rmsprop(name: str) -> None:
    model = case_of(name).build()
    assert_unregularised(model)
    assert not normalizations(model)
    assert_optimizer(model, keras.optimizers.RMSprop)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        # Vectors of both vocabularies; 4 gates of (inputs + units + 1) * units; 48 numbers to 500 answers.
        (
            "question_answering",
            [10_000 * 64, 10_000 * 32, 4 * (64 + 32 + 1) * 32, 4 * (32 + 16 + 1) * 16, 49 * 500],
        ),
        (
            "posts",
            [
                50_000 * 256,
                (5 * 256 + 1) * 128,
                (5 * 128 + 1) * 256,
                3 * (5 * 256 + 1) * 256,
                257 * 128,
                129 * (1 + 10 + 1),
            ],
        ),
        # One reader, however many sentences.
        ("sentence_similarity", [4 * (128 + 32 + 1) * 32, 65]),
        # Xception without its top, once, as Keras's page counts it; two times 2,048 features to four classes.
        pytest.param("dual_camera", [20_861_480, 4_097 * 4], marks=pytest.mark.slow),
        # A depthwise 3x3 a channel, a pointwise kernel, a bias a filter.
        (
            "separable_images",
            [
                9 * 3 + 4 * 32,
                9 * 32 + 33 * 64,
                9 * 64 + 65 * 64,
                9 * 64 + 65 * 128,
                9 * 128 + 129 * 64,
                9 * 64 + 65 * 128,
                129 * 32,
                33 * 10,
            ],
        ),
        # Branches of 1x1; 1x1, 3x3; pool, 3x3; 1x1, 3x3, 3x3. Blocks: of 512 channels, projected; of 128.
        (
            "inception_residual",
            [
                4 * 128,
                4 * 128 + (9 * 128 + 1) * 128,
                (9 * 3 + 1) * 128,
                4 * 128 + 2 * (9 * 128 + 1) * 128,
                (9 * 512 + 1) * 128 + 2 * (9 * 128 + 1) * 128 + 513 * 128,
                3 * (9 * 128 + 1) * 128,
                129 * 10,
            ],
        ),
    ],
)
def test_at_the_full_size_the_model_has_the_published_number_of_weights(name: str, parts: list[int]) -> None:
    case = case_of(name)
    assert replace(case, data=at_full_size(name)).build().count_params() == sum(parts)


class TestImdbConv1d:
    @pytest.fixture
    def reviews(self) -> Case:
        return case_of("imdb_conv1d")

    def test_the_baseline_is_as_published(self, reviews):
        model = reviews.build()
        assert kinds(model) == [
            "Embedding",
            "Conv1D",
            "MaxPooling1D",
            "Dropout",
            "Conv1D",
            "GlobalAveragePooling1D",
            "Dropout",
            "Dense",
        ]
        assert convolutions_1d(model) == [(32, 7, "relu")] * 2
        assert dense_layers(model) == [(1, "linear")]
        (vectors,) = of_kind(model, keras.layers.Embedding)
        assert (vectors.input_dim, vectors.output_dim, vectors.mask_zero) == (2_000, 128, False)
        (pool,) = of_kind(model, keras.layers.MaxPooling1D)
        assert (pool.pool_size, pool.strides) == ((5,), (5,))
        # 2000*128, (7*128+1)*32, (7*32+1)*32, 33.
        assert model.count_params() == 256_000 + 28_704 + 7_200 + 33

    def test_its_one_answer_is_a_logit_to_loss_and_metrics(self, reviews):
        model = reviews.build()
        assert isinstance(model.loss, keras.losses.BinaryCrossentropy)
        assert model.loss.get_config()["from_logits"] is True
        logits = np.array([[-3.0], [-0.2], [0.3], [4.0]], np.float32)
        targets = np.array([[0], [1], [0], [1]], np.int32)
        model.compute_loss(y=targets, y_pred=logits)
        model.compute_metrics(None, targets, logits)
        logs = model.get_metrics_result()
        probabilities = 1 / (1 + np.exp(-logits))
        right = np.where(targets == 1, probabilities, 1 - probabilities)
        assert logs["accuracy"] == 0.5
        assert float(logs["log_loss"]) == pytest.approx(-np.log(right).mean(), rel=1e-6)

    def test_a_logit_of_zero_is_the_first_class_as_a_probability_of_a_half_is(self, reviews):
        model = reviews.build()
        targets, logits = np.zeros((1, 1), np.int32), np.zeros((1, 1), np.float32)
        model.compute_metrics(None, targets, logits)
        assert model.get_metrics_result()["accuracy"] == 1.0

    def test_the_searched_model_has_normalization_and_dropout(self, reviews):
        assert kinds(reviews.searched()) == [
            "Embedding",
            "Conv1D",
            "BatchNormalization",
            "MaxPooling1D",
            "Dropout",
            "Conv1D",
            "BatchNormalization",
            "GlobalAveragePooling1D",
            "Dropout",
            "Dense",
        ]

    def test_max_norm_spans_a_filter(self, reviews):
        for layer in of_kind(reviews.searched(), keras.layers.Conv1D):
            assert list(layer.kernel_constraint.axis) == [0, 1]

    def test_it_trains_twenty_epochs(self, reviews):
        assert reviews.space.budget.epochs == 20


class TestReviewsInWords:
    """Numbers 0 to 3 are marks; the commonest word is 4."""

    # Padding, the start, "a", a rare word, "film", "a".
    REVIEW: ClassVar = [0, 0, 1, 4, 2, 6, 4]

    @pytest.fixture(autouse=True)
    def _index(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        ranks = json.dumps({"film": 3, "a": 1, "great": 2})
        (tmp_path / "imdb_word_index.json").write_text(ranks, encoding="utf-8")
        monkeypatch.setenv("PIPELINE_DATA", str(tmp_path))

    def test_a_sequence_is_read_in_order_with_a_dash_for_a_rare_word(self):
        texts = case_of("imdb_conv1d").task.texts
        assert texts(np.array([self.REVIEW, [0] * 7], np.int32)) == ["a – film a", ""]

    def test_a_bag_is_read_from_its_rarest_word_on(self):
        texts = case_of("imdb").task.texts
        bags = keras_sets.multi_hot(np.array([self.REVIEW, [5, 6, 6, 6, 6, 6, 6]]), 7)
        assert texts(bags) == ["film, a", "film, great"]

    @pytest.mark.parametrize("name", ["imdb", "imdb_conv1d"])
    def test_without_an_index_there_are_no_texts(self, name, tmp_path):
        (tmp_path / "imdb_word_index.json").unlink()
        assert case_of(name).task.texts(np.zeros((1, 7), np.uint8)) is None


class TestQuestionAnswering:
    @pytest.fixture
    def questions(self) -> Case:
        return case_of("question_answering")

    def test_each_input_has_its_own_reader(self, questions):
        model = questions.build()
        assert {part.name: (part.shape[1:], part.dtype) for part in model.inputs} == {
            "text": ((20,), "int32"),
            "question": ((20,), "int32"),
        }
        for name, vector, units in (("text", 64, 32), ("question", 32, 16)):
            vectors, reader = model.get_layer(f"{name}_vectors"), model.get_layer(f"{name}_reader")
            assert (vectors.input_dim, vectors.output_dim) == (10_000, vector)
            assert reader.units == units
            assert reader.input is vectors.output
            assert vectors.input.name == name
        (joined,) = of_kind(model, keras.layers.Concatenate)
        assert joined.output.shape == (None, 48)
        assert dense_layers(model) == [(20, "softmax")]
        assert loss_of(model) == "sparse_categorical_crossentropy"

    def test_at_the_full_size_it_has_500_answers_and_reads_100_words(self):
        model = replace(case_of("question_answering"), data=at_full_size("question_answering")).build()
        assert dense_layers(model) == [(500, "softmax")]
        assert {part.shape for part in model.inputs} == {(None, 100)}

    def test_the_readers_are_keras_lstms(self, questions):
        for reader in of_kind(questions.build(), keras.layers.LSTM):
            published = keras.layers.LSTM(reader.units).get_config()
            ours = reader.get_config()
            for key in ("name", "kernel_regularizer"):
                del published[key], ours[key]
            assert ours == published

    def test_the_searched_model_normalises_and_drops_what_is_joined(self, questions):
        model = questions.searched()
        assert kinds(model)[-4:] == ["Concatenate", "BatchNormalization", "Dropout", "Dense"]
        for reader in of_kind(model, keras.layers.LSTM):
            assert reader.kernel_constraint.axis == 0
            assert reader.recurrent_regularizer is None


class TestPosts:
    @pytest.fixture
    def posts(self) -> Case:
        return case_of("posts")

    def test_the_baseline_is_as_published(self, posts):
        model = posts.build()
        assert kinds(model)[:12] == [
            "InputLayer",
            "Embedding",
            "Conv1D",
            "MaxPooling1D",
            "Conv1D",
            "Conv1D",
            "MaxPooling1D",
            "Conv1D",
            "Conv1D",
            "GlobalAveragePooling1D",
            "Dense",
            "Dropout",
        ]
        assert convolutions_1d(model) == [(128, 5, "relu"), *[(256, 5, "relu")] * 4]
        for pool in of_kind(model, keras.layers.MaxPooling1D):
            assert (pool.pool_size, pool.strides) == ((5,), (5,))
        assert of_kind(model, keras.layers.Embedding)[0].output_dim == 256
        (dense,) = (layer for layer in hidden_of(model) if isinstance(layer, keras.layers.Dense))
        assert (dense.units, dense.activation.__name__) == (128, "relu")

    def test_its_outputs_read_one_layer_and_have_names(self, posts):
        model = posts.build()
        assert set(model.output) == {"age", "income", "gender"}
        for name, units, activation in (
            ("age", 1, "linear"),
            ("income", 10, "softmax"),
            ("gender", 1, "sigmoid"),
        ):
            layer = model.get_layer(name)
            assert (layer.units, layer.activation.__name__) == (units, activation)
            assert model.output[name] is layer.output
            assert isinstance(layer.input._keras_history.operation, keras.layers.Dropout)
        assert len({id(layer.input) for layer in answering(model)}) == 1

    def test_losses_and_their_weights_are_as_published(self, posts):
        model = posts.build()
        assert loss_of(model) == {
            "age": "mse",
            "income": "sparse_categorical_crossentropy",
            "gender": "binary_crossentropy",
        }
        weights = {"age": 0.25, "income": 1.0, "gender": 10.0}
        assert model.get_compile_config()["loss_weights"] == weights
        logs = train_a_step(model, posts.data)
        by_hand = sum(weight * logs[f"{name}_loss"] for name, weight in weights.items())
        assert logs["loss"] == pytest.approx(by_hand, rel=1e-5)

    def test_the_weights_of_the_losses_can_be_searched(self, posts):
        asked = {"age_weight": 0.5, "income_weight": 3.0, "gender_weight": 2.0}
        weights = posts.searched(**asked).get_compile_config()["loss_weights"]
        assert weights == {"age": 0.5, "income": 3.0, "gender": 2.0}
        assert set(asked) <= set(posts.space.searched)

    def test_each_output_logs_its_own_metrics(self, posts):
        logs = train_a_step(posts.build(), posts.data)
        assert set(logs) == {
            "loss",
            "age_loss",
            "income_loss",
            "gender_loss",
            "age_mse",
            "age_mae",
            "income_accuracy",
            "income_log_loss",
            "gender_accuracy",
            "gender_log_loss",
        }
        for name, same in (("age_mse", "age_loss"), ("income_log_loss", "income_loss")):
            assert logs[name] == pytest.approx(logs[same], rel=1e-5)

    def test_its_score_counts_each_output_a_third_of_what_a_guess_loses(self, posts):
        guess = {
            "val_age_mse": 1.0,
            "val_income_log_loss": np.log(10),
            "val_gender_log_loss": np.log(2),
        }
        assert posts.space.objective.metric == "val_score"
        assert posts.space.objective.with_means(guess)["val_score"] == pytest.approx(1.0)
        for name in guess:
            better = posts.space.objective.with_means({**guess, name: 0.0})
            assert better["val_score"] == pytest.approx(2 / 3)

    def test_the_searched_model_normalises_after_each_hidden_layer(self, posts):
        model = posts.searched()
        assert len(normalizations(model)) == 6
        for layer in hidden_of(model):
            (after,) = layer._outbound_nodes
            assert isinstance(after.operation, keras.layers.BatchNormalization)
        for layer in of_kind(model, keras.layers.Conv1D):
            assert list(layer.kernel_constraint.axis) == [0, 1]


def halves(model: keras.Model, rows: Split) -> tuple[np.ndarray, np.ndarray]:
    """What is read of the left and of the right input, where both have the same rows."""
    (joined,) = of_kind(model, keras.layers.Concatenate)
    until = keras.Model(model.input, joined.output)
    same = rows.inputs["left"]
    left, right = np.split(np.asarray(until({"left": same, "right": same}, training=False)), 2, axis=1)
    return left, right


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sentence_similarity", keras.layers.LSTM),
        pytest.param("dual_camera", keras.Model, marks=pytest.mark.slow),
    ],
)
class TestSharedReader:
    def test_one_set_of_weights_reads_both_inputs(self, name, kind, tmp_path: Path):
        case = case_of(name)
        model = case.searched()
        rows = some(case.data.train, 4)
        train_a_step(model, case.data)
        model.save(tmp_path / "model.keras")
        for one in (model, keras.models.load_model(tmp_path / "model.keras")):
            readers = of_kind(one, kind)
            assert len(readers) == 1
            assert len(readers[0]._inbound_nodes) >= 2
            last = sum(layer.count_params() for layer in of_kind(one, keras.layers.Dense))
            normal = sum(
                layer.count_params()
                for layer in one.layers
                if isinstance(layer, keras.layers.BatchNormalization)
            )
            assert one.count_params() == readers[0].count_params() + last + normal
            before = halves(one, rows)
            assert np.abs(before[0]).max() > 0
            np.testing.assert_array_equal(*before)
            # A change of the one set is seen on both sides.
            weight = readers[0].trainable_variables[0]
            weight.assign(weight.value * 1.5)
            after = halves(one, rows)
            np.testing.assert_array_equal(*after)
            assert not np.allclose(after[0], before[0])


class TestSentenceSimilarity:
    @pytest.fixture
    def sentences(self) -> Case:
        return case_of("sentence_similarity")

    def test_the_baseline_is_as_published(self, sentences):
        model = sentences.build()
        assert sorted(kinds(model)) == ["Concatenate", "Dense", "Dropout", "InputLayer", "InputLayer", "LSTM"]
        reader = model.get_layer("reader")
        assert reader.units == 32
        assert {part.name: part.shape[2] for part in model.inputs} == {"left": 128, "right": 128}
        assert dense_layers(model) == [(1, "sigmoid")]
        assert loss_of(model) == "binary_crossentropy"
        (joined,) = of_kind(model, keras.layers.Concatenate)
        assert joined.output.shape == (None, 64)

    def test_the_left_sentence_comes_first(self, sentences):
        model = sentences.build()
        rows = some(sentences.data.train, 4)
        reader, (joined,) = model.get_layer("reader"), of_kind(model, keras.layers.Concatenate)
        read = np.asarray(keras.Model(model.input, joined.output)(rows.inputs))
        for place, name in enumerate(("left", "right")):
            alone = np.asarray(reader(rows.inputs[name]))
            np.testing.assert_allclose(read[:, 32 * place : 32 * (place + 1)], alone, atol=1e-6)

    def test_the_searched_model_normalises_and_drops_what_is_joined(self, sentences):
        assert kinds(sentences.searched())[-4:] == ["Concatenate", "BatchNormalization", "Dropout", "Dense"]


@pytest.mark.slow
class TestDualCamera:
    @pytest.fixture
    def cameras(self) -> Case:
        return case_of("dual_camera")

    def test_the_base_is_keras_xception(self, cameras):
        model = cameras.build()
        base = model.get_layer("xception")
        published = keras.applications.Xception(
            include_top=False, weights=None, input_shape=(71, 71, 3), pooling="avg"
        )
        assert len(base.layers) == len(published.layers)
        # Named like Keras's, so that published weights would fit; penalties of zero are there.
        ours_alone = {f"{part}_regularizer" for part in ("kernel", "depthwise", "pointwise")}
        for ours, theirs in zip(base.layers, published.layers, strict=True):
            assert type(ours) is type(theirs)
            mine, its = ours.get_config(), theirs.get_config()
            for key in {"gamma_initializer", "name"} | ours_alone:
                mine.pop(key, None)
                its.pop(key, None)
            assert mine == its
        assert [weight.shape for weight in base.weights] == [weight.shape for weight in published.weights]
        for ours, theirs in zip(base.weights, published.weights, strict=True):
            if "gamma" in ours.path:
                np.testing.assert_array_equal(ours, theirs)
        assert_unregularised(model)
        assert_optimizer(model, keras.optimizers.RMSprop)

    def test_pictures_are_scaled_and_features_joined(self, cameras):
        model = cameras.build()
        assert {part.name: (part.shape[1:], part.dtype) for part in model.inputs} == {
            "left": ((71, 71, 3), "uint8"),
            "right": ((71, 71, 3), "uint8"),
        }
        for layer in of_kind(model, keras.layers.Rescaling):
            np.testing.assert_allclose(np.asarray(layer(np.array([0, 255], np.uint8))), [0, 1], rtol=1e-6)
        (joined,) = [layer for layer in model.layers if isinstance(layer, keras.layers.Concatenate)]
        assert joined.output.shape == (None, 2 * 2048)
        assert dense_layers(model) == [(4, "softmax")]

    def test_the_searched_numbers_are_in_all_of_its_layers(self, cameras):
        model = cameras.searched(l1=0.5, l2=0.25, max_norm=1.5, bn_momentum=0.75, bn_epsilon=0.125)
        base = model.get_layer("xception")
        assert normalizations(base) == [(0.75, 0.125)] * 40
        kernels = of_kind(base, KERNELS)
        assert len(kernels) == 40
        for layer in kernels:
            assert penalties(layer) == {(0.5, 0.25)}
            assert bound(layer).max_value == 1.5
            assert list(bound(layer).axis) == [0, 1, 2]

    def test_without_normalization_the_base_has_none(self, cameras):
        model = cameras.build(batch_normalization=False)
        assert not normalizations(model)
        channels = sum(
            layer.count_params() for layer in of_kind(cameras.build(), keras.layers.BatchNormalization)
        )
        assert model.get_layer("xception").count_params() == 20_861_480 - channels


class TestSeparableImages:
    @pytest.fixture
    def images(self) -> Case:
        return case_of("separable_images")

    def test_the_baseline_is_as_published(self, images):
        model = images.build()
        pair = ["SeparableConv2D"] * 2
        assert kinds(model) == [
            "Rescaling",
            *pair,
            "MaxPooling2D",
            *pair,
            "MaxPooling2D",
            *pair,
            "GlobalAveragePooling2D",
            "Dense",
            "Dropout",
            "Dense",
        ]
        separable = of_kind(model, keras.layers.SeparableConv2D)
        assert [layer.filters for layer in separable] == [32, 64, 64, 128, 64, 128]
        for layer in separable:
            assert (layer.kernel_size, layer.strides, layer.padding) == ((3, 3), (1, 1), "valid")
            assert layer.activation.__name__ == "relu"
            assert layer.depth_multiplier == 1
        for pool in of_kind(model, keras.layers.MaxPooling2D):
            assert (pool.pool_size, pool.strides) == ((2, 2), (2, 2))
        assert dense_layers(model) == [(32, "relu"), (10, "softmax")]
        assert loss_of(model) == "sparse_categorical_crossentropy"

    def test_the_searched_model_normalises_after_each_hidden_layer(self, images):
        found = kinds(images.searched())
        assert found.count("BatchNormalization") == 7
        for place, kind in enumerate(found):
            if kind == "SeparableConv2D":
                assert found[place + 1] == "BatchNormalization"
        assert found[-4:] == ["Dense", "BatchNormalization", "Dropout", "Dense"]

    def test_max_norm_spans_a_filter(self, images):
        for layer in of_kind(images.searched(), keras.layers.SeparableConv2D):
            assert list(layer.pointwise_constraint.axis) == [0, 1, 2]
            assert layer.depthwise_constraint is None


def feeding(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    return [part._keras_history.operation for part in keras.tree.flatten(layer.input)]


class TestInceptionResidual:
    @pytest.fixture
    def images(self) -> Case:
        return case_of("inception_residual")

    def shape_of(self, layer: keras.layers.Layer) -> tuple[int, int, int]:
        assert isinstance(layer, keras.layers.Conv2D)
        assert layer.padding == "same"
        return layer.filters, layer.kernel_size[0], layer.strides[0]

    def way_back(self, layer: keras.layers.Layer, stop: keras.layers.Layer) -> list[Any]:
        """The layers from `stop` to `layer`, in order: shapes of convolutions, and kinds of others."""
        way: list[Any] = []
        while layer is not stop:
            convolution = isinstance(layer, keras.layers.Conv2D)
            way.insert(0, self.shape_of(layer) if convolution else type(layer).__name__)
            (layer,) = feeding(layer)
        return way

    def test_four_branches_of_stride_2_are_joined(self, images):
        model = images.build()
        (joined,), (scaled,) = (
            of_kind(model, kind) for kind in (keras.layers.Concatenate, keras.layers.Rescaling)
        )
        assert [self.way_back(branch, scaled) for branch in feeding(joined)] == [
            [(128, 1, 2)],
            [(128, 1, 1), (128, 3, 2)],
            ["AveragePooling2D", (128, 3, 1)],
            [(128, 1, 1), (128, 3, 1), (128, 3, 2)],
        ]
        (pool,) = of_kind(model, keras.layers.AveragePooling2D)
        assert (pool.pool_size, pool.strides, pool.padding) == ((3, 3), (2, 2), "same")
        assert joined.output.shape == (None, 8, 8, 512)

    def test_one_residual_block_is_projected_and_one_is_of_the_same_size(self, images):
        model = images.build()
        (joined,), (halved, same) = (
            of_kind(model, kind) for kind in (keras.layers.Concatenate, keras.layers.Add)
        )
        changed, shortcut = feeding(halved)
        assert self.way_back(changed, joined) == [(128, 3, 1), (128, 3, 1), (128, 3, 2)]
        assert self.way_back(shortcut, joined) == [(128, 1, 2)]
        assert shortcut.activation.__name__ == "linear"
        changed, shortcut = feeding(same)
        assert self.way_back(changed, halved) == [(128, 3, 1)] * 3
        assert shortcut is halved
        assert [layer.output.shape[1:] for layer in (halved, same)] == [(4, 4, 128)] * 2
        assert kinds(model)[-3:] == ["GlobalAveragePooling2D", "Dropout", "Dense"]
        assert dense_layers(model) == [(10, "softmax")]

    def test_hidden_convolutions_are_relu(self, images):
        model = images.build()
        activations = [layer.activation.__name__ for layer in of_kind(model, keras.layers.Conv2D)]
        assert sorted(activations) == ["linear", *["relu"] * 13]

    def test_the_searched_model_normalises_after_each_convolution_but_the_projection(self, images):
        model = images.searched()
        assert len(normalizations(model)) == 13
        for layer in of_kind(model, keras.layers.Conv2D):
            (after,) = layer._outbound_nodes
            projection = layer.activation.__name__ == "linear"
            assert isinstance(after.operation, keras.layers.BatchNormalization) is not projection
