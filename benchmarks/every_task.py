"""A short search of every task by every engine: how long it takes, and the scores that it finds.

    python -m benchmarks.every_task --tasks posts,dual_camera --trials 4 --epochs 3 --output every_task.json

Each search is a process of its own with an empty store, everything included from its start to the report. The
engines of one task share a folder of compiled programs, which is empty at first. Where a task's rows are
generated, its best possible score is shown, too.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import searches
from pipeline.benchmark import machine
from pipeline.benchmark.speed import shown, table

# What a person asks for first; the mean over the outputs where there are several.
SCORES = ("accuracy", "score")
MODELS = ("baseline", "champion", "ensemble", "best possible")
METRICS = ("startup_seconds", "compile_seconds", "finish_seconds")


def main(arguments: Sequence[str] | None = None) -> int:
    """Searches and prints."""
    given = _parse(arguments)
    measured: list[dict[str, Any]] = []
    for task in given.tasks:
        with tempfile.TemporaryDirectory(prefix="regatta-") as place:
            for engine in given.engines:
                found = _search(given, task, engine, Path(place))
                measured.append(found)
                print(f"{task}, {engine}: {found['seconds']:.0f} s", file=sys.stderr, flush=True)
                if given.output:
                    described = {"machine": machine.described(), "measured": measured}
                    given.output.write_text(json.dumps(described, indent=1))
    print(f"{machine.described()}\n\n{report(measured)}")
    return 0


def report(measured: Sequence[Mapping[str, Any]]) -> str:
    """The table of all searches."""
    heads = ["task", "engine", "seconds", *METRICS, "metric", *MODELS]
    lines = [
        [
            one["task"],
            one["engine"],
            *(shown(one.get(name)) for name in ("seconds", *METRICS)),
            one["metric"],
            *(one["scores"].get(model, "–") for model in MODELS),
        ]
        for one in measured
    ]
    return table(heads, lines)


def scores(said: str) -> tuple[str, dict[str, str]]:
    """The metric that is shown and each model's test score by it, out of what a search printed."""
    lines = iter(said.splitlines())
    head = next(line for line in lines if line.startswith("model "))
    metric = next(name for name in SCORES if f" test {name} " in head)
    start = head.index(f"test {metric} ")
    found = {}
    for line in lines:
        model = line[: head.index("test ")].strip()
        if model not in MODELS:
            break
        found[model] = line[start:].split("  ")[0].strip()
    return metric, found


def _search(given: argparse.Namespace, task: str, engine: str, folder: Path) -> dict[str, Any]:
    home = folder / engine
    home.mkdir()
    more = [f"--engine={engine}", f"--size={given.size}"]
    more += [f"--epochs={given.epochs}"] if given.epochs else []
    command = searches.command(given.trials, task, *more)
    seconds, said = searches.timed(command, home, searches.environment(home, folder / "cache"))
    metric, found = scores(said)
    return {
        "task": task,
        "engine": engine,
        "seconds": seconds,
        **searches.metrics(home, METRICS),
        "metric": metric,
        "scores": found,
        "said": said,
    }


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.every_task", description=__doc__)
    parser.add_argument("--tasks", type=_names, required=True, help="separated by commas")
    parser.add_argument("--engines", type=_names, default=["fit", "lanes"], help="separated by commas")
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--epochs", type=int, help="of a trial, at most; each space file's if not given")
    parser.add_argument("--size", default="small")
    parser.add_argument("--output", type=Path, help="a JSON file with every search, and what it printed")
    return parser.parse_args(arguments)


def _names(text: str) -> list[str]:
    return text.split(",")


if __name__ == "__main__":
    sys.exit(main())
