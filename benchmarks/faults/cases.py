"""What is done to searches, a function for each fault; each gives a row of what was left."""

import math
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.faults import findings, servers
from benchmarks.faults.findings import Findings, Trials
from benchmarks.faults.places import MOST_SECONDS, Place, Search, wait_for

# After so many seconds Kubernetes and Slurm kill what they have asked to end.
_ENDS_WITHIN = 30.0
_MOST_STUDIES = 100
# Epochs of two rows a step take so much longer than those of 45 rows, as was seen.
_LONG_BATCH, _LONGER = 2, 4
# Four turns of four lanes: one before an outage, two in it or less, the rest after it.
_LONG_TRIALS = 16
_MOST_EPOCHS = 3000

_CLOCK = """
import random, time
_real, _generator, _shift = time.time, random.Random(0), [0.0]
def _jumping():
    if _generator.random() < 0.001:
        _shift[0] = _generator.uniform(-7200, 7200)
    return _real() + _shift[0]
time.time = _jumping
"""

_RATES = tuple(round(1e-3 * (1 + place / 10), 6) for place in range(15))
_TAME, _WILD = 3e-3, 1e38
_GRID = """
[objective]
metric = "val_log_loss"
direction = "minimize"
[budget]
epochs = {epochs}
patience = 100000
[space]
learning_rate = {{ choices = {rates} }}
batch_size = 45
dropout = 0.2
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
class Usual:
    """A search that nobody disturbs, and what it left.

    seconds: that it took, from start to end. epoch: the seconds of an epoch.
    """

    place: Place
    trials: Trials
    seconds: float
    epoch: float

    def again(self, name: str, **changes: Any) -> Place:
        """A place for the same search."""
        folder = self.place.folder.parent / name
        folder.mkdir()
        return replace(self.place, folder=folder, **changes)

    def longer(self, name: str, seconds: float, **changes: Any) -> Place:
        """A place for a search whose trials take so many seconds each, side by side."""
        epochs = math.ceil(seconds / (self.epoch * _LONGER))
        epochs = min(max(epochs, self.place.epochs), _MOST_EPOCHS)
        return self.again(name, epochs=epochs, batch=_LONG_BATCH, **changes)


class Moments:
    """Random moments of a search's life.

    Args:
        seed: of the moments.
        life: seconds that a search takes at most; one that compiles takes longer than the later ones.
    """

    def __init__(self, seed: int, life: float) -> None:
        self._random, self._life = random.Random(seed), life  # noqa: S311  # moments, no secrets

    def draw(self) -> float:
        """Seconds from a search's start."""
        return self._random.uniform(0, self._life)

    def learn(self, life: float) -> None:
        """A whole search has taken so long."""
        self._life = min(self._life, life)


def usual(place: Place) -> Usual:
    """Searches undisturbed."""
    began = time.monotonic()
    search = place.finish()
    seconds = time.monotonic() - began
    if code := search.process.returncode:
        raise SystemExit(f"the undisturbed search failed with exit code {code}:\n{search.said()[-2000:]}")
    left, known = findings.look(place, None), findings.trials_of(place)
    if not left.fine:
        raise SystemExit(f"the undisturbed search left {left}")
    epoch = statistics.median(findings.seconds_of(place)) / place.epochs
    return Usual(place, known, seconds, epoch)


def struck(usual: Usual, fault: str, times: int, kind: signal.Signals, moments: Moments) -> Row:
    """Studies that are struck so often in all, each time at a random moment of a search's life."""
    found, faults = Findings(), list[str]()
    injected, slowest = 0, 0.0
    for study in range(_MOST_STUDIES):
        if injected == times:
            break
        place, whole = usual.again(f"{kind.name}-{study}".lower()), True
        while injected < times:
            search, began = place.start(), time.monotonic()
            try:
                search.end(moments.draw())
                # It ended before the moment came: the next strikes are another study's.
                if whole:
                    moments.learn(time.monotonic() - began)
                break
            except subprocess.TimeoutExpired:
                pass
            hit = time.monotonic()
            search.process.send_signal(kind)
            ended, whole = search.end(), False
            injected += 1
            slowest = max(slowest, time.monotonic() - hit)
            _tell(f"{fault} {injected} of {times}, after {hit - began:.1f} s")
            if kind == signal.SIGTERM and ended not in (143, -signal.SIGTERM):
                faults.append(f"exit code {ended} after SIGTERM: {search.last_line()}")
        else:
            search = place.finish()
        if search.process.returncode:
            faults.append(f"exit code {search.process.returncode} at last: {search.last_line()}")
        found.add(findings.look(place, usual.trials), place.study)
    if kind == signal.SIGTERM and slowest > _ENDS_WITHIN:
        faults.append(f"an end took {slowest:.1f} s")
    return row(fault, injected, found, faults, slowest if kind == signal.SIGTERM else None)


def clock(usual: Usual) -> Row:
    """A clock that jumps by up to two hours either way, now and then."""
    place = usual.again("clock")
    (place.folder / "sitecustomize.py").write_text(_CLOCK)
    path = os.pathsep.join([str(place.folder), place.environment["PYTHONPATH"]])
    search = replace(place, variables={**place.variables, "PYTHONPATH": path}).finish()
    return row("clock that jumps", 1, findings.look(place, usual.trials), _wrong(search))


def disk(usual: Usual) -> Row:
    """A disk that gets full in mid-search, and then has room again."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if not mount or not umount:
        raise SystemExit("--disk: there is no mount on this machine")
    place = usual.again("disk")
    small, large = "size=3m", "size=512m"
    subprocess.run([mount, "-t", "tmpfs", "-o", small, "tmpfs", str(place.folder)], check=True)  # noqa: S603
    try:
        # What it says must not need the disk that is full.
        search = place.start(place.folder.parent / "full.log")
        if search.end() not in (1, 2) or not _says_full(search):
            code = search.process.returncode
            return row("full disk", 1, Findings(), [f"exit code {code}: {search.last_line()}"])
        _tell(f"full disk: {search.last_line()}")
        subprocess.run([mount, "-o", f"remount,{large}", str(place.folder)], check=True)  # noqa: S603
        again = place.start(place.folder.parent / "room.log")
        again.end()
        return row("full disk", 1, findings.look(place, usual.trials), _wrong(again))
    finally:
        # Whoever has looked at the database there has it open still.
        subprocess.run([umount, "--lazy", str(place.folder)], check=True)  # noqa: S603


def _says_full(search: Search) -> bool:
    return any(words in search.last_line() for words in ("No space left", "disk is full", "disk I/O error"))


def nan(usual: Usual) -> Row:
    """One lane of sixteen whose learning rate makes its loss infinite, and the same search without it."""
    known, faults = dict[str, Trials](), list[str]()
    options, trials = ("--sampler=grid", "--lanes=16"), len(_RATES) + 1
    for name, rate in (("tame", _TAME), ("wild", _WILD)):
        space = _GRID.format(epochs=usual.place.epochs, rates=[*_RATES, rate])
        place = usual.again(name, trials=trials, options=options, space=space)
        search = place.finish()
        faults += _wrong(search)
        known[name] = findings.trials_of(place)
    tame, wild = known["tame"], known["wild"]
    failed = [number for number, trial in wild.items() if trial["params"]["learning_rate"] == _WILD]
    others = [number for number in wild if number not in failed]
    faults += [
        f"trial {number}: {wild[number]['reason']}" for number in failed if not _diverged(wild[number])
    ]
    alike = [number for number in others if tame[number]["replay"] == wild[number]["replay"]]
    faults += [
        f"trial {number}: its value is {wild[number]['value']}, and without the wild one"
        f" {tame[number]['value']}"
        for number in alike
        if tame[number]["value"] != wild[number]["value"]
    ]
    _tell(f"a NaN in a lane: {len(alike)} of {len(others)} other trials compared bit by bit")
    if len(alike) < len(others) / 2:
        faults.append(
            f"only {len(alike)} of {len(others)} trials began at the same epoch and can be compared"
        )
    return row("NaN in one lane of 16", 1, findings.look(place, None, failed), faults)


def _diverged(trial: Mapping[str, Any]) -> bool:
    return str(trial["reason"]).startswith("diverged: ")


def outage(usual: Usual, on: servers.Pair, seconds: float, what: str) -> Row:
    """A server that is away for so long in mid-search. what: `MLflow's server` or `PostgreSQL`."""
    one: servers.Mlflow | servers.Postgresql = on.mlflow if what.startswith("MLflow") else on.postgresql
    # Where PostgreSQL goes away, MLflow's server is there and answers with errors.
    variables = on.variables
    name = "outage-mlflow" if one is on.mlflow else "outage-postgresql"
    place = usual.longer(name, seconds / 2, trials=_LONG_TRIALS, variables=variables)
    search = place.start()
    # The first trials end soon after one another; others begin then.
    if not wait_for(lambda: search.completed() > 1, search):
        return row(f"{what} away", 1, Findings(), [f"the search ended before: {search.last_line()}"])
    one.stop()
    before, cut = search.completed(), time.monotonic()
    time.sleep(seconds)
    trained, waits, left = search.completed() - before, _bytes(place), place.trials - search.completed()
    one.start()
    _tell(
        f"{what} away for {time.monotonic() - cut:.0f} s: {trained} trials completed meanwhile,"
        f" {waits / 1e6:.1f} MB waited on disk"
    )
    search.end()
    faults = _wrong(search)
    if not left:
        faults.append("the last trial ended while it was away, so it was not cut off in mid-search")
    if not trained:
        faults.append("training did not go on")
    faults += [
        f"nobody said {words!r}" for words in ("not answer", "answers again") if words not in search.said()
    ]
    for line in search.said().splitlines():
        if "answer" in line or "MLflow:" in line or "Traceback" in line:
            print(f"  {line}", file=sys.stderr, flush=True)
    return row(f"{what} away for {seconds:.0f} s", 1, findings.look(place, None), faults)


def _bytes(place: Place) -> int:
    """What waits in the place's outbox."""
    files = Path(place.environment["PIPELINE_HOME"], place.study, "outbox").rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def pair(usual: Usual, on: servers.Pair) -> list[Row]:
    """Two processes on one study: both to the end, one that is stopped, one that is killed."""
    return [_both(usual, on), _one_struck(usual, on, signal.SIGTERM), _one_struck(usual, on, signal.SIGKILL)]


def _both(usual: Usual, on: servers.Pair) -> Row:
    place = usual.again("pair", variables=on.variables)
    searches = [place.start(place.folder / f"log-{name}") for name in ("a", "b")]
    faults = [fault for search in searches if search.end() or True for fault in _wrong(search)]
    closings = sum(search.said().count("models champion and ensemble") for search in searches)
    if closings != 1:
        faults.append(f"the ensemble was made {closings} times")
    return row("two processes", 1, findings.look(place, usual.trials), faults)


def _one_struck(usual: Usual, on: servers.Pair, kind: signal.Signals) -> Row:
    """One of two is struck when both have trained; the other goes on with its trials to the end."""
    fault = f"two processes, one gets {kind.name}"
    place = usual.longer(f"pair-{kind.name.lower()}", 5.0, variables=on.variables)
    one, other = (place.start(place.folder / f"log-{name}") for name in ("a", "b"))
    if not wait_for(lambda: bool(one.completed() and other.completed()), one, other):
        ends = f"{one.last_line()}; {other.last_line()}"
        return row(fault, 1, Findings(), [f"not both have trained: {ends}"])
    one.process.send_signal(kind)
    one.end()
    status, lives, faults = findings.status_of_parent(place), other.running(), list[str]()
    if lives and status != "RUNNING":
        faults.append(f"the study's run is {status} while a process trains it")
    if not lives:
        faults.append("both ended at the same time")
    other.end()
    return row(fault, 1, findings.look(place, None), [*faults, *_wrong(other)])


def row(fault: str, injected: int, found: Findings, faults: list[str], slowest: float | None = None) -> Row:
    """A row; nothing has survived if there is anything wrong."""
    survived = injected if found.fine and not faults else 0
    return Row(fault, injected, survived, found.lost, found.twice, slowest, [*faults, *found.faults])


def _wrong(search: Search) -> list[str]:
    """What is wrong with how a search ended."""
    code = search.end(MOST_SECONDS)
    return [f"exit code {code}: {search.last_line()}"] if code else []


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
