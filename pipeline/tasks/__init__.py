"""The tasks. A named one is a module, whose `TASK` says how to load the rows and how to build the model; one
whose rows a person brings is a module, whose `task(source)` makes it of them.
"""

from importlib import import_module

from pipeline.source import Source, kind_of
from pipeline.tasks.task import Task

NAMES = (
    "iris",
    "digits",
    "mnist",
    "fashion_mnist",
    "imdb",
    "imdb_conv1d",
    "question_answering",
    "posts",
    "sentence_similarity",
    "dual_camera",
    "separable_images",
    "inception_residual",
)


def find(name: str, source: Source | None = None) -> Task:
    """The task of that name: one of `NAMES`, one of `source.OWN`, or `FILE.py:NAME`.

    source: what a person brings; its file is read.

    Raises:
        UserError: the file cannot be used.
    """
    kind = kind_of(name)
    # Imported when asked for: a task's module imports Keras, which takes seconds.
    if kind == "named":
        named: Task = import_module(f"pipeline.tasks.{name}").TASK
        return named
    if kind == "file":
        in_file: Task = import_module("pipeline.tasks.files").task(name, source or Source())
        return in_file
    brought: Task = import_module(f"pipeline.tasks.{name}").task(source or Source())
    return brought
