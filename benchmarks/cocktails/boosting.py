"""Tuned gradient boosting, as people do it: scikit-learn's HistGradientBoosting under Optuna.

    python -m benchmarks.cocktails.boosting --table FILE.csv --seconds 180

The table is read and its rows are split as `pipeline` does both. Trials are compared by the balanced accuracy
of the validation rows, of equals by their log loss; the best settings are trained again on training and
validation rows together. Its last line is JSON: the balanced accuracy of the test rows, and how many trials
there were.
"""

import argparse
import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import balanced_accuracy_score, log_loss
from sklearn.model_selection import train_test_split

from pipeline.carried import encoding
from pipeline.datasets import commas, table_files, targets
from pipeline.errors import UserError

_SEED = 11
# What training again takes, at most, of the time that the longest trial took.
_AGAIN = 3.0
# Different values of a text column, at most: scikit-learn takes 255. The others are one.
_VALUES, _RARE = 254, "\0rare"


def main(arguments: Sequence[str] | None = None) -> int:
    """Tunes, trains again, and prints the score of the test rows."""
    began = time.monotonic()
    parser = argparse.ArgumentParser("python -m benchmarks.cocktails.boosting", description=__doc__)
    parser.add_argument("--table", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    given = parser.parse_args(arguments)
    try:
        rows, labels = _read(given.table)
    except UserError as error:
        raise SystemExit(str(error)) from None
    rest, test = train_test_split(
        np.arange(len(labels)), test_size=0.2, random_state=_SEED, stratify=labels, shuffle=True
    )
    train, check = train_test_split(
        rest, test_size=0.25, random_state=_SEED, stratify=labels[rest], shuffle=True
    )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=_SEED, multivariate=True)
    )
    longest = 0.0
    while not study.trials or time.monotonic() - began + (1 + _AGAIN) * longest < given.seconds:
        trial, started = study.ask(), time.monotonic()
        model = HistGradientBoostingClassifier(**_drawn(trial)).fit(rows.iloc[train], labels[train])
        answers = model.predict_proba(rows.iloc[check])
        hits = balanced_accuracy_score(labels[check], model.classes_[answers.argmax(axis=1)])
        # Between equal accuracies, which few rows make common, the loss decides.
        study.tell(trial, hits - 1e-3 * log_loss(labels[check], answers, labels=model.classes_))
        longest = max(longest, time.monotonic() - started)
    best = HistGradientBoostingClassifier(**_drawn(optuna.trial.FixedTrial(study.best_params)))
    best.fit(rows.iloc[rest], labels[rest])
    score = balanced_accuracy_score(labels[test], best.predict(rows.iloc[test]))
    print(json.dumps({"score": float(score), "trials": len(study.trials)}))
    return 0


def _read(file: str) -> tuple[pd.DataFrame, Any]:
    """The features of the rows that have a target, texts as categories, and the labels as class numbers."""
    table = table_files.read(file)
    asked = targets.read(table.pop(table.columns[-1]), "classification")
    rows = table.iloc[asked.rows]
    return pd.DataFrame({name: _feature(rows[name]) for name in rows}), asked.values


def _feature(cells: "pd.Series[Any]") -> "pd.Series[Any]":
    """Numbers, or categories, of which the rare are one; NaN where a cell is missing."""
    missing = encoding.is_missing(cells)
    numbers = encoding.as_numbers(cells, comma=commas.read(cells[~missing]))
    if not np.isnan(numbers[~missing]).any():
        return pd.Series(numbers, cells.index)
    texts = pd.Series(encoding.as_texts(cells), cells.index).mask(missing)
    common = texts.value_counts().index[:_VALUES]
    return texts.where(texts.isin(common) | missing, _RARE).astype("category")


def _drawn(trial: Any) -> dict[str, Any]:
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-3, 0.5, log=True),
        "max_iter": trial.suggest_int("max_iter", 20, 1000, log=True),
        "max_leaf_nodes": trial.suggest_int("max_leaf_nodes", 4, 128, log=True),
        "min_samples_leaf": trial.suggest_int("min_samples_leaf", 1, 100, log=True),
        "l2_regularization": trial.suggest_float("l2_regularization", 1e-6, 100.0, log=True),
        "max_features": trial.suggest_float("max_features", 0.3, 1.0),
        "class_weight": trial.suggest_categorical("class_weight", [None, "balanced"]),
        "early_stopping": False,
        "random_state": _SEED,
    }


if __name__ == "__main__":
    raise SystemExit(main())
