"""Rows into train, validation and test: fixed, disjoint and stratified; and train into folds.

A split depends on the rows alone, never on a study's seed: every study of a task sees the same rows.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedKFold, train_test_split

from pipeline.datasets import digests
from pipeline.errors import UserError
from pipeline.values import Array, Data, Fold, SealedSplit, Split

# The seed of the published protocol for tables (Kadra et al. 2021, arXiv 2106.11189).
SPLIT_SEED = 11
_SMALL = {"train": 5_000, "validation": 1_000, "test": 1_000}


def three_ways(
    inputs: Array | Mapping[str, Array], targets: Array | Mapping[str, Array]
) -> tuple[Split, Split, Split]:
    """60 % train, 20 % validation, 20 % test, stratified: the protocol of Kadra et al. 2021."""
    rest, test = _part(Split(inputs, targets), 0.2)
    train, validation = _part(rest, 0.25)
    return train, validation, test


def hold_out(published: Split, rows: int) -> tuple[Split, Split]:
    """Train and validation out of a published training part, `rows` of it for validation."""
    return _part(published, rows)


def small(train: Split, validation: Split, test: Split) -> tuple[Split, Split, Split]:
    """A stratified cut that suits 2 cores: at most 5,000, 1,000 and 1,000 rows."""
    train, validation, test = (
        split if split.rows <= rows else _part(split, rows)[1]
        for split, rows in zip((train, validation, test), _SMALL.values(), strict=True)
    )
    return train, validation, test


def data(
    name: str, source: str, classes: Iterable[str], parts: tuple[Split, Split, Split], **more: Any
) -> Data:
    """The parts as one value, with their digests; the test part sealed. more: other fields of `Data`."""
    train, validation, test = parts
    return Data(
        name=name,
        source=source,
        classes=tuple(classes),
        train=train,
        validation=validation,
        test=SealedSplit(test),
        digests={
            "train": digests.of_split(train),
            "validation": digests.of_split(validation),
            "test": digests.of_split(test),
        },
        **more,
    )


def folds(whole: Data, count: int) -> tuple[Data, ...]:
    """`count` stratified folds over the training rows: each is trained on the others and validated on itself.

    The validation and test splits stay out of it: the final models are trained on all of train and
    selected on the validation rows.

    Raises:
        UserError: a class has fewer training rows than there are folds.
    """
    if count == 1:
        return (whole,)
    train = whole.train
    strata = _strata(train)
    rarest = int(np.unique(strata, return_counts=True)[1].min())
    if count > rarest:
        raise UserError(
            f"folds: must be at most {rarest} for {whole.name}, whose rarest class has {rarest} training"
            f" rows, but is {count}"
        )
    splitter = StratifiedKFold(count, shuffle=True, random_state=SPLIT_SEED)
    return tuple(
        replace(whole, train=train.take(learn), validation=train.take(check), fold=Fold(learn, check))
        for learn, check in splitter.split(np.zeros(train.rows), strata)
    )


def _part(split: Split, size: float | int) -> tuple[Split, Split]:
    """The rest, and a stratified part of `size` rows (or of that share)."""
    strata = _strata(split)
    # So few rows are left out that they cannot hold every class: then any rows will do.
    few = not isinstance(size, float) and split.rows - size < len(np.unique(strata))
    rest, part = train_test_split(
        np.arange(split.rows),
        test_size=size,
        random_state=SPLIT_SEED,
        stratify=None if few else strata,
        shuffle=True,
    )
    return split.take(rest), split.take(part)


def _strata(split: Split) -> Array:
    """A number a row, equal for rows of equal classes: of all whole-number targets together."""
    if not isinstance(split.targets, Mapping):
        return split.labels
    classes = [part.reshape(-1) for part in split.targets.values() if part.dtype.kind in "iu"]
    strata: Array = np.unique(np.stack(classes, axis=1), axis=0, return_inverse=True)[1].reshape(-1)
    return strata
