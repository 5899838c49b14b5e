"""What strangers bring, and what must not get out: secrets, shells, models, paths, pages, modes of files."""

import ast
import csv
import json
import logging
import os
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import keras
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from PIL import Image

from benchmarks.faults.servers import free_port, wait_for
from pipeline import entry, secrets
from pipeline.__main__ import main
from pipeline.datasets import arrays, pictures
from pipeline.engines.lanes.lowering import choice
from pipeline.errors import UserError
from pipeline.evaluation.judging import judge
from pipeline.metrics import CLASSIFICATION
from pipeline.prediction import reading
from pipeline.report import evaluation as evaluation_report
from pipeline.report import passages
from pipeline.report.page import Section, write
from pipeline.source import Source
from pipeline.tracking import answering, served
from pipeline.values import Split

ROOT = Path(__file__).parent.parent
SOURCES = [
    file
    for folder in ("pipeline", "benchmarks", "deploy")
    for file in sorted((ROOT / folder).rglob("*.py"))
    if "__pycache__" not in file.parts
]
# As it is meant, and as a URL has it.
SECRET, IN_URL = "s3same@door", "s3same%40door"
FORMS = (SECRET.encode(), IN_URL.encode())
HOSTILE = """</title><script>alert(1)</script>"&'<img src=x onerror=alert(2)>\n👍 $\\frac{$ {{ 7 * 7 }}"""


def _place(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


# Secrets


@pytest.mark.parametrize(
    ("variables", "arguments"),
    [
        ({"MLFLOW_TRACKING_URI": f"http://user:{IN_URL}@127.0.0.1:1"}, ["search", "--trials=1"]),
        ({"MLFLOW_TRACKING_URI": f"nosuch://user:{IN_URL}@host"}, ["search", "--trials=1"]),
        ({"MLFLOW_TRACKING_URI": f"http://user:{IN_URL}@127.0.0.1:1"}, ["ensemble", "--study=none"]),
        (
            {"MLFLOW_TRACKING_URI": f"http://user:{IN_URL}@127.0.0.1:1"},
            ["predict", "--model=models:/a@champion", "--input=rows.csv"],
        ),
        ({"PIPELINE_STORAGE": f"postgresql://user:{IN_URL}@127.0.0.1:1/db"}, ["search", "--trials=1"]),
        ({"PIPELINE_STORAGE": f"nosuch://user:{IN_URL}@host/db"}, ["search", "--trials=1"]),
        ({"MLFLOW_TRACKING_URI": f"http://{IN_URL}@127.0.0.1:1"}, ["search", "--trials=1"]),
        ({"PIPELINE_STORAGE": f"nosuch://u@127.0.0.1:1/db?sslpassword={IN_URL}"}, ["search", "--trials=1"]),
        ({}, ["search", f"--storage=postgresql://user:{IN_URL}@127.0.0.1:1/db"]),
        ({}, ["search", f"--storage=postgresql://u@127.0.0.1:1/db?sslpassword={IN_URL}"]),
        ({}, ["search", "--task=table", f"--data=https://h/x.csv?access_token={IN_URL}", "--target=a"]),
        ({}, ["search", "--task=table", f"--data=https://u:{IN_URL}@host/rows.csv", "--target=a"]),
        ({}, ["search", f"--space=https://u:{IN_URL}@host/space.toml"]),
        ({}, ["search", f"--task=https://u:{IN_URL}@host/mine.py:Model"]),
        ({}, ["predict", f"--model=https://u:{IN_URL}@host/m", "--input=rows.csv"]),
        ({}, ["predict", "--model=models:/a/1", f"--input=https://u:{IN_URL}@host/rows.csv"]),
        (
            {},
            ["predict", "--model=models:/a/1", "--input=rows.csv", f"--output=https://u:{IN_URL}@host/o.csv"],
        ),
    ],
    ids=lambda value: " ".join(value).replace(IN_URL, "…") if isinstance(value, list) else "".join(value),
)
def test_a_command_that_fails_shows_no_password(
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
    variables: dict[str, str],
    arguments: list[str],
) -> None:
    (workplace / "rows.csv").write_text("a,b\n1,2\n")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["pipeline", *arguments])
    before = {file for file in workplace.rglob("*") if file.is_file()}
    assert main(arguments) in (1, 2)
    shown = capfd.readouterr()
    assert shown.err.startswith("pipeline: ")
    for form in FORMS:
        assert form.decode() not in shown.out + shown.err
        for file in workplace.rglob("*"):
            assert not file.is_file() or file in before or form not in file.read_bytes()


def test_a_kept_traceback_has_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("PIPELINE_STORAGE", f"postgresql://user:{IN_URL}@host/db")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def fails(*_: object) -> None:
        try:
            raise ValueError(f"connect(host='host', password={SECRET!r})")
        except ValueError as error:
            raise OSError(f"postgresql://user:{IN_URL}@host/db\nis down") from error

    monkeypatch.setattr(entry, "run", fails)
    assert main(["search"]) == 1
    (kept,) = tmp_path.iterdir()
    text = kept.read_text()
    assert "Traceback" in text
    assert "is down" in text
    assert "password='***'" in text
    for form in FORMS:
        assert form not in kept.read_bytes()
        assert form.decode() not in "".join(capfd.readouterr())


@pytest.mark.parametrize("variable", ["PGPASSWORD", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"])
def test_log_lines_have_no_password(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, SECRET)
    try:
        raise ValueError(SECRET)
    except ValueError:
        record = logging.LogRecord("x", 30, "f", 1, "login %s", (f"me/{SECRET}",), sys.exc_info())
    assert secrets.HIDING.filter(record)
    shown = logging.Formatter().format(record)
    assert SECRET not in shown
    assert shown.startswith("login me/***\nTraceback")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://h/x.csv?access_token=sesame", "https://h/x.csv?access_token=***"),
        ("https://h/x?api_key=sesame&rows=9", "https://h/x?api_key=***&rows=9"),
        ("https://h/x?sig=sesame&se=1", "https://h/x?sig=***&se=1"),
        ("https://h/x?X-Amz-Signature=sesame", "https://h/x?X-Amz-Signature=***"),
        ("https://h/x?accessKey=sesame;AccountKey=sesame", "https://h/x?accessKey=***"),
        ("postgresql://u@h/d?sslpassword=sesame", "postgresql://u@h/d?sslpassword=***"),
        ("host=h password='open sesame' user=u", "host=h password=*** user=u"),
        (r"host=h password='it\'s sesame' user=u", "host=h password=*** user=u"),
        ('host=h password="open sesame" user=u', "host=h password=*** user=u"),
        ("host=h password='sesame", "host=h password=***"),
        ("http://ghp_sesame@127.0.0.1:1/a", "http://***@127.0.0.1:1/a"),
        ("git+HTTPS://sesame@host/a.git", "git+HTTPS://***@host/a.git"),
    ],
)
def test_a_secret_is_told_by_its_place(text: str, shown: str) -> None:
    assert secrets.redacted(text) == shown
    assert secrets.redacted(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "keep=10",
        "monkey=1 turkey=2 hockey=3",
        "batch_size=32 tokens=9 max_tokens=9 key_size=3 design=4",
        "https://h/x.csv?keys=1&signed=2",
        "ssh://git@host/a.git",
        "postgresql://user@host/db?sslkey=client.key",
        "http://host/a@b",
        "s3://bucket/key/rows.csv",
    ],
)
def test_ordinary_words_are_shown(text: str) -> None:
    assert secrets.redacted(text) == text


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MLFLOW_TRACKING_URI", "http://ghp_sesame@127.0.0.1:1"),
        ("PIPELINE_STORAGE", "postgresql://u@h/d?sslpassword=ghp_sesame"),
        ("PIPELINE_STORAGE", "host=h password='ghp_sesame' user=u"),
        ("AWS_SECRET_ACCESS_KEY", "ghp_sesame"),
    ],
)
def test_a_secret_of_the_environment_is_hidden_wherever_it_stands(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert secrets.hidden("a\n no ghp_sesame here") == "a\n no *** here"


def test_a_text_without_a_password_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    # A database knows its user by another password, and a token is no word that a text may have.
    monkeypatch.setenv("PIPELINE_STORAGE", "postgresql://main@host/db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://main@host:5000")
    # Too short to be told from other texts.
    monkeypatch.setenv("PGPASSWORD", "a")
    assert secrets.hidden("a traceback\n  of main@host") == "a traceback\n  of main@host"


@pytest.fixture
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server that takes any password; where it keeps everything."""
    folder = tmp_path_factory.mktemp("server")
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'server.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            cwd=folder,
            start_new_session=True,
            # Its workers are of no use here, and take as long to start as the rest.
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, 240.0)
        yield f"http://user:{IN_URL}@127.0.0.1:{port}", folder
    finally:
        os.killpg(process.pid, 15)
        process.wait(20)


FAILS = """
import os
import keras
space = {"units": {"low": 1, "high": 2}}
def load():
    import numpy as np
    return np.zeros((60, 2), "float32"), np.arange(60) % 2
def build(settings, data):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model
class Fails:
    space = space
    load = staticmethod(load)
    calls = 0
    def build(self, settings, data):
        Fails.calls += 1
        if Fails.calls > 1:
            raise ValueError("cannot reach " + os.environ["MLFLOW_TRACKING_URI"])
        return build(settings, data)
"""


@pytest.mark.slow
def test_a_study_on_a_server_keeps_no_password(workplace: Path, mlflow_server: tuple[str, Path]) -> None:
    url, folder = mlflow_server
    (workplace / "mine.py").write_text(FAILS)
    temporary = workplace / "temporary"
    temporary.mkdir()
    environment = {**os.environ, "MLFLOW_TRACKING_URI": url, "TMPDIR": str(temporary)}
    environment |= {"PYTHONPATH": str(ROOT), "PIPELINE_CACHE": str(workplace / "cache")}

    def run(*arguments: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "pipeline", *arguments]
        return subprocess.run(command, cwd=workplace, env=environment, capture_output=True, check=False)

    usual = ("--trials=1", "--epochs=1", "--engine=fit", "--export=none", "--members=1")
    done = run("search", *usual, "--register=flower")
    assert done.returncode == 0, done.stderr.decode()
    failed = run("search", "--task=mine.py:Fails", *usual)
    assert failed.returncode in (1, 2), failed.stderr.decode()
    assert b"cannot reach http://" in failed.stderr
    assert b"***@127.0.0.1" in failed.stderr
    (workplace / "rows.csv").write_text(
        "sepal length (cm),sepal width (cm),petal length (cm),petal width (cm)\n1,2,3,4\n"
    )
    answered = run("predict", "--model=models:/flower@champion", "--input=rows.csv")
    assert answered.returncode == 0, answered.stderr.decode()
    kept = [file for place in (folder, workplace) for file in place.rglob("*") if file.is_file()]
    assert any(file.name == "report.html" for file in kept)
    for form in FORMS:
        for one in (done, failed, answered):
            assert form not in one.stdout + one.stderr
        assert [str(file) for file in kept if form in _content(file)] == []


def _content(file: Path) -> bytes:
    """A file's bytes, and those of the files in an archive."""
    content = file.read_bytes()
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            content += b"".join(archive.read(name) for name in archive.namelist())
    return content


# Programs and code


def calls(file: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call of a file, with the name that is called as it is written."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.parametrize("file", SOURCES, ids=_place)
def test_no_shell_is_between(file: Path) -> None:
    for name, call in calls(file):
        assert name not in ("os.system", "os.popen", "eval", "exec", "subprocess.getoutput"), name
        assert name != "subprocess.getstatusoutput"
        shell = [word.value for word in call.keywords if word.arg == "shell"]
        assert all(isinstance(value, ast.Constant) and value.value is False for value in shell)


# Of a model that this program has made a moment before; and where the user's own code runs anyway.
SAFE_MODE = {
    "pipeline/engines/exporting.py": "False",
    "pipeline/tasks/compiled.py": "False",
    "pipeline/tasks/user_code.py": "not _folders",
    "pipeline/tracking/served.py": "not self.told.get('functions')",
}


def test_models_are_loaded_in_keras_safe_mode() -> None:
    found = {}
    for file in SOURCES:
        for name, call in calls(file):
            last = name.rpartition(".")[2]
            assert last != "enable_unsafe_deserialization", _place(file)
            if last == "load_model" and "pyfunc" not in name:
                given = [ast.unparse(word.value) for word in call.keywords if word.arg == "safe_mode"]
                if given:
                    found[_place(file)] = given[0]
    assert found == SAFE_MODE


def test_nothing_is_unpickled_that_comes_from_outside() -> None:
    # Arrays alone, of the checked Keras sets.
    allowed = {"pipeline/datasets/published.py"}
    users = set()
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.partition(".")[0] not in ("joblib", "dill", "cloudpickle", "shelve", "yaml")
                users |= {_place(file)} if name == "pickle" else set()
        for name, call in calls(file):
            assert name != "torch.load"
            for word in call.keywords:
                if word.arg == "allow_pickle":
                    assert ast.unparse(word.value) == "False", _place(file)
    assert users == allowed


class Evil:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> object:
        return os.mkdir, ("pwned",)


def with_lambda() -> keras.Model:
    place = keras.Input((2,))
    return keras.Model(place, keras.layers.Lambda(lambda rows: rows * 2)(place))


def test_predict_runs_nothing_of_a_model_of_someone_else(
    workplace: Path, capfd: pytest.CaptureFixture
) -> None:
    class Other(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined]
        evil = Evil()

        def predict(self, context: object, model_input: pd.DataFrame) -> pd.DataFrame:
            return model_input

    model = Other()
    model.hidden = Evil()
    mlflow.pyfunc.save_model("pickled", python_model=model, pip_requirements=[])
    mlflow.keras.save_model(with_lambda(), "kerased", pip_requirements=[])
    (workplace / "rows.csv").write_text("a,b\n1,2\n")
    shutil.rmtree(workplace / "pwned", ignore_errors=True)
    for name in ("pickled", "kerased"):
        capfd.readouterr()
        assert main(["predict", f"--model={name}", "--input=rows.csv"]) == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert line == f"pipeline: model: {name}: was not made by this pipeline; use `mlflow models predict`"
    assert not (workplace / "pwned").exists()


def test_a_lambda_in_a_model_file_is_refused_in_one_line(workplace: Path) -> None:
    with_lambda().save("model.keras")
    told = {
        "backend": keras.backend.backend(),
        "form": {"kind": "columns", "names": ["a", "b"]},
        "inputs": [{"name": "", "shape": [2], "dtype": "float32"}],
        "outputs": [{"name": "", "classes": ["a", "b"], "link": ""}],
    }
    Path("form.json").write_text(json.dumps(told))
    _as_ours(workplace, served.__file__)
    with pytest.raises(UserError) as error:
        answering.load("theirs")
    said = str(error.value)
    assert said.startswith("model: theirs: cannot be loaded: ")
    assert "ambda" in said
    assert "\n" not in said


def _as_ours(workplace: Path, code: str) -> None:
    """A folder as MLflow keeps one of our models, around files that are not."""
    # MLflow loads a model that it saves: so a plain one first, and the other file in its place.
    place = keras.Input((2,))
    keras.Model(place, keras.layers.Dense(2, "softmax")(place)).save("plain.keras")
    shutil.copy("model.keras", "bad.keras")
    shutil.copy("plain.keras", "model.keras")
    mlflow.pyfunc.save_model(
        "theirs",
        python_model=code,
        artifacts={"model": "model.keras", "form": "form.json"},
        pip_requirements=[],
    )
    shutil.copy("bad.keras", workplace / "theirs" / "artifacts" / "model.keras")


# Paths and files


def picture(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4), 9, np.uint8)).save(file)
    return file


@pytest.mark.parametrize("way", ["../secret.png", "/{outside}", "link.png", "folder/secret.png"])
def test_paths_in_a_table_of_pictures_stay_in_its_folder(tmp_path: Path, way: str) -> None:
    folder = tmp_path / "inside"
    outside = picture(tmp_path / "secret.png")
    for number in range(4):
        picture(folder / f"{number}.png")
    (folder / "link.png").symlink_to(outside)
    (folder / "folder").symlink_to(tmp_path)
    named = str(outside) if way.startswith("/") else way
    table = folder / "rows.csv"
    lines = [f"{number}.png,{'ab'[number % 2]}" for number in range(4)]
    table.write_text("\n".join(["image,kind", *lines, f"{named},a"]))
    with pytest.raises(UserError, match=r"row 5: '.*' leads out of the file's folder"):
        pictures.load(Source(data=str(table), target="kind"), "full")
    told = {
        "form": {"kind": "pictures", "column": "image"},
        "inputs": [{"name": "", "shape": [4, 4, 1], "dtype": "uint8"}],
    }
    with pytest.raises(UserError, match="is no picture in its folder"):
        list(reading.batches(table, told))


def test_arrays_of_objects_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "rows.npz"
    evil = np.empty(3, dtype=object)
    evil[0] = Evil()
    np.savez(file, x=evil, y=np.arange(3))
    with pytest.raises(UserError, match="cannot be read as an NPZ file of plain arrays"):
        arrays.read(file)
    told = {"form": {"kind": "arrays"}, "inputs": [{"name": "x", "shape": [1], "dtype": "float32"}]}
    with pytest.raises(UserError, match="holds Python objects, which could run any program"):
        list(reading.batches(file, told))
    assert not (tmp_path / "pwned").exists()


def test_names_in_an_archive_lead_nowhere(tmp_path: Path) -> None:
    """A member called as a path outside is read from the archive, and nothing is unpacked."""
    folder = tmp_path / "inside"
    folder.mkdir()
    np.save(tmp_path / "x.npy", np.zeros((3, 1), np.float32))
    with zipfile.ZipFile(folder / "rows.npz", "w") as archive:
        archive.write(tmp_path / "x.npy", "../../x.npy")
    before = sorted(tmp_path.rglob("*"))
    told = {"form": {"kind": "arrays"}, "inputs": [{"name": "x", "shape": [1], "dtype": "float32"}]}
    (batch,) = reading.batches(folder / "rows.npz", told)
    np.testing.assert_array_equal(batch.rows["x"] if isinstance(batch.rows, dict) else batch.rows, 0)
    assert sorted(tmp_path.rglob("*")) == before


# Pages


class Tags(HTMLParser):
    """How often a page has each element and attribute, and its texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] += 1
        self.counts.update(f"{tag}[{name}]" for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def drawn(folder: Path, name: Callable[[int], str]) -> Tags:
    """A page of a study, all of whose names are made by number."""
    folder.mkdir()
    classes = (name(0), name(1))
    split = Split(np.zeros((40, 1)), np.arange(40, dtype=np.int32) % 2)
    answers = np.random.default_rng(0).dirichlet([1.0, 1.0], 40)
    found = judge(split.targets, {"champion": answers}, {"": classes}, CLASSIFICATION, 0)
    words = passages.section(split, answers, classes, lambda rows: [name(2)] * len(rows))
    assert words is not None
    sections = [
        *evaluation_report.sections(found, folder),
        words,
        Section(name(3), name(4), [[name(5)], [name(6)]], None, name(7)),
    ]
    return Tags(write(folder / "page.html", name(8), sections).read_text(encoding="utf-8"))


def test_a_page_has_no_element_or_attribute_of_its_names(tmp_path: Path) -> None:
    harmless = drawn(tmp_path / "harmless", lambda number: f"name{number}")
    hostile = drawn(tmp_path / "hostile", lambda number: f"{HOSTILE} {number}")
    assert hostile.counts == harmless.counts
    assert "script" not in hostile.counts
    text = "".join(hostile.texts)
    for number in (0, 1, 2, 3, 4, 5, 6, 7, 8):
        assert f"{HOSTILE} {number}" in text


@pytest.mark.slow
def test_a_search_of_hostile_names_keeps_pages_whole_and_files_as_the_user_wants_them(
    workplace: Path,
) -> None:
    rng = np.random.default_rng(0)
    with (workplace / "rows.csv").open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["<img src=x onerror=alert(2)>", "$x^{$", 'ki"nd\n<b>'])
        for row in range(90):
            kind = row % 2
            writer.writerow(
                [f"{kind + rng.normal(0, 0.3):.3f}", rng.choice(["<i>", '"&']), HOSTILE + "ab"[kind]]
            )
    command = [sys.executable, "-m", "pipeline", "search", "--task=table", "--data=rows.csv"]
    command += ['--target=ki"nd\n<b>', "--trials=1", "--epochs=1", "--engine=fit", "--export=none"]
    command += ["--register=hostile", "--study=hostile", "--members=1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PIPELINE_CACHE": str(workplace / "cache")}
    done = subprocess.run(
        command, cwd=workplace, env=environment, umask=0o027, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Glyph" not in done.stderr
    (run,) = MlflowClient().search_runs(
        [one.experiment_id for one in MlflowClient().search_experiments()],
        "tags.`pipeline.study` = 'hostile'",
    )
    file = Path(MlflowClient().download_artifacts(run.info.run_id, "report.html"))
    page = Tags(file.read_text(encoding="utf-8"))
    known = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "div", "table", "tr", "th"}
    known |= {"td", "img", "pre", "html[lang]", "meta[charset]", "div[class]", "img[alt]", "img[src]"}
    assert set(page.counts) <= known
    assert any("<script>alert(1)</script>" in text for text in page.texts)

    made = [place for name in ("mlruns", "studies") for place in (workplace / name).rglob("*")]
    assert any(place.name == "model.keras" for place in made)
    other = {
        str(place.relative_to(workplace)): oct(place.stat().st_mode & 0o777)
        for place in made
        # The program's own files have the mode that it was installed with, in folders that are closed.
        if not place.is_symlink()
        and place.suffix != ".py"
        and place.stat().st_mode & 0o777 != (0o750 if place.is_dir() else 0o640)
    }
    assert other == {}


# Files


def test_measured_choices_are_readable_as_the_user_wants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path))
    before = os.umask(0o027)
    try:
        choice._write("one", "patches")
        choice._write("two", "grouped")
    finally:
        os.umask(before)
    (file,) = tmp_path.rglob("*.json")
    assert file.stat().st_mode & 0o777 == 0o640
    assert json.loads(file.read_text()) == {"one": "patches", "two": "grouped"}
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == [file]


def test_no_file_is_made_readable_to_others_or_closed_by_hand() -> None:
    for file in SOURCES:
        for name, _ in calls(file):
            last = name.rpartition(".")[2]
            assert last not in ("chmod", "lchmod", "fchmod", "mkstemp", "mktemp"), f"{_place(file)}: {name}"
            # The traceback of a failed command, which is for its user alone.
            if last == "NamedTemporaryFile" and file.is_relative_to(ROOT / "pipeline"):
                assert _place(file) == "pipeline/__main__.py"
