"""Digests of arrays: what identifies a data set, whatever file format it came in."""

import hashlib
import json

import numpy as np

from pipeline.values import Array, Split


def of_arrays(*arrays: Array) -> str:
    """SHA-256 over dtype, shape and contents of each array, in order, as 64 hex digits.

    An object array counts as its rows' lengths and its numbers: ragged rows of integers.
    """
    digest = hashlib.sha256()
    for array in arrays:
        if array.dtype == object:
            lengths = np.array([len(row) for row in array], dtype="<i8")
            numbers = np.concatenate([np.asarray(row, dtype="<i8") for row in array])
            digest.update(of_arrays(lengths, numbers).encode())
            continue
        # Little-endian in memory order, so that every machine gets the same digits.
        plain = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
        digest.update(f"{plain.dtype.str}{plain.shape}".encode())
        digest.update(plain.data)
    return digest.hexdigest()


def of_split(split: Split) -> str:
    """The digest of a split's inputs, targets and weights, with their names where they have any."""
    arrays = split.arrays
    if arrays.keys() == {("inputs",), ("targets",)}:
        # What studies have stored since before inputs could have names.
        return of_arrays(*arrays.values())
    places = [[*place, of_arrays(arrays[place])] for place in sorted(arrays)]
    return hashlib.sha256(json.dumps(places).encode()).hexdigest()
