"""`mlflow models serve` on loopback: a real server answers what the model does, and says what is wrong."""

import base64
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from PIL import Image, ImageDraw

from benchmarks.faults.servers import free_port, wait_for
from pipeline import search
from pipeline.__main__ import main
from pipeline.datasets import bundled, generated

pytestmark = pytest.mark.slow
PROGRAMS = Path(sys.executable).parent

SPECIES = ("setosa", "versicolor", "virginica")

Ask = Callable[..., tuple[int, Any]]


@pytest.fixture
def serve(workplace: Path) -> Iterator[Callable[[str], Ask]]:
    """Starts a server for a model URI; what it gives asks it, and answers with the status and the JSON."""
    started: list[subprocess.Popen] = []

    def start(uri: str) -> Ask:
        port = free_port()
        command = [str(PROGRAMS / "mlflow"), "models", "serve", "-m", uri, "--env-manager", "local"]
        with (workplace / "server.log").open("w") as log:
            process = subprocess.Popen(
                [*command, "--port", str(port), "--host", "127.0.0.1"],
                env={**os.environ, "PATH": f"{PROGRAMS}:{os.environ['PATH']}"},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        started.append(process)
        wait_for(f"http://127.0.0.1:{port}/ping", process, seconds=240)

        def ask(body: Any, kind: str = "application/json") -> tuple[int, Any]:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/invocations", content, {"Content-Type": kind}
            )
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return answer.status, json.load(answer)["predictions"]
            except urllib.error.HTTPError as error:
                text = error.read().decode()
                return error.code, json.loads(text)["message"] if text.startswith("{") else text

        return ask

    yield start
    for process in started:
        process.terminate()
        process.wait(30)


def registered(task: str, **more: object) -> keras.Model:
    """The model that was registered as `model`, out of its Keras file."""
    result = search(
        task=task, trials=2, epochs=2, members=2, engine="fit", export="none", register="model", **more
    )
    version = MlflowClient().get_model_version_by_alias("model", "champion")
    kind = version.tags["pipeline.model"]
    return keras.saving.load_model(MlflowClient().download_artifacts(result.run_id, f"models/{kind}.keras"))


def test_rows_of_a_table(serve) -> None:
    model = registered("iris")
    ask = serve("models:/model@champion")
    rows = bundled.iris("full").validation.inputs
    names = bundled.iris_columns().names
    expected = model.predict(rows, verbose=0)
    records = [dict(zip(names, map(float, row), strict=True)) for row in rows]
    table = {"columns": list(names), "data": rows.tolist()}
    csv = "\n".join([",".join(names), *(",".join(map(str, row)) for row in rows.tolist())])
    for body, kind in (
        ({"dataframe_records": records}, "application/json"),
        ({"dataframe_split": table}, "application/json"),
        ({"inputs": {name: rows[:, place].tolist() for place, name in enumerate(names)}}, "application/json"),
        (csv.encode(), "text/csv"),
    ):
        status, answers = ask(body, kind)
        assert status == 200
        found = [
            [row[f"probability_{name}"] for name in ("setosa", "versicolor", "virginica")] for row in answers
        ]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
        assert {row["class"] for row in answers} <= set(SPECIES)
    # A file has the same answers.
    Path("rows.csv").write_text(csv)
    assert (
        main(["predict", "--model=models:/model@champion", "--input=rows.csv", "--output=answers.csv"]) == 0
    )
    told = pd.read_csv("answers.csv")
    assert list(told) == list(answers[0])
    np.testing.assert_allclose(told.iloc[:, 1:], expected, rtol=1e-5, atol=1e-7)
    assert list(told["class"]) == [row["class"] for row in answers]
    # Faults of the asker: none is the server's.
    for body, why in (
        ({"dataframe_records": [{names[0]: 1.0}]}, "Model is missing inputs"),
        (
            {"dataframe_records": [{**records[0], names[2]: None}]},
            f"row 0, {names[2]}: must be a finite number",
        ),
        ({"dataframe_records": [{**records[0], names[2]: "wide"}]}, "wide"),
        ({"rows": records}, "dataframe_records"),
        (b"{no json", "JSON"),
    ):
        status, message = ask(body)
        assert (status, why in message) == (400, True), message
    assert ask(b"x", "image/png")[0] == 415
    # And it goes on.
    assert ask({"dataframe_records": records[:1]})[0] == 200


def test_a_picture(serve, capsys: pytest.CaptureFixture) -> None:
    model = registered("digits", size="small")
    ask = serve("models:/model@champion")
    rows = bundled.digits("small").validation.inputs
    expected = model.predict(rows[:3], verbose=0)
    example = mlflow.pyfunc.load_model("models:/model@champion").input_example
    for body in (
        {"dataframe_records": example.to_dict("records")},
        {"dataframe_records": [{"image": row.tolist()} for row in rows[:3]]},
        {"dataframe_split": {"columns": ["image"], "data": [[row[..., 0].tolist()] for row in rows[:3]]}},
    ):
        status, answers = ask(body)
        assert status == 200
        found = [[row[f"probability_{digit}"] for digit in range(10)] for row in answers]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    # A drawing of another size, dark on light, is answered as a file in words.
    sheet = Image.new("RGB", (300, 400), "white")
    ImageDraw.Draw(sheet).line([(60, 80), (230, 80), (130, 330)], fill="navy", width=26, joint="curve")
    sheet.save("seven.png")
    status, (answer,) = ask(
        {"dataframe_records": [{"image": base64.b64encode(Path("seven.png").read_bytes()).decode()}]}
    )
    assert status == 200
    capsys.readouterr()
    assert main(["predict", "--model=models:/model@champion", "--input=seven.png"]) == 0
    first, _, *lines = capsys.readouterr().out.splitlines()
    assert first == f"seven.png: {answer['class']} ({answer['probability_' + answer['class']]:.1%})"
    chances = {line.split()[0]: line.split()[1] for line in lines}
    assert chances == {str(digit): f"{answer[f'probability_{digit}']:.1%}" for digit in range(10)}
    cut = base64.b64encode(base64.b64decode(example["image"][0])[:50]).decode()
    for picture, why in (
        (cut, "row 0, image: the picture cannot be read"),
        ("seven", "row 0, image: the text must be a PNG or JPEG file as base64"),
        ([[999]], "row 0, image: pixels must be 0 to 255"),
    ):
        status, message = ask({"dataframe_records": [{"image": picture}]})
        assert (status, why in message) == (400, True), message


def test_several_inputs(serve) -> None:
    model = registered("question_answering", size="small")
    ask = serve("models:/model@champion")
    rows = generated.question_answering("small").validation.take(np.arange(4)).inputs
    status, answers = ask({"inputs": {name: part.tolist() for name, part in rows.items()}})
    assert status == 200
    expected = model.predict(rows, verbose=0)
    found = [[chance for name, chance in row.items() if name != "class"] for row in answers]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    for body, why in (
        ({"inputs": {"text": rows["text"].tolist()}}, "question"),
        (
            {"inputs": {"text": rows["text"][:1].tolist(), "question": rows["question"].tolist()}},
            "the inputs must have the same number of rows, but have text: 1, question: 4",
        ),
        (
            {"inputs": {**{n: p.tolist() for n, p in rows.items()}, "question": [[99_999] * 20] * 4}},
            "row 0, question",
        ),
        ({"inputs": {**{n: p.tolist() for n, p in rows.items()}, "question": [[1, 2]] * 4}}, "shape"),
    ):
        status, message = ask(body)
        assert (status, why in message) == (400, True), message


def test_a_dockerfile_is_made_of_the_registered_model(workplace: Path) -> None:
    registered("iris")
    subprocess.run(
        [
            str(PROGRAMS / "mlflow"),
            "models",
            "generate-dockerfile",
            "-m",
            "models:/model@champion",
            "-d",
            "image",
        ],
        check=True,
        capture_output=True,
    )
    assert "ENTRYPOINT" in (workplace / "image" / "Dockerfile").read_text()
    pins = (workplace / "image" / "model_dir" / "requirements.txt").read_text().splitlines()
    assert f"keras=={keras.__version__}" in pins
