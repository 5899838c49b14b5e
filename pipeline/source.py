"""What a person brings of their own: a file or folder, and which of its columns is what."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import UserError

OWN = ("table", "images", "text")
"""Tasks whose rows a person brings."""
PROBLEMS = ("auto", "classification", "regression")

Problem = Literal["auto", "classification", "regression"]

# What cannot be in a study's name.
_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")

# Which tasks read a parameter; a task in a file of the user's own ("file") may read any.
_READ_BY = {
    "data": ("table", "images", "text", "file"),
    "target": ("table", "text", "images", "file"),
    "text": ("text", "file"),
    "group": ("table", "images", "text", "file"),
    "time": ("table", "text", "file"),
    "problem": ("table", "text", "file"),
}
_NEEDED = {"table": ("data", "target"), "images": ("data",), "text": ("data", "text", "target"), "file": ()}


@dataclass(frozen=True)
class Source:
    """Where a task's rows come from, where that is not the task's to say.

    data: a file or a folder. target: the column that is learned. text: the column of texts. group: a column
    whose equal values must not be parted by a split. time: a column in whose order rows are split, the last
    ones for testing. problem: what is learned, or `auto`.
    """

    data: str = ""
    target: str = ""
    text: str = ""
    group: str = ""
    time: str = ""
    problem: Problem = "auto"

    @property
    def stem(self) -> str:
        """What a study of it is called after, empty without data."""
        return Path(self.data).stem if self.data else ""


def of(asked: Mapping[str, Any]) -> Source:
    """The source that a command's parameters tell, its path absolute: a study is opened from elsewhere, too.

    Raises:
        UserError: the task needs a parameter that is not given, or would not read one that is.
    """
    kind = kind_of(asked["task"])
    found = read({field.name: asked.get(field.name) for field in fields(Source)})
    faults = []
    for name, default in ((field.name, field.default) for field in fields(Source)):
        given = getattr(found, name) != default
        if given and kind not in _READ_BY[name]:
            readers = " and ".join(f"task={reader}" for reader in _READ_BY[name] if reader != "file")
            faults.append(f"{name}: is read by {readers}, but the task is {asked['task']}")
        if not given and name in _NEEDED.get(kind, ()):
            faults.append(f"{name}: must be given with task={kind}")
    if found.group and found.time:
        faults.append("group: rows are split by group or by time, but time is given, too")
    if faults:
        raise UserError.of(faults)
    if not found.data or not os.path.exists(found.data):
        # Not a path for a file's task, perhaps; whoever reads it says what is wrong.
        return found
    return Source(**{**vars(found), "data": str(Path(found.data).absolute())})


def read(given: Mapping[str, Any]) -> Source:
    """The source of some of its fields; what is missing or empty has its default."""
    return Source(**{name: value for name, value in given.items() if value})


def kind_of(task: str) -> str:
    """`table`, `images`, `text`, `file` for a task in a file of the user's own, or `named`."""
    if ":" in task:
        return "file"
    return task if task in OWN else "named"


def study_of(task: str, source: Source) -> str:
    """The name of a study that is given none: the task's, with the file's stem where the rows are brought."""
    name = task
    if kind_of(task) == "file":
        file, _, inside = task.rpartition(":")
        name = f"{Path(file).stem}-{inside}"
    whole = f"{name}-{source.stem}" if source.stem else name
    return whole if kind_of(task) == "named" else _UNFIT.sub("-", whole)[:100]
