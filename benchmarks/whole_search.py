"""A whole search of iris against the script that people write, everything included.

    python -m benchmarks.whole_search --trials 64 --script-trials 8 --output whole_search.json

Both train each trial for 100 epochs, with early stopping off, and log every epoch to MLflow. The search has
also its start, its compilation, the ensemble, the test scores and the report in it. The script runs fewer
trials, and the rest is added by its median trial. Each run has an empty store; the search runs with an empty
cache of compiled programs, and once more with that cache filled.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import searches
from pipeline.benchmark import machine
from pipeline.benchmark.speed import shown, table

# Of the parent run; they say where the search's time went.
METRICS = ("startup_seconds", "compile_seconds", "finish_seconds", "overhead_share", "lane_occupancy")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    given = _parse(arguments)
    measured: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="regatta-") as place:
        folder = Path(place)
        space = searches.iris_space(folder, given.epochs)
        for number in range(given.repeats):
            cache = folder / f"cache {number}"
            for kind in ("script", "cold", "warm"):
                home = folder / f"{kind} {number}"
                home.mkdir()
                found = _script(given, home) if kind == "script" else _search(given, home, cache, space)
                measured.append({"kind": kind, **found})
                print(f"{kind}: {found['seconds']:.1f} s", file=sys.stderr, flush=True)
                if given.output:
                    described = {"machine": machine.described(), "trials": given.trials, "measured": measured}
                    given.output.write_text(json.dumps(described, indent=1))
    print(f"{machine.described()}\n\n{report(measured, given.trials, given.epochs)}")
    return 0


def report(measured: Sequence[Mapping[str, Any]], trials: int, epochs: int) -> str:
    """The table of all runs, by their medians."""

    def median(kind: str, name: str) -> float | None:
        values = [one[name] for one in measured if one["kind"] == kind and name in one]
        return statistics.median(values) if values else None

    script = median("script", "seconds") or 0.0
    names = {
        "script": "Optuna, `model.fit` on TensorFlow, MLflow",
        "cold": "search, nothing compiled before",
        "warm": "search, programs compiled before",
    }
    lines = []
    for kind, name in names.items():
        seconds = median(kind, "seconds") or 0.0
        details = [shown(median(kind, metric)) for metric in METRICS]
        lines.append([name, shown(seconds), shown(script / seconds), *details])
    heads = [f"iris, {trials} trials of {epochs} epochs", "seconds", "times as fast", *METRICS]
    return table(heads, lines)


def _search(given: argparse.Namespace, home: Path, cache: Path, space: Path) -> dict[str, float]:
    # The script it is compared with exports nothing.
    command = searches.command(given.trials, "iris", f"--space={space}", "--export=none")
    seconds, _ = searches.timed(command, home, searches.environment(home, cache))
    return {"seconds": seconds, **searches.metrics(home, METRICS)}


def _script(given: argparse.Namespace, home: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.plain_script"]
    command += [f"--trials={given.script_trials}", f"--epochs={given.epochs}"]
    environment = {**searches.environment(home, home), "KERAS_BACKEND": "tensorflow"}
    seconds, said = searches.timed(command, home, environment)
    trials: list[float] = json.loads(said.splitlines()[-1])["trial_seconds"]
    scaled = seconds + (given.trials - given.script_trials) * statistics.median(trials)
    return {"seconds": scaled, "measured_seconds": seconds, "trial_seconds": trials}


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.whole_search", description=__doc__)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--script-trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--output", type=Path, help="a JSON file with every run")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
