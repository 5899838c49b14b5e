"""A writer in a process of its own.

Writing a point takes MLflow a third of a millisecond of Python, as long as a lane's whole epoch may take. In
the search's own process it would hold up the thread that keeps the lanes busy.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from pipeline.secrets import first_line
from pipeline.tracking.connection import reconnect
from pipeline.tracking.outbox import Outbox
from pipeline.tracking.writer import Writer, obey

_PROGRAM = "from pipeline.tracking.apart import main; main()"
_END, _GIVE_UP = "end", "give up"
_STOP_SECONDS = 5.0


@contextlib.contextmanager
def opened_writer(*, lanes: bool) -> "Iterator[Process | None]":
    """A process that writes to MLflow, where trials train in lanes, for a block.

    A trial in lanes takes a fraction of a second, and writing it as long; by fit, a thread has time enough.
    """
    if not lanes:
        yield None
        return
    process = Process()
    try:
        yield process
    finally:
        process.close()


class Process:
    """Writes what an outbox holds; what failed is in `failure`. Ended by `close`.

    It takes some seconds to start, and may be started before there is anything to write.
    """

    def __init__(self) -> None:
        self.failure = ""
        self._left = False
        # Where this process finds its modules; the store's password goes through the pipe, unseen by others.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(part or os.getcwd() for part in sys.path)}
        self._process = subprocess.Popen(  # noqa: S603  # this Python, and a line of our own
            [sys.executable, "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            # A terminal's Ctrl-C is for the search, which then says how its trials ended.
            start_new_session=True,
        )
        self._ear = threading.Thread(target=self._listen, name="writer's ear", daemon=True)
        self._ear.start()

    def begin(self, store: str, parent: str, experiment: str, outbox: Path) -> None:
        """First of all, once: what to write under.

        Args:
            store: MLflow's URI, with its password.
            parent: the parent's run id.
            experiment: the parent's.
            outbox: the folder of one that this process has open.
        """
        self._tell(json.dumps([store, parent, experiment, str(outbox)]))

    def close(self, patience: float | None = None) -> None:
        """Returns when everything is written, or cannot be.

        patience: seconds after which what a store that does not answer has not got is left in the outbox;
        None to wait for ever.
        """
        self._tell(_END)
        self._ear.join(patience)
        if self._ear.is_alive():
            self._tell(_GIVE_UP)
            self._ear.join(_STOP_SECONDS)
        if self._ear.is_alive():
            # In a request to a store that neither answers nor refuses: the outbox has what it was of.
            self._left = True
            self._process.kill()
            self._ear.join()

    def _tell(self, line: str) -> None:
        pipe = self._process.stdin
        # A process that is gone is the other thread's to tell.
        with contextlib.suppress(OSError, ValueError):
            if pipe:
                pipe.write(f"{line}\n".encode())
                pipe.flush()

    def _listen(self) -> None:
        """Waits for the end of the process, and why it ended."""
        said = ""
        if self._process.stdout:
            with self._process.stdout as pipe:
                said = pipe.read().decode()
        code = self._process.wait()
        if code and not self._left:
            self.failure = said or f"the process that writes there ended with exit code {code}"
        with contextlib.suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()


def main() -> None:
    """The process: obeys what comes through standard input, and answers with what failed, if anything."""
    # A stop is for the search, which then says how its trials ended.
    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, signal.SIG_IGN)
    # What MLflow prints is not the answer.
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    first = sys.stdin.readline().strip()
    if first in ("", _END):
        return  # there was nothing to write
    store, parent, experiment, folder = json.loads(first)
    over, given_up = threading.Event(), threading.Event()
    threading.Thread(target=_read, args=(over, given_up), daemon=True).start()
    try:
        outbox = Outbox(Path(folder))
        writer = Writer(reconnect(store), parent, experiment, outbox)
        obey(writer, outbox, over.is_set, _say, given_up.is_set)
    except Exception as error:  # whatever it is, the search tells it
        answer.write(first_line(error))
        answer.close()
        sys.exit(1)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _read(over: threading.Event, given_up: threading.Event) -> None:
    """Hears how it is to end; a pipe that ends before is of a search that was killed.

    Then the next search has the outbox, and this process must be out of its way.
    """
    for line in sys.stdin:
        if line.strip() == _END:
            over.set()
        elif line.strip() == _GIVE_UP:
            given_up.set()
    if not over.is_set():
        os._exit(0)
