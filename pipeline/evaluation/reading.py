"""An evaluation out of the CSV files that it was kept as; what they hold is told in `tables.py`."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from pipeline.evaluation.findings import Bin, Classified, ClassScore, Detail, Difference, Evaluation, Score
from pipeline.evaluation.scores import named
from pipeline.values import Metric

_Row = Mapping[str, str]


def evaluation(texts: Mapping[str, str], metrics: Sequence[Metric]) -> Evaluation:
    """The evaluation; of outputs that are numbers, its details are in no file and so not here.

    Args:
        texts: of the files by name, `scores.csv` and `differences.csv` at least.
        metrics: the task's own.

    Raises:
        ValueError: a file holds something else.
    """
    try:
        scores = _rows(texts, "scores.csv")
        own = {metric.name: metric for metric in metrics}
        known = {row["score"]: own.get(row["score"]) or _metric(row) for row in scores}
        by_model: dict[str, dict[str, Score]] = {}
        for row in scores:
            by_model.setdefault(row["model"], {})[row["score"]] = _score(row, "value", "low", "high")
        differences = tuple(
            Difference(
                row["model"], row["minus"], known[row["score"]], _score(row, "difference", "low", "high")
            )
            for row in _rows(texts, "differences.csv")
        )
        return Evaluation(
            tuple(name for name in own if name in known), known, by_model, differences, _details(texts)
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"misses {error}") from None


def _details(texts: Mapping[str, str]) -> dict[str, dict[str, Detail]]:
    if "per_class.csv" not in texts:
        return {}
    classes, cells, bins = (
        _grouped(_rows(texts, f"{name}.csv")) for name in ("per_class", "confusion_matrix", "calibration")
    )
    found: dict[str, dict[str, Detail]] = {}
    for (output, model), rows in classes.items():
        found.setdefault(output, {})[model] = Classified(
            tuple(_class(row) for row in rows),
            _confusion([row["class"] for row in rows], cells.get((output, model), [])),
            tuple(_bin(row) for row in bins[output, model]),
        )
    return found


def _class(row: _Row) -> ClassScore:
    precision, recall = (_score(row, kind, f"{kind}_low", f"{kind}_high") for kind in ("precision", "recall"))
    return ClassScore(row["class"], int(row["rows"]), int(row["predicted_rows"]), precision, recall)


def _confusion(names: Sequence[str], cells: Iterable[_Row]) -> np.ndarray:
    place = {name: number for number, name in enumerate(names)}
    confusion = np.zeros((len(names), len(names)), dtype=np.int64)
    for cell in cells:
        confusion[place[cell["class"]], place[cell["predicted_class"]]] = int(cell["rows"])
    return confusion


def _bin(row: _Row) -> Bin:
    low, high, confidence, accuracy = (
        float(row[name]) for name in ("above", "up_to", "mean_probability", "accuracy")
    )
    return Bin(low, high, int(row["rows"]), confidence, accuracy)


def _metric(row: _Row) -> Metric:
    output = row["output"]
    return named(row["score"].removeprefix(f"{output}_") if output else row["score"], output)


def _score(row: _Row, value: str, low: str, high: str) -> Score:
    return Score(float(row[value]), float(row[low]), float(row[high]))


def _grouped(rows: Iterable[_Row]) -> dict[tuple[str, str], list[_Row]]:
    """Rows by output and model."""
    found: dict[tuple[str, str], list[_Row]] = {}
    for row in rows:
        found.setdefault((row["output"], row["model"]), []).append(row)
    return found


def _rows(texts: Mapping[str, str], name: str) -> list[_Row]:
    return list(csv.DictReader(io.StringIO(texts[name])))
