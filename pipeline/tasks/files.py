"""A task in a file of the user's own: `FILE.py:NAME`.

NAME is a KerasTuner `HyperModel`, or a class of them; a function `build(hp)` as KerasTuner takes it; an
object or class with `build(settings, data)` and a `space`; or a function `build(settings, data)` with a
`space` beside it in the file. Where `data` does not say where the rows are, a function `load` gives them:
that of the object, or the one beside NAME.
"""

import difflib
import importlib.machinery
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline import tasks
from pipeline.errors import UserError
from pipeline.source import Source
from pipeline.tasks import hypermodels, own, user_code
from pipeline.tasks.own import Parts
from pipeline.tasks.task import Task


def task(name: str, source: Source) -> Task:
    """The task of that name, `FILE.py:NAME`.

    Raises:
        UserError: there is no such file or name, the file cannot be imported, or it cannot be used.
    """
    path, _, inside = name.rpartition(":")
    unread = [part for part in ("text", "group", "time") if getattr(source, part)]
    if unread:
        raise UserError.of(
            f"{part}: is not read by a task in a file, which loads and splits its rows itself"
            for part in unread
        )
    file = Path(path).absolute()
    if file.suffix != ".py" or not inside:
        raise UserError(f"task: must be a task's name or FILE.py:NAME, but is {name!r}")
    module = _module(file, path)
    value = _value(module, inside, path)
    short = f"{file.name}:{inside}"
    return _task(short, value, module, source)


def _task(name: str, value: Any, module: ModuleType, source: Source) -> Task:
    if isinstance(value, Task):
        unread = [part for part in ("data", "target") if getattr(source, part)]
        if unread:
            raise UserError.of(f"{part}: is not read by {name}, a Task that has its rows" for part in unread)
        return value
    if hypermodels.is_one(value):
        return hypermodels.task(name, value, source, getattr(module, "load", None), _named)
    folder = Path(str(module.__file__)).parent
    holder = _made(name, value) if isinstance(value, type) else value
    build = getattr(holder, "build", None)
    if callable(build):
        return own.task(name, Parts.of(holder, build), source, folder, _named)
    if not callable(value) or isinstance(value, type):
        raise UserError(
            f"task: {name}: must be a keras_tuner.HyperModel, a function build(hp) or build(settings, data),"
            f" or an object with build and space, but is {_described(value)}"
        )
    match _arguments(value):
        case 1:
            return hypermodels.task(name, value, source, getattr(module, "load", None), _named)
        case 2:
            return own.task(name, Parts.of(module, value), source, folder, _named)
        case count:
            raise UserError(
                f"task: {name}: must take hp, as KerasTuner's build, or settings and data, but takes {count}"
                " arguments"
            )


def _module(file: Path, shown: str) -> ModuleType:
    """The file as a module, imported anew, so that it is what it is now."""
    if not file.is_file():
        there = difflib.get_close_matches(file.name, [one.name for one in file.parent.glob("*.py")], n=1)
        hint = f"; did you mean {there[0]}?" if there else f" in {Path.cwd()}"
        raise UserError(f"task: there is no file {shown}{hint}")
    folder = str(file.parent)
    user_code.add_folder(file.parent)
    _forget_others(file)
    name = _module_name(file)
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UserError(f"task: {shown}: cannot be imported")
    module = importlib.util.module_from_spec(spec)
    # Where its name finds it, for Keras when a model is loaded, and for what it imports itself.
    before, sys.modules[name] = sys.modules.get(name), module
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        _restore(name, before)
        raise UserError(f"task: {error.filename}, line {error.lineno}: {error.msg}") from None
    except SystemExit as error:
        _restore(name, before)
        raise UserError(f"task: {shown}: its import ends the program: exit code {error.code}") from None
    except Exception as error:
        _restore(name, before)
        raise UserError(f"task: {shown}: its import fails: {user_code.described(error)}") from error
    finally:
        sys.path.remove(folder)
        if folder not in sys.path:
            # Last: for what its functions import, and for processes that load its models.
            sys.path.append(folder)
    user_code.make_known()
    return module


def _restore(name: str, before: ModuleType | None) -> None:
    del sys.modules[name]
    if before is not None:
        sys.modules[name] = before


def _module_name(file: Path) -> str:
    """The file's own name, as the user would import it, unless another module is called so."""
    stem = file.stem
    if stem.isidentifier() and stem not in sys.builtin_module_names:
        there = sys.modules.get(stem)
        found = importlib.machinery.PathFinder.find_spec(stem) if there is None else None
        place = getattr(there, "__file__", None) or (found.origin if found else None)
        if (there is None and found is None) or user_code.is_users(place):
            return stem
    return "task_" + "".join(letter if letter.isalnum() else "_" for letter in stem)


def _forget_others(file: Path) -> None:
    """Forgets modules from other such folders that are called as one beside this file is."""
    beside = {one.stem for one in file.parent.glob("*.py")}
    beside |= {one.parent.name for one in file.parent.glob("*/__init__.py")}
    for module in user_code.modules():
        name, place = module.__name__, Path(str(module.__file__))
        if name.partition(".")[0] in beside and not place.is_relative_to(file.parent):
            sys.modules.pop(name, None)


def _value(module: ModuleType, name: str, shown: str) -> Any:
    found = vars(module).get(name)
    if found is not None:
        return found
    names = [
        other
        for other, value in vars(module).items()
        if not other.startswith("_")
        and (hypermodels.is_one(value) or callable(value))
        and getattr(value, "__module__", module.__name__) == module.__name__
    ]
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {close[0]}?" if close else f"; there are {', '.join(names) or 'no tasks'}"
    raise UserError(f"task: {shown}: has no {name}{hint}")


def _made(name: str, kind: type) -> Any:
    """The only object of a class that needs no arguments."""
    if not callable(getattr(kind, "build", None)):
        return kind
    with user_code.told(name, "making it"):
        return kind()


def _arguments(function: Callable[..., Any]) -> int:
    """How many arguments a function needs."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:
        arguments = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 0
    return sum(one.default is one.empty and one.kind in kinds for one in arguments)


def _described(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"


def _named(name: str) -> Task | None:
    return tasks.find(name) if name in tasks.NAMES else None
