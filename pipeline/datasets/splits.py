"""Rows into train, validation and test: fixed, disjoint and stratified; and train into folds.

A split depends on the rows alone, never on a study's seed: every study of a task sees the same rows.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.model_selection import (
    GroupKFold,
    StratifiedGroupKFold,
    StratifiedKFold,
    train_test_split,
)

from pipeline.datasets import digests
from pipeline.errors import UserError
from pipeline.values import Array, Data, Fold, SealedSplit, Split

# The seed of the published protocol for tables (Kadra et al. 2021, arXiv 2106.11189).
SPLIT_SEED = 11
# Rows of a class from which each of the three parts can have one.
_STRATIFIED = 5
_SMALL = {"train": 5_000, "validation": 1_000, "test": 1_000}


def three_ways(
    inputs: Array | Mapping[str, Array], targets: Array | Mapping[str, Array]
) -> tuple[Split, Split, Split]:
    """60 % train, 20 % validation, 20 % test, stratified: the protocol of Kadra et al. 2021."""
    return parted(Split(inputs, targets))


def parted(whole: Split) -> tuple[Split, Split, Split]:
    """60 % train, 20 % validation, 20 % test, by that protocol; by its groups or times, where it has them.

    Of a class that has too few rows to stratify, the first row of a fixed shuffle is for training, the second
    for testing, the third for validation, the others for training.

    Raises:
        UserError: there are too few groups, times or rows.
    """
    if whole.times is not None:
        return _by_time(whole, whole.times)
    if whole.groups is not None:
        rest, test = _by_group(whole, 5)
        train, validation = _by_group(rest, 4)
        return train, validation, test
    strata = _strata(whole)
    _, place, counts = np.unique(strata, return_inverse=True, return_counts=True)
    rare = counts[place] < _STRATIFIED
    numbers = [list[int](), list[int](), list[int]()]
    if not rare.all():
        common = np.flatnonzero(~rare)
        rest_rows, test_rows = _part_rows(common, strata[common], 0.2)
        train_rows, validation_rows = _part_rows(rest_rows, strata[rest_rows], 0.25)
        if not rare.any():
            # By row numbers to the end, so that no row is copied but into its part.
            return whole.take(train_rows), whole.take(validation_rows), whole.take(test_rows)
        numbers = [train_rows.tolist(), validation_rows.tolist(), test_rows.tolist()]
    rng = np.random.default_rng(SPLIT_SEED)
    for few in np.flatnonzero(counts < _STRATIFIED):
        rows = rng.permutation(np.flatnonzero(place == few)).tolist()
        for row, part in zip(rows, (0, 2, 1, *(0,) * len(rows)), strict=False):
            numbers[part].append(row)
    if not all(numbers):
        raise UserError(f"{whole.rows} rows are too few for rows to learn from, to choose by and to test on")
    train, validation, test = (whole.take(np.array(part)) for part in numbers)
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
    if train.times is not None:
        return _folds_of(whole, _time_folds(whole.name, train.times, count))
    strata = _strata(train)
    if train.groups is not None:
        found = len(np.unique(train.groups))
        if count > found:
            raise UserError(
                f"folds: must be at most {found} for {whole.name}, whose training rows have {found} groups,"
                f" but is {count}"
            )
        return _folds_of(whole, _grouped(count, strata).split(np.zeros(train.rows), strata, train.groups))
    rarest = int(np.unique(strata, return_counts=True)[1].min())
    if count > rarest:
        raise UserError(
            f"folds: must be at most {rarest} for {whole.name}, whose rarest class has {rarest} training"
            f" rows, but is {count}"
        )
    splitter = StratifiedKFold(count, shuffle=True, random_state=SPLIT_SEED)
    return _folds_of(whole, splitter.split(np.zeros(train.rows), strata))


def _folds_of(whole: Data, parts: Iterable[tuple[Array, Array]]) -> tuple[Data, ...]:
    train = whole.train
    found = []
    for number, (learn, check) in enumerate(parts):
        both = train.take(learn), train.take(check)
        if whole.balanced:
            missing = np.setdiff1d(np.unique(train.labels), np.unique(both[0].labels))
            if len(missing):
                name = whole.classes[int(missing[0])]
                raise UserError(f"folds: fold {number} has no row of the class {name!r} to learn from")
            both = both[0].balanced(), both[1].balanced()
        found.append(replace(whole, train=both[0], validation=both[1], fold=Fold(learn, check)))
    return tuple(found)


def _time_folds(name: str, times: Array, count: int) -> Iterator[tuple[Array, Array]]:
    """Each fold learns from all rows before those that it checks; rows of one time stay together."""
    order = np.argsort(times, kind="stable")
    begins = np.flatnonzero(np.diff(times[order])) + 1
    if len(begins) < count:
        raise UserError(
            f"folds: must be at most {len(begins)} for {name}, whose training rows have {len(begins) + 1}"
            f" different times, but is {count}"
        )
    # Of each cut the nearest begin of a time that leaves one for each cut before and after it.
    ends: list[int] = []
    for fold in range(count):
        low = fold if not ends else max(fold, int(np.searchsorted(begins, ends[-1])) + 1)
        free = begins[low : len(begins) - (count - 1 - fold)]
        ends.append(int(free[np.abs(free - round((fold + 1) * len(times) / (count + 1))).argmin()]))
    for end, following in zip(ends, [*ends[1:], len(times)], strict=True):
        yield order[:end], order[end:following]


def _by_time(whole: Split, times: Array) -> tuple[Split, Split, Split]:
    """The earliest rows for training, the latest for testing; rows of one time stay together."""
    order = np.argsort(times, kind="stable")
    begins = np.flatnonzero(np.diff(times[order])) + 1
    if len(begins) < 2:
        raise UserError(f"time: must have at least 3 different values, but has {len(begins) + 1}")
    first, second = (int(np.abs(begins - round(share * whole.rows)).argmin()) for share in (0.6, 0.8))
    # Each part has a time of its own.
    second = max(second, first + 1)
    if second == len(begins):
        first, second = first - 1, second - 1
    train, validation, test = np.split(order, begins[[first, second]])
    return whole.take(train), whole.take(validation), whole.take(test)


def _by_group(whole: Split, parts: int) -> tuple[Split, Split]:
    """The rest, and one of so many parts of whole groups, in which classes are as frequent as may be."""
    groups: Any = whole.groups
    if len(np.unique(groups)) < parts:
        raise UserError(
            f"group: must have at least {parts} different values among {whole.rows} rows, but has"
            f" {len(np.unique(groups))}"
        )
    strata = _strata(whole)
    splitter = _grouped(parts, strata)
    rest, part = next(iter(splitter.split(np.zeros(whole.rows), strata, groups)))
    return whole.take(rest), whole.take(part)


def _grouped(parts: int, strata: Array) -> Any:
    # Stratified, it warns of classes that not every part can have.
    if np.unique(strata, return_counts=True)[1].min() < parts:
        return GroupKFold(parts, shuffle=True, random_state=SPLIT_SEED)
    return StratifiedGroupKFold(parts, shuffle=True, random_state=SPLIT_SEED)


def _part(split: Split, size: float | int) -> tuple[Split, Split]:
    """The rest, and a stratified part of `size` rows (or of that share)."""
    rest, part = _part_rows(np.arange(split.rows), _strata(split), size)
    return split.take(rest), split.take(part)


def _part_rows(rows: Array, strata: Array, size: float | int) -> tuple[Array, Array]:
    """As `_part`, of row numbers and a number for each that is equal for equal classes."""
    classes = len(np.unique(strata))
    taken = size if isinstance(size, int) else math.ceil(size * len(rows))
    # One part is so small that it cannot hold every class: then any rows will do.
    few = min(taken, len(rows) - taken) < classes or np.unique(strata, return_counts=True)[1].min() < 2
    if not 0 < taken < len(rows):
        raise UserError(f"{len(rows)} rows are too few for rows to learn from, to choose by and to test on")
    rest, part = train_test_split(
        rows, test_size=size, random_state=SPLIT_SEED, stratify=None if few else strata, shuffle=True
    )
    return rest, part


def _strata(split: Split) -> Array:
    """A number a row, equal for rows of equal classes: of all whole-number targets together."""
    if not isinstance(split.targets, Mapping):
        # Numbers have no classes.
        several = split.targets.ndim == 2 and split.targets.shape[1] > 1
        is_number = split.targets.dtype.kind == "f" and not several
        return np.zeros(split.rows, np.int64) if is_number else split.labels
    classes = [part.reshape(-1) for part in split.targets.values() if part.dtype.kind in "iu"]
    if not classes:
        return np.zeros(split.rows, np.int64)
    strata: Array = np.unique(np.stack(classes, axis=1), axis=0, return_inverse=True)[1].reshape(-1)
    return strata
