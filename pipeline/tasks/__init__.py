"""The named tasks: one module each, whose `TASK` says how to load the rows and how to build the model."""

from importlib import import_module

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


def find(name: str) -> Task:
    """The task of that name, one of `NAMES`."""
    # Imported when asked for: a task's module imports Keras, which takes seconds.
    task: Task = import_module(f"pipeline.tasks.{name}").TASK
    return task
