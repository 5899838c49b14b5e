"""A writer in a process of its own.

Writing a point takes MLflow a third of a millisecond of Python, as long as a lane's whole epoch may take. In
the search's own process it would hold up the thread that keeps the lanes busy.
"""

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import IO

from pipeline.secrets import first_line
from pipeline.tracking.connection import reconnect
from pipeline.tracking.writer import Message, Writer, obey

_PROGRAM = "from pipeline.tracking.apart import main; main()"


@contextlib.contextmanager
def opened_writer(*, lanes: bool) -> "Iterator[Process | None]":
    """A process that writes to MLflow, where trials train in lanes, for a block.

    A trial in lanes takes a fraction of a second, and writing it as long; by fit, a thread has time enough.
    """
    if not lanes:
        yield None
        return
    with contextlib.closing(Process()) as process:
        yield process


class Process:
    """Takes messages for a writer; what failed is in `failure`. Ended by `close`.

    It takes some seconds to start, and may be started before there is anything to write.
    """

    def __init__(self) -> None:
        self.failure = ""
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
        self._messages: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=run, name=f"writer's {name}", daemon=True)
            for name, run in (("mouth", self._tell), ("ear", self._listen))
        ]
        for thread in self._threads:
            thread.start()

    def begin(self, store: str, parent: str, experiment: str) -> None:
        """First of all, once: what to write under.

        Args:
            store: MLflow's URI, with its password.
            parent: the parent's run id.
            experiment: the parent's.
        """
        self._messages.put((store, parent, experiment))

    def put(self, message: Message) -> None:
        self._messages.put(message)

    def close(self) -> None:
        """Returns when everything is written, or cannot be."""
        self._messages.put(None)
        for thread in self._threads:
            thread.join()

    def _tell(self) -> None:
        """Sends the messages, the last one None, at the pace at which they are read."""
        pipe = self._process.stdin
        message: object = ()
        # A process that is gone is the other thread's to tell.
        with contextlib.suppress(OSError):
            while pipe and message is not None:
                message = self._messages.get()
                pickle.dump(message, pipe)
                pipe.flush()
        with contextlib.suppress(OSError):
            if pipe:
                pipe.close()

    def _listen(self) -> None:
        """Waits for the end of the process, and why it ended."""
        said = ""
        if self._process.stdout:
            with self._process.stdout as pipe:
                said = pipe.read().decode()
        code = self._process.wait()
        if code:
            self.failure = said or f"the process that writes there ended with exit code {code}"


def main() -> None:
    """The process: obeys what comes through standard input, and answers with what failed, if anything."""
    # A stop is for the search, which then says how its trials ended.
    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, signal.SIG_IGN)
    # What MLflow prints is not the answer.
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    source = sys.stdin.buffer
    try:
        store, parent, experiment = pickle.load(source)  # noqa: S301  # from the process that started this one
    except (EOFError, TypeError):
        return  # there was nothing to write
    inbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(source, inbox), daemon=True).start()
    try:
        obey(Writer(reconnect(store), parent, experiment), inbox.get)
    except Exception as error:  # whatever it is, the search tells it
        answer.write(first_line(error))
        answer.close()
        sys.exit(1)


def _read(source: IO[bytes], inbox: "queue.SimpleQueue[Message | None]") -> None:
    """Hands messages on; a pipe that ends without None is of a search that was killed."""
    try:
        while message := pickle.load(source):  # noqa: S301  # from the process that started this one
            inbox.put(message)
    except (EOFError, pickle.UnpicklingError):
        pass
    inbox.put(None)
