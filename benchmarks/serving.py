"""How fast a finished model answers: over HTTP, in this process, and from a file.

    python -m benchmarks.serving --model models:/digit@champion

Starts `mlflow models serve` on loopback and sends one row and many, each request on its own connection; then
`predict` answers the whole file, once, from the start of its process. The rows are those of the model's
input example, repeated.
"""

import argparse
import base64
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd

from pipeline.benchmark import machine
from pipeline.benchmark.speed import table

_PROGRAMS = Path(sys.executable).parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser("python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--model", required=True, help="an MLflow model URI whose input is a table")
    parser.add_argument("--rows", type=int, default=1_000, help="of a large request")
    parser.add_argument("--file-rows", type=int, default=100_000, help="of the file that predict answers")
    parser.add_argument("--repeats", type=int, default=20)
    given = parser.parse_args(arguments)
    model = mlflow.pyfunc.load_model(given.model)
    if not isinstance(model.input_example, pd.DataFrame):
        raise SystemExit(f"{given.model}: its input is no table")
    lines = []
    for rows in (1, given.rows):
        some = _repeated(model.input_example, rows)
        lines.append(["in the process", str(rows), *_shown(lambda: model.predict(some), given.repeats)])  # noqa: B023
    with _Server(given.model) as server:
        for rows in (1, given.rows):
            some = _repeated(model.input_example, rows)
            body = json.dumps({"dataframe_split": some.to_dict("split", index=False)}).encode()
            lines.append(["served", str(rows), *_shown(lambda: server.ask(body), given.repeats)])  # noqa: B023
    example = model.input_example
    pictures = example.map(lambda cell: isinstance(cell, str)).to_numpy().all() and "text" not in example
    for suffix in ("parquet",) if pictures else ("csv", "parquet"):
        # A table's file holds pictures as bytes, a request as base64.
        rows = example.map(base64.b64decode) if pictures else example
        seconds = _predict(given.model, _repeated(rows, given.file_rows), suffix)
        lines.append([f"predict, {suffix}", str(given.file_rows), f"{seconds * 1e3:.0f}", ""])
    print(f"{machine.described()}\n\n{table(['', 'rows', 'ms (median)', 'slowest'], lines)}")
    return 0


def _repeated(example: pd.DataFrame, rows: int) -> pd.DataFrame:
    return pd.concat([example] * -(-rows // len(example)), ignore_index=True)[:rows]


def _shown(act: Callable[[], Any], repeats: int) -> list[str]:
    """The median and the longest time in milliseconds, after two to warm up."""
    times = []
    for turn in range(repeats + 2):
        began = time.perf_counter()
        act()
        if turn >= 2:
            times.append((time.perf_counter() - began) * 1e3)
    return [f"{statistics.median(times):.1f}", f"{max(times):.1f}"]


def _predict(model: str, rows: pd.DataFrame, suffix: str) -> float:
    """Seconds of the command, its start and the model's loading included."""
    with tempfile.TemporaryDirectory() as folder:
        file, output = Path(folder, f"rows.{suffix}"), Path(folder, f"answers.{suffix}")
        if suffix == "csv":
            rows.to_csv(file, index=False)
        else:
            rows.to_parquet(file, index=False)
        command = [sys.executable, "-m", "pipeline", "predict"]
        began = time.perf_counter()
        subprocess.run(  # noqa: S603  # this Python, and arguments of our own
            [*command, f"--model={model}", f"--input={file}", f"--output={output}"],
            check=True,
            capture_output=True,
        )
        return time.perf_counter() - began


class _Server:
    """`mlflow models serve` on a free port of loopback, while the block lasts."""

    def __init__(self, model: str) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self._port = listener.getsockname()[1]
        command = [str(_PROGRAMS / "mlflow"), "models", "serve", "-m", model, "--env-manager", "local"]
        self._process = subprocess.Popen(  # noqa: S603  # MLflow's own program, and arguments of our own
            [*command, "--host", "127.0.0.1", "--port", str(self._port)],
            env={**os.environ, "PATH": f"{_PROGRAMS}:{os.environ['PATH']}"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def __enter__(self) -> "_Server":
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
            except OSError:
                time.sleep(0.2)
            else:
                return self
        raise TimeoutError("the server does not answer")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(30)

    def ask(self, body: bytes) -> None:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}/invocations", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            answer.read()


if __name__ == "__main__":
    sys.exit(main())
