"""From what models answered to all that the test rows say of them."""

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.evaluation import details, scores
from pipeline.evaluation.findings import Detail, Difference, Estimated, Evaluation
from pipeline.evaluation.measures import Measure
from pipeline.evaluation.resampling import Resampled, resample
from pipeline.values import Answers, Array, Metric, class_numbers

# Who is compared with whom: what the ensemble adds, and what the search found.
_PAIRS = (("ensemble", "champion"), ("champion", "baseline"))

Outputs = Mapping[str, tuple[str, ...]]
"""The classes of each output by its name ("" of the only one), none where it is a number."""
Parts = Mapping[str, Array]
"""By output: targets, (rows,), or answers, (rows, classes) of probabilities or (rows,) of numbers."""
Found = Mapping[tuple[str, Metric], Resampled]
"""By model and score."""


def judge(
    targets: Array | Mapping[str, Array],
    answers: Mapping[str, Answers],
    outputs: Outputs,
    metrics: Sequence[Metric],
    seed: int,
) -> Evaluation:
    """Scores all models on the same resamples.

    Args:
        targets: class numbers or numbers, (rows,) or (rows, 1); of several outputs by name.
        answers: by model, in the form of `pipeline.answers`.
        outputs: what the outputs are; the name of an only one is in no name of a score.
        metrics: the task's own.
        seed: of the resamples.
    """
    if len(outputs) == 1:
        ((name, classes),) = outputs.items()
        targets, outputs = _of(name, targets), {"": classes}
        answers = {model: _of(name, found) for model, found in answers.items()}
    asked = _targets(targets, outputs)
    answered = {model: _answers(found, outputs) for model, found in answers.items()}
    measures = {
        (model, metric): measure
        for model, parts in answered.items()
        for metric, measure in {
            **scores.of_task(metrics, targets, answers[model]),
            **_of_outputs(asked, parts, metrics),
        }.items()
    }
    found = resample(measures, len(next(iter(asked.values()))), seed)
    told = {metric.name: metric for (_, metric), one in found.items() if one.value.ndim == 0}
    return Evaluation(
        tuple(metric.name for metric in metrics),
        told,
        {model: {name: found[model, metric].score() for name, metric in told.items()} for model in answered},
        _differences(found, list(told.values())),
        {output: _details(output, asked, answered, outputs, found) for output in outputs},
    )


def _of(output: str, parts: Array | Mapping[str, Array]) -> Array:
    return parts[output] if isinstance(parts, Mapping) else parts


def _targets(targets: Array | Mapping[str, Array], outputs: Outputs) -> Parts:
    found = {
        output: class_numbers(targets[output] if isinstance(targets, Mapping) else targets)
        for output in outputs
    }
    return {
        output: part.astype(np.int64 if outputs[output] else np.float64) for output, part in found.items()
    }


def _answers(answers: Answers, outputs: Outputs) -> Parts:
    found = {output: answers[output] if isinstance(answers, Mapping) else answers for output in outputs}
    return {output: part if outputs[output] else part.reshape(-1) for output, part in found.items()}


def _of_outputs(asked: Parts, answered: Parts, metrics: Sequence[Metric]) -> dict[Metric, Measure]:
    """Every score of every output; of one that is called as a metric of the task's, the task's counts."""
    taken = {metric.name for metric in metrics}
    return {
        metric: measure
        for output, targets in asked.items()
        for metric, measure in scores.of_output(output, targets, answered[output]).items()
        if metric.name not in taken
    }


def _differences(found: Found, metrics: Sequence[Metric]) -> tuple[Difference, ...]:
    models = {model for model, _ in found}
    return tuple(
        Difference(model, other, metric, found[model, metric].minus(found[other, metric]).score())
        for model, other in _PAIRS
        if {model, other} <= models
        for metric in metrics
    )


def _details(
    output: str, asked: Parts, answered: Mapping[str, Parts], outputs: Outputs, found: Found
) -> dict[str, Detail]:
    """By model; none of a model with an answer that is not finite."""
    targets, classes = asked[output], outputs[output]
    details_of: dict[str, Detail] = {}
    for model, parts in answered.items():
        if not np.isfinite(parts[output]).all():
            continue
        if classes:
            precision, recall = (
                found[model, scores.named(kind, output)].scores() for kind in ("precision", "recall")
            )
            details_of[model] = details.classified(targets, parts[output], classes, precision, recall)
        else:
            details_of[model] = Estimated(targets, parts[output])
    return details_of
