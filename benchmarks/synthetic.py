"""Random rows of the real sets' shapes and types, so that training can be timed where no set is.

Tasks whose rows are generated have their own, at the small size.
"""

import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from pipeline.values import Data, SealedSplit, Split


@dataclass(frozen=True)
class Shape:
    """A task's rows, and how it is trained.

    Attributes:
        learn: rows to learn from.
        check: rows of the validation.
        inputs: one row's shape.
        kind: lengths (normal, float32), words (multi-hot, uint8), numbers (of words, int32), pixels (uint8).
        classes: two mean one sigmoid.
        batch: rows of a gradient step.
        epochs: that are measured by default.
    """

    learn: int
    check: int
    inputs: tuple[int, ...]
    kind: str
    classes: int
    batch: int
    epochs: int


SHAPES = {
    "iris": Shape(90, 30, (4,), "lengths", 3, 40, 40),
    "imdb": Shape(20_000, 5_000, (10_000,), "words", 2, 512, 4),
    "fashion_mnist": Shape(50_000, 10_000, (28, 28, 1), "pixels", 10, 128, 4),
    "mnist": Shape(5_000, 1_000, (28, 28, 1), "pixels", 10, 32, 4),
    "imdb_conv1d": Shape(20_000, 5_000, (500,), "numbers", 2, 128, 3),
}
# Batch size and measured epochs of the tasks that generate their rows.
GENERATED = {
    "question_answering": (128, 10),
    "posts": (64, 4),
    "sentence_similarity": (32, 10),
    "dual_camera": (16, 2),
    "separable_images": (64, 4),
    "inception_residual": (32, 4),
}
TASKS = (*SHAPES, *GENERATED)
_WORD_NUMBERS = 2_000
# A review has about 150 of the 10,000 words.
_WORDS = 0.015


def data(task: str, rows: int | None = None) -> Data:
    """The rows of a task; the same each time.

    Args:
        task: one of `TASKS`.
        rows: to learn from, at most, and as many for the validation.
    """
    if task in GENERATED:
        from pipeline import tasks

        return tasks.find(task).load("small")
    shape = SHAPES[task]
    most = rows or shape.learn
    random = np.random.default_rng(0)
    learn, check = (_split(shape, min(count, most), random) for count in (shape.learn, shape.check))
    classes = tuple(map(str, range(shape.classes)))
    words = {"": _WORD_NUMBERS} if shape.kind == "numbers" else {}
    return Data(task, "random numbers", classes, learn, check, SealedSplit(check), {}, words=words)


def how(task: str) -> tuple[int, int]:
    """The batch size and the measured epochs of a task, by default."""
    return GENERATED[task] if task in GENERATED else (SHAPES[task].batch, SHAPES[task].epochs)


def without_scikit_learn() -> None:
    """Lets the tasks' modules be imported where scikit-learn is not installed.

    They import it to load real rows, which nobody asks for here.
    """
    try:
        import sklearn  # noqa: F401
    except ImportError:
        for name in ("sklearn", "sklearn.datasets", "sklearn.model_selection"):
            sys.modules[name] = _Missing(name)


class _Missing(ModuleType):
    """Has every name, and none of them can be used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return None


def _split(shape: Shape, rows: int, random: np.random.Generator) -> Split:
    whole = (rows, *shape.inputs)
    if shape.kind == "lengths":
        inputs = random.normal(size=whole).astype(np.float32)
    elif shape.kind == "words":
        inputs = (random.random(whole, dtype=np.float32) < _WORDS).astype(np.uint8)
    elif shape.kind == "numbers":
        inputs = random.integers(0, _WORD_NUMBERS, whole, dtype=np.int32)
    else:
        inputs = random.integers(0, 256, whole, dtype=np.uint8)
    targets = random.integers(0, shape.classes, rows, dtype=np.int32)
    return Split(inputs, targets[:, None] if shape.classes == 2 else targets)
