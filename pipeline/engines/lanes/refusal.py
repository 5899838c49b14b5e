"""Why a model cannot train in lanes, or failed there."""

import re
import traceback

from pipeline.secrets import hidden

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Refusal(Exception):
    """The model, or a number in it, is not one that lanes can take; the message says which and why."""


def in_short(error: Exception) -> str:
    """An error's class and message in one line, with what Keras wraps: it tells first where it happened."""
    lines = [line for line in _COLOURS.sub("", str(error)).splitlines() if line.strip()] or ["no message"]
    wrapped = lines[0].startswith("Exception encountered when calling")
    return f"{type(error).__name__}: {' '.join(lines[: 2 if wrapped else 1])}"


def in_full(error: BaseException) -> tuple[str, str]:
    """Why a trial failed, in one line, and the traceback."""
    first_line = (str(error).strip() or "no message").splitlines()[0]
    reason = f"{type(error).__name__}: {first_line} (on jax; engine=fit trains on TensorFlow)"
    return hidden(reason), hidden("".join(traceback.format_exception(error)))
