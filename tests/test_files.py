"""A task in a file of the user's own: what it may be, where its rows come from, what is said of faults."""

import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import keras
import numpy as np
import pytest
from PIL import Image

from pipeline import search, tasks
from pipeline.errors import UserError
from pipeline.forms import Pictures
from pipeline.source import Source
from pipeline.tasks import user_code
from pipeline.tasks.task import Task

HYPERMODEL = """
    import keras
    import keras_tuner


    class Net(keras_tuner.HyperModel):
        def build(self, hp):
            layers = [keras.Input((4,)), keras.layers.Dense(hp.Int("units", 4, 8), activation="relu")]
            model = keras.Sequential([*layers, keras.layers.Dense(3, activation="softmax")])
            optimizer = keras.optimizers.Adam(hp.Float("lr", 1e-3, 1e-1))
            model.compile(optimizer, "sparse_categorical_crossentropy")
            return model


    net = Net()


    def build(hp):
        return net.build(hp)
"""
OWN = """
    import keras
    import numpy as np


    class Blobs:
        space = {
            "units": {"low": 4, "high": 16},
            "lr": {"low": 1e-3, "high": 1e-1, "log": True},
            "activation": {"choices": ["relu", "tanh"]},
            "batch_size": {"choices": [8, 16]},
        }
        baseline = {"units": 8, "lr": 0.01}
        objective = "val_log_loss"

        def load(self):
            labels = np.repeat([0, 1, 2], 20)
            rng = np.random.default_rng(0)
            return (rng.normal(size=(60, 4)) + 3 * labels[:, None]).astype("float32"), labels

        def build(self, settings, data):
            layers = [keras.Input((4,)), keras.layers.Dense(settings["units"], settings["activation"])]
            model = keras.Sequential([*layers, keras.layers.Dense(len(data.classes), "softmax")])
            model.compile(keras.optimizers.Adam(settings["lr"]), "categorical_crossentropy")
            return model


    class Sums(Blobs):
        problem = "regression"
        objective = None

        def load(self, size):
            x, _ = super().load()
            self.size = size
            return (x[:30], x[:30].sum(1)), (x[30:45], x[30:45].sum(1)), (x[45:], x[45:].sum(1))

        def build(self, settings, data):
            model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
            model.compile(keras.optimizers.Adam(settings["lr"]), "mse")
            return model
"""


@pytest.fixture(autouse=True)
def _apart() -> Iterator[None]:
    """What a test's files leave in the process goes with it."""
    modules, path = dict(sys.modules), list(sys.path)
    known = dict(keras.saving.get_custom_objects())
    yield
    for name in sys.modules.keys() - modules.keys():
        if user_code.is_users(getattr(sys.modules[name], "__file__", None)):
            del sys.modules[name]
    sys.path[:] = path
    keras.saving.get_custom_objects().clear()
    keras.saving.get_custom_objects().update(known)


def written(folder: Path, text: str, name: str = "nets.py") -> Path:
    file = folder / name
    file.write_text(dedent(text))
    return file


def found(file: Path, name: str, **source: object) -> Task:
    return tasks.find(f"{file}:{name}", Source(**source))


def first(task: Task) -> dict:
    space = task.read_space(None)
    return dict(space.published(space.baseline or {}))


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 20)
    np.savez(tmp_path / "blobs.npz", x=rng.normal(size=(60, 4)) + 3 * labels[:, None], y=labels)
    return tmp_path / "blobs.npz"


@pytest.mark.parametrize("name", ["Net", "net", "build"])
def test_a_class_an_object_and_a_function_are_hypermodels(name: str, tmp_path: Path, npz: Path) -> None:
    task = found(written(tmp_path, HYPERMODEL), name, data=str(npz))
    assert task.name == f"nets.py:{name}"
    assert task.read_space(None).searched.keys() == {"units", "lr"}
    data = task.load("full")
    assert (data.train.rows, data.validation.rows, data.test.rows) == (36, 12, 12)
    assert task.build(first(task), data).count_params() == 4 * 4 + 4 + 4 * 3 + 3


def test_a_task_of_the_users_own(tmp_path: Path) -> None:
    task = found(written(tmp_path, OWN), "Blobs")
    space = task.read_space(None)
    assert space.searched.keys() == {"units", "lr", "activation", "batch_size"}
    assert (space.objective.metric, space.budget.epochs) == ("val_log_loss", 50)
    # Its first value where the baseline says nothing.
    assert {name: first(task)[name] for name in ("units", "lr", "activation")} == {
        "units": 8,
        "lr": 0.01,
        "activation": "relu",
    }
    data = task.load("full")
    assert np.shape(data.train.targets) == (36, 3)
    logs = task.build(first(task), data).evaluate(
        data.train.inputs, data.train.targets, verbose=0, return_dict=True
    )
    assert logs.keys() == {"loss", "accuracy", "log_loss"}


def test_a_task_of_numbers_with_splits_of_its_own(tmp_path: Path) -> None:
    task = found(written(tmp_path, OWN), "Sums")
    data = task.load("small")
    assert (data.train.rows, data.validation.rows, data.test.rows) == (30, 15, 15)
    assert [metric.name for metric in task.metrics] == ["mse", "mae"]
    assert task.read_space(None).objective.metric == "val_mse"


def test_two_functions_beside_each_other_are_a_task(tmp_path: Path) -> None:
    text = dedent(OWN) + dedent(
        """
        space = '''
        [objective]
        metric = "val_accuracy"
        [budget]
        epochs = 7
        [space]
        units = { low = 4, high = 16 }
        lr = 0.01
        activation = "relu"
        '''
        load = Blobs().load
        def build(settings, data):
            return Blobs().build(settings, data)
        """
    )
    task = found(written(tmp_path, text), "build")
    assert task.read_space(None).budget.epochs == 7
    assert task.load("full").train.rows == 36


def test_a_file_imports_its_neighbours_and_two_files_do_not_mix(tmp_path: Path, npz: Path) -> None:
    sizes = {"one": 5, "two": 6}
    for name, units in sizes.items():
        (tmp_path / name).mkdir()
        written(tmp_path / name, f"UNITS = {units}\n", "sizes.py")
        text = HYPERMODEL.replace('hp.Int("units", 4, 8)', 'hp.Int("units", sizes.UNITS, 8)')
        written(tmp_path / name, "    import sizes" + text)
    for name, units in sizes.items():
        assert first(found(tmp_path / name / "nets.py", "net", data=str(npz)))["units"] == units


def test_a_file_is_read_as_it_is_now(tmp_path: Path, npz: Path) -> None:
    file = written(tmp_path, HYPERMODEL)
    assert first(found(file, "net", data=str(npz)))["units"] == 4
    file.write_text(file.read_text().replace('"units", 4, 8', '"units", 5, 8'))
    assert first(found(file, "net", data=str(npz)))["units"] == 5


def test_a_file_that_is_called_as_another_module_does_not_take_its_place(tmp_path: Path, npz: Path) -> None:
    import json

    task = found(written(tmp_path, HYPERMODEL, "json.py"), "net", data=str(npz))
    assert task.name == "json.py:net"
    assert sys.modules["json"] is json


def test_a_layer_of_the_files_own_is_found_again_when_a_model_is_loaded(tmp_path: Path, npz: Path) -> None:
    layer = """
    import keras


    class Twice(keras.layers.Layer):
        def call(self, inputs):
            return 2 * inputs
    """
    text = HYPERMODEL.replace("[*layers,", "[*layers, Twice(), keras.layers.Lambda(lambda x: x + 1),")
    task = found(written(tmp_path, layer + text), "net", data=str(npz))
    data = task.load("full")
    model = task.build(first(task), data)
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    again = user_code.loaded(tmp_path / "model.keras")
    inputs = data.validation.inputs
    assert np.array_equal(again.predict(inputs, verbose=0), model.predict(inputs, verbose=0))
    held = user_code.held_by(tmp_path / "model.keras")
    assert held.functions
    assert held.places == [tmp_path / "nets.py"]
    assert [package.partition("==")[0] for package in held.packages] == ["keras", "keras-tuner"]


def test_a_layer_that_cannot_be_loaded_again_is_said_before_any_trial(tmp_path: Path, npz: Path) -> None:
    layer = """
    import keras


    class Odd(keras.layers.Layer):
        def call(self, inputs):
            return inputs

        def get_config(self):
            return {"width": 3}
    """
    file = written(tmp_path, layer + HYPERMODEL.replace("[*layers,", "[*layers, Odd(),"))
    with pytest.raises(UserError, match="its model cannot be saved and loaded again"):
        found(file, "net", data=str(npz))


@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        ("x = (\n", "net", "nets.py, line 1: '(' was never closed"),
        ("import nothing_like_it\n", "net", "its import fails: ModuleNotFoundError: No module named"),
        ("import sys\nsys.exit(3)\n", "net", "its import ends the program: exit code 3"),
        (HYPERMODEL, "nett", "has no nett; did you mean net?"),
        (HYPERMODEL, "other", "has no other; there are Net, net, build"),
        ("net = 3\n", "net", "must be a keras_tuner.HyperModel, a function build(hp)"),
        ("def net():\n    pass\n", "net", "but takes 0 arguments"),
        ("class Net:\n    pass\n", "Net", "but is the class Net"),
        (OWN.replace("space = {", "spaces = {"), "Blobs", "must have a space"),
        (OWN.replace('{"low": 4, "high": 16}', '{"low": 4, "high": 3}'), "Blobs", "low < high must hold"),
        (OWN.replace('objective = "val_log_loss"', 'objective = "val_f1"'), "Blobs", "[objective] metric"),
        (OWN.replace('settings["units"]', 'settings["width"]'), "Blobs", "KeyError: 'width' ("),
        (OWN.replace("return (rng", "return 3, (rng"), "Blobs", "load of nets.py:Blobs"),
        (OWN.replace('"categorical_crossentropy"', '"mse"'), "Blobs", "does not go with"),
        (
            OWN.replace("return model", "return None"),
            "Blobs",
            "build gave NoneType, which is not a Keras model",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_one_clear_error(
    text: str, name: str, says: str, tmp_path: Path, npz: Path
) -> None:
    source = {} if name == "Blobs" else {"data": str(npz)}

    def use() -> None:
        task = found(written(tmp_path, text), name, **source)
        task.read_space(None)
        task.load("full")

    with pytest.raises(UserError) as caught:
        use()
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ("budget = [1]", "budget must be a dict, but is list"),
        ("budget = {'epochs': None}", "budget: epochs must be a text, a number"),
        ("baseline = 3", "baseline must be a dict, but is int"),
        ("metrics = 5", "metrics must be a list of names, but is 5"),
        ("metrics = [['accuracy']]", "metrics must be of accuracy"),
        ("space = {'units': {'choices': None}}", "units: choices must be a list, but is None"),
        ("space = {'units': {'choices': 'relu'}}", "units: choices must be a list, but is 'relu'"),
        ("space = {'units': {'low': None, 'high': 4}}", "units"),
        ("space = {3: {'low': 1, 'high': 2}}", "space: a name must be a text, but one is 3"),
        ("load = np.zeros((60, 4)), np.zeros(60)", "load must be a function, but is a tuple"),
        ("load = np.zeros((60, 4))", "load must be a function, but is a ndarray"),
        ("load = lambda self: 1 / 0", "load: ZeroDivisionError: division by zero ("),
        ("load = lambda self: __import__('sys').exit(0)", "load: SystemExit: 0 ("),
        (
            "build = lambda self, settings, data: __import__('sys').exit(0)",
            "build with its defaults: SystemExit: 0 (",
        ),
        (
            "load = lambda self: ([[1, 2], [1], [3]], [0, 1, 1])",
            "load of nets.py:Blobs: x must be an array, but",
        ),
        ("load = lambda self: (5, [0, 1])", "x must be an array of rows, but is a single int"),
    ],
)
def test_a_wrong_part_of_a_task_is_one_clear_error(part: str, says: str, tmp_path: Path) -> None:
    text = f"{dedent(OWN)}\n\nclass Wrong(Blobs):\n    {part}\n".replace("Blobs", "Base").replace(
        "Wrong", "Blobs"
    )

    def use() -> None:
        found(written(tmp_path, text), "Blobs").load("full")

    with pytest.raises(UserError) as caught:
        use()
    message = str(caught.value)
    assert message.startswith(("task: nets.py:Blobs: ", "load of nets.py:Blobs: "))
    assert says in message
    assert len(message.splitlines()) == 1
    assert len(message) < 300


def test_a_space_of_numpys_numbers_is_one_of_pythons(tmp_path: Path) -> None:
    text = dedent(OWN).replace('{"low": 4, "high": 16}', '{"low": np.int64(4), "high": np.int64(16)}')
    text = text.replace('{"low": 1e-3, "high": 1e-1, "log": True}', '{"choices": list(np.linspace(0, 1, 3))}')
    text = text.replace('["relu", "tanh"]', 'np.array(["relu", "tanh"])').replace(
        "[8, 16]", "np.array([8, 16])"
    )
    text = text.replace('"lr": 0.01', '"lr": np.float32(0.5)')
    assert text.count("np.") >= 6
    task = found(written(tmp_path, text), "Blobs")
    space = task.read_space(None)
    assert space.searched["lr"].choices == (0.0, 0.5, 1.0)
    assert space.baseline == {"units": 8, "lr": 0.5}
    assert {type(value) for value in space.baseline.values()} == {int, float}


@pytest.mark.parametrize(
    ("load", "says"),
    [
        ("def load():\n    raise KeyError('boo')\n", "load: KeyError: 'boo' ("),
        ("def load():\n    raise SystemExit(0)\n", "load: SystemExit: 0 ("),
        ("def load(size):\n    return 1, 2\n", "load: TypeError: load() missing 1 required positional"),
        ("def load():\n    return 5, [0, 1, 2]\n", "x must be an array of rows, but is a single int"),
        ("def load():\n    return [[1, 2], [1], [3]], [0, 1, 1]\n", "x must be an array, but"),
        ("load = [1]\n", "load must be a function, but is a list"),
    ],
)
def test_a_hypermodels_load_that_fails_is_told_with_its_line(load: str, says: str, tmp_path: Path) -> None:
    file = written(tmp_path, f"{dedent(HYPERMODEL)}\n\n{load}")
    with pytest.raises(UserError) as caught:
        found(file, "net")
    assert says in str(caught.value)
    assert not says.endswith("(") or f"({file}, line " in str(caught.value)


def test_a_hypermodel_that_ends_the_program_is_told(tmp_path: Path, npz: Path) -> None:
    ends = HYPERMODEL.replace("layers = [", "layers = __import__('sys').exit(0) or [")
    with pytest.raises(UserError, match=r"build with its defaults: SystemExit: 0 \(.*nets\.py, line "):
        found(written(tmp_path, ends), "net", data=str(npz))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("none.py:net", "there is no file none.py"),
        ("nets.txt:net", "must be a task's name or FILE.py:NAME"),
        ("nets.py:", "must be a task's name or FILE.py:NAME"),
    ],
)
def test_a_file_that_is_not_there_is_said(
    name: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=says):
        tasks.find(name, Source())


def test_columns_that_a_file_does_not_read_are_refused(tmp_path: Path, npz: Path) -> None:
    with pytest.raises(UserError, match="group: is not read by a task in a file"):
        found(written(tmp_path, HYPERMODEL), "net", data=str(npz), group="patient")


@pytest.mark.parametrize(
    ("text", "name", "data", "says"),
    [
        (HYPERMODEL, "net", "rows.npz", "target: names a column of data, but .*rows.npz is no table"),
        (HYPERMODEL, "net", "", "target: names a column of data, but no table is given"),
        (HYPERMODEL, "net", "iris", "target: names a column of data, but iris is no table"),
        (OWN, "Blobs", "", "target: is not read by load of nets.py:Blobs"),
        ("from pipeline.tasks.iris import TASK\n", "TASK", "", "target: is not read by nets.py:TASK, a Task"),
    ],
)
def test_a_column_where_there_are_none_is_refused(
    text: str, name: str, data: str, says: str, tmp_path: Path, npz: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(npz.parent)
    with pytest.raises(UserError, match=f"^{says}"):
        found(written(tmp_path, text), name, data=data, target="nosuch").load("full")


# Where the rows come from


def test_rows_of_a_named_task_are_as_the_model_takes_them(tmp_path: Path) -> None:
    text = HYPERMODEL.replace('"sparse_categorical_crossentropy"', '"categorical_crossentropy"')
    data = found(written(tmp_path, text), "net", data="iris").load("full")
    assert np.shape(data.train.targets) == (90, 3)
    assert data.classes == ("setosa", "versicolor", "virginica")
    assert data.test.rows == 30
    with pytest.raises(UserError, match="there is no 'irs' here"):
        found(written(tmp_path, text), "net", data="irs")
    with pytest.raises(UserError, match="has rows of the shape"):
        found(written(tmp_path, text), "net", data="digits").load("full")


def test_rows_of_a_table_of_numbers(tmp_path: Path) -> None:
    rows = [f"{a},{a + 1},{a * 2},{a - 1},{'xyz'[a % 3]}" for a in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,c,d,kind", *rows]))
    file = written(tmp_path, HYPERMODEL)
    data = found(file, "net", data=str(tmp_path / "t.csv"), target="kind").load("full")
    assert data.classes == ("x", "y", "z")
    assert data.train.inputs.shape == (36, 4)
    (tmp_path / "w.csv").write_text("\n".join(["a,b,c,d,kind", *rows]).replace("\n7,", "\nseven,"))
    with pytest.raises(UserError, match="the column 'a' has 'seven' in row 8; task=table takes"):
        found(file, "net", data=str(tmp_path / "w.csv"), target="kind")
    with pytest.raises(UserError, match="target: must name the column"):
        found(file, "net", data=str(tmp_path / "t.csv"))


def test_rows_of_a_folder_of_pictures(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for kind in ("cats", "dogs"):
        (tmp_path / "pets" / kind).mkdir(parents=True)
        for number in range(10):
            pixels = rng.integers(0, 256, (6, 6, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / kind / f"{number}.png")
    text = """
    import keras


    def net(hp):
        layers = [keras.layers.Flatten(), keras.layers.Dense(hp.Int("units", 4, 8))]
        model = keras.Sequential([*layers, keras.layers.Dense(1, activation="sigmoid")])
        model.compile("adam", "binary_crossentropy")
        return model
    """
    task = found(written(tmp_path, text), "net", data=str(tmp_path / "pets"))
    data = task.load("full")
    assert data.classes == ("cats", "dogs")
    assert data.train.one_input.shape == (12, 6, 6, 3)
    assert np.shape(data.train.targets) == (12, 1)
    assert task.form(data) == Pictures(column="image")


def test_without_rows_it_says_where_they_could_be(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data: must be given with task=nets.py:net, or the file must have"):
        found(written(tmp_path, HYPERMODEL), "net")


@pytest.mark.slow
def test_a_whole_search_of_a_file(workplace: Path, npz: Path) -> None:
    written(workplace, HYPERMODEL)
    result = search(task="nets.py:net", data=str(npz), trials=3, epochs=15, engine="fit", export="none")
    assert result is not None
    assert result.study == "nets-net-blobs"
    # Three classes that lie three standard deviations apart: even a poor one tells most of them.
    assert result.scores["ensemble"]["accuracy"].value > 0.5
    again = search(task="nets.py:net", data=str(npz), trials=3, epochs=15, engine="fit", export="none")
    assert again is None
