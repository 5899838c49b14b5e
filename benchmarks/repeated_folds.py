"""A whole search on each fold of repeated folds: what it finds on rows that it never saw, all of iris's.

    python -m benchmarks.repeated_folds --trials 48 --folds 5 --repeats 2

Thirty test rows cannot tell 0.97 from 1. Here each of the 150 flowers is a test row once in each repeat: a
fold is the test split, the rest is split into train and validation as always, and a search of its own starts
from nothing. The interval is Student's t over the folds with the variance corrected for their common training
rows (Nadeau & Bengio, "Inference for the Generalization Error", Machine Learning 52, 2003).
"""

import argparse
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np

from pipeline.benchmark import machine
from pipeline.benchmark.speed import table
from pipeline.values import Data

_SEED = 11


def main(arguments: Sequence[str] | None = None) -> int:
    """Searches on every fold and prints the mean scores."""
    parser = argparse.ArgumentParser("python -m benchmarks.repeated_folds", description=__doc__)
    parser.add_argument("--trials", type=int, default=48)
    parser.add_argument("--epochs", type=int, help="of a trial; the space file's if not given")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--engine", default="auto")
    given = parser.parse_args(arguments)
    os.environ.setdefault("KERAS_BACKEND", "tensorflow" if given.engine == "fit" else "jax")
    began, found = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="regatta-") as folder:
        os.environ["PIPELINE_HOME"] = folder
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{Path(folder) / 'mlflow.db'}"
        os.chdir(folder)
        for number, data in enumerate(_data(given.folds, given.repeats)):
            found.append(_searched(data, number, given))
            print(f"fold {number}: {found[-1]}", file=sys.stderr, flush=True)
    lines = [
        [model, *(_shown([scores[model][metric] for scores in found], given) for metric in found[0][model])]
        for model in found[0]
    ]
    minutes = (time.monotonic() - began) / 60
    print(
        f"{machine.described()}\niris, {given.repeats} x {given.folds} folds, {given.trials} trials each:"
        f" {minutes:.1f} minutes\n\n{table(['model', *found[0]['champion']], lines)}"
    )
    return 0


def _searched(data: Data, number: int, given: argparse.Namespace) -> dict[str, dict[str, float]]:
    """The test scores of a search of these rows, by model and the task's metrics."""
    from pipeline import search
    from pipeline.tasks import iris

    with mock.patch.object(iris, "TASK", replace(iris.TASK, load=lambda size: data)):
        result = search(
            export="none",
            task="iris",
            trials=given.trials,
            epochs=given.epochs,
            engine=given.engine,
            study=f"fold-{number}",
        )
    if result is None:
        raise RuntimeError(f"fold {number}: nothing was found")
    return {
        model: {metric: scores[metric].value for metric in result.evaluation.own}
        for model, scores in result.scores.items()
    }


def _data(folds: int, repeats: int) -> Iterator[Data]:
    """The rows of iris with each fold as the test split."""
    from sklearn.datasets import load_iris
    from sklearn.model_selection import RepeatedStratifiedKFold

    from pipeline.datasets import splits
    from pipeline.values import Split

    bunch = load_iris()
    whole = Split(bunch.data.astype(np.float32), bunch.target.astype(np.int32))
    splitter = RepeatedStratifiedKFold(n_splits=folds, n_repeats=repeats, random_state=_SEED)
    for rest, test in splitter.split(whole.inputs, whole.targets):
        train, validation = splits.hold_out(whole.take(rest), len(test))
        yield splits.data(
            "iris",
            "scikit-learn: load_iris",
            map(str, bunch.target_names),
            (train, validation, whole.take(test)),
        )


def _shown(scores: Sequence[float], given: argparse.Namespace) -> str:
    from scipy import stats

    mean, error = float(np.mean(scores)), float(np.std(scores, ddof=1))
    # Of the correction: test rows to training rows, the validation's among them.
    half = stats.t.ppf(0.975, len(scores) - 1) * error * math.sqrt(1 / len(scores) + 1 / (given.folds - 1))
    return f"{mean:.4f} [{mean - half:.4f}, {mean + half:.4f}]"


if __name__ == "__main__":
    sys.exit(main())
