"""Code of the user's own that runs in this process: where it lies, and what goes wrong in it."""

import ast
import contextlib
import importlib.metadata
import inspect
import json
import sys
import traceback
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import keras

from pipeline.errors import UserError
from pipeline.secrets import first_line

_folders: set[Path] = set()


def add_folder(folder: Path) -> None:
    """Says that a folder has code of the user's own."""
    _folders.add(folder)


def is_users(file: str | None) -> bool:
    """Whether a file is the user's own."""
    return bool(file) and not _folders.isdisjoint(Path(str(file)).parents)


def modules() -> list[ModuleType]:
    """The user's modules that are imported."""
    return [module for module in list(sys.modules.values()) if is_users(getattr(module, "__file__", None))]


def loaded(file: Path) -> keras.Model:
    """A model that a study has saved.

    Where the user's code is run anyway, its models may hold functions of it, too (a `Lambda`).
    """
    return keras.models.load_model(file, safe_mode=not _folders)


def make_known() -> None:
    """Lets Keras find the user's classes and functions by their names, when a model is loaded."""
    for module in modules():
        for name, value in vars(module).items():
            own = getattr(value, "__module__", None) == module.__name__
            if own and (inspect.isclass(value) or inspect.isfunction(value)):
                keras.saving.get_custom_objects().setdefault(name, value)


@dataclass(frozen=True)
class Held:
    """What of the user's code a saved model needs to be loaded.

    modules: their names; all that are imported, if it needs one. functions: whether it holds functions.
    """

    modules: tuple[str, ...]
    functions: bool

    @property
    def places(self) -> list[Path]:
        """The files, and the folders of packages, that the modules are in."""
        tops = {name.partition(".")[0] for name in self.modules}
        files = [Path(str(sys.modules[name].__file__)) for name in sorted(tops)]
        return [file.parent if file.name == "__init__.py" else file for file in files]

    @property
    def packages(self) -> list[str]:
        """The installed packages that the modules import, each with its version."""
        names = {name for module in self.modules for name in _imported(str(sys.modules[module].__file__))}
        known = importlib.metadata.packages_distributions()
        found = {package for name in names for package in known.get(name, ())}
        return [f"{package}=={importlib.metadata.version(package)}" for package in sorted(found)]


def held_by(file: Path) -> Held:
    """What a `.keras` file needs of the user's code; nothing, if it cannot be read, as its loader says."""
    try:
        with zipfile.ZipFile(file) as parts:
            config = parts.read("config.json").decode()
    except (OSError, zipfile.BadZipFile, KeyError):
        return Held((), functions=False)
    names = tuple(module.__name__ for module in modules())
    needed = any(json.dumps({"module": name})[1:-1] in config for name in names)
    return Held(names if needed else (), '"__lambda__"' in config)


def _imported(file: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(Path(file).read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


@contextlib.contextmanager
def told(name: str, doing: str) -> Iterator[None]:
    """Makes a UserError of whatever a block raises, which runs code of the user's own.

    Args:
        name: of the task.
        doing: what the block does.
    """
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"task: {name}: {described(error, doing)}") from error


def described(error: BaseException, doing: str = "") -> str:
    """What was raised, and by which line of the user's code."""
    lines = [
        f" ({frame.filename}, line {frame.lineno})"
        for frame in traceback.extract_tb(error.__traceback__)
        if is_users(frame.filename)
    ]
    said = f"{type(error).__name__}: {first_line(error)}{lines[-1] if lines else ''}"
    if not lines and isinstance(error, ValueError):
        # One of this program's own, in words that need no class.
        said = first_line(error)
    return f"{doing}: {said}" if doing else said
