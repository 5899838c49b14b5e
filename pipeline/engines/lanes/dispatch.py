"""Computations of several devices are handed to them in one order, whichever threads start them.

Two threads that start one each may reach two devices in different orders; on a CPU with JAX 0.10 each then
waits for the other for ever. One that is of a single device harms nobody.
"""

import threading
from collections.abc import Callable
from typing import Any

_ORDER = threading.Lock()


def start(computation: Callable[..., Any], *arguments: Any) -> Any:
    """Starts a computation of several devices, and returns as it does: mostly before it is done."""
    with _ORDER:
        return computation(*arguments)
