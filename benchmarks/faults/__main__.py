"""Does to searches what happens to them at night, and looks at what is left.

    python -m benchmarks.faults --kills 50 --terms 20 --outage 120 --disk --clock --pair --output faults.json

Each study is searched with random settings. One is not disturbed; the others are killed (`kill -9`) or
stopped (SIGTERM) at random moments, cut off from PostgreSQL and from MLflow's server, run out of disk, are
trained by two processes, or have a clock that jumps; then the same command goes on to the end. A study
survives if its trials are those of the undisturbed one, each with one finished run, a whole curve and a
model, no run is said to run, and every other run says why it ended. Exit code 1 if one does not.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import searches
from benchmarks.faults import findings, servers
from benchmarks.faults.findings import STUDY, Findings
from pipeline.benchmark import machine
from pipeline.benchmark.speed import table

_EPOCHS = 40
# A search of this length that is not disturbed, with its start; later ones of the study are like it.
_MOST_SECONDS = 900.0
_ENDS_WITHIN = 10.0
_MOST_STUDIES = 100
_CLOCK = """
import random, time
_real, _generator, _shift = time.time, random.Random(0), [0.0]
def _jumping():
    if _generator.random() < 0.001:
        _shift[0] = _generator.uniform(-7200, 7200)
    return _real() + _shift[0]
time.time = _jumping
"""


@dataclass(frozen=True)
class Row:
    """A line of the table.

    slowest: seconds that the slowest end took, where ends were measured.
    """

    fault: str
    injected: int
    survived: int
    lost: int
    twice: int
    slowest: float | None
    faults: list[str]


@dataclass(frozen=True)
class Place:
    """A folder with a study's home and MLflow's store."""

    folder: Path
    environment: Mapping[str, str]
    trials: int
    more: tuple[str, ...] = ()

    def start(self, trials: int | None = None) -> "subprocess.Popen[bytes]":
        asked = ["--sampler=random", f"--epochs={_EPOCHS}", f"--study={STUDY}", "--export=none", "--lanes=4"]
        command = searches.command(trials or self.trials, "iris", *asked, *self.more)
        log = (self.folder / "log").open("ab")
        with log:
            return subprocess.Popen(  # noqa: S603  # this Python
                command, cwd=self.folder, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def finish(self) -> int:
        return self.start().wait(_MOST_SECONDS)

    def said(self) -> str:
        return (self.folder / "log").read_text(errors="replace")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the cases that are asked for; 1 if one is not survived."""
    parser = argparse.ArgumentParser("python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=5, help="kill -9 at so many random moments")
    parser.add_argument("--terms", type=int, default=3, help="SIGTERM at so many random moments")
    parser.add_argument("--outage", type=float, default=20, help="seconds without a server; 0 for none")
    parser.add_argument("--disk", action="store_true", help="a full disk, on a small tmpfs; needs root")
    parser.add_argument("--clock", action="store_true", help="a clock that jumps by hours")
    parser.add_argument("--pair", action="store_true", help="two processes on one study, in PostgreSQL")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--output", type=Path, help="JSON file")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="regatta-") as name:
        rows = list(_rows(given, Path(name)))
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


def _rows(given: argparse.Namespace, folder: Path) -> "list[Row]":
    trials = max(16, 2 * max(given.kills, given.terms))
    rows: list[Row] = []

    def done(row: Row) -> None:
        print(f"{row.fault}: {row.survived} of {row.injected} survived", file=sys.stderr, flush=True)
        rows.append(row)

    length, undisturbed = 0.0, dict[int, Any]()
    # The first one compiles for all.
    for name in ("first", "undisturbed"):
        plain = _place(folder / name, trials)
        began = time.monotonic()
        if plain.finish():
            raise SystemExit(f"the undisturbed search failed:\n{plain.said()[-2000:]}")
        length = time.monotonic() - began
        undisturbed = findings.trials_of(plain.environment)
    print(f"undisturbed: {trials} trials in {length:.0f} s", file=sys.stderr, flush=True)
    moments = random.Random(given.seed)  # noqa: S311  # moments, no secrets
    if given.kills:
        done(
            _struck(
                folder / "kills", trials, "kill -9", given.kills, signal.SIGKILL, length, moments, undisturbed
            )
        )
    if given.terms:
        done(
            _struck(
                folder / "terms", trials, "SIGTERM", given.terms, signal.SIGTERM, length, moments, undisturbed
            )
        )
    if given.clock:
        done(_clock(_place(folder / "clock", trials), undisturbed))
    if given.disk:
        done(_disk(folder / "disk", trials, undisturbed))
    programs = servers.postgresql_programs()
    if programs is None and (given.outage or given.pair):
        print("no PostgreSQL on this machine: nothing is cut off", file=sys.stderr)
        return rows
    if given.outage and programs:
        for what in ("MLflow's server away", "PostgreSQL away"):
            done(_outage(folder / what.split()[0].lower(), trials, programs, given.outage, what))
    if given.pair and programs:
        done(_pair(folder / "pair", trials, programs, undisturbed))
    return rows


def _place(folder: Path, trials: int) -> Place:
    folder.mkdir(parents=True)
    # Programs are compiled once for all: what is disturbed is the search.
    home = next(path for path in folder.parents if path.name.startswith("regatta-"))
    cache = home / "cache"
    return Place(folder, searches.environment(folder, cache), trials)


def _struck(
    folder: Path,
    trials: int,
    fault: str,
    times: int,
    kind: signal.Signals,
    length: float,
    moments: random.Random,
    undisturbed: Mapping[int, Any],
) -> Row:
    """Studies that are struck so often in all, each time at a random moment of a search's life."""
    found, faults = Findings(), list[str]()
    injected, slowest = 0, 0.0
    for study in range(_MOST_STUDIES):
        if injected == times:
            break
        place, code = _place(folder / f"study-{study}", trials), 0
        while injected < times:
            search = place.start()
            try:
                # It ended before the moment came: the next strikes are another study's.
                code = search.wait(moments.uniform(0, length))
                break
            except subprocess.TimeoutExpired:
                pass
            struck = time.monotonic()
            search.send_signal(kind)
            ended = search.wait(_MOST_SECONDS)
            injected += 1
            slowest = max(slowest, time.monotonic() - struck)
            if kind == signal.SIGTERM and ended not in (143, -signal.SIGTERM):
                faults.append(f"exit code {ended} after SIGTERM: {place.said().splitlines()[-1:]}")
        else:
            code = place.finish()
        if code:
            faults.append(f"exit code {code} at last: {place.said().splitlines()[-1:]}")
        here = findings.look(place.environment, trials, undisturbed)
        found.lost, found.twice = found.lost + here.lost, found.twice + here.twice
        found.faults += [f"study {study}: {fault}" for fault in here.faults]
    if kind == signal.SIGTERM and slowest > _ENDS_WITHIN:
        faults.append(f"an end took {slowest:.1f} s")
    return _row(fault, injected, found, faults, slowest if kind == signal.SIGTERM else None)


def _clock(place: Place, undisturbed: Mapping[int, Any]) -> Row:
    """A clock that jumps by up to two hours either way, now and then."""
    (place.folder / "sitecustomize.py").write_text(_CLOCK)
    path = os.pathsep.join([str(place.folder), place.environment["PYTHONPATH"]])
    jumping = Place(place.folder, {**place.environment, "PYTHONPATH": path}, place.trials)
    code = jumping.finish()
    faults = [f"exit code {code}"] if code else []
    return _row("clock that jumps", 1, findings.look(place.environment, place.trials, undisturbed), faults)


def _disk(folder: Path, trials: int, undisturbed: Mapping[int, Any]) -> Row:
    """A disk that gets full in mid-search, and then has room again."""
    folder.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if not mount or not umount:
        raise SystemExit("--disk: there is no mount on this machine")
    small, large = "size=3m", "size=512m"
    subprocess.run([mount, "-t", "tmpfs", "-o", small, "tmpfs", str(folder)], check=True)  # noqa: S603
    try:
        place = Place(folder, searches.environment(folder, folder.parent / "cache"), trials)
        # What it says must not need the disk that is full.
        log = folder.parent / "disk.log"
        said = ""
        for options in (small, large):
            subprocess.run([mount, "-o", f"remount,{options}", str(folder)], check=True)  # noqa: S603
            with log.open("wb") as opened:
                asked = ["--sampler=random", f"--epochs={_EPOCHS}", f"--study={STUDY}", "--export=none"]
                code = subprocess.run(  # noqa: S603  # this Python
                    searches.command(trials, "iris", *asked, "--lanes=4"),
                    cwd=folder,
                    env=place.environment,
                    stdout=opened,
                    stderr=opened,
                    check=False,
                    timeout=_MOST_SECONDS,
                ).returncode
            text = log.read_text()
            said += text
            if options == small and (code not in (1, 2) or not _says_full(text)):
                return _row("full disk", 1, Findings(), [f"exit code {code}: {text.splitlines()[-1:]}"])
        faults = [f"exit code {code} at last: {said.splitlines()[-1]}"] if code else []
        return _row("full disk", 1, findings.look(place.environment, trials, undisturbed), faults)
    finally:
        subprocess.run([umount, str(folder)], check=True)  # noqa: S603


def _says_full(text: str) -> bool:
    return any(words in text for words in ("No space left", "disk is full", "disk I/O error"))


def _outage(folder: Path, trials: int, programs: Path, seconds: float, what: str) -> Row:
    """A server that is away for so long in mid-search."""
    folder.mkdir()
    with servers.both(folder, programs) as (database, server):
        one: servers.Mlflow | servers.Postgresql = server if what.startswith("MLflow") else database
        # Where MLflow's own database goes away, its server answers with errors.
        place = _on_servers(folder, trials, database, server)
        search = place.start()
        _wait_for(lambda: "trial 3 completed" in place.said(), search)
        one.stop()
        time.sleep(seconds)
        said_before = place.said()
        one.start()
        code = search.wait(_MOST_SECONDS)
        faults = [f"exit code {code}: {place.said().splitlines()[-1]}"] if code else []
        if "not answer" not in said_before:
            faults.append("nobody said that it does not answer")
        found = findings.look(place.environment, trials, None, database.url("optuna"))
    lines = [line for line in place.said().splitlines() if "answer" in line]
    print("\n".join(f"  {line}" for line in lines), file=sys.stderr, flush=True)
    return _row(f"{what} for {seconds:.0f} s", 1, found, faults)


def _pair(folder: Path, trials: int, programs: Path, undisturbed: Mapping[int, Any]) -> Row:
    """Two processes on one study; one of them is killed, and started again."""
    folder.mkdir()
    with servers.both(folder, programs) as (database, server):
        place = _on_servers(folder, trials, database, server)
        first, second = place.start(), place.start()
        _wait_for(lambda: "trial 3 completed" in place.said(), first)
        second.kill()
        second.wait()
        third = place.start()
        codes = [first.wait(_MOST_SECONDS), third.wait(_MOST_SECONDS)]
        faults = [f"exit codes {codes}"] if any(codes) else []
        found = findings.look(place.environment, trials, undisturbed, database.url("optuna"))
    return _row("two processes, one killed", 1, found, faults)


def _on_servers(folder: Path, trials: int, database: servers.Postgresql, server: servers.Mlflow) -> Place:
    environment = searches.environment(folder, folder.parent / "cache")
    environment |= {"MLFLOW_TRACKING_URI": server.url, "PIPELINE_STORAGE": database.url("optuna")}
    return Place(folder, environment, trials)


def _wait_for(there: Callable[[], bool], search: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _MOST_SECONDS
    while not there():
        if search.poll() is not None or time.monotonic() > deadline:
            raise SystemExit("the search ended before it could be disturbed")
        time.sleep(0.2)


def _row(fault: str, injected: int, found: Findings, faults: list[str], slowest: float | None = None) -> Row:
    survived = injected if found.fine and not faults else 0
    return Row(fault, injected, survived, found.lost, found.twice, slowest, [*faults, *found.faults])


if __name__ == "__main__":
    raise SystemExit(main())
