"""What trains in a lane, and which program it needs."""

import hashlib
from dataclasses import dataclass, field

import keras

from pipeline.engines.lanes.twin import Twin, Values
from pipeline.values import Candidate


@dataclass(frozen=True)
class Key:
    """What makes a program: the structure of its models, and what they are fed."""

    structure: str
    batch_size: int
    shuffle: bool
    learn_rows: int
    check_rows: int

    @property
    def number(self) -> int:
        """The program's own number, from which its row orders derive; the same on every machine."""
        return int(hashlib.sha256(repr(self).encode()).hexdigest()[:8], 16)


@dataclass
class Entry:
    """One training, of a candidate on one fold: built, then in a lane, then over.

    plain: the model as it was built. first_epoch: the program's epoch in which it started.
    """

    candidate: Candidate
    fold: int
    key: Key
    plain: keras.Model
    twin: Twin
    values: Values
    first_epoch: int = -1
    started: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)
