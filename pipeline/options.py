"""The parameters of each command: one table, from which the command line is made and checked.

A test holds that MLproject and README name the same parameters with the same defaults. An empty text means
"not given", as an optional parameter of MLproject arrives.
"""

import difflib
import importlib.util
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline import tasks
from pipeline.errors import UserError
from pipeline.secrets import redacted
from pipeline.source import OWN, PROBLEMS

ENGINES = ("auto", "lanes", "fit")
SAMPLERS = ("tpe", "random", "cmaes", "grid", "gp")
PRUNERS = ("none", "median", "hyperband", "wilcoxon")
METHODS = ("greedy", "uniform", "simplex")
SIZES = ("full", "small")
PRECISIONS = ("float32", "bfloat16")
EXPORTS = ("saved_model", "onnx")
CALLBACKS = ("csv", "tensorboard", "checkpoint", "activations")


@dataclass(frozen=True)
class Option:
    """A parameter: its name, its default as text, what it is for, and how its text becomes a value.

    parse raises ValueError with the rule that the text breaks. required: whether it must be given.
    """

    name: str
    default: str
    meaning: str
    parse: Callable[[str], Any]
    required: bool = False


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
            if option.required and not text:
                faults.append(f"{option.name}: must be given: {option.meaning}")
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


def _place(text: str) -> str:
    if "://" in text and redacted(text) != text:
        raise ValueError("must not carry a password, because `mlflow run` logs its parameters")
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


def _number(text: str) -> float:
    """The number that a text is, NaN if it is none."""
    try:
        # float() would also take 1_000 and digits of other scripts.
        return float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        return math.nan


def _share(text: str) -> float:
    share = _number(text)
    if not 0 < share <= 1:
        raise ValueError("must be a number > 0 and ≤ 1")
    return share


def _seconds(text: str) -> float:
    seconds = _number(text)
    if not (seconds > 0 and math.isfinite(seconds)):
        raise ValueError("must be a number of seconds > 0")
    return seconds


def _seconds_or_none(text: str) -> float:
    seconds = _number(text)
    if not (seconds >= 0 and math.isfinite(seconds)):
        raise ValueError("must be a number of seconds ≥ 0")
    return seconds


def _method(text: str) -> str | tuple[float, ...]:
    """How an ensemble's members get their weights: a word of `METHODS`, or the weights themselves."""
    weights = tuple(_number(part) for part in text.split(","))
    if all(map(math.isnan, weights)):
        try:
            return _one_of(*METHODS)(text)
        except ValueError as error:
            raise ValueError(f"{error}, or weights with commas between, such as 0.5,0.25,0.25") from None
    # Their sum too, as they are divided by it.
    if not (all(weight >= 0 for weight in weights) and 0 < sum(weights) < math.inf):
        raise ValueError("must be weights of 0 or more with commas between, one of them above 0")
    return weights


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("must be true or false")
    return text == "true"


def _lanes(text: str) -> int | None:
    try:
        return None if text == "auto" else _whole(1, 4096)(text)
    except ValueError as error:
        raise ValueError(f"{error} or auto") from None


def _exports(text: str) -> tuple[str, ...]:
    """Formats with commas between; `auto` means all that can be made here."""
    has_onnx = all(importlib.util.find_spec(name) for name in ("tf2onnx", "onnxruntime"))
    if text in ("auto", "none"):
        return tuple(name for name in EXPORTS if text == "auto" and (has_onnx or name != "onnx"))
    try:
        names = _some_of(*EXPORTS)(text)
    except ValueError as error:
        raise ValueError(f"{error}, or auto or none") from None
    if "onnx" in names and not has_onnx:
        raise ValueError("onnx needs packages that are not installed: pip install 'regatta-search[onnx]'")
    return names


def _model_name(text: str) -> str:
    # MLflow's own rule, and quotes, which its search takes for the end of a name.
    if any(sign in text for sign in "/:'\"`") or not text.isprintable() or len(text) > 256:
        raise ValueError("must be a name of at most 256 characters without / : and quotes")
    return text


def _task(text: str) -> str:
    """A named task, one whose rows a person brings, or one in a file of the user's own."""
    file, mark, name = text.rpartition(":")
    if mark and file.endswith(".py") and name.isidentifier():
        return text
    try:
        return _one_of(*tasks.NAMES, *OWN)(text)
    except ValueError as error:
        raise ValueError(f"{error} or FILE.py:NAME") from None


_MILLION = 1_000_000

_TASK = Option(
    "task",
    "iris",
    "what is learned: " + ", ".join((*tasks.NAMES, *OWN)) + ", or FILE.py:NAME, a model or task of your own",
    _task,
)
_SOURCE = (
    Option("data", "", "your own rows: a file for table and text, a folder for images", _place),
    Option("target", "", "column that is learned", _text),
    Option("text", "", "column of texts, for task=text", _text),
    Option("group", "", "column whose equal values stay together in every split; none if empty", _text),
    Option("time", "", "column that orders the rows: the last ones are for testing; none if empty", _text),
    Option(
        "problem",
        "auto",
        "what the target is: " + ", ".join(PROBLEMS) + "; recognised if auto",
        _one_of(*PROBLEMS),
    ),
)

_STUDY = Option("study", "", "name of the study; the task's name if empty", _text)
_STORAGE = Option(
    "storage", "", "Optuna storage URL without a password; the study's own journal file if empty", _text
)
_PRECISION = Option(
    "precision",
    "float32",
    "what layers compute with: " + ", ".join(PRECISIONS) + "; weights stay float32",
    _one_of(*PRECISIONS),
)
_EXPORT = Option(
    "export",
    "auto",
    "other formats of the ensemble: "
    + ", ".join(EXPORTS)
    + ", with commas between, none, or auto for all that"
    " can be made",
    _exports,
)
_REFIT = Option(
    "refit",
    "false",
    "true trains the chosen models again, on training and validation rows together",
    _truth,
)
_MEMBERS = Option("members", "8", "members of the ensemble, at most", _whole(1, 1000))

COMMANDS: Mapping[str, tuple[Option, ...]] = {
    "search": (
        _TASK,
        *_SOURCE,
        Option("trials", "64", "finished, pruned and failed trials in all", _whole(1, _MILLION)),
        Option("epochs", "", "longest training of a trial; the space file's if empty", _whole(1, _MILLION)),
        Option("engine", "auto", "what trains the trials: " + ", ".join(ENGINES), _one_of(*ENGINES)),
        Option("lanes", "auto", "trials side by side in one program; chosen by measuring if auto", _lanes),
        _PRECISION,
        Option(
            "memory_fraction",
            "",
            "share of each GPU's memory that JAX takes, at most 1; JAX's own if empty",
            _share,
        ),
        Option("sampler", "tpe", "what draws the settings: " + ", ".join(SAMPLERS), _one_of(*SAMPLERS)),
        Option("pruner", "none", "what ends poor trials early: " + ", ".join(PRUNERS), _one_of(*PRUNERS)),
        Option("seed", "0", "everything random derives from it and the trial's number", _whole(0, 2**32 - 1)),
        _STUDY,
        _STORAGE,
        Option("timeout", "", "seconds after which no trial goes on; none if empty", _seconds),
        Option("wait", "", "seconds to wait for another process that has the study; none if empty", _seconds),
        Option(
            "checkpoint",
            "60",
            "seconds of training between two checkpoints of a trial, from which it goes on if it is"
            " interrupted; 0 for none; none of trials with a fit of their own, nor of those by model.fit"
            " whose callbacks keep files",
            _seconds_or_none,
        ),
        Option("folds", "1", "folds over the training rows that score a trial", _whole(1, 100)),
        _MEMBERS,
        Option(
            "seeds",
            "1",
            "trainings of each of the best settings, from a seed each, that may be members",
            _whole(1, 20),
        ),
        _REFIT,
        Option("space", "", "search-space file; the task's own if empty", _place),
        Option("size", "full", "rows: full, or small, a cut that suits 2 cores", _one_of(*SIZES)),
        Option(
            "callbacks",
            "",
            "what a trial keeps besides its model: " + ", ".join(CALLBACKS) + ", with commas between",
            _some_of(*CALLBACKS),
        ),
        Option(
            "register",
            "",
            "name in MLflow's model registry under which the best model becomes a version; none if empty",
            _model_name,
        ),
        _EXPORT,
        Option(
            "warm_start",
            "",
            "an earlier study of the same task, whose best settings are tried right after the baseline; none"
            " if empty",
            _text,
        ),
    ),
    "ensemble": (
        Option("study", "iris", "name of a study that has finished trials", _text),
        _STORAGE,
        _MEMBERS,
        Option(
            "method",
            "greedy",
            "how members get their weights: "
            + ", ".join(METHODS)
            + ", or weights of the best trials by hand,"
            " with commas between",
            _method,
        ),
        Option(
            "metric", "", "metric of the task that members are chosen by; the objective's if empty", _text
        ),
        _REFIT,
        _EXPORT,
    ),
    "predict": (
        Option(
            "model",
            "",
            "MLflow model URI, such as models:/NAME@champion",
            _place,
            required=True,
        ),
        Option(
            "input",
            "",
            "rows: CSV, TSV, Parquet, NPZ or NPY, a picture, or a folder of pictures",
            _place,
            required=True,
        ),
        Option("output", "", "file for the answers: CSV, TSV or Parquet; the terminal if empty", _place),
    ),
    "report": (
        Option("study", "iris", "name of a study that has finished trials", _text),
        _STORAGE,
        Option("output", "", "file for the report; STUDY.html in the current folder if empty", _text),
    ),
    "ablate": (
        _TASK,
        *_SOURCE,
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
        _PRECISION,
        Option("seed", "0", "the seeds derive from it", _whole(0, 2**32 - 1)),
        Option("space", "", "search-space file; the task's own if empty", _place),
        Option("size", "full", "rows: full, or small, a cut that suits 2 cores", _one_of(*SIZES)),
    ),
    "clean": (
        Option("study", "", "name of a study", _text, required=True),
        _STORAGE,
        Option(
            "keep",
            "10",
            "best trials that keep their weights; the baseline and the ensemble's members always do",
            _whole(1, _MILLION),
        ),
        Option("apply", "false", "true removes; otherwise it is only told what would go", _truth),
    ),
    "benchmark": (
        Option("task", "iris", "what is trained: " + ", ".join(tasks.NAMES), _one_of(*tasks.NAMES)),
        Option("trials", "8", "models that are trained each way", _whole(1, 1000)),
        Option("epochs", "5", "epochs of each that are measured", _whole(1, _MILLION)),
        Option("size", "small", "rows: full, or small, a cut that suits 2 cores", _one_of(*SIZES)),
        _PRECISION,
    ),
}
