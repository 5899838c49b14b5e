"""What a comma in a column of numbers is: the decimal point, or what parts thousands.

`1,234` alone may be either, so all cells of the column are asked: it parts thousands unless some cell tells
otherwise.
"""

import re
from typing import Any, Literal

import numpy as np
import pandas as pd

from pipeline.carried import encoding

Comma = Literal["", "point", "thousands"]
"""As a column's rule has it (see `carried/encoding.py`); "" where no number has a comma."""

STRAY_SHARE = 0.05
"""Cells that are no numbers in a column of numbers, at most."""

_POINT = re.compile(r"-?[0-9]+,[0-9]+")


def read(cells: "pd.Series[Any]", most_strays: float = STRAY_SHARE) -> Comma:
    """What the commas of a column's numbers are.

    `thousands` where three digits are behind each comma, as in `1,234`, `-12,500,000` and `1,234.50`; `point`
    where cells have other than three behind it, or a zero before it, as in `3,5` and `0,125`. Of a column
    that has cells of both kinds, those decide that can be read in one way only, by their number.

    Args:
        cells: those that are not missing.
        most_strays: the share of cells that may be no numbers, 0 to 1; with more the column is none of
            numbers.
    """
    if not pd.api.types.is_string_dtype(cells.dtype):
        return ""
    texts = cells.astype("str").str.strip()
    some = texts[texts.str.contains(",", regex=False).to_numpy(bool)]
    points = some.str.fullmatch(_POINT).to_numpy(bool)
    thousands = some.str.fullmatch(encoding.THOUSANDS).to_numpy(bool)
    if not (points | thousands).any():
        return ""
    found: Comma = "point" if (points & ~thousands).sum() > (thousands & ~points).sum() else "thousands"
    strays = np.isnan(encoding.as_numbers(texts, comma=found)).mean()
    return found if strays < most_strays or not strays else ""


def told(cells: "pd.Series[Any]", comma: Comma) -> str:
    """How the column's commas are read, for people, with a cell for example; "" where it has none."""
    if not comma:
        return ""
    texts = cells.astype("str").str.strip()
    some = texts[texts.str.contains(",", regex=False).to_numpy(bool)]
    first = some[~np.isnan(encoding.as_numbers(some, comma=comma))].iloc[0]
    example = f"{first!r} is read as {encoding.plain_number(first, comma)}"
    if comma == "point":
        return f"a comma stands for the point: {example}"
    return f"a comma parts thousands: {example}; write points if it stands for one"
