"""An evaluation as metrics, by names that MLflow takes."""

import re
from collections.abc import Sequence

from pipeline.evaluation.findings import Classified, Evaluation, Score

MOST_CLASSES = 20
"""Of an output with more classes, what is said of each one is in `per_class.csv` alone."""

# MLflow takes at most 250 characters in all.
_LONGEST = 100


def as_metrics(evaluation: Evaluation) -> dict[str, float]:
    """Every number by its name.

    `<model>_test_<score>` and `<model>_minus_<other>_test_<score>`, each with `_low` and `_high`; and
    `<model>_test_precision_<class>` and `…recall_<class>`, with the output's name before it where there are
    several. What is not defined of a class is NaN.
    """
    metrics: dict[str, float] = {}
    for model, scores in evaluation.scores.items():
        for name, score in scores.items():
            metrics |= _span(f"{model}_test_{name}", score)
    for one in evaluation.differences:
        metrics |= _span(f"{one.model}_minus_{one.other}_test_{one.metric.name}", one.score)
    for output, by_model in evaluation.details.items():
        for model, found in by_model.items():
            if isinstance(found, Classified) and len(found.by_class) <= MOST_CLASSES:
                metrics |= _of_classes(f"{model}_test_{output}_" if output else f"{model}_test_", found)
    return metrics


def safe_names(names: Sequence[str]) -> list[str]:
    """Names of ASCII letters, digits, `_`, `-` and `.` in place of these, no two alike.

    Where two would be, if only in upper and lower case, which some databases do not tell apart, each has its
    number in front.
    """
    safe = [re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:_LONGEST] for name in names]
    if len({name.lower() for name in safe}) == len(safe):
        return safe
    return [f"{number}_{name}" for number, name in enumerate(safe)]


def _span(name: str, score: Score) -> dict[str, float]:
    return {name: score.value, f"{name}_low": score.low, f"{name}_high": score.high}


def _of_classes(prefix: str, found: Classified) -> dict[str, float]:
    names = safe_names([one.name for one in found.by_class])
    metrics: dict[str, float] = {}
    for name, one in zip(names, found.by_class, strict=True):
        metrics |= {
            f"{prefix}precision_{name}": one.precision.value,
            f"{prefix}recall_{name}": one.recall.value,
        }
    return metrics
