"""Every task keeps one contract, and each named one is the published model layer by layer."""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pytest

from pipeline import settings, space, tasks
from pipeline.datasets import splits
from pipeline.tasks.task import Task
from pipeline.values import Data, Setting, Settings, Split

TRAINING = {parameter.name for parameter in settings.TRAINING}


def made_up(name: str, shape: tuple[int, ...], classes: int, brightest: int, column: bool) -> Data:
    """Rows of the set's shape and type, without the set."""
    rng = np.random.default_rng(0)

    def part(rows: int) -> Split:
        labels = (np.arange(rows) % classes).astype(np.int32)
        inputs = rng.integers(0, brightest + 1, (rows, *shape)).astype(np.uint8)
        return Split(inputs, labels[:, None] if column else labels)

    return splits.data(name, "made up", map(str, range(classes)), (part(20), part(10), part(10)))


def data_of(name: str) -> Data:
    """The task's rows, made up where the real ones are large."""
    stand_ins = {
        "mnist": ((28, 28, 1), 10, 255, False),
        "fashion_mnist": ((28, 28, 1), 10, 255, False),
        "imdb": ((10_000,), 2, 1, True),
    }
    return made_up(name, *stand_ins[name]) if name in stand_ins else tasks.find(name).load("small")


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


@pytest.fixture(params=tasks.NAMES)
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


def answers_of(model: keras.Model, rows: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(rows, training=False))


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
        # batch_normalization itself changes the structure, so its numbers are searched and not whether.
        techniques = {parameter.name for parameter in settings.REGULARISATION} - {"batch_normalization"}
        assert techniques | {"learning_rate", "batch_size"} <= set(case.space.searched)

    def test_build_reads_exactly_the_parameters_of_the_model(self, case):
        read: set[str] = set()
        for asked in case.everything().values():
            recording = Recording(asked)
            case.task.build(recording, case.data)
            read |= recording.read
        assert read == {parameter.name for parameter in case.task.parameters} - TRAINING

    def test_build_leaves_the_settings_and_the_rows_alone(self, case):
        asked = case.everything()["searched"]
        before = dict(asked), case.data.train.inputs.copy()
        case.task.build(asked, case.data)
        assert asked == before[0]
        np.testing.assert_array_equal(case.data.train.inputs, before[1])

    def test_build_looks_at_the_training_rows_alone(self, case):
        whole = case.data
        few = whole.validation.take(np.arange(1))
        parts = (whole.train, few, Split(few.inputs, few.targets))
        other = splits.data(whole.name, "fewer rows", whole.classes, parts)
        answers = []
        for data in (whole, other):
            keras.utils.set_random_seed(1)
            model = case.task.build(case.everything()["baseline"], data)
            answers.append(answers_of(model, whole.train.inputs[:8]))
        np.testing.assert_array_equal(*answers)

    def test_every_published_and_searched_setting_makes_a_compiled_model_that_learns(self, case):
        for asked in case.everything().values():
            model = case.task.build(asked, case.data)
            assert isinstance(model, keras.Model)
            assert model.compiled
            logs = train_a_step(model, case.data)
            assert set(logs) == {"loss"} | {metric.name for metric in case.task.metrics}
            assert all(np.isfinite(value) for value in logs.values())

    def test_it_answers_with_probabilities(self, case):
        answers = answers_of(case.build(), case.data.train.inputs[:8])
        columns = answers.shape[1]
        assert columns == (1 if case.data.train.targets.ndim == 2 else len(case.data.classes))
        assert answers.min() >= 0
        assert answers.max() <= 1
        if columns > 1:
            # Float32 quotients of one sum: a rounding of 6e-8 for each.
            np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-6)

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
        for layer in of_kind(model, keras.layers.Dropout):
            assert layer.rate == 0.25
        for layer in of_kind(model, keras.layers.BatchNormalization):
            assert (layer.momentum, layer.epsilon) == (0.75, 0.125)
        # The last layer answers and is left free, as published.
        *hidden, answer = of_kind(model, (keras.layers.Dense, keras.layers.Conv2D))
        assert hidden
        for layer in hidden:
            assert penalty(layer) == (0.5, 0.0625)
            assert layer.kernel_constraint.max_value == 1.75
        assert answer.kernel_regularizer is None
        assert answer.kernel_constraint is None

    def test_techniques_can_be_switched_off(self, case):
        model = case.searched(batch_normalization=False, max_norm="none")
        assert not of_kind(model, keras.layers.BatchNormalization)
        for layer in of_kind(model, (keras.layers.Dense, keras.layers.Conv2D)):
            assert layer.kernel_constraint is None

    def test_max_norm_bounds_each_unit(self, case):
        model = case.searched(max_norm=0.01)
        train_a_step(model, case.data)
        for layer in of_kind(model, (keras.layers.Dense, keras.layers.Conv2D))[:-1]:
            kernel = keras.ops.convert_to_numpy(layer.kernel)
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
        rows = case.data.validation.inputs[:8]
        np.testing.assert_array_equal(answers_of(loaded, rows), answers_of(model, rows))
        assert structure(loaded) == structure(model)
        assert set(train_a_step(loaded, case.data)) == set(train_a_step(model, case.data))


def of_kind(model: keras.Model, kind) -> list[keras.layers.Layer]:
    return [layer for layer in model.layers if isinstance(layer, kind)]


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
    for layer in of_kind(model, (keras.layers.Dense, keras.layers.Conv2D)):
        assert layer.kernel_constraint is None
        assert layer.kernel_regularizer is None or penalty(layer) == (0, 0)
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
            assert isinstance(layer.gamma_initializer, keras.initializers.Ones)
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
