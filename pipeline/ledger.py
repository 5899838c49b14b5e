"""What a search tells its study, in order: it waits while the storage does not answer; training goes on."""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from pipeline import storage
from pipeline.errors import RunError
from pipeline.study import Study

# A storage that does not answer is asked again after so many seconds, and for so long; one that does not even
# refuse after so many times what asking it took, as nothing is fed to the engine meanwhile.
_PAUSE_SECONDS, _PATIENCE_SECONDS, _PAUSE_TIMES = 3.0, 1800.0, 4.0
_END_SECONDS = 5.0


class Ledger:
    """Tells a study how trials ended; what it cannot be told now waits.

    say: takes a line for people.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._waiting: deque[Callable[[], object]] = deque()
        self._since = self._tried = 0.0
        self._took = 0.0

    @property
    def down(self) -> bool:
        """Whether the storage has not answered lately, and it is too early to ask again."""
        pause = max(_PAUSE_SECONDS, _PAUSE_TIMES * self._took)
        return bool(self._since) and time.monotonic() - self._tried < pause

    def tell(self, act: Callable[[], object]) -> None:
        """Does what tells the study something, now or later, after all that was to be told before."""
        self._waiting.append(act)
        if not self.down:
            self.write()

    def write(self) -> None:
        """Tells what waits, if the storage answers."""
        if not self._waiting:
            # Nothing is asked, so nothing is learned of the storage.
            return
        with self.borne():
            while self._waiting:
                self._waiting[0]()
                self._waiting.popleft()

    def close(self) -> None:
        """Tells what waits, at once or within some seconds; the rest is found in the records on disk."""
        ends = time.monotonic() + _END_SECONDS
        while self._waiting and time.monotonic() < ends:
            self.write()
            if self._waiting:
                time.sleep(_END_SECONDS / 10)

    @contextlib.contextmanager
    def borne(self) -> Iterator[None]:
        """For a block that asks the storage: where it does not answer the block ends, and that is said once.

        Raises:
            RunError: it has not answered for half an hour.
        """
        began = time.monotonic()
        try:
            yield
        except Exception as error:
            if not storage.is_outage(error):
                raise
            self._tried = time.monotonic()
            self._took = self._tried - began
            if not self._since:
                self._since = self._tried
                self._say(
                    f"the study's storage does not answer ({storage.why(error)}); what trains goes on, and is"
                    " told when it answers again"
                )
            if self._tried - self._since > _PATIENCE_SECONDS:
                raise RunError(
                    f"the study's storage has not answered for {_PATIENCE_SECONDS / 60:.0f} minutes"
                    f" ({storage.why(error)}); the same command goes on"
                ) from error
        else:
            if self._since:
                self._say(f"the study's storage answers again after {time.monotonic() - self._since:.0f} s")
                self._since = 0.0


@contextlib.contextmanager
def alive(study: Study) -> Iterator[None]:
    """Shows for a block that this process lives, to others on the same storage, however long a step takes."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(storage.BEAT_SECONDS):
            # A storage that does not answer is the search's to tell.
            with contextlib.suppress(Exception):
                study.beat()

    thread = threading.Thread(target=beat, name="pulse", daemon=True)
    if study.shared:
        thread.start()
    try:
        yield
    finally:
        over.set()
