"""The command `predict`: a finished model, a file of rows, their answers."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.errors import RunError, UserError
from pipeline.prediction import reading, verdict, writing
from pipeline.prediction.reading import Batch
from pipeline.prediction.writing import Write
from pipeline.tracking import answering
from pipeline.tracking.answering import Answering, RowError

_LISTED = 10


def predict(asked: Mapping[str, Any]) -> None:
    """Answers to every row of `input`, in `output` or on the terminal; of one picture, in words.

    Columns of a table that the model does not take stand before the answers. Pictures of a folder that cannot
    be read are left out, listed and counted.

    Raises:
        UserError: the model or a file cannot be used, or a row cannot be read.
        RunError: no picture can be read, or the output not written.
    """
    file = Path(asked["input"])
    output = Path(asked["output"]) if asked["output"] else None
    if output:
        writing.check(output)
    if not file.exists():
        raise UserError(f"input: {file}: there is no such file")
    if output and output.exists() and output.samefile(file):
        raise UserError(f"output: {output}: must be another file than the input")
    model = answering.load(asked["model"])
    if reading.is_picture(file) and output is None:
        (batch,) = reading.batches(file, model.told)
        print(verdict.in_words(file.name, _answered(model, batch, file), model.told["outputs"]), flush=True)
        return
    rows, bad = _write_all(model, file, output)
    for fault in bad[:_LISTED]:
        print(f"left out: {fault}", file=sys.stderr)
    left_out = f", {len(bad)} left out" if bad else ""
    if output:
        print(f"{rows} rows answered{left_out}: {output}", flush=True)
    elif bad:
        print(f"{rows} rows answered{left_out}", file=sys.stderr)


def _write_all(model: Answering, file: Path, output: Path | None) -> tuple[int, list[str]]:
    """How many rows were answered, and what is wrong with the others."""
    rows, bad = 0, list[str]()
    with writing.opened(output) as write:
        for batch in reading.batches(file, model.told):
            if file.is_dir():
                rows += _write_pictures(model, batch, write, bad)
            else:
                answers = _answered(model, batch, file)
                kept = batch.kept.rename(columns={name: f"input_{name}" for name in answers})
                write(pd.concat([kept, answers.set_axis(kept.index)], axis=1))
                rows += len(answers)
        if bad and not rows:
            raise RunError(f"input: {file}: no picture can be read: {bad[0]}")
    return rows, bad


def _write_pictures(model: Answering, batch: Batch, write: Write, bad: list[str]) -> int:
    """Answers to the pictures that can be read; how many."""
    try:
        answers = model.answer(batch.rows)
    except RowError:
        # One by one, as the first that cannot be read ended them all.
        answers = pd.concat(
            [found for row in range(len(batch.rows)) for found in _tried(model, batch, row, bad)]
        )
    if len(answers):
        write(pd.concat([batch.kept.loc[answers.index], answers], axis=1))
    return len(answers)


def _tried(model: Answering, batch: Batch, row: int, bad: list[str]) -> list[pd.DataFrame]:
    """The answer to one row, or none; what is wrong with it is added to `bad`."""
    try:
        return [model.answer(batch.rows.iloc[row : row + 1])]
    except RowError as error:
        bad.append(str(error))
        return [pd.DataFrame()]


def _answered(model: Answering, batch: Batch, file: Path) -> pd.DataFrame:
    try:
        return model.answer(batch.rows)
    except RowError as error:
        said = str(error)
        if not isinstance(batch.rows, pd.DataFrame) and isinstance(error.row, int):
            # Arrays have no labels, so it counts from 0 in the batch; rows count from 1 in the file.
            said = said.replace(f"row {error.row},", f"row {batch.kept.index[error.row]},", 1)
        raise UserError(f"input: {file}: {said}") from None
