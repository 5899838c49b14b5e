"""What grows in a study of thousands of trials: time a trial, files, memory, and what is asked of it after.

    python -m benchmarks.many_trials --trials 2000 --sampler random --epochs 2

Searches iris with the embedded stores, and shows for each hundred trials how long one took, by the clock and
by the processor, of the search and of the process that writes to MLflow. Where other programs run, the
processor's time tells more. Then it takes the time of what people do with such a study: the same command once
more, the report, and `clean` without `apply`.
"""

import argparse
import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from benchmarks import searches
from benchmarks.memory import finished
from pipeline.benchmark import machine
from pipeline.benchmark.speed import shown, table

_BLOCK = 100
_EVERY_SECONDS = 0.5
_STUDY = "iris"


@dataclass(frozen=True)
class Sample:
    """A search at a moment.

    trials: that MLflow has as finished. seconds: since the first sample. search, writer: seconds of the
    processor that the two processes have had. most: bytes that the search had resident at most. waiting:
    bytes of records on their way to MLflow.
    """

    trials: int
    seconds: float
    search: float
    writer: float
    most: int
    waiting: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    given = _parse(arguments)
    with tempfile.TemporaryDirectory(prefix="regatta-") as place:
        folder = Path(place)
        environment = searches.environment(folder, folder)
        more = [f"--sampler={given.sampler}", f"--epochs={given.epochs}", "--export=none"]
        command = searches.command(given.trials, _STUDY, *more)
        log = folder / "log.txt"
        with log.open("w") as said:
            search = subprocess.Popen(  # noqa: S603  # this Python, and arguments of our own
                command, cwd=folder, env=environment, stdout=said, stderr=said
            )
            try:
                samples = watch(search, folder)
            finally:
                search.kill()
                search.wait()
        if search.returncode:
            raise SystemExit(f"the search failed:\n{log.read_text()}")
        home = folder / "studies" / _STUDY
        sizes = {
            "journal": _size(home / "journal.log"),
            "MLflow's SQLite file": _size(searches.store(folder)),
        }
        python = [sys.executable, "-m", "pipeline"]
        after = {
            "the same command": searches.timed(command, folder, environment)[0],
            "report": searches.timed([*python, "report", f"--study={_STUDY}"], folder, environment)[0],
            "clean": searches.timed([*python, "clean", f"--study={_STUDY}"], folder, environment)[0],
        }
    if given.output:
        found = {
            "machine": machine.described(),
            "samples": [asdict(sample) for sample in samples],
            "bytes": sizes,
            "seconds": after,
        }
        given.output.write_text(json.dumps(found))
    print(f"{machine.described()}\n\n{report(samples, sizes, after)}")
    return 0


def watch(search: "subprocess.Popen[bytes]", folder: Path) -> list[Sample]:
    """Samples, again and again until the search has ended."""
    process, began = psutil.Process(search.pid), time.monotonic()
    samples: list[Sample] = []
    while search.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            samples.append(
                Sample(
                    finished(searches.store(folder)),
                    time.monotonic() - began,
                    _processor(process),
                    sum(map(_processor, process.children())),
                    max([process.memory_info().rss, *(sample.most for sample in samples[-1:])]),
                    _size_of_all(folder / "studies" / _STUDY / "outbox"),
                )
            )
        time.sleep(_EVERY_SECONDS)
    return samples


def report(samples: Sequence[Sample], sizes: Mapping[str, int], after: Mapping[str, float]) -> str:
    """The tables: blocks of trials, and the rest."""
    lines = [
        [
            f"{first.trials} to {last.trials}",
            *(
                shown(1000 * (getattr(last, name) - getattr(first, name)) / (last.trials - first.trials))
                for name in ("seconds", "search", "writer")
            ),
            f"{last.most / 2**20:.0f}",
            f"{last.waiting / 2**10:.0f}",
        ]
        for first, last in blocks(samples)
    ]
    heads = ["trials", "ms a trial", "of the processor", "of the writer's", "most MiB", "KiB on their way"]
    rest = [
        *([name, f"{size / 2**20:.1f} MiB"] for name, size in sizes.items()),
        *([name, f"{seconds:.1f} s"] for name, seconds in after.items()),
    ]
    return f"{table(heads, lines)}\n\n{table(['then', ''], rest)}"


def blocks(samples: Sequence[Sample]) -> list[tuple[Sample, Sample]]:
    """The first and the last sample of each block of trials, from the first trial that has finished."""
    edges: list[Sample] = []
    for sample in samples:
        if sample.trials and (not edges or sample.trials >= edges[-1].trials + _BLOCK):
            edges.append(sample)
    return list(itertools.pairwise(edges))


def _processor(process: psutil.Process) -> float:
    """Seconds of the processor; none of a process that has just ended."""
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def _size(file: Path) -> int:
    """Bytes; none of what has just gone."""
    with contextlib.suppress(OSError):
        return file.stat().st_size
    return 0


def _size_of_all(folder: Path) -> int:
    """Bytes of all files below it; none of folders that have just gone."""
    return sum(_size(Path(place, name)) for place, _, names in os.walk(folder) for name in names)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.many_trials", description=__doc__)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--sampler", default="random")
    parser.add_argument("--epochs", type=int, default=2, help="of each trial, at most")
    parser.add_argument("--output", type=Path, help="a JSON file with every sample")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
