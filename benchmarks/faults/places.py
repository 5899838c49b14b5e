"""Folders with a search each, and the processes that search there, of which none outlives this program."""

import contextlib
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import searches

MOST_SECONDS = 900.0
"""For anything that is waited for."""

_LANES = 4
_begun: list["subprocess.Popen[bytes]"] = []


@dataclass(frozen=True)
class Search:
    """A process that searches. log: what it says."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def last_line(self) -> str:
        """What it said last."""
        return (self.said().splitlines() or ["nothing was said"])[-1]

    def completed(self) -> int:
        """How many trials it has said to be completed."""
        return self.said().count(" completed: ")

    def running(self) -> bool:
        return self.process.poll() is None

    def end(self, most: float = MOST_SECONDS) -> int:
        """Its exit code, when it has ended."""
        return self.process.wait(most)


@dataclass(frozen=True)
class Place:
    """A folder with a study of its own, and an experiment of its own in MLflow.

    Args:
        folder: exists; its name is the study's.
        cache: for compiled programs.
        trials: of the study.
        epochs: that every trial trains, none less.
        batch: rows of a batch; the fewer, the longer an epoch takes.
        variables: of the environment, beside those that keep a search within its folder.
        options: of the command, beside those of every place.
        space: text of the space file; iris's, cut to what is said here, if it is empty.
    """

    folder: Path
    cache: Path
    trials: int
    epochs: int
    batch: int = 45
    variables: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ("--sampler=random", f"--lanes={_LANES}")
    space: str = ""

    @property
    def study(self) -> str:
        return self.folder.name

    @property
    def environment(self) -> dict[str, str]:
        own = searches.environment(self.folder, self.cache)
        return {**own, "MLFLOW_EXPERIMENT_NAME": self.study, **self.variables}

    def start(self, log: Path | None = None) -> Search:
        """Starts the search. log: where it speaks; else in the place's own file."""
        file = log or self.folder / "log"
        self._write_space()
        options = [f"--study={self.study}", "--space=iris.toml", "--export=none", "--members=2"]
        command = searches.command(self.trials, "iris", *options, *self.options)
        with file.open("ab") as opened:
            process = subprocess.Popen(  # noqa: S603  # this Python
                command,
                cwd=self.folder,
                env=self.environment,
                stdout=opened,
                stderr=opened,
                start_new_session=True,
            )
        _begun.append(process)
        return Search(process, file)

    def finish(self) -> Search:
        """A search that has ended."""
        search = self.start()
        search.end()
        return search

    def _write_space(self) -> None:
        if (self.folder / "iris.toml").exists():
            return
        if self.space:
            (self.folder / "iris.toml").write_text(self.space)
            return
        file = searches.iris_space(self.folder, self.epochs)
        # One size of batch: fewer programs, which are compiled once for all places.
        text, changed = re.subn(r"(?m)^batch_size = .*$", f"batch_size = {self.batch}", file.read_text())
        if not changed:
            raise SystemExit(f"{file}: batch_size stands there no more")
        file.write_text(text)


@contextlib.contextmanager
def none_left() -> Iterator[None]:
    """After the block no search that was begun in it runs."""
    try:
        yield
    finally:
        for process in _begun:
            # Its writer ends with it.
            process.kill()
            process.wait()
        _begun.clear()


def wait_for(there: Callable[[], bool], *searches_under_way: Search) -> bool:
    """Whether something came to be before one of the searches ended."""
    deadline = time.monotonic() + MOST_SECONDS
    while not there():
        if time.monotonic() > deadline or not all(search.running() for search in searches_under_way):
            return there()
        time.sleep(0.1)
    return True
