"""Does to searches what happens to them at night, and looks at what is left.

    python -m benchmarks.faults --kills 50 --terms 20 --outage 120 --disk --clock --nan --pair

Each study is searched with random settings. One is not disturbed; the others are killed (`kill -9`) or
stopped (SIGTERM) at random moments, cut off from PostgreSQL and from MLflow's server, run out of disk, have a
trial whose loss is infinite, are trained by two processes, or have a clock that jumps; then the same command
goes on to the end. A study survives if its trials are those of the undisturbed one, each with one finished
run, a whole curve and a model, no run is said to run, every other run says why it ended, and the study's own
run is finished and has its report and its models. Exit code 1 if one does not.
"""

import argparse
import contextlib
import json
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.faults import cases, places, servers
from benchmarks.faults.cases import Row
from benchmarks.faults.places import Place
from pipeline.benchmark import machine
from pipeline.benchmark.speed import table

_EPOCHS, _FEWEST_TRIALS = 40, 12


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the cases that are asked for; 1 if one is not survived."""
    parser = argparse.ArgumentParser("python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=5, help="kill -9 at so many random moments")
    parser.add_argument("--terms", type=int, default=3, help="SIGTERM at so many random moments")
    parser.add_argument("--outage", type=float, default=20, help="seconds without a server; 0 for none")
    parser.add_argument("--disk", action="store_true", help="a full disk, on a small tmpfs; needs root")
    parser.add_argument("--clock", action="store_true", help="a clock that jumps by hours")
    parser.add_argument("--nan", action="store_true", help="one lane of 16 whose loss is infinite")
    parser.add_argument("--pair", action="store_true", help="two processes on one study, in PostgreSQL")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--output", type=Path, help="JSON file")
    given = parser.parse_args(arguments)
    # A stop ends every search and every server, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    rows = list[Row]()
    with tempfile.TemporaryDirectory(prefix="regatta-") as name, places.none_left():
        for row in _rows(given, Path(name)):
            _tell("\n  ".join([f"{row.fault}: {row.survived} of {row.injected} survived", *row.faults]))
            rows.append(row)
    if given.output:
        given.output.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")
    print(f"{machine.described()}\n\n{report(rows)}")
    return 0 if all(row.survived == row.injected and not row.faults for row in rows) else 1


def report(rows: Sequence[Row]) -> str:
    """The rows as a table, and what is wrong below it."""
    heads = ["fault", "injected", "survived", "trials lost", "recorded twice", "slowest end (s)"]
    lines = [
        [
            row.fault,
            str(row.injected),
            str(row.survived),
            str(row.lost),
            str(row.twice),
            "" if row.slowest is None else f"{row.slowest:.1f}",
        ]
        for row in rows
    ]
    faults = [f"{row.fault}: {fault}" for row in rows for fault in row.faults]
    return "\n".join([table(heads, lines), *([""] if faults else []), *faults])


def _rows(given: argparse.Namespace, folder: Path) -> Iterator[Row]:
    trials = max(_FEWEST_TRIALS, 2 * max(given.kills, given.terms))
    (folder / "usual").mkdir()
    usual = cases.usual(Place(folder / "usual", folder / "cache", trials, _EPOCHS))
    _tell(f"undisturbed: {trials} trials in {usual.seconds:.0f} s")
    moments = cases.Moments(given.seed, usual.seconds)
    if given.kills:
        yield cases.struck(usual, "kill -9", given.kills, signal.SIGKILL, moments)
    if given.terms:
        yield cases.struck(usual, "SIGTERM", given.terms, signal.SIGTERM, moments)
    if given.clock:
        yield cases.clock(usual)
    if given.disk:
        yield cases.disk(usual)
    if given.nan:
        yield cases.nan(usual)
    if not given.outage and not given.pair:
        return
    programs = servers.postgresql_programs()
    if programs is None:
        # Nothing may look survived that was not done.
        yield Row(
            "without PostgreSQL", 1, 0, 0, 0, None, ["it is not on this machine; --outage 0 leaves it out"]
        )
        return
    with contextlib.closing(servers.Pair(folder, programs)) as on:
        if given.outage:
            yield cases.outage(usual, on, given.outage, "MLflow's server")
            yield cases.outage(usual, on, given.outage, "PostgreSQL")
        if given.pair:
            yield from cases.pair(usual, on)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
