"""Whether a search's memory stays flat over many trials.

    python -m benchmarks.memory --trials 1000 --from-trial 100

Reads the resident memory of a search of iris while it runs, next to the number of trials that MLflow has. It
fails if the search needs more than a tenth more at its end than after its first trials.
"""

import argparse
import contextlib
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from benchmarks import searches
from pipeline.benchmark import machine
from pipeline.benchmark.speed import table

_MORE = 1.10
_EVERY_SECONDS = 0.5
_FINISHED = (
    "SELECT COUNT(*) FROM runs JOIN tags ON tags.run_uuid = runs.run_uuid"
    " WHERE tags.key = 'pipeline.trial' AND runs.status = 'FINISHED'"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; 1 if the memory has grown."""
    given = _parse(arguments)
    with tempfile.TemporaryDirectory(prefix="regatta-") as place:
        folder = Path(place)
        command = searches.command(
            given.trials,
            "iris",
            f"--space={searches.iris_space(folder, given.epochs)}",
            f"--engine={given.engine}",
        )
        log = folder / "log.txt"
        with log.open("w") as said:
            search = subprocess.Popen(  # noqa: S603  # this Python, and arguments of our own
                command, cwd=folder, env=searches.environment(folder, folder), stdout=said, stderr=said
            )
            try:
                samples = watch(search, searches.store(folder))
            finally:
                search.kill()
                search.wait()
        if search.returncode:
            raise SystemExit(f"the search failed:\n{log.read_text()}")
    if given.output:
        described = {"machine": machine.described(), "trials, bytes": samples}
        given.output.write_text(json.dumps(described))
    text, flat = report(samples, given.from_trial, given.trials)
    print(f"{machine.described()}\n\n{text}")
    return 0 if flat else 1


def watch(search: "subprocess.Popen[bytes]", store: Path) -> list[tuple[int, int]]:
    """Finished trials and resident bytes, again and again until the search has ended."""
    process = psutil.Process(search.pid)
    samples: list[tuple[int, int]] = []
    while search.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            samples.append((finished(store), process.memory_info().rss))
        time.sleep(_EVERY_SECONDS)
    return samples


def report(samples: Sequence[tuple[int, int]], from_trial: int, trials: int) -> tuple[str, bool]:
    """The table, and whether the memory stayed flat.

    Compared are the first sample with `from_trial` finished trials and the last one before the last trial
    ends: what comes after, the ensemble and the report, is done once a search.
    """
    during = [(count, size) for count, size in samples if from_trial <= count < trials]
    if len(during) < 2:
        raise SystemExit(f"fewer than two samples between trial {from_trial} and trial {trials}: more trials")
    (first, begin), (last, end) = during[0], during[-1]
    lines = [
        [f"after {first} trials", f"{begin / 2**20:.0f}"],
        [f"after {last} trials", f"{end / 2**20:.0f}"],
        ["most, with the end of the search", f"{max(size for _, size in samples) / 2**20:.0f}"],
    ]
    return table(["", "MiB"], lines) + f"\n\n{end / begin - 1:+.1%}", end <= _MORE * begin


def finished(store: Path) -> int:
    """How many trials have finished, by MLflow's file."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=5)) as opened:
            return int(opened.execute(_FINISHED).fetchone()[0])
    except sqlite3.OperationalError:
        # It is not there yet, or has no tables.
        return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--from-trial", type=int, default=100)
    parser.add_argument(
        "--epochs", type=int, help="of each trial; the space's, with early stopping, if not given"
    )
    parser.add_argument("--engine", default="lanes")
    parser.add_argument("--output", type=Path, help="a JSON file with every sample")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
