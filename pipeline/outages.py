"""A store that does not answer now may answer soon: it is asked again for a while, and that is said."""

import time
from collections.abc import Callable
from typing import TypeVar

from pipeline import stops

SECONDS = 600.0
"""For which a search waits for a store that does not answer, where it cannot go on without it."""
_PAUSE_SECONDS = 2.0
_Found = TypeVar("_Found")


def asked_again(
    act: Callable[[], _Found], store: str, outage: Callable[[Exception], str], seconds: float
) -> _Found:
    """What `act` gives, which asks a store; while that does not answer it is begun anew.

    Args:
        act: may look first whether it was done before, and only the answer was lost.
        store: how it is called.
        outage: what is said where an error means that the store does not answer; nothing if it means another
            thing.
        seconds: for which it is asked again, unless the process is to stop.

    Raises:
        Exception: what `act` raised last.
    """
    began, told = time.monotonic(), False
    while True:
        try:
            found = act()
        except Exception as error:
            reason = outage(error)
            if not reason or stops.asked() or time.monotonic() - began >= seconds:
                raise
            if not told:
                print(f"{reason}; it is asked again for {seconds:.0f} s", flush=True)
                told = True
            time.sleep(_PAUSE_SECONDS)
        else:
            if told:
                print(f"{store} answers again after {time.monotonic() - began:.0f} s", flush=True)
            return found
