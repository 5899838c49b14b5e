"""The parameters of each command: one table, from which the command line is made and checked.

A test holds that MLproject and README name the same parameters with the same defaults. An empty text means
"not given", as an optional parameter of MLproject arrives.
"""

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline import tasks
from pipeline.errors import UserError
from pipeline.secrets import redacted

ENGINES = ("auto", "lanes", "fit")
SAMPLERS = ("tpe", "random", "cmaes", "grid", "gp")
PRUNERS = ("none", "median", "hyperband", "wilcoxon")
METHODS = ("greedy", "uniform")
SIZES = ("full", "small")
CALLBACKS = ("csv", "tensorboard", "checkpoint", "activations")


@dataclass(frozen=True)
class Option:
    """A parameter: its name, its default as text, what it is for, and how its text becomes a value.

    parse raises ValueError with the rule that the text breaks.
    """

    name: str
    default: str
    meaning: str
    parse: Callable[[str], Any]


def values(command: str, given: Mapping[str, object]) -> dict[str, Any]:
    """Every parameter's checked value; None for one that is not given and has no default.

    Args:
        command: a key of `COMMANDS`.
        given: texts or plain values by parameter name; None and "" mean "not given".

    Raises:
        UserError: with every fault, one a line.
    """
    table = {option.name: option for option in COMMANDS[command]}
    faults = [_unknown(name, table) for name in given if name not in table]
    found: dict[str, Any] = {}
    for option in table.values():
        text = given.get(option.name)
        text = option.default if text is None or text == "" else str(text)
        try:
            found[option.name] = option.parse(text) if text else None
        except ValueError as error:
            faults.append(f"{option.name}: {error}, but is {_shown(text)}")
    if faults:
        raise UserError.of(faults)
    return found


def _unknown(name: str, table: Mapping[str, Option]) -> str:
    close = difflib.get_close_matches(name, table, n=1)
    hint = f"did you mean {close[0]}?" if close else f"the parameters are {', '.join(table)}"
    return f"{name}: unknown parameter; {hint}"


def _shown(text: str) -> str:
    shown = repr(redacted(text))
    return shown if len(shown) <= 80 else f"{shown[:77]}…"


def _text(text: str) -> str:
    return text


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text in words:
            return text
        close = difflib.get_close_matches(text, words, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise ValueError(f"must be one of {', '.join(words)}{hint}")

    return parse


def _some_of(*words: str) -> Callable[[str], tuple[str, ...]]:
    """Names with commas between, in any order; they come in the order of `words`, each once."""

    def parse(text: str) -> tuple[str, ...]:
        given = [part.strip() for part in text.split(",")]
        for part in given:
            if part not in words:
                close = difflib.get_close_matches(part, words, n=1)
                hint = f" (did you mean {close[0]}?)" if close else ""
                raise ValueError(f"must be some of {', '.join(words)}, with commas between{hint}")
        return tuple(word for word in words if word in given)

    return parse


def _names(text: str) -> tuple[str, ...]:
    """Names with commas between, which are checked where it is known what there is."""
    names = tuple(part.strip() for part in text.split(","))
    if not all(names):
        raise ValueError("must be names with commas between")
    return names


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        rule = f"must be a whole number from {low} to {high}"
        # int() would also take 1_000 and digits of other scripts.
        if not (text.isascii() and text.removeprefix("-").isdigit()) or len(text) > len(str(high)) + 1:
            raise ValueError(rule)
        if not low <= int(text) <= high:
            raise ValueError(rule)
        return int(text)

    return parse


def _seconds(text: str) -> float:
    try:
        # float() would also take 1_000 and digits of other scripts.
        seconds = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        seconds = math.nan
    if not (seconds > 0 and math.isfinite(seconds)):
        raise ValueError("must be a number of seconds > 0")
    return seconds


def _lanes(text: str) -> int | None:
    try:
        return None if text == "auto" else _whole(1, 4096)(text)
    except ValueError as error:
        raise ValueError(f"{error} or auto") from None


_MILLION = 1_000_000

_STUDY = Option("study", "", "name of the study; the task's name if empty", _text)
_STORAGE = Option(
    "storage", "", "Optuna storage URL without a password; the study's own journal file if empty", _text
)
_MEMBERS = Option("members", "8", "members of the ensemble, at most", _whole(1, 1000))

COMMANDS: Mapping[str, tuple[Option, ...]] = {
    "search": (
        Option("task", "iris", "what is learned: " + ", ".join(tasks.NAMES), _one_of(*tasks.NAMES)),
        Option("trials", "64", "finished, pruned and failed trials in all", _whole(1, _MILLION)),
        Option("epochs", "", "longest training of a trial; the space file's if empty", _whole(1, _MILLION)),
        Option("engine", "auto", "what trains the trials: " + ", ".join(ENGINES), _one_of(*ENGINES)),
        Option("lanes", "auto", "trials side by side in one program; chosen by measuring if auto", _lanes),
        Option("sampler", "tpe", "what draws the settings: " + ", ".join(SAMPLERS), _one_of(*SAMPLERS)),
        Option("pruner", "none", "what ends poor trials early: " + ", ".join(PRUNERS), _one_of(*PRUNERS)),
        Option("seed", "0", "everything random derives from it and the trial's number", _whole(0, 2**32 - 1)),
        _STUDY,
        _STORAGE,
        Option("timeout", "", "seconds after which no trial goes on; none if empty", _seconds),
        Option("folds", "1", "folds over the training rows that score a trial", _whole(1, 100)),
        _MEMBERS,
        Option("space", "", "search-space file; the task's own if empty", _text),
        Option("size", "full", "rows: full, or small, a cut that suits 2 cores", _one_of(*SIZES)),
        Option(
            "callbacks",
            "",
            "what a trial keeps besides its model: " + ", ".join(CALLBACKS) + ", with commas between",
            _some_of(*CALLBACKS),
        ),
    ),
    "ensemble": (
        Option("study", "iris", "name of a study that has finished trials", _text),
        _STORAGE,
        _MEMBERS,
        Option("method", "greedy", "how members get their weights: " + ", ".join(METHODS), _one_of(*METHODS)),
    ),
    "ablate": (
        Option("task", "iris", "what is learned: " + ", ".join(tasks.NAMES), _one_of(*tasks.NAMES)),
        Option("seeds", "10", "seeds that each arm is trained from", _whole(1, 1000)),
        Option(
            "groups",
            "all",
            "what is compared: all, or with commas between added (to the baseline), taken (from the"
            " champion), names of the space file's comparisons",
            _names,
        ),
        Option(
            "study",
            "",
            "study whose champion techniques are taken from; the task's, if it is there, if empty",
            _text,
        ),
        _STORAGE,
        Option("epochs", "", "longest training; the space file's if empty", _whole(1, _MILLION)),
        Option("engine", "auto", "what trains: " + ", ".join(ENGINES), _one_of(*ENGINES)),
        Option("lanes", "auto", "trainings side by side in one program; chosen by measuring if auto", _lanes),
        Option("seed", "0", "the seeds derive from it", _whole(0, 2**32 - 1)),
        Option("space", "", "search-space file; the task's own if empty", _text),
        Option("size", "full", "rows: full, or small, a cut that suits 2 cores", _one_of(*SIZES)),
    ),
    "benchmark": (
        Option("task", "iris", "what is trained: " + ", ".join(tasks.NAMES), _one_of(*tasks.NAMES)),
        Option("trials", "8", "models that are trained each way", _whole(1, 1000)),
        Option("epochs", "5", "epochs of each that are measured", _whole(1, _MILLION)),
        Option("size", "small", "rows: full, or small, a cut that suits 2 cores", _one_of(*SIZES)),
    ),
}
