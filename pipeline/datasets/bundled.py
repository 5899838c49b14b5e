"""Sets that scikit-learn brings along: real data with no download."""

import numpy as np
from sklearn.datasets import load_digits, load_iris

from pipeline.datasets import splits
from pipeline.forms import Columns
from pipeline.values import Data, Size


def iris(size: Size) -> Data:
    """Fisher's iris: 150 flowers, 4 lengths in centimetres, 3 species. Too small to have a small size."""
    del size
    bunch = load_iris()
    parts = splits.three_ways(bunch.data.astype(np.float32), bunch.target.astype(np.int32))
    return splits.data("iris", "scikit-learn: load_iris", map(str, bunch.target_names), parts)


def iris_columns() -> Columns:
    """Iris's columns by scikit-learn's names."""
    return Columns(tuple(map(str, load_iris().feature_names)))


def digits(size: Size) -> Data:
    """1,797 hand-written digits of 8 x 8 pixels, (rows, 8, 8, 1), grey values 0 to 16 as uint8."""
    bunch = load_digits()
    images = bunch.images.astype(np.uint8)[..., None]
    parts = splits.three_ways(images, bunch.target.astype(np.int32))
    if size == "small":
        parts = splits.small(*parts)
    return splits.data("digits", "scikit-learn: load_digits", map(str, bunch.target_names), parts)
