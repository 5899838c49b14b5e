"""Regatta: MLflow-tracked hyperparameter search for Keras models.

from pipeline import search
result = search(task="iris", trials=12)
"""

from typing import TYPE_CHECKING

from pipeline import started as started  # first of all, as it notes the time

if TYPE_CHECKING:
    from pipeline.result import Result

__version__ = "0.1.0"


def search(**parameters: object) -> "Result | None":
    """Runs a search; the parameters are those of `python -m pipeline search`, by the same names.

    Returns:
        What was found; None if the study was complete already, or no trial finished in the time given.

    Raises:
        pipeline.errors.UserError: a parameter, file, storage or study cannot be used.
        pipeline.errors.RunError: the search failed after it had started.
    """
    # Late, as Keras and MLflow take seconds to import.
    from pipeline.entry import run

    return run("search", parameters)
