"""The test rows are opened here and nowhere else.

Once a command, for all models together, after every choice has been made.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from pipeline import answers
from pipeline.evaluation.findings import Evaluation
from pipeline.evaluation.judging import judge
from pipeline.metrics import score_of
from pipeline.tasks import user_code
from pipeline.values import Data, Metric, Split

_BATCH_ROWS = 2048


def score_test(
    data: Data, models: Mapping[str, keras.Model], metrics: Sequence[Metric], seed: int
) -> Evaluation:
    """All that the test rows say of the models.

    Args:
        data: whose test rows are opened.
        models: by name; `baseline`, `champion` and `ensemble` are compared, as far as they are there.
        metrics: the task's own; beside them each output is scored by all that suits it.
        seed: the intervals derive from it.
    """
    test, inputs = _opened(data)
    answered = {
        name: answers.read(model, model.predict(inputs, batch_size=_BATCH_ROWS, verbose=0), data)
        for name, model in models.items()
    }
    return judge(test.targets, answered, data.outputs or {"": data.classes}, metrics, seed)


def values_of(
    data: Data, alike: Sequence[Sequence[Path]], metrics: Sequence[Metric]
) -> list[list[dict[str, float]]]:
    """Each model's score by each metric, for many models in `.keras` files.

    alike: files of models that differ in their weights alone, which are predicted by one compiled function.
    """
    test, inputs = _opened(data)
    found: list[list[dict[str, float]]] = []
    for files in alike:
        model = user_code.loaded(files[0])
        found.append([])
        for file in files:
            model.load_weights(file)
            answered = answers.read(model, model.predict(inputs, batch_size=_BATCH_ROWS, verbose=0), data)
            found[-1].append({metric.name: score_of(metric, test.targets, answered) for metric in metrics})
    return found


def _opened(data: Data) -> tuple[Split, Any]:
    """The test rows, and their inputs as Keras takes them."""
    test = data.test.unseal()
    return test, dict(test.inputs) if isinstance(test.inputs, Mapping) else test.inputs
